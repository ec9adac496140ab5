#!/usr/bin/env bash
# Builds and runs every test: release, then debug (AddressSanitizer, UndefinedBehaviorSanitizer).
#
#     scripts/test.sh [--no-install] [--release-only]
#
# The last line is "tests: N passed, F failed, S skipped"; the exit status is 0 only if F is 0 and all was built.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

install=yes
presets=(release debug)
for argument in "$@"; do
    case $argument in
        --no-install) install=no ;;
        --release-only) presets=(release) ;;
        *)
            echo "usage: scripts/test.sh [--no-install] [--release-only]" >&2
            exit 2
            ;;
    esac
done

passed=0
failed=0
skipped=0

stop() {
    echo "test.sh: $1" >&2
    echo "tests: $passed passed, $((failed + 1)) failed, $skipped skipped"
    exit 1
}

if [ "$install" = yes ]; then
    scripts/install_deps.sh || stop "the packages could not be installed"
fi


# Adds up one CTest log, in which each line of a test's output begins with the test's number. Check prints "NN%:
# Checks: N, Failures: F, Errors: E" and counts a test that says SKIP among the passed, shell tests print "tests: N
# passed, M failed" and do not. A test that ended without either line, or that CTest calls failed though its own line
# does not, is one failure. A program that starts itself on so many ranks ends with such a line too, which counts.
count() {
    local sums
    sums=$(awk '
        /^[0-9]+: / { n = $1 + 0; sub(/^[0-9]+: /, "") }
        /^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/ {
            gsub(/[^0-9 ]/, "")
            good[n] = $2 - $3 - $4; bad[n] = $3 + $4; counted[n] = 1; by_check[n] = 1
        }
        /^tests: [0-9]+ passed, [0-9]+ failed/ {
            gsub(/[^0-9 ]/, "")
            good[n] = $1; bad[n] = $2; counted[n] = 1; by_check[n] = 0
        }
        /^SKIP / { skips[n]++ }
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
            match($0, /#[0-9]+/)
            n = substr($0, RSTART + 1, RLENGTH - 1) + 0
            ok = $0 ~ / Passed /
            p += good[n] - (by_check[n] ? skips[n] : 0)
            f += bad[n]
            s += skips[n]
            if (!bad[n] && !(ok && counted[n])) f++
        }
        END { printf "%d %d %d\n", p, f, s }' "$1")
    local p f s
    read -r p f s <<<"$sums"
    passed=$((passed + p))
    failed=$((failed + f))
    skipped=$((skipped + s))
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# As many tests at once as there are cores, and two of those that hardly compute beside them: tests/CMakeLists.txt says which.
cores=$(scripts/cores.sh)
export CMAKE_BUILD_PARALLEL_LEVEL=$cores
waiting=$((cores > 1 ? 2 : 1))
cat >"$logs/lanes.json" <<END_OF_FILE
{"version": {"major": 1, "minor": 0},
 "local": [{"cores": [{"id": "0", "slots": $cores}], "waits": [{"id": "0", "slots": $waiting}]}]}
END_OF_FILE
# Tests share cores: a thread that spins while it waits takes the time of one that works.
export OMP_WAIT_POLICY=passive
for preset in "${presets[@]}"; do
    cmake --preset "$preset" >"$logs/configure" 2>&1 || {
        cat "$logs/configure"
        stop "cmake --preset $preset failed"
    }
    cmake --build --preset "$preset" >"$logs/build" 2>&1 || {
        tail -n 60 "$logs/build"
        stop "the $preset build failed"
    }
    before=$failed
    ctest --test-dir "build/$preset" -V -j $((cores + waiting)) --resource-spec-file "$logs/lanes.json" \
        --no-tests=error >"$logs/$preset" 2>&1
    status=$?
    count "$logs/$preset"
    grep -E '^ *[0-9]+/[0-9]+ Test +#' "$logs/$preset"
    grep -E '^([0-9]+: )?SKIP ' "$logs/$preset" | sed 's/^[0-9]*: //' | sort -u
    if [ $status -ne 0 ]; then
        # What the failed tests said, for whoever reads this log elsewhere.
        grep -E '^[0-9]+: ' "$logs/$preset" | grep -E ':[FE]:|FAIL|ERROR|runtime error|SUMMARY' | head -n 100
        [ "$failed" -gt "$before" ] || failed=$((failed + 1))
    fi
done

# The CUDA build's tests need a GPU (scripts/gpu_check.sh), all but that of cuDNN's graphs: here it is one test that all of
# it compiles and links, without warnings, those, and one that the kernels with the most registers keep within them on
# every generation of GPUs (all kernels: scripts/check_archs.sh, some minutes). Those of GPU ranks run over the real NCCL
# on the GPUs that there are, and say what they leave out for want of them.
if [ "${#presets[@]}" -eq 1 ] || ! { command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } >/dev/null; then
    echo "SKIP the cuda build: no nvcc, or --release-only"
    skipped=$((skipped + 1))
elif cmake --preset cuda >"$logs/configure" 2>&1 &&
    cmake --build --preset cuda >"$logs/build" 2>&1; then
    passed=$((passed + 1))
    before=$failed
    ctest --test-dir build/cuda -V -R '^test_(cudnn_graphs|(comm|norm|step|train|faults)_nccl)$' --no-tests=error >"$logs/cuda" 2>&1
    status=$?
    count "$logs/cuda"
    if [ $status -ne 0 ] && [ "$failed" -eq "$before" ]; then failed=$((failed + 1)); fi
    grep -E '^([0-9]+: )?SKIP |^[0-9]+: .*:[FE]:' "$logs/cuda" | sed 's/^[0-9]*: //' | sort -u
    if printf '%s\n' autograd/ops/{attention,pool_attention,contrastive_loss}.cu | xargs -n 1 -P "$cores" scripts/check_archs.sh; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
else
    tail -n 40 "$logs/configure" "$logs/build"
    echo "FAILED: the cuda build"
    failed=$((failed + 1))
fi

echo "tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
