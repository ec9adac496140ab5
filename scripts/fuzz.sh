#!/usr/bin/env bash
# Fuzzes what reads files that are not trusted: libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#     scripts/fuzz.sh [--seconds N] [--keep FOLDER] [target...]      # apt-get install clang libomp-dev
#
# Targets are tests/fuzz/fuzz_<target>.c, all without an argument; each runs N seconds (600) from its seeds in
# tests/fuzz/seeds/<target>, one process at a time. New inputs and findings go to FOLDER/<target> (build/fuzz/found).
# One line a target: executions, seconds, findings; the exit status is 0 if there is no finding.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=600
keep=build/fuzz/found
targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds | --keep)
            [ $# -ge 2 ] || { echo "fuzz.sh: $1 needs a value" >&2; exit 2; }
            if [ "$1" = --seconds ]; then seconds=$2; else keep=$2; fi
            shift
            ;;
        -*)
            echo "usage: scripts/fuzz.sh [--seconds N] [--keep FOLDER] [target...]" >&2
            exit 2
            ;;
        *) targets+=("$1") ;;
    esac
    shift
done
case $seconds in '' | *[!0-9]* | 0) echo "fuzz.sh: --seconds takes a whole number" >&2; exit 2 ;; esac

if [ ${#targets[@]} -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        name=$(basename "$source" .c)
        [ "$name" = fuzz_files ] || targets+=("${name#fuzz_}")
    done
fi
for target in "${targets[@]}"; do
    [ -f "tests/fuzz/fuzz_$target.c" ] || { echo "fuzz.sh: there is no tests/fuzz/fuzz_$target.c" >&2; exit 2; }
done

command -v clang >/dev/null || { echo "fuzz.sh: clang was not found: apt-get install clang libomp-dev" >&2; exit 1; }
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -j2 --target "${targets[@]/#/fuzz_}" >/dev/null

findings=0
for target in "${targets[@]}"; do
    mkdir -p "$keep/$target"
    log=$keep/$target.log
    status=0
    # Sizes from files reach malloc only after they were checked, so a huge one is a finding (the allocator's default).
    build/fuzz/tests/fuzz/fuzz_"$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=16384 \
        -print_final_stats=1 -artifact_prefix="$keep/$target-" "$keep/$target" "tests/fuzz/seeds/$target" \
        >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    took=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$log" | tail -n 1)
    echo "$target: ${runs:-0} executions, ${took:-stopped early after less than $seconds} s, $((status != 0)) findings"
    if [ $status -ne 0 ]; then
        findings=$((findings + 1))
        grep -E 'ERROR|runtime error|this does not hold|SUMMARY|Test unit written' "$log" | head -n 8 | sed 's/^/    /'
    fi
done
[ $findings -eq 0 ]
