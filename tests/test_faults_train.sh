#!/usr/bin/env bash
# `tuwen train` on three ranks that is killed, stopped or out of disk: it ends by itself, and resumed on as many ranks it ends
# with the bits of a run that nothing happened to. Argument: the build folder.
set -u
. tests/shell.sh "$1"
hash=$build/tests/tool_checkpoint_hash
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP faults of training: this build has no MPI, or mpirun is not installed"
    finish
    exit
fi

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 60 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
options=(--model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --batch 18 --max_steps 60 --warmup 3 --lr 1e-3
    --save_interval 4 --log_interval 1 --threads 1 --num_workers 1 --text_dropout 0.1 --report false --rank_timeout 6)

begin() { # FOLDER OPTIONS...: three ranks, in the background
    local folder=$1
    shift
    tests/mpirun.sh 3 "$tuwen" train "${options[@]}" --output "$folder" "$@" >"$work/out" 2>"$work/err" &
    job=$!
}
pid_of() { # FOLDER RANK
    local p
    for p in $(pgrep -f "^$tuwen train .*--output $1"); do
        tr '\0' '\n' <"/proc/$p/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$2" && echo "$p"
    done
}
left() { pgrep -f "^$tuwen train .*--output $work" | wc -l; }
after_step() { # FOLDER STEP: waits until it is logged
    for _ in $(seq 1200); do
        grep -q "\"step\":$2," "$1/log.jsonl" 2>/dev/null && return
        sleep 0.05
    done
    fail "step $2 of $1 was never reached"
}
same() { # NAME FOLDER: it ended as the undisturbed run did
    local a b
    a=$($hash "$work/whole/latest" 2>&1) && b=$($hash "$2/latest" 2>&1) && [ "$a" = "$b" ] && { ok; return; }
    fail "$1: '$a' is not '$b'"
}
resumed() { # NAME FOLDER
    holds "$1, resumed" timeout 200 tests/mpirun.sh 3 "$tuwen" train "${options[@]}" --output "$2" --resume auto
    same "$1" "$2"
}
ended() { # NAME MESSAGE
    local code began=$SECONDS
    (sleep 60; kill -9 $job) 2>/dev/null &
    local guard=$!
    wait $job
    code=$?
    kill $guard 2>/dev/null
    for _ in $(seq 100); do [ "$(left)" = 0 ] && break; sleep 0.1; done
    if [ $code = 0 ] || [ $((SECONDS - began)) -gt 26 ]; then fail "$1: exit code $code after $((SECONDS - began)) s"
    elif [ "$(cat "$work/out" "$work/err" | grep -c -E "$2")" != 1 ]; then fail "$1: not one '$2'"
    elif [ "$(left)" != 0 ]; then fail "$1: processes are left"
    else ok; fi
}

holds "undisturbed" timeout 200 tests/mpirun.sh 3 "$tuwen" train "${options[@]}" --output "$work/whole"
if ! grep -q "3 ranks start from the same weights" "$work/whole/log.jsonl" "$work/out"; then
    echo "SKIP faults of training: tuwen train of this build does not join the ranks of a launcher"
    finish
    exit
fi
disturb() { # NAME MESSAGE COMMAND...: at a random step
    local folder
    folder=$work/$(tr -c 'a-z\n' _ <<<"$1") name=$1 message=$2
    shift 2
    begin "$folder"
    after_step "$folder" $((RANDOM % 40 + 5))
    "$@" "$folder"
    ended "$name" "$message"
    resumed "$name" "$folder"
}
kill_zero() { kill -9 "$(pid_of "$1" 0)"; }
kill_two() { kill -9 "$(pid_of "$1" 2)"; }
# shellcheck disable=SC2046
kill_all() { kill -9 $(pid_of "$1" 0) $(pid_of "$1" 1) $(pid_of "$1" 2); }
stop_one() { kill -STOP "$(pid_of "$1" 1)"; }
disturb "rank zero killed" "rank 0 with PID .* exited on signal 9" kill_zero
disturb "another rank killed" "rank 2 with PID .* exited on signal 9" kill_two
disturb "all ranks killed" "rank [0-2] with PID .* exited on signal 9" kill_all
disturb "a rank stopped" "rank 1 of 3 .* has not been heard of" stop_one

# ---- the disk of the writing rank is full ----
mkdir "$work/small"
bytes=$(stat -L -c %s "$work/whole/latest")
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=$((bytes * 5 / 2 + 65536)) tmpfs "$work/small" 2>/dev/null; then
    trap 'umount -l "$work/small"; kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
    begin "$work/small/run" --keep 5
    ended "disk full" "^tuwen train: rank 0 of 3 on .*(No space left|no space)"
    mount -o remount,size=$((bytes * 10)) "$work/small"
    resumed "disk full" "$work/small/run"
else
    echo "SKIP a full disk: a small file system cannot be mounted here"
fi
finish
