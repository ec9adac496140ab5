#!/usr/bin/env bash
# tuwen train that survives the loss of ranks and hosts: when the job dies it is started again from its last checkpoint, up
# to K times, on the hosts that still answer. The samples go on in the same order on any number of ranks.
#     scripts/run_elastic.sh [-k K] [-n RANKS] [--min-ranks M] [--delay SECONDS] -- --config recipe.yaml --output runs/first ...
#     scripts/run_elastic.sh [-k K] --hosts HOSTFILE [--interface NAME] [--min-ranks M] [--delay SECONDS] -- ...
# K: 3. RANKS, HOSTFILE, --interface: as in launch/one_host.sh and launch/hosts.sh. M: fewer ranks than that are not worth
# going on with (1). --delay: seconds before a restart (10). TW_REMOTE: what reaches a host, followed by its name and a command
# (ssh without a password). A host that answers but has not the program or this folder is left out, and one that has lost GPUs
# since the first start, this machine too, gives no more ranks than it has left. INT, TERM and HUP have the
# job save and end (exit code 143; two seconds later they end it at once), USR1 too (0), as the stop file does. --resume is set here. A first start that is refused as a usage error (2) and a
# run that was asked to stop are not started again; a restart that is refused is: its options were good before.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/launch/common.sh"

restarts=3 ranks="" hostfile="" interface=() least=1 delay=10
while [ $# -gt 0 ]; do
    case $1 in
    -k) need_value "a number" "$@" && restarts=$2 && shift 2 ;;
    -n) need_value "a number" "$@" && ranks=$2 && shift 2 ;;
    --hosts) need_value "a file" "$@" && hostfile=$2 && shift 2 ;;
    --interface) need_value "a name" "$@" && interface=(--interface "$2") && shift 2 ;;
    --min-ranks) need_value "a number" "$@" && least=$2 && shift 2 ;;
    --delay) need_value "seconds" "$@" && delay=$2 && shift 2 ;;
    --) shift && break ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || die "give the options of tuwen train after --, for example: -- --config recipe.yaml --output runs/first"
[[ $restarts =~ ^[0-9]+$ && $delay =~ ^[0-9]+$ ]] || die "-k and --delay are numbers"
[ -z "$ranks" ] || is_number "$ranks" || die "-n $ranks: a number of at least 1 is needed"
is_number "$least" || die "--min-ranks $least: a number of at least 1 is needed"
[ -z "$hostfile" ] || check_hosts_file "$hostfile"
for option in "$@"; do
    case $option in --resume | --resume=*) die "--resume is set here: a first start finds no checkpoint, later ones the last" ;; esac
done

program=""
[ -z "$hostfile" ] || program=$(find_program)
notice_lost_hosts

# What was never there is not waited for.
most=0
given="" # what <(...) gives can be read once
[ -z "$hostfile" ] || given=$(cat "$hostfile")
while [ -n "$given" ] && IFS= read -r line; do
    read_host "$line" || die "$hostfile: '$line' is not of the form 'name slots=8'"
    most=$((most + ${slots:-0}))
done <<<"$given"
[ -n "$hostfile" ] || most=${ranks:-$least}
[ "$most" -gt 0 ] || die "$hostfile names no host"
[ "$most" -ge "$least" ] || die "--min-ranks $least: there are only $most ranks"

say() { echo "run_elastic.sh: $*" >&2; }
work=$(mktemp -d)
child=""
trap 'rm -rf "$work"' EXIT
# What ends this script ends the job. stopped: the signal that the launcher is to get.
stopped=no
stop() {
    stopped=$1
    [ -z "$child" ] || kill "-$stopped" "$child" 2>/dev/null || true # it may have ended just now
}
trap 'stop TERM' INT TERM HUP
trap 'stop USR1' USR1

# What a host is asked: whether it has what the job needs, and how many GPUs.
question() {
    printf 'cd %q 2>/dev/null || { echo no folder; exit; }; test -x %q || { echo no program; exit; }; ' "$PWD" "$program"
    echo "nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true"
}
declare -A first_gpus # of each host, at the first start

