#!/usr/bin/env bash
# Faults of real processes: whatever happens to a rank, the job ends in bounded time with one message that names rank and
# cause, an exit code other than 0, and nothing left running. Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/faults.sh "$build/tests/tool_ranks"

if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP faults: this build has no MPI, or mpirun is not installed (openmpi-bin)"
    finish
    exit
fi

# start RANKS [ARGUMENTS OF tool_ranks]: begins a job and waits until all ranks have begun.
start() {
    local n=$1
    shift
    launch "$n" "$ranks_tool" "$work/pids" $timeout_s "$@"
    all_begun "$n" && return
    fail "$n ranks have not begun"
    kill $job
    finish
    exit 1
}

start 3; kill -9 "$(pid 0)"; ends "rank 0 killed" "rank 0 with PID .* exited on"
start 3; kill -9 "$(pid 2)"; ends "another rank killed" "rank 2 with PID .* exited on"
start 3; kill -9 "$(pid 0)" "$(pid 1)" "$(pid 2)"; ends "all ranks killed" "rank [0-2] with PID .* exited on"
start 3; kill -STOP "$(pid 1)"; ends "a rank stopped" "rank 1 of 3 \(process $(pid 1) on .*has not been heard of"
start 3; kill -STOP "$(pid 0)"; ends "rank 0 stopped" "rank 0 of 3 \(process $(pid 0) on .*has not been heard of"
start 3 hang 2; ends "a rank hangs" "rank 2 of 3 .* hangs: rank [01] has waited"
slack=150 # helpers that get no processor may look like one that computes
start 3 poll 2; ends "a rank hangs, and a helper thread looks around" "rank 2 of 3 .* hangs: rank [01] has waited"
start 3 trickle 2; ends "a rank hangs, and a helper thread writes a little" "rank 2 of 3 .* hangs: rank [01] has waited"
# Seconds count in which the rank has a processor: on a crowded machine it takes longer
start 3 spin 2; ends "a rank computes without end" "rank 2 of 3 .* hangs: rank [01] has waited .* got nothing done since it began with: a loop"
start 3 spin 0; ends "rank 0 computes without end" "rank 0 of 3 .* hangs: rank [12] has waited .* got nothing done since it began with: a loop"
slack=24
start 3 fail 1; ends "a rank fails" "tool_ranks: rank 1 of 3 on .*: no space left on device"
start 3 fail 0; ends "rank 0 fails" "tool_ranks: rank 0 of 3 on .*: no space left on device"
start 3 differ 1; ends "ranks that do not agree" "rank 1 of 3 .* waits in broadcast, rank"
start 3 linger 1; ends "a rank that fails and does not get to close" "tool_ranks: rank 1 of 3 on .*: no space left on device"
start 3 idle 0; ends "all ranks stuck outside collectives" "rank [0-2] of 3 .* has neither computed nor read or written for"
start 3; kill -9 $job; ends "the launcher killed" ""
start 3; halt "$(pid 1)"; kill -9 $job; ends "the launcher killed while a rank is stopped" ""
start 3; halt "$(pid 0)" "$(pid 1)" "$(pid 2)"; kill -9 $job; ends "the launcher killed while all ranks are stopped" ""
# A launcher that starts ranks from threads, as Open MPI's does with many a host: the system does not end those ranks.
export TW_MPIRUN_OPTIONS="--mca odls_base_num_threads 2"
start 3; halt "$(pid 1)"; kill -9 $job; ends "a launcher with threads killed while a rank is stopped" ""
unset TW_MPIRUN_OPTIONS

# A rank that was stopped for less than the time-out goes on.
start 2; kill -STOP "$(pid 1)"; sleep 1; kill -CONT "$(pid 1)"; sleep $timeout_s
if kill -0 $job 2>/dev/null; then ok; else fail "a rank stopped for a second: $(cat "$work/err")"; fi
kill -9 "$(pid 1)"; ends "afterwards killed" "rank 1 with PID"

