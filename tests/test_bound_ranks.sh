#!/usr/bin/env bash
# How many threads `tuwen train` computes with on the ranks of one machine when nobody says, as mpirun binds them and as it does
# not; what log and checkpoint say of it; and ranks that are bound to one core beside idle ones. Argument: the build folder.
set -u
. tests/shell.sh "$1"
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null || ! command -v taskset >/dev/null; then
    echo "SKIP threads of ranks: this build has no MPI, or mpirun or taskset is not installed"
    finish
    exit
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_base_warn_component_unused=0 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMP_WAIT_POLICY=passive
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # as tests/mpirun.sh: Open MPI's plug-ins
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
usable=$("$tuwen" doctor --json | sed -n 's/.*"usable cores": *\([0-9]*\).*/\1/p')
[ -n "$usable" ] && ok || fail "doctor tells no usable cores"
if [ "${usable:-$cores}" -lt "$cores" ]; then
    echo "SKIP threads of ranks: a CPU quota allows less than the $cores cores here (test_cores has made-up ones)"
    finish
    exit
fi
first=$(taskset -pc $$ | sed 's/.*: \([0-9]*\).*/\1/')

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 24 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
options=(--model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --batch 8 --max_steps 2 --warmup 1 --num_workers 1
    --report false --log_interval 1)
count=0
# runs NAME LAUNCHER... -- OPTIONS...: the run's folder is $run, its log $log
runs() {
    local name=$1 launcher=()
    shift
    while [ "$1" != -- ]; do launcher+=("$1") && shift; done
    shift
    run=$work/run$((count += 1)) log=$work/run$count/log.jsonl
    holds "$name" timeout 600 "${launcher[@]}" "$tuwen" train "${options[@]}" --output "$run" "$@"
}
says() { # NAME TEXT: once in the log
    [ "$(grep -cF -- "$2" "$log")" = 1 ] && ok || fail "$1: not one '$2', but $(grep -o 'compute threads[^"]*\|mpirun has bound[^"]*' "$log" | xargs)"
}
warns_not() { grep -q "has bound" "$log" && fail "$1: it warns of idle cores" || ok; }
kept() { # NAME THREADS: the checkpoint says so
    [ "$("$tuwen" info "$run/latest" 2>/dev/null | sed -n 's/^ *threads: *//p')" = "$2" ] && ok || fail "$1: the checkpoint does not say $2 threads"
}
auto="(threads 0: an equal share of their host's cores)"

for n in 2 4; do
    share=$((cores / n > 0 ? cores / n : 1))
    runs "$n ranks, not bound" mpirun --oversubscribe --bind-to none -n $n --
    says "$n ranks, not bound" "compute threads: $share on each of $n ranks $auto"
    warns_not "$n ranks, not bound"
    kept "$n ranks, not bound" $share
done
four=$run
two=(mpirun -n 2)
"${two[@]}" true 2>/dev/null || two+=(--oversubscribe) # one core, maybe of two threads
runs "2 ranks, as mpirun does" "${two[@]}" --
threads=$(sed -n 's/.*compute threads: \([0-9]*\) on each of 2 ranks.*/\1/p' "$log")
[ "${threads:-0}" -ge 1 ] && [ $((threads * 2)) -le $((cores > 2 ? cores : 2)) ] && ok || fail "2 ranks as mpirun does: '$threads' threads each on $cores cores"
kept "2 ranks, as mpirun does" "$threads"
runs "4 ranks, as mpirun does" mpirun --oversubscribe -n 4 --
threads=$(sed -n 's/.*compute threads: \([0-9]*\) on each of 4 ranks.*/\1/p' "$log")
[ "${threads:-0}" -ge 1 ] && [ $((threads * 4)) -le $((cores > 4 ? cores : 4)) ] && ok || fail "4 ranks as mpirun does: '$threads' threads each on $cores cores"
runs "a number is given" mpirun --oversubscribe --bind-to none -n 2 -- --threads 3
says "a number is given" "compute threads: 3 on each of 2 ranks\""
kept "a number is given" 3
cp -r "$four" "$work/resumed"
holds "resumed with another number" timeout 600 mpirun --oversubscribe --bind-to none -n 4 "$tuwen" train "${options[@]}" --output "$work/resumed" \
    --resume latest --threads 3 --max_steps 3
grep -q "resumed with 4 ranks, 3 threads, .* saved with 4 ranks, $share threads, " "$work/resumed/log.jsonl" && ok || fail "another number of threads is not said"

if [ "$cores" -lt 2 ]; then echo "SKIP ranks bound to one core of several: there is one"; else
    said="mpirun has bound rank 0 on $(hostname) to one core"
    runs "2 ranks on one core" mpirun --bind-to none -n 2 taskset -c "$first" --
    says "2 ranks on one core" "compute threads: 1 on each of 2 ranks $auto"
    says "2 ranks on one core" "$said, its threads wait for each other there while $((cores - 1)) cores of that host are idle"
    runs "one rank on one core" mpirun --bind-to none -n 1 taskset -c "$first" --
    says "one rank on one core" "compute threads: 1 (threads 0: one a core)"
    says "one rank on one core" "$said"
    runs "one core, on purpose" taskset -c "$first" --
    says "one core, on purpose" "compute threads: 1 (threads 0: one a core)"
    warns_not "one core, on purpose"
    runs "all cores" --
    says "all cores" "compute threads: $cores (threads 0: one a core)"
    warns_not "all cores"
fi
holds "extract" timeout 600 mpirun --oversubscribe --bind-to none -n 2 "$tuwen" extract --checkpoint "$four/latest" --data "$data/lmdb/train" \
    --output "$work/features"
[ "$(grep -cF "compute threads: $((cores / 2 > 0 ? cores / 2 : 1)) on each of 2 ranks $auto" "$work/err")" = 1 ] && ok || fail "extract does not say its threads once"
finish
