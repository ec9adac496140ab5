#!/usr/bin/env bash
# mpirun.sh RANKS PROGRAM [ARGUMENTS]: the program on so many ranks of this machine, more than it has cores if need be.
# Says SKIP and succeeds where there is no mpirun. TW_MPIRUN_OPTIONS: more options of mpirun.
set -uo pipefail

ranks=$1
shift
if ! command -v mpirun >/dev/null; then
    echo "SKIP $(basename "$1") on $ranks ranks: mpirun is not installed (openmpi-bin)"
    exit 0
fi

# Ranks share cores: a thread that spins while it waits takes the time of one that works.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
# A test of root's, in a container; no network but this machine's; no word about what the machine lacks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_base_warn_component_unused=0 OMPI_MCA_btl_vader_single_copy_mechanism=${TW_SINGLE_COPY:-none}
# Open MPI leaves memory behind in plug-ins that are unloaded by then, which no suppression can name: leaks of our own
# code are looked for in the tests of one process.
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
# Now and then Open MPI 4's mpirun waits for itself for ever, in PMIx_server_finalize, when it has ended a job whose ranks went
# while it did: of ten jobs that a rank left in MPI_Finalize, one, on a crowded machine. scripts/launch ends it too.
end_late_mpirun() {
    local seen=no alone=0
    while kill -0 "$1" 2>/dev/null && [ $alone -lt 12 ]; do
        if ps -o stat= --ppid "$1" | grep -qv '^Z'; then seen=yes alone=0; elif [ $seen = yes ]; then alone=$((alone + 1)); fi
        sleep 1
    done
    [ $alone -lt 12 ] || { echo late >>"${TW_LATE_MPIRUN:-/dev/null}" && kill -9 "$1"; }
}
export -f end_late_mpirun
(setsid bash -c 'end_late_mpirun "$0"' $$ </dev/null >/dev/null 2>&1 &) # not a child of mpirun
# shellcheck disable=SC2086
exec mpirun --oversubscribe --bind-to none ${TW_MPIRUN_OPTIONS:-} -n "$ranks" "$@"
