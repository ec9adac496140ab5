# What the fault suites share; sourced after shell.sh with the program of the ranks as argument, which writes each rank's
# process number to a file of $work/pids. Sets timeout_s, the rank_timeout of these jobs.
ranks_tool=$1
timeout_s=6
slack=24 # seconds that a loaded machine takes to start and stop a job

running() { pgrep -f "^$ranks_tool $work" | wc -l; }
pid() { cat "$work/pids/$1"; }

# launch RANKS COMMAND...: begins a job ($job, $began).
launch() {
    local n=$1
    shift
    rm -rf "$work/pids" && mkdir "$work/pids"
    began=$SECONDS
    "${launch_on[@]}" tests/mpirun.sh "$n" "$@" >"$work/out" 2>"$work/err" &
    job=$!
}
launch_on=() # what goes before mpirun: it begins in a network namespace

# all_begun RANKS: waits until all ranks compute; fails if they do not, or the job has ended before.
all_begun() {
    for _ in $(seq 3000); do
        [ "$(find "$work/pids" -type f -size +0 | wc -l)" = "$1" ] && break
        kill -0 $job 2>/dev/null || break
        sleep 0.1
    done
    [ "$(find "$work/pids" -type f -size +0 | wc -l)" = "$1" ] || return 1
    sleep 1
    began=$SECONDS
}

# halt PROCESS...: stops them, and waits until they are: on a loaded machine a signal takes its time to arrive.
halt() {
    local p
    kill -STOP "$@"
    for p in "$@"; do
        for _ in $(seq 1000); do grep -q '^State:[[:space:]]*[Tt]' "/proc/$p/status" 2>/dev/null && break; sleep 0.01; done
    done
}

# ends NAME MESSAGE: the job must end by itself, in time, with MESSAGE once ("": nobody is left to pass one on), and at
# most one message of ours.
ends() {
    local code count ours=1
    [ -n "$2" ] || ours=0
    wait_for $job $((timeout_s + slack))
    code=$?
    for _ in $(seq $((10 * slack))); do [ "$(running)" = 0 ] && break; sleep 0.1; done
    count=$(cat "$work/err" "$work/out" | grep -c -E "$2")
    if [ $code = 0 ]; then fail "$1: exit code 0"
    elif [ $((SECONDS - began)) -ge $((timeout_s + slack)) ]; then fail "$1: took $((SECONDS - began)) s"
    elif [ -n "$2" ] && [ "$count" != 1 ]; then fail "$1: '$2' was said $count times: $(cat "$work/err")"
    elif [ "$(grep -c -E "^(${ranks_tool##*/}|tuwen): " "$work/err")" -gt $ours ]; then fail "$1: more than one message: $(cat "$work/err")"
    elif [ "$(running)" != 0 ]; then fail "$1: processes are left: $(pgrep -af "$ranks_tool")"
    else ok; fi
}
