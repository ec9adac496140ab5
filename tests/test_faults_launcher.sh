#!/usr/bin/env bash
# `tuwen train` on two hosts, two ranks on each, whose mpirun is killed: nothing is left on either host, and resumed on as many
# ranks the run ends with the bits of one that nothing happened to. And what of the settings here hosts.sh brings to the other host.
# Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/two_hosts.sh
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null || ! hosts_up 20 2>"$work/err"; then
    echo "SKIP mpirun killed: needs root, ip netns and unshare: $(tail -n 1 "$work/err" 2>/dev/null)"
    hosts_down
    finish
    exit
fi
trap 'hosts_down; kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT

printf '#!/bin/sh\nenv >"%s/environment.$(hostname)"\n' "$work" >"$work/program"
chmod +x "$work/program"
printf '%s slots=1\n' $host_a $host_b >"$work/hostfile"
settings=(NCCL_DEBUG=INFO UCX_NET_DEVICES=mlx5_0:1 OMP_NUM_THREADS=3 CUDA_DEVICE_ORDER=PCI_BUS_ID OMPI_MCA_tw_test=1)
holds "settings" "${on_a[@]}" env "${settings[@]}" TW_UNKNOWN=1 TUWEN="$work/program" scripts/launch/hosts.sh "$work/hostfile" -- --config a.yaml
for setting in "${settings[@]}"; do
    grep -qx "$setting" "$work/environment.$host_b" && ok || fail "$setting has not reached the other host"
done
grep -q TW_UNKNOWN "$work/environment.$host_b" && fail "settings that are no business of the ranks reach them" || ok

. tests/faults_train.sh 4

begin_on=("${on_a[@]}")
TW_MPIRUN_OPTIONS="--host $host_a:2,$host_b:2" && export TW_MPIRUN_OPTIONS
# The ranks of the second host, and those of the first, by the name of the host that they see.
on_host() {
    local p n=0
    for p in "${pids[@]}"; do [ "$(nsenter -t "$p" -u hostname 2>/dev/null)" != "$1" ] || n=$((n + 1)); done
    echo $n
}
kill_mpirun() {
    spread="$(on_host $host_a) $(on_host $host_b)"
    kill -9 $(pgrep -f "^mpirun .* train .*--output $work/killed")
}
strike "mpirun killed" "$work/killed" kill_mpirun
for _ in $(seq 300); do [ "$(left)" = 0 ] && break; sleep 0.1; done
[ "$spread" = "2 2" ] && ok || fail "the ranks were not two on each host: $spread"
if [ $code != 137 ]; then fail "mpirun killed at step $step: exit code $code"
elif [ "$(left)" != 0 ]; then fail "mpirun killed at step $step: processes are left: $(pgrep -af "$tuwen train")"
else ok; fi
unset TW_MPIRUN_OPTIONS
begin_on=()
resumed "mpirun killed at step $step" "$work/killed"
finish
