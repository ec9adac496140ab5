# What the launch scripts share; sourced.
die_with() { # CODE MESSAGE
    local code=$1
    shift
    echo "$(basename "$0"): $*" >&2
    exit "$code"
}
die() { die_with 2 "$@"; }
# need_value WHAT ARGUMENTS...: the first of them is an option that another follows.
need_value() { if [ $# -lt 3 ] || [ -z "$3" ]; then die "$2 needs $1"; fi; }
show() { printf '%q ' "$@" && echo; }
# The line $1 of a host file without its comment; sets name and slots, which are 1 where the line says nothing, as for Open
# MPI. Both are empty on an empty line; fails for a line of another form.
# shellcheck disable=SC2034 # the callers use them
read_host() {
    name="" slots=""
    [[ ${1%%#*} =~ ^[[:space:]]*$ ]] && return
    [[ ${1%%#*} =~ ^[[:space:]]*([^[:space:]=]+)([[:space:]]+slots=([1-9][0-9]*))?[[:space:]]*$ ]] || return
    name=${BASH_REMATCH[1]} slots=${BASH_REMATCH[3]:-1}
}
# A folder can be read too, but not by lines.
check_hosts_file() { if [ ! -r "$1" ] || [ -d "$1" ]; then die "$1: no such host file"; fi; }
is_number() { [[ $1 =~ ^[1-9][0-9]*$ ]]; }

# TUWEN, the build beside this script, or the PATH's.
find_program() {
    local built
    built=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/release/tuwen
    if [ -n "${TUWEN:-}" ]; then
        command -v "$TUWEN" || die "TUWEN=$TUWEN is no program"
    elif [ -x "$built" ]; then
        echo "$built"
    else
        command -v tuwen || die "no tuwen: build it (cmake --preset release && cmake --build --preset release), or set TUWEN"
    fi
}

need_mpirun() {
    local folder=${TMPDIR:-/tmp} room
    command -v mpirun >/dev/null || die "mpirun is not installed: several ranks need Open MPI (openmpi-bin)"
    # Without room there it says so and then, some versions, waits for ever.
    room=$(df -Pk -- "$folder" 2>/dev/null | awk 'NR == 2 { print $4 }' || true)
    [ "${room:-4096}" -ge 4096 ] || die_with 1 "$folder has no room left (${room} kB): Open MPI keeps files there; free some, or set TMPDIR"
}

# mpirun notices a host that is gone within about 30 s, instead of minutes. What the caller has set stays. OMPI: Open MPI 4,
# PRTE: 5.
notice_lost_hosts() {
    local layer setting
    for layer in OMPI PRTE; do
        for setting in time=15 intvl=5 probes=3; do
            setting=${layer}_MCA_oob_tcp_keepalive_$setting
            declare -p "${setting%%=*}" >/dev/null 2>&1 || export "${setting?}"
        done
    done
}

# run_watched PROGRAM COMMAND...: the command, an mpirun of PROGRAM. One whose ranks have ended because a host is lost may have a
# message under way to that host, and waits as long as the system tries to deliver it: a quarter of an hour, whatever keep-alive
# says. Open MPI 4's may also wait for itself for ever when a rank ends while it ends the job (in PMIx_server_finalize). So when
# the ranks of this host have all been gone for TW_MPIRUN_PATIENCE seconds (30), it is ended.
# Signals are passed on, but mpirun kills its ranks a second after SIGINT, SIGTERM or SIGHUP, saved or not: the first of these
# reaches it as SIGUSR1, which it hands to them all, so that they save and end (exit code 130, 143 or 129). One that comes two seconds
# later or more is meant; sooner it is the same word again: of a closed terminal the shell and the system tell, of `timeout` process and group.
# It has a process group of its own (set -m): a terminal sends Ctrl-C to all of its foreground, and mpirun, which would have the
# passed-on one beside it, takes a second as the demand to end without seeing to its ranks. A hang-up of the terminal is passed on
# for the same reason.
run_watched() {
    local program=$1 child="" asked="" stopping="" since=0 watcher code signal
    shift
    # shellcheck disable=SC2064 # the signal is this one
    for signal in INT TERM HUP USR1 USR2; do trap "pass_on $signal" $signal; done
    { : <&0; } 2>/dev/null || exec </dev/null # what a daemon starts may have no input
    set -m
    "$@" <&0 &
    child=$!
    set +m
    [ -z "$asked" ] || pass_on "$asked" # before its number was known
    end_late_mpirun $child "$program" &
    watcher=$!
    while :; do # a signal that comes ends the wait
        asked="" code=0
        wait $child || code=$?
        [ -n "$asked" ] || break
    done
    kill $watcher 2>/dev/null || true
    trap - INT TERM HUP USR1 USR2
    # 138: who had no handler yet ended by SIGUSR1.
    if [ -n "$stopping" ] && { [ $code = 0 ] || [ $code = 138 ]; }; then code=$((128 + $(kill -l "$stopping"))); fi
    return $code
}
pass_on() { # SIGNAL
    local signal=$1
    asked=$1
    [ -n "$child" ] || return 0
    case $1 in
    INT | TERM | HUP)
        if [ -z "$stopping" ]; then stopping=$1 signal=USR1 since=$SECONDS
        elif [ $((SECONDS - since)) -lt 2 ]; then return 0; fi
        ;;
    esac
    kill "-$signal" "$child" 2>/dev/null || true
}
end_late_mpirun() { # PROCESS PROGRAM
    local seen=no gone=0
    trap '' INT HUP # of the terminal: it outlives them, as the script does
    while kill -0 "$1" 2>/dev/null; do
        if pgrep -P "$1" -f -- "$2 train" >/dev/null; then
            seen=yes gone=0
        elif [ $seen = yes ] && [ $((gone += 1)) -gt "${TW_MPIRUN_PATIENCE:-30}" ]; then
            echo "$(basename "$0"): all ranks of this host have ended, but mpirun has not, as where a host is lost: it is ended" >&2
            kill -KILL "$1" 2>/dev/null || true
        fi
        sleep 1
    done
}

# The names of the settings that ranks on other hosts need too: of these only OMPI_MCA_* reach them by themselves. Which GPUs are
# seen is a host's own affair.
forwarded() { compgen -e | grep -E '^(PATH|LD_LIBRARY_PATH|(NCCL|UCX|OMP|GOMP|CUDA|OMPI_MCA)_[A-Za-z0-9_]+)$' | grep -vx CUDA_VISIBLE_DEVICES; }

# One that is broken can keep nvidia-smi waiting.
count_gpus() { { timeout 60 nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true; }

default_ranks() {
    local gpus nodes
    gpus=$(count_gpus)
    if [ "$gpus" -gt 0 ]; then echo "$gpus"; return; fi
    nodes=$(lscpu 2>/dev/null | sed -n 's/^NUMA node(s): *//p')
    echo "${nodes:-1}"
}

# Whether there is a first argument that is no option.
has_operand() { [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; }