# So does a job that was suspended as a whole, for longer.
start 3; kill -STOP "$(pid 0)" "$(pid 1)" "$(pid 2)"; sleep $((timeout_s + 3))
kill -CONT "$(pid 0)" "$(pid 1)" "$(pid 2)"; sleep $timeout_s
if kill -0 $job 2>/dev/null; then ok; else fail "a job that was suspended: $(cat "$work/err")"; fi
kill -9 "$(pid 2)"; ends "afterwards killed too" "rank 2 with PID"

# And one with a slow rank: work that takes longer than a rank may be stuck, in one piece and in many.
start 2 slow 1; sleep $((timeout_s * 8))
if kill -0 $job 2>/dev/null; then ok; else fail "a slow rank: $(cat "$work/err")"; fi
began=$SECONDS
kill -9 "$(pid 0)"; ends "afterwards killed as well" "rank 0 with PID"

# ---- a network between two hosts is cut: network namespaces, Open MPI over TCP, ip in the place of ssh ----
space=tw$$
cut_network() {
    local agent=$work/agent
    ip netns add $space-a && ip netns add $space-b || return 1
    ip link add ${space}a type veth peer name ${space}b || return 1
    ip link set ${space}a netns $space-a && ip link set ${space}b netns $space-b
    ip -n $space-a addr add 10.213.7.1/24 dev ${space}a && ip -n $space-b addr add 10.213.7.2/24 dev ${space}b
    for side in a b; do ip -n $space-$side link set lo up; ip -n $space-$side link set $space$side up; done
    # When the ranks notice first, mpirun waits for what it has to send to the other host: 6 s, not a quarter of an hour.
    ip netns exec $space-a sysctl -qw net.ipv4.tcp_retries2=4 || return 1
    printf '#!/bin/sh\nshift\nexec ip netns exec %s-b unshare --uts sh -c "hostname %s-b; $*"\n' $space $space >"$agent"
    chmod +x "$agent"
    export TW_MPIRUN_OPTIONS="--host 10.213.7.1:2,10.213.7.2:2 --mca plm_rsh_agent $agent --mca btl tcp,self --mca btl_tcp_if_include 10.213.7.0/24 --mca oob_tcp_if_include 10.213.7.0/24 --mca oob_tcp_keepalive_time 2 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 2 --mca odls_base_sigkill_timeout 2"
    launch_on=(ip netns exec $space-a)
    launch 4 "$ranks_tool" "$work/pids" $timeout_s
    all_begun 4 || { kill -9 $job; return 1; }
    ip -n $space-b link set ${space}b down
    return 0
}
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null || ! ip netns add $space-try 2>/dev/null; then
    echo "SKIP a network cut between hosts: ip netns is not allowed here"
else
    ip netns del $space-try
    # Open MPI looks after 4 to 5 s. A rank_timeout of 6 s has the ranks notice at about the same time, one of 12 s has
    # mpirun notice first and end the job: the rank is named all the same, and once.
    for timeout_s in 6 12; do
        if cut_network; then
            said="^tuwen: the run ends: rank [23] of 4 \(process [0-9]+ on .*\) has not been heard of"
            for _ in $(seq $((10 * (timeout_s + slack)))); do kill -0 $job 2>/dev/null || break; sleep 0.1; done
            ends "a network cut, rank_timeout $timeout_s" "$said"
            [ $timeout_s = 6 ] || grep -q "lost communication with a remote daemon" "$work/err" ||
                echo "SKIP mpirun notices a cut network before a rank does: it did not"
        else
            echo "SKIP a network cut between hosts: two namespaces cannot be joined, or Open MPI does not start across them: $(tail -3 "$work/err" 2>/dev/null)"
        fi
        ip netns del $space-a 2>/dev/null
        ip netns del $space-b 2>/dev/null
        for _ in $(seq 50); do ip link show ${space}a >/dev/null 2>&1 || break; sleep 0.1; done
    done
fi
finish
