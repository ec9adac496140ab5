#!/usr/bin/env bash
# How many cores this machine or container gives: nproc, or fewer where a quota of CPU time has less (docker --cpus, Kubernetes'
# limits), as the container sees it. `tuwen doctor` looks further, but is not built yet.
#
#     scripts/cores.sh [FOLDER]      FOLDER: of the control groups, /sys/fs/cgroup
set -uo pipefail
groups=${1:-/sys/fs/cgroup}
cores=$(nproc)
if [ -r "$groups/cpu.max" ]; then
    read -r quota period <"$groups/cpu.max"
else # version 1
    quota=$(cat "$groups/cpu/cpu.cfs_quota_us" 2>/dev/null)
    period=$(cat "$groups/cpu/cpu.cfs_period_us" 2>/dev/null)
fi
# "max" and -1: no limit.
if [[ ${quota:-} =~ ^[1-9][0-9]*$ && ${period:-} =~ ^[1-9][0-9]*$ ]]; then
    limit=$(((quota + period - 1) / period))
    [ "$limit" -lt "$cores" ] && cores=$limit
fi
echo "$cores"
