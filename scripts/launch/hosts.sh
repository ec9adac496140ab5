#!/usr/bin/env bash
# tuwen train on several hosts that this one reaches by ssh without a password.
#     scripts/launch/hosts.sh HOSTFILE [--interface NAME] [--print] -- --config recipe.yaml --output runs/first ...
# HOSTFILE: a line a host, `name slots=8`: one rank a slot, so as many slots as GPUs (or memory nodes); 1 if none are named.
# # begins a comment. Program, data and the run folder must have the same path on every host (a shared file system); this is
# looked at before the start, and a host that does not have them is exit code 3. --interface: the network between the hosts, such as ib0 or eth1, where there are several.
# The ranks get this shell's PATH, LD_LIBRARY_PATH and all settings of NCCL, UCX, OpenMP, CUDA and Open MPI (NCCL_*, UCX_*, OMP_*, GOMP_*,
# CUDA_*, OMPI_MCA_*). TUWEN, --print, stopping: as in one_host.sh. A host that is gone is noticed within about 30 s (OMPI_MCA_oob_tcp_keepalive_*).
# An mpirun that goes on waiting for it when the ranks have left is ended after 30 s more (TW_MPIRUN_PATIENCE).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"

has_operand "$@" || die "the first argument is the host file: lines of the form 'name slots=8'"
hostfile=$1 interface="" run=run_watched
shift
while [ $# -gt 0 ]; do
    case $1 in
    --interface) need_value "a name" "$@" && interface=$2 && shift 2 ;;
    --print) run=print && shift ;;
    --) shift && break ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || die "give the options of tuwen train after --, for example: -- --config recipe.yaml --output runs/first"
check_hosts_file "$hostfile"

# Every line is checked here, where the line can be named.
ranks=0 hosts=0 number=0
while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    read_host "$line" || die "$hostfile:$number: '${line%%#*}' is not of the form 'name slots=8'"
    [ -n "$name" ] || continue
    ranks=$((ranks + slots)) hosts=$((hosts + 1))
done <"$hostfile"
[ $hosts -gt 0 ] || die "$hostfile names no host"
program=$(find_program)
need_mpirun
notice_lost_hosts

options=(--hostfile "$hostfile" --bind-to none)
[ -z "$interface" ] || unset NCCL_SOCKET_IFNAME # it is set below
while read -r name; do options+=(-x "$name"); done < <(forwarded)
[ "$(id -u)" = 0 ] && options+=(--allow-run-as-root)
if [ -n "$interface" ]; then
    options+=(--mca btl_tcp_if_include "$interface" --mca oob_tcp_if_include "$interface" -x "NCCL_SOCKET_IFNAME=$interface")
fi
# shellcheck disable=SC2016 # expanded on the hosts
if [ $run = run_watched ] &&
    ! mpirun "${options[@]}" --map-by ppr:1:node sh -c 'test -x "$0" && test -d "$1" || { echo "$(hostname) has no $0, or no folder $1" >&2; exit 1; }' \
        "$program" "$PWD"; then
    die_with 3 "a host of $hostfile cannot be reached by ssh, or does not see $program and $PWD: use a shared file system"
fi
command=(mpirun "${options[@]}" -n "$ranks" --wdir "$PWD" "$here/rank.sh" --share-cores "$program" train "$@")
if [ $run = print ]; then show "${command[@]}"; else run_watched "$program" "${command[@]}"; fi