# left_of HOST SLOTS GPUS: sets slots to how many of its SLOTS the host can serve with the GPUs that it has now.
left_of() {
    : "${first_gpus[$1]:=$3}"
    local first=${first_gpus[$1]}
    slots=$2
    [ "$3" -lt "$first" ] || return 0
    say "$1 has $3 GPUs, at the first start $first"
    # Beyond one rank a GPU, as many ranks fewer as GPUs.
    if [ "$slots" -gt "$first" ]; then slots=$((slots - first + $3)); elif [ "$slots" -gt "$3" ]; then slots=$3; fi
}

# Writes the lines of the hosts that answer and can run the job, and counts their slots.
find_hosts() {
    local line name slots answer
    alive=0
    : >"$work/hosts"
    while IFS= read -r line || [ -n "$line" ]; do
        read_host "$line" || die "$hostfile: '$line' is not of the form 'name slots=8'"
        [ -n "$name" ] || continue
        # shellcheck disable=SC2086
        if ! answer=$(timeout 20 ${TW_REMOTE:-ssh -o BatchMode=yes -o ConnectTimeout=10} "$name" "$(question)" \
            </dev/null 2>/dev/null); then
            say "$name does not answer: going on without it"
            continue
        fi
        answer=${answer##*$'\n'} # a login shell may have said something before
        case $answer in no*) say "$name has $answer ($program, $PWD): going on without it" && continue ;; esac
        [[ $answer =~ ^[0-9]+$ ]] || answer=0
        left_of "$name" "$slots" "$answer"
        [ "$slots" -gt 0 ] || continue
        echo "$name slots=$slots" >>"$work/hosts"
        alive=$((alive + slots))
    done <<<"$given"
}

# The ranks of this machine, without hosts.
find_ranks() {
    local slots
    [ -n "$ranks" ] || ranks=$(default_ranks)
    left_of "this machine" "$ranks" "$(count_gpus)"
    alive=$slots
}

launch() {
    if [ -n "$hostfile" ]; then find_hosts; else find_ranks; fi
    if [ "$alive" -lt "$least" ]; then
        say "$alive ranks are left, at least $least are asked for"
        return 1
    fi
    case $stopped in USR1) return 0 ;; TERM) return 143 ;; esac
    if [ -n "$hostfile" ]; then
        "$here/launch/hosts.sh" "$work/hosts" "${interface[@]}" -- "$@" --resume auto &
    else
        "$here/launch/one_host.sh" -n "$alive" -- "$@" --resume auto &
    fi
    child=$!
    [ $stopped = no ] || kill "-$stopped" "$child" 2>/dev/null # asked before its number was known
    local code=0
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do code=0 && wait "$child" || code=$?; done # a signal ends the wait
    [ $stopped = no ] || { code=0 && wait "$child" || code=$?; } # the child may have ended before the loop
    child=""
    case $stopped$code in TERM129 | TERM130) code=143 ;; esac # a signal of the terminal's reaches the launcher too
    return $code
}

for ((attempt = 0; ; attempt++)); do
    code=0
    launch "$@" || code=$?
    if [ $code = 0 ] || [ $stopped != no ] || { [ $code = 2 ] && [ $attempt = 0 ]; }; then exit $code; fi
    if [ $attempt -ge "$restarts" ]; then
        say "exit code $code after $attempt restarts: giving up"
        exit $code
    fi
    say "exit code $code: restart $((attempt + 1)) of $restarts from the last checkpoint in $delay s"
    sleep "$delay" &
    child=$!
    [ $stopped != no ] || wait $child || true
    # Asked to stop, maybe before its number was known: it ends, and is waited for, so that nothing is left.
    [ $stopped = no ] || { kill $child 2>/dev/null || true; wait $child || true; }
    child=""
    [ $stopped = no ] || exit $code
done
