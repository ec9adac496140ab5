#!/usr/bin/env bash
# `tuwen train` on three ranks that is killed, stopped, caught in an endless loop or out of disk: it ends by itself, and resumed
# on as many ranks it ends with the bits of a run that nothing happened to. Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/faults_train.sh 3

disturb() { # NAME MESSAGE COMMAND...
    local folder
    folder=$work/$(tr -c 'a-z\n' _ <<<"$1")
    strike "$1" "$folder" "${@:3}"
    ended "$1 at step $step" "$2"
    resumed "$1 at step $step" "$folder"
}
# shellcheck disable=SC2046 # numbers
kill_ranks() { kill -9 $(for r in "$@"; do echo "${pids[r]}"; done); }
stop_rank() { kill -STOP "${pids[$1]}"; }
# preload_spin.c: the signal makes a rank compute without end in whatever it does. Seconds count in which it has a processor:
# on a crowded machine it takes longer.
# (Texts are padded, as each other number of tokens would be a graph of operations of its own, whose first run gets longer. That
# is another run than the whole one, so it is not resumed.)
quiet_slack=$slack slack=$((6 * slack))
all_options=("${options[@]}")
options+=(--pack_text false)
spin_rank() { kill -USR2 "${pids[$1]}"; }
begin_on=(env LD_PRELOAD="$build/tests/libpreload_spin.so" ASAN_OPTIONS=verify_asan_link_order=0)
strike "a rank spins" "$work/spins" spin_rank 1
ended "a rank spins at step $step" "rank 1 of 3 .* hangs: rank [02] has waited .* got nothing done since it began with: [a-z]"
begin_on=() slack=$quiet_slack options=("${all_options[@]}")
disturb "rank zero killed" "rank 0 with PID .* exited on" kill_ranks 0
disturb "another rank killed" "rank 2 with PID .* exited on" kill_ranks 2
disturb "all ranks killed" "rank [0-2] with PID .* exited on" kill_ranks 0 1 2
disturb "rank zero stopped" "rank 0 of 3 .* has not been heard of" stop_rank 0
disturb "another rank stopped" "rank 1 of 3 .* has not been heard of" stop_rank 1

# ---- the disk of the writing rank is full ----
mkdir "$work/small"
bytes=$(stat -L -c %s "$work/whole/latest")
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=$((bytes * 5 / 2 + 65536)) tmpfs "$work/small" 2>/dev/null; then
    trap 'umount -l "$work/small"; kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
    for save in true false; do # by the writing thread, and while training waits
        rm -rf "$work/small/run"
        mount -o remount,size=$((bytes * 5 / 2 + 65536)) "$work/small"
        took=$SECONDS
        begin "$work/small/run" --keep 5 --background_save $save
        wait_for $job $((2 * (6 + slack)))
        code=$?
        took=$((SECONDS - took))
        ended "disk full, background_save $save" "^tuwen train: rank 0 of 3 on .*(No space left|no space)"
        mount -o remount,size=$((bytes * 10)) "$work/small"
        resumed "disk full, background_save $save" "$work/small/run"
    done
else
    echo "SKIP a full disk: a small file system cannot be mounted here"
fi
finish
