# What the shell tests of GPU ranks share; sourced after shell.sh with their name and what the ranks run on: "gpus" in a
# build with CUDA, or nothing, the stand-ins. Sets gpus, how many there are (stand-ins: 0), and n, how many ranks the
# tests take: 3, or 2 where there are no more GPUs. Says SKIP and ends the test where it cannot be done.
gpus=0
n=3
skip() {
    echo "SKIP $1: $2"
    finish
    exit
}
command -v mpirun >/dev/null || skip "$1" "mpirun is not installed (openmpi-bin)"
if [ "${2:-}" = gpus ]; then
    "$tuwen" doctor >"$work/doctor" 2>&1
    grep -q "MPI .*not in this build\|NCCL .*not in this build" "$work/doctor" && skip "$1" "this build has no MPI or no NCCL"
    gpus=$(grep -c '^  GPU [0-9]' "$work/doctor")
    [ "$gpus" -gt 0 ] || skip "$1" "no GPU is seen"
    [ "$gpus" -ge 3 ] || n=2
fi
