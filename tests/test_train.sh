#!/usr/bin/env bash
# The main job end to end on a generated data set, and what may go wrong in it. Argument: the build folder.
set -u
. tests/shell.sh "$1"
hash=$build/tests/tool_checkpoint_hash

same() { # NAME A B: checkpoints are the same to the bit
    local a b
    a=$($hash "$2" 2>&1) && b=$($hash "$3" 2>&1) && [ "$a" = "$b" ] && { ok; return; }
    fail "$1: '$a' is not '$b'"
}

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 96 --valid 24 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train,valid
# run FOLDER OPTIONS... becomes the training program: `run ... &` makes $! its process, not a shell's.
run() {
    local folder=$1
    shift
    exec "$tuwen" train --model micro --train_data "$data/lmdb/train" --val_data "$data/lmdb/valid" --vocab "$data/vocab.txt" \
        --output "$folder" --batch 20 --max_steps 14 --warmup 3 --lr 1e-3 --save_interval 4 --val_interval 7 \
        --log_interval 2 --text_dropout 0.1 --attention_dropout 0.1 --threads 2 "$@"
}
train() { (run "$@"); }

span=${EPOCHREALTIME//[.,]/} # how long a run takes, in ms
holds "train" train "$work/a"
span=$(((${EPOCHREALTIME//[.,]/} - span) / 1000 + 1))
for file in latest best log.jsonl report.html epoch_2_step_14.h5; do
    if [ -e "$work/a/$file" ]; then ok; else fail "train wrote no $file"; fi
done
grep -q "chance: loss ln(20) = 2.9957" "$work/out" && ok || fail "the chance line"
grep -Eq "Image2Text Acc: [0-9]+\.[0-9]{2} \| Text2Image Acc: [0-9]+\.[0-9]{2} \|" "$work/out" && ok || fail "no in-batch accuracy in the log"
grep -q '"image2text_acc"' "$work/a/log.jsonl" && ok || fail "no in-batch accuracy in log.jsonl"
grep -q "Validation at step 0 " "$work/out" && ok || fail "no validation before the first step"

grep -Eq "Texts Cut|cut to" "$work/out" && fail "texts are cut that fit" || ok
grep -q '"event":"validation".*"truncated":0' "$work/a/log.jsonl" && ok || fail "the validation's cut texts are not in log.jsonl"
holds "train with a short context" train "$work/short" --context_length 4 --max_steps 2
grep -q "Global Batch Size: 20 | Texts Cut: 40$" "$work/out" && ok || fail "no cut texts in the training line"
grep -Eq "\| ([0-9]+) texts \(\1 cut to 4 tokens\), " "$work/out" && ok || fail "no cut texts in the validation line"
grep -q '"event":"validation".*"truncated":[1-9]' "$work/short/log.jsonl" && ok || fail "no cut texts of validation in log.jsonl"

# The same bits again: with other loader threads, and in two halves.
holds "train with 3 loader threads" train "$work/b" --num_workers 3 --prefetch 5
same "loader threads do not matter" "$work/a/latest" "$work/b/latest"
# at_step STEP FILE: passes a log on, and makes the file when it tells of that step: no process has to be started for it, in
# whose time a quick machine takes the other steps.
at_step() {
    local line
    while IFS= read -r line; do
        [[ $line != *"Global Steps: $1/"* ]] || : >"$2"
        printf '%s\n' "$line"
    done
}
# stopped FOLDER STEP OPTIONS...: a run that a stop file ends near that step. A quick machine may end it before it sees the
# file: then it is asked sooner, and from the start.
stopped() {
    local folder=$1 step=$2 try
    shift 2
    for try in 1 2 3 4 5 6 7 8; do
        rm -rf "$folder" "$folder.stop"
        run "$folder" "$@" --log_interval 1 --stop_file "$folder.stop" 2>"$work/err" | at_step $step "$folder.stop" >"$work/out"
        grep -q "stopped by" "$work/err" && { ok; return; }
        step=$(((step + 1) / 2))
    done
    fail "$folder was over before it could be stopped"
}
for stop in 1 5 8 12; do
    stopped "$work/c$stop" $stop
    holds "resume after a stop file near step $stop" train "$work/c$stop" --resume auto
    same "stopped near step $stop and resumed" "$work/a/latest" "$work/c$stop/latest"
done
# stopped_within FOLDER STEP WHAT OPTIONS...: a run that a stop file ends behind that step, while it does WHAT as its log
# says; where the file comes too early or too late, from the start, and later or sooner.
stopped_within() {
    local folder=$1 step=$2 what=$3 pid ms=0
    shift 3
    for _ in $(seq 25); do
        rm -rf "$folder" "$folder.stop" "$folder.samples"
        run "$folder" "$@" --log_interval 1 --stop_file "$folder.stop" --sample_log "$folder.samples" >"$work/out" 2>"$work/err" &
        pid=$!
        until grep -qs "\"step\":$step," "$folder/log.jsonl" || ! kill -0 $pid 2>/dev/null; do sleep 0.002; done
        sleep "$(printf 0.%03d $ms)"
        touch "$folder.stop"
        wait $pid
        grep -q "asked to stop by the stop file ($what): saving step $step\$" "$work/out" && { ok; return; }
        if grep -q "asked to stop .*: saving step $step\$" "$work/out"; then ms=$((ms < 500 ? 2 * ms + 1 : ms)); else ms=$((ms / 2)); fi
    done
    fail "$folder was never stopped at step $step while $what"
}
# Within a validation: that step is saved, and validated when the run goes on.
slow=(--val_data "$data/lmdb/train" --val_batch 1)
stopped_within "$work/v" 7 "features of 96 items were being computed" "${slow[@]}" --val_at_start false
grep -q '"event":"validation"' "$work/v/log.jsonl" && fail "a validation that was stopped is in the log" || ok
holds "resume after a stop in a validation" train "$work/v" "${slow[@]}" --resume auto
same "stopped in a validation and resumed" "$work/a/latest" "$work/v/latest"
[ "$(grep -o '"event":"validation","step":[0-9]*' "$work/v/log.jsonl" | sed 's/.*://' | xargs)" = "7 14" ] && ok ||
    fail "the validations of a resumed run: $(grep -o '"event":"validation","step":[0-9]*' "$work/v/log.jsonl" | xargs)"
# Within a step of many micro-batches: it is dropped, and done when the run goes on.
many=(--batch 96 --micro_batch 1 --max_steps 3 --val_at_start false --val_interval 100)
holds "many micro-batches" train "$work/mb" "${many[@]}" --sample_log "$work/mb.samples"
stopped_within "$work/mbstop" 1 "step 2 was under way and is dropped" "${many[@]}"
holds "resume after a stop in a step" train "$work/mbstop" "${many[@]}" --sample_log "$work/mbstop.samples" --resume auto
same "stopped in a step and resumed" "$work/mb/latest" "$work/mbstop/latest"
cmp -s "$work/mb.samples" "$work/mbstop.samples" && ok || fail "stopped in a step and resumed: the samples are others"
# A stop file that is there before the run ends it before its first step; one that comes too late does not stay for the next
# run (here the last checkpoint's name stands for it: it is there when the last step has been taken).
touch "$work/old.stop"
holds "an old stop file" train "$work/old" --stop_file "$work/old.stop"
grep -q "stopped by the stop file after step 0 of 14" "$work/err" && [ ! -e "$work/old.stop" ] && ok || fail "an old stop file does not end the run, or stays"
holds "resume after an old stop file" train "$work/old" --stop_file "$work/old.stop" --resume auto
same "resumed after an old stop file" "$work/a/latest" "$work/old/latest"
holds "a late stop file" train "$work/late" --stop_file "$work/late/epoch_2_step_14.h5"
grep -q '"event":"end"' "$work/late/log.jsonl" && [ ! -e "$work/late/epoch_2_step_14.h5" ] && ok || fail "a late stop file stays"

# As many threads as the machine has are recorded by their number; another number is said, unless the old one is not known.
holds "all threads" train "$work/t0" --threads 0 --max_steps 2
threads=$("$tuwen" info "$work/t0/latest" 2>/dev/null | sed -n 's/.*threads: \([0-9]*\).*/\1/p')
[ "${threads:-0}" -ge 1 ] && ok || fail "the checkpoint says '$threads' threads"
resume_as() { # NAME THREADS: the file with that number recorded, resumed with 2 threads
    "$build/tests/tool_checkpoint_poison" "$(echo "$work/a"/epoch_*_step_12.h5)" "$work/$1.h5" --threads "$2"
    holds "saved with $2 threads" train "$work/$1" --resume "$work/$1.h5"
    same "saved with $2 threads" "$work/a/latest" "$work/$1/latest"
}
resume_as tmore 3
grep -q "resumed with 1 ranks, 2 threads, a micro-batch of 20, saved with 1 ranks, 3 threads, a micro-batch of 20: results agree to rounding" \
    "$work/tmore/log.jsonl" && ok || fail "other threads are not said"
resume_as tnone 0
resume_as tsame 2
grep -hq "resumed with" "$work/tnone/log.jsonl" "$work/tsame/log.jsonl" && fail "threads that are not others are said to be" || ok

# Saved by a thread or in line, with or without the stopwatch: the same bits. The report and the log have its table.
holds "saved in line" train "$work/l" --background_save false --profile
same "saved in line" "$work/a/latest" "$work/l/latest"
grep -Eq 'saved step 14( \(best so far\))? in [0-9.]+ s, training waited [0-9.]+ s' "$work/a/log.jsonl" && ok || fail "the log does not say how long training waited"
grep -q "a copy to save from [0-9.]* MB" "$work/a/log.jsonl" && ok || fail "the copy is not counted"
grep -q "a copy to save from" "$work/l/log.jsonl" && fail "a copy is counted that is not made" || ok
for part in "data wait" "image tower forward" "text tower forward" "features exchange" "loss" "backward" \
    "gradient reduction, waited for" "optimizer" "checkpoint wait" "validation" "other"; do
    grep -Eq "profile: $part +[0-9.]+ +[0-9.]+ +[0-9.]+ %" "$work/l/log.jsonl" && ok || fail "--profile has no '$part'"
    grep -q "<dt>$part</dt>" "$work/l/report.html" && ok || fail "the report has no '$part'"
done
# One rank reduces nothing; every other part took time.
for part in image text loss backward optimizer save validation; do
    grep '"event":"profile"' "$work/l/log.jsonl" | grep -Eq "\"$part\":([1-9]|0\.0*[1-9]|[0-9.]+e-0[1-5])" && ok || fail "--profile: $part took no time"
done
grep -q '"reduction_hidden":null' "$work/l/log.jsonl" && ok || fail "one rank hides a reduction"
grep -q profile: "$work/a/log.jsonl" && fail "a profile without --profile" || ok

# No memory for the copy (an address space that just holds the run without one): training waits, and says so.
cat >"$work/wide.yaml" <<'YAML'
name: wide
embed_dim: 64
context_length: 16
image:
  resolution: 32
  patch: 16
  width: 512
  layers: 3
  heads: 8
text:
  vocabulary: 0
  positions: 32
  types: 2
  hidden: 64
  layers: 1
  heads: 2
  intermediate: 128
YAML
wide() { # FOLDER OPTIONS...
    local folder=$1
    shift
    export MALLOC_ARENA_MAX=1
    exec "$tuwen" train --model "$work/wide.yaml" --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --output "$folder" \
        --batch 4 --max_steps 3 --warmup 1 --save_interval 1 --keep 1 --threads 1 --report false "$@"
}
wide "$work/w" --background_save false >"$work/out" 2>"$work/err" &
pid=$!
peak=0
while now=$(sed -n 's/^VmPeak:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$pid/status 2>/dev/null) && [ -n "$now" ]; do peak=$now; sleep 0.01; done
wait $pid && ok || fail "a wider model"
copy=$("$tuwen" info "$work/w/latest" 2>/dev/null | sed -n 's/.*checkpoint_copy_mb: \([0-9]*\).*/\1/p')
# A sanitizer that finds no memory ends the program, or waits for itself for ever: its own builds are not asked.
if grep -q '^TW_\(SANITIZE\|TSAN\):BOOL=ON' "$build/CMakeCache.txt"; then
    echo "SKIP no memory for a copy: a sanitizer does not let an allocation fail"
elif [ "${copy:-0}" -le 90 ]; then fail "a copy of $copy MB"
else
    holds "no memory for a copy" bash -c "ulimit -v $((peak + copy * 500)); $(declare -f wide); tuwen=$tuwen data=$data work=$work; wide $work/wi"
    grep -q "no room for a copy of weights and moments to save from" "$work/wi/log.jsonl" && ok || fail "the log does not say that training waits"
    same "without memory for a copy" "$work/w/latest" "$work/wi/latest"
    holds "memory for a copy" bash -c "$(declare -f wide); tuwen=$tuwen data=$data work=$work; wide $work/wb"
    grep -q "no room" "$work/wb/log.jsonl" && fail "training waits though there is memory" || ok
    same "with memory for a copy" "$work/w/latest" "$work/wb/latest"
fi

holds "augmented" train "$work/e" --use_augment --use_augment true
holds "augmented again" train "$work/f" --use_augment --num_workers 4
same "augmentation does not depend on threads" "$work/e/latest" "$work/f/latest"
if [ "$($hash "$work/a/latest")" = "$($hash "$work/e/latest")" ]; then fail "augmentation changes nothing"; else ok; fi

# Filled up, an epoch of 96 pairs has 120 samples in batches of 40; a run that began with 20 may stop at the hundredth.
holds "pad, one batch of 20" train "$work/pad" --last_batch pad --max_steps 1
holds "pad, then two of 40" train "$work/pad" --last_batch pad --batch 40 --max_steps 3 --resume latest
holds "pad, and the rest" train "$work/pad" --last_batch pad --batch 40 --max_steps 4 --resume latest

# Patch masks are draws like any other: in micro-batches, stopped and resumed they are the same.
holds "masked" train "$work/m" --mask_ratio 0.5 --micro_batch 10
grep -q "2 of 4 patches" "$work/out" && ok || fail "the log does not say how many patches are kept"
if [ "$($hash "$work/a/latest")" = "$($hash "$work/m/latest")" ]; then fail "masking changes nothing"; else ok; fi
stopped "$work/mstop" 6 --mask_ratio 0.5 --micro_batch 10
holds "resume masked" train "$work/mstop" --mask_ratio 0.5 --micro_batch 10 --resume auto
same "masked, stopped and resumed" "$work/m/latest" "$work/mstop/latest"

# A folder is one run's at a time, however the second one was meant.
run "$work/busy" --max_steps 100000 >"$work/busy.out" 2>&1 &
pid=$!
until grep -qs '"step":2,' "$work/busy/log.jsonl" || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
refuses "a folder in use" 1 "log.jsonl is in use: another run writes to this folder" train "$work/busy" --resume auto
touch "$work/busy/stop"
wait_for $pid 60
code=$?
[ $code = 0 ] && ok || fail "a second run in its folder: exit code $code"
step=$(readlink "$work/busy/latest" | sed 's/.*_step_\([0-9]*\)\.h5/\1/')
holds "a folder that is free again" train "$work/busy" --max_steps $((step + 1)) --resume latest
steps=$(grep -o '"event":"step","step":[0-9]*' "$work/busy/log.jsonl" | sort | uniq -d)
[ -z "$steps" ] && ok || fail "steps are logged twice: $steps"

# Killed at random instants of the time that a run takes, checkpoint writing included; resumed each time.
kills=0 saved=0 began=$SECONDS # saved: kills that left a checkpoint
rm -rf "$work/k"
for round in $(seq 1 200); do
    run "$work/k" --save_interval 1 --val_interval 3 --resume auto >"$work/out" 2>"$work/err" &
    pid=$!
    ms=$((span * ((round * 7919) % 900 + 100) / 1000))
    sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
    if kill -KILL $pid 2>/dev/null; then
        wait $pid 2>/dev/null
        kills=$((kills + 1))
        if [ -e "$work/k/latest" ]; then saved=$((saved + 1)); else span=$((span * 5 / 4 + 1)); fi # a machine that got slower
        [ $saved -ge 5 ] && [ $kills -ge $((SECONDS - began < 12 ? 25 : 10)) ] && break
    else
        wait $pid || { fail "resume in round $round"; break; }
        span=$((span * 7 / 8 + 1))
        rm -rf "$work/k"
    fi
done
[ $saved -ge 5 ] && [ $kills -ge 10 ] && ok || fail "only $kills kills, of them $saved behind a checkpoint"
holds "resume after $kills kills" train "$work/k" --save_interval 1 --val_interval 3 --resume auto
same "killed $kills times and resumed" "$work/a/latest" "$work/k/latest"
if ls -A "$work/k" | grep -q tmp; then fail "temporaries are left behind: $(ls -A "$work/k")"; else ok; fi

# Killed between its last links: nothing is left to save, but the folder is put right.
ln -s nowhere "$work/k/.best.$(hostname | tr ./ --).$pid.tw-tmp"
holds "resume a run that was over" train "$work/k" --save_interval 1 --val_interval 3 --resume auto
if ls -A "$work/k" | grep -q tmp; then fail "a link's temporary is left behind: $(ls -A "$work/k")"; else ok; fi

# Signals save the last completed step and tell by their exit code.
for signal in INT:130 TERM:143 USR1:0; do
    name=${signal%:*}
    run "$work/s$name" --max_steps 100000 --val_at_start false --val_interval 100000 >"$work/out" 2>"$work/err" &
    pid=$!
    until grep -qs "Global Steps: 2/" "$work/out" || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -"$name" $pid
    wait $pid
    code=$?
    [ $code -eq "${signal#*:}" ] && ok || fail "SIG$name: exit code $code, expected ${signal#*:}"
    holds "SIG$name saved a checkpoint" "$hash" "$work/s$name/latest"
done

# So does a terminal that is closed, which nothing can be written to any more.
if SHELL=/bin/sh script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    SHELL=/bin/sh env --default-signal=HUP setsid script -qc "exec $tuwen train --model micro --train_data $data/lmdb/train --vocab $data/vocab.txt --output $work/hup \
        --batch 20 --max_steps 100000 --log_interval 1 --threads 2" "$work/typescript" >/dev/null 2>&1 &
    pid=$!
    until grep -qs '"step":2,' "$work/hup/log.jsonl" || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -KILL $pid
    for _ in $(seq 1200); do [ -e "$work/hup/latest" ] && break; sleep 0.1; done
    holds "a closed terminal: saved" "$hash" "$work/hup/latest"
    grep -q "asked to stop by SIGHUP" "$work/hup/log.jsonl" && ok || fail "a closed terminal is not said"
    wait $pid 2>/dev/null
    pkill -KILL -f "^$tuwen train .*--output $work/hup " # if it has not ended
else
    echo "SKIP a closed terminal: it needs script (bsdutils), with a terminal to give"
fi

# A ResNet: its running averages are saved; validation in between and a stop leave no trace in them.
resnet=(--model tiny-rn --resolution 32 --micro_batch 10 --recompute block --max_steps 6)
holds "train a ResNet" train "$work/rn" "${resnet[@]}" --val_interval 100
stopped "$work/rnstop" 2 "${resnet[@]}" --val_interval 1
holds "resume a ResNet" train "$work/rnstop" "${resnet[@]}" --val_interval 1 --resume auto
same "a ResNet stopped, validated and resumed" "$work/rn/latest" "$work/rnstop/latest"
refuses "masked ResNet" 2 "mask_ratio 0.5: only a vision transformer's patches" train "$work/rnmask" "${resnet[@]}" --mask_ratio 0.5
holds "frozen statistics" train "$work/rnfrozen" "${resnet[@]}" --batch_norm frozen --init "$work/rn/latest"
"$tuwen" info "$work/rn/latest" >"$work/out" 2>&1
grep -q "running_statistics: [1-9]" "$work/out" && ok || fail "info does not count running statistics"

# Gone on with in another way. Epochs are passes over the data, whatever batch the ones before had: 96 pairs are 3 steps of 40.
goes_on() { # NAME FOLDER OPTIONS...: a copy of $work/ep, two epochs of batch 40, goes on
    local name=$1 folder=$2
    shift 2
    cp -r "$work/ep" "$folder" && cp "$work/ep.samples" "$folder.samples"
    holds "$name" train "$folder" --max_steps 0 --epochs 3 --save_interval 0 --sample_log "$folder.samples" --resume latest "$@"
}
epochs() { # NAME FOLDER STEPS: so many steps in all, and three times each pair
    [ "$(wc -l <"$2.samples")" = "$3" ] && tr ' ' '\n' <"$2.samples" | sort -n | uniq -c | awk '$1 != 3 { bad = 1 } END { exit bad || NR != 96 }' && ok ||
        fail "$1: $(wc -l <"$2.samples") steps"
}
holds "two epochs" train "$work/ep" --max_steps 0 --epochs 2 --batch 40 --save_interval 0 --sample_log "$work/ep.samples"
goes_on "another epoch" "$work/ep3" --batch 40
epochs "another epoch" "$work/ep3" 9
goes_on "another epoch in larger batches" "$work/eplarge" --batch 96
epochs "another epoch in larger batches" "$work/eplarge" 7
goes_on "another epoch in smaller batches" "$work/epsmall" --batch 7
epochs "another epoch in smaller batches" "$work/epsmall" 20
goes_on "no epoch more" "$work/epnone" --batch 40 --epochs 2
grep -q "nothing is left to train: 2 epochs are done, and epochs is 2" "$work/out" && ok || fail "a run that is over says nothing"
goes_on "no step more" "$work/epless" --batch 40 --max_steps 4
grep -q "nothing is left to train: step 6 is done, and max_steps is 4" "$work/out" && ok || fail "a run beyond max_steps says nothing"
holds "the middle of an epoch" train "$work/half" --max_steps 2 --batch 40
holds "an epoch whose rest is dropped" train "$work/half" --max_steps 3 --batch 60 --last_batch drop --sample_log "$work/half.samples" --resume latest
[ "$(wc -w <"$work/half.samples")" = 60 ] && ok || fail "the rest of an epoch is not dropped: $(wc -w <"$work/half.samples") samples"
holds "fewer shapes" "$tuwen" shapes "$work/fewer" --train 60 --valid 4 --size 32
holds "prepare fewer" "$tuwen" prepare --data_dir "$work/fewer" --splits train
refuses "a smaller data set" 2 "is 80 pairs into an epoch, but $work/fewer/lmdb/train has only 60" train "$work/fewer1" \
    --resume "$(echo "$work/half"/epoch_*_step_2.h5)" --train_data "$work/fewer/lmdb/train"
# Other data under the same name, and the same ones under another.
step2=$(echo "$work/half"/epoch_*_step_2.h5)
says_other_data() { grep -q "holds other data than the resumed run was trained on (96 pairs, .*, was 96 pairs, " "$work/$1/log.jsonl"; }
mkdir -p "$work/moved/lmdb"
for shapes in "$data" "--seed 7"; do
    rm -rf "$work/moved/lmdb"
    if [ "$shapes" = "$data" ]; then holds "data are copied" cp -r "$data/lmdb" "$work/moved/lmdb"
    else # shellcheck disable=SC2086 # two words
        holds "other shapes" "$tuwen" shapes "$work/moved" --train 96 --valid 4 --size 32 $shapes --force
        holds "prepare others" "$tuwen" prepare --data_dir "$work/moved" --splits train --force
    fi
    holds "go on in $shapes" train "$work/data${#shapes}" --batch 40 --max_steps 3 --resume "$step2" --train_data "$work/moved/lmdb/train"
done
says_other_data "data${#data}" && fail "the same data are called others" || ok
says_other_data data8 && ok || fail "other data of the same size are not noticed"
refuses "another model to go on with" 2 "it is another architecture" train "$work/a" --resume latest --model tiny
refuses "another resolution to go on with" 2 "resolution is 64, and the run to go on with has 32" train "$work/a" --resume latest --resolution 64
cp configs/models/micro.yaml "$work/gone.yaml"
holds "a model's file" train "$work/gone" --model "$work/gone.yaml" --max_steps 2
rm "$work/gone.yaml"
holds "a model's file that is gone" train "$work/gone" --model "$work/gone.yaml" --max_steps 3 --resume latest

# Starting points.
holds "--init" train "$work/i" --init "$work/a/latest" --max_steps 2
holds "--freeze" train "$work/z" --freeze 'visual.*' --max_steps 3
refuses "a second run in the same folder" 2 "holds a run already" train "$work/a"
refuses "freeze nothing" 2 "no parameter matches 'visul.*'" train "$work/y" --freeze 'visul.*'
refuses "freeze everything" 2 "nothing is left to train" train "$work/y1" --freeze '*'
"$build/tests/tool_checkpoint_poison" "$work/a/latest" "$work/less.h5" --drop visual.proj
refuses "a checkpoint that lacks a tensor" 1 "tensors 1 missing (visual.proj)" train "$work/o" --init "$work/less.h5"

# Bad input.
refuses "no training data" 2 "train_data is not set" "$tuwen" train --model micro --output "$work/x"
refuses "missing split" 1 "nowhere" "$tuwen" train --model micro --output "$work/x1" --train_data "$work/nowhere" --vocab "$data/vocab.txt"
refuses "batch larger than the data set" 2 "has only 96 pairs" train "$work/x2" --batch 97
refuses "unknown key" 2 "did you mean" train "$work/x3" --batchsize 3
refuses "out of range" 2 "--lr" train "$work/x4" --lr -1
refuses "nothing left of an image" 2 "mask_ratio 0.9 leaves nothing of an image's 4 patches" train "$work/x9" --mask_ratio 0.9
refuses "unknown model" 2 "no such file, and no nomodel.yaml" train "$work/x5" --model nomodel
refuses "no vocabulary" 1 "no vocabulary" "$tuwen" train --model micro --train_data "$data/lmdb/train" --output "$work/x6" --batch 20
refuses "cuda in a build without it" 1 "no CUDA" train "$work/x7" --device cuda
truncate -s -100 "$work/b/epoch_2_step_14.h5"
refuses "truncated checkpoint" 1 "truncated" train "$work/x8" --init "$work/b/epoch_2_step_14.h5"
refuses "unwritable folder" 1 "/proc/" train /proc/tuwen
holds "resume falls back to the newest whole checkpoint" train "$work/b" --resume latest
same "resumed from an older checkpoint" "$work/a/latest" "$work/b/latest"

# A gradient that is not finite: skipped, named, and the end after max_skipped in a row.
"$build/tests/tool_checkpoint_poison" "$work/a/latest" "$work/nan.h5" bert.embeddings.LayerNorm.weight
refuses "not finite" 1 "steps in a row had a gradient that is not finite" train "$work/n" --init "$work/nan.h5" --max_skipped 3 --val_at_start false
grep -q "step 1 skipped: the gradient of" "$work/out" && ok || fail "a skipped step names no tensor"

# No image can be read: that is no training. (The drawn ones are JPEG.)
damaged=$work/damaged/train
mkdir "$work/damaged" && cp -r "$data/lmdb/train" "$damaged"
LC_ALL=C sed -i 's/\xff\xd8\xff/AAA/g' "$damaged/imgs/data.mdb"
refuses "no image can be read" 1 "$damaged: not one pair of 4 steps in a row could be used, up to step 4" train "$work/unread" --train_data "$damaged" --max_skipped 4

# A full disk: clear error, the previous checkpoint intact.
if [ "$(id -u)" = 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=1200k tmpfs "$work/small" 2>/dev/null; then
    train "$work/small/run" --save_interval 1 --keep 100 --report false >"$work/out" 2>"$work/err"
    code=$?
    [ $code -eq 1 ] && grep -qi "no space" "$work/err" && ok || fail "disk full: exit code $code"
    holds "the previous checkpoint is intact" "$hash" "$work/small/run/latest"
    umount "$work/small"
else
    echo "SKIP disk full: needs root and tmpfs"
fi

finish
