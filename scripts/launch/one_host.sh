#!/usr/bin/env bash
# tuwen train on all GPUs of this machine, or on its cores: one process a GPU, or a share of the cores.
#     scripts/launch/one_host.sh [-n RANKS] [--print] -- --config recipe.yaml --output runs/first ...
# RANKS: the GPUs that nvidia-smi lists; without one the memory nodes (NUMA) of the machine, whose cores share memory.
# --print shows the command and does nothing. TUWEN: the program (build/release/tuwen, else tuwen of the PATH).
# An mpirun that goes on when its ranks have left is ended 30 s later (TW_MPIRUN_PATIENCE).
# Stop it with `touch runs/first/stop`: the last completed step is saved, and --resume latest goes on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

ranks="" run=exec
while [ $# -gt 0 ]; do
    case $1 in
    -n) need_value "a number" "$@" && ranks=$2 && shift 2 ;;
    --print) run=show && shift ;;
    --) shift && break ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || die "give the options of tuwen train after --, for example: -- --config recipe.yaml --output runs/first"
[ -n "$ranks" ] || ranks=$(default_ranks)
is_number "$ranks" || die "-n $ranks: a number of at least 1 is needed"
program=$(find_program)

if [ "$ranks" = 1 ]; then $run "$program" train "$@"; exit; fi
need_mpirun
# rank.sh shares the cores out, the same way under every version of Open MPI, which would refuse more ranks than there are whole
# cores, hardware threads not counted.
options=(--bind-to none --oversubscribe)
[ "$(id -u)" = 0 ] && options+=(--allow-run-as-root)
command=(mpirun -n "$ranks" "${options[@]}" "$here/rank.sh" --share-cores "$program" train "$@")
if [ $run = show ]; then show "${command[@]}"; else run_watched "$program" "${command[@]}"; fi
