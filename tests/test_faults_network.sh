#!/usr/bin/env bash
# `tuwen train` on two hosts, two ranks on each, whose network is cut: it ends and names a rank of the host that is gone.
# Resumed on as many ranks it ends with the bits of a run that nothing happened to; scripts/run_elastic.sh goes on by
# itself on the host that is left, with the same samples. Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/two_hosts.sh
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null || ! hosts_up 20 2>"$work/err"; then
    echo "SKIP a network cut between hosts: needs root, ip netns and unshare: $(tail -n 1 "$work/err" 2>/dev/null)"
    hosts_down
    finish
    exit
fi
trap 'hosts_down; kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
. tests/faults_train.sh 4
undo=mend_network
gone="^tuwen: the run ends: rank [23] of 4 \(process [0-9]+ on $host_b\) has not been heard of"

# The ranks notice before mpirun.
begin_on=("${on_a[@]}")
TW_MPIRUN_OPTIONS="--host $host_a:2,$host_b:2" && export TW_MPIRUN_OPTIONS
strike "a network cut" "$work/cut" cut_network
ended "a network cut at step $step" "$gone"
unset TW_MPIRUN_OPTIONS
begin_on=()
resumed "a network cut at step $step" "$work/cut"

# The run goes on without the host.
printf '%s slots=2\n' $host_a $host_b >"$work/hostfile"
printf '#!/bin/sh\n[ $1 = %s ] || ip -n %s link show %sb | grep -q "state UP" || exit 255\nexec sh -c "$2"\n' \
    $host_a $host_b $space >"$work/remote"
chmod +x "$work/remote"
export TUWEN=$tuwen TW_REMOTE=$work/remote OMPI_MCA_mpi_yield_when_idle=1
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # as tests/mpirun.sh: Open MPI's plug-ins
export TW_MPIRUN_PATIENCE=5
begin() { # FOLDER
    "${on_a[@]}" scripts/run_elastic.sh -k 2 --delay 0 --hosts "$work/hostfile" -- "${options[@]}" --rank_timeout $timeout_s \
        --output "$1" --sample_log "$work/elastic.samples" >"$work/out" 2>"$work/err" &
    job=$!
}
over() { ! grep -q "run_elastic.sh: .*restart 1 of 2" "$work/err"; }
# goes_on IDLE TIMEOUT RETRIES: mpirun notices after IDLE s, the ranks after 3/4 of TIMEOUT.
goes_on() {
    timeout_s=$2
    hosts_down
    hosts_up "$1" && ip netns exec $host_a sysctl -qw net.ipv4.tcp_retries2="$3" && ok || fail "two hosts again"
    strike "an elastic run" "$work/elastic" cut_network
    if [ $code != 0 ] || [ $took -gt $((20 + slack)) ]; then fail "a host lost at step $step: exit code $code after $took s"
    elif [ "$(grep -Ec "$gone" "$work/err")" != 1 ]; then fail "a host lost at step $step: not one '$gone'"
    elif [ "$(grep -c "$host_b does not answer: going on without it" "$work/err")" != 1 ]; then fail "a host lost at step $step: $host_b is not left out once"
    elif ! "$tuwen" info "$work/elastic/latest" 2>/dev/null | grep -q "ranks: 2"; then fail "a host lost at step $step: not 2 ranks go on"
    elif ! cmp -s "$work/whole.samples" "$work/elastic.samples"; then fail "a host lost at step $step: the samples are others"
    elif [ "$(left)" != 0 ]; then fail "a host lost at step $step: processes are left"
    else ok; fi
}
goes_on 3 12 4 # mpirun before the ranks
grep -q "but mpirun has not" "$work/err" && fail "mpirun was ended that would have ended itself"
# The ranks first: mpirun would wait for its message to the lost host for a quarter of an hour.
goes_on 30 6 15
grep -q "but mpirun has not" "$work/err" && ok || echo "SKIP an mpirun that waits for a lost host: it did not"
finish
