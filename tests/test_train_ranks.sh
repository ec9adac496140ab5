#!/usr/bin/env bash
# `tuwen train`, `extract` and `evaluate` on several ranks against one, on a generated data set: the same samples, losses,
# checkpoints and files, stopped and resumed on other numbers of ranks. Argument: the build folder.
set -u
. tests/shell.sh "$1"
hash=$build/tests/tool_checkpoint_hash
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP ranks: this build has no MPI, or mpirun is not installed"
    exit 0
fi

on() { # RANKS COMMAND...: on so many ranks of this machine
    local ranks=$1
    shift
    timeout 600 bash tests/mpirun.sh "$ranks" "$@"
}
same() { # NAME A B: checkpoints are the same to the bit
    local a b
    a=$($hash "$2" 2>&1) && b=$($hash "$3" 2>&1) && [ "$a" = "$b" ] && { ok; return; }
    fail "$1: '$a' is not '$b'"
}
equal() { # NAME A B: files are
    if cmp "$2" "$3" >"$work/out" 2>"$work/err"; then ok; else fail "$1"; fi
}
losses() { # FILE: step and loss of a run's log.jsonl
    sed -n 's/.*"event":"step","step":\([0-9]*\),.*"loss":\([0-9.e+-]*\),.*/\1 \2/p' "$1"
}
near() { # NAME LOG LOG STEPS: the losses of the same steps agree within 1e-4, and there are so many
    losses "$2" >"$work/left"
    losses "$3" >"$work/right"
    if join --nocheck-order "$work/left" "$work/right" |
        awk -v n="$4" '{ d = $2 - $3; if (d < 0) d = -d; if (d > 1e-4 * $2) bad = 1 } END { exit bad || NR != n }'; then ok
    else
        paste "$work/left" "$work/right" >"$work/out"
        fail "$1"
    fi
}

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 92 --valid 23 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train,valid
common=(--model micro --train_data "$data/lmdb/train" --val_data "$data/lmdb/valid" --vocab "$data/vocab.txt" --batch 22
    --max_steps 10 --warmup 3 --lr 1e-3 --save_interval 5 --val_interval 5 --val_batch 4 --log_interval 1 --threads 1
    --num_workers 1 --use_augment --text_dropout 0.1 --attention_dropout 0.1)
train() { # RANKS FOLDER OPTIONS...
    local ranks=$1 folder=$2
    shift 2
    on "$ranks" "$tuwen" train "${common[@]}" --output "$folder" --sample_log "$folder.samples" "$@"
}

# One rank, and more: the epoch's last batch has 4 samples, so that parts are uneven.
holds "one process" "$tuwen" train "${common[@]}" --output "$work/one" --sample_log "$work/one.samples"
grep "Validation at step 0" "$work/out" | sed 's/.*text-to-image/text-to-image/; s/ | [0-9.]* s$//' >"$work/scores"
[ -s "$work/scores" ] && ok || fail "no validation before the first step"
for n in 1 2 3 4 7; do
    holds "$n ranks" train $n "$work/n$n"
    grep "Validation at step 0" "$work/out" | sed 's/.*text-to-image/text-to-image/; s/ | [0-9.]* s$//' >"$work/scores$n"
    equal "$n ranks see the same samples" "$work/one.samples" "$work/n$n.samples"
    equal "$n ranks give the same scores" "$work/scores" "$work/scores$n"
    near "$n ranks have the same losses" "$work/one/log.jsonl" "$work/n$n/log.jsonl" 10
    [ "$(grep -c "saved step 10" "$work/n$n/log.jsonl")" = 1 ] && ok || fail "$n ranks: step 10 is not saved once"
    if [ $n -gt 1 ]; then
        grep -q "$n ranks start from the same weights" "$work/n$n/log.jsonl" && ok || fail "$n ranks: the start is not compared"
    fi
done
same "one rank under mpirun is one process" "$work/one/latest" "$work/n1/latest"
if "$tuwen" info "$work/n4/latest" >/dev/null 2>&1; then ok; else fail "a checkpoint of 4 ranks is not whole"; fi

# Optimizer state in shares or not: the same bits, less memory.
for n in 2 4; do
    holds "$n ranks, unsharded" train $n "$work/u$n" --shard_optimizer false --bucket_mb 1
    same "$n ranks, sharded and unsharded" "$work/n$n/latest" "$work/u$n/latest"
done
holds "bf16, sharded" train 3 "$work/b" --precision bf16 --micro_batch 3
holds "bf16, unsharded" train 3 "$work/bu" --precision bf16 --micro_batch 3 --shard_optimizer false
same "bf16, sharded and unsharded" "$work/b/latest" "$work/bu/latest"
held() { sed -n "s/.*$2 \([0-9.]*\) MB.*/\1/p" "$1/log.jsonl" | head -n 1; } # FOLDER WHAT: MB, as the log says
# A quarter, up to a unit of the only bucket (1024 elements of 8 bytes); the log rounds to 0.1 MB, of which micro has too few.
holds "a larger model" train 4 "$work/q4" --model tiny-rn --max_steps 1 --val_at_start false
holds "a larger model, unsharded" train 4 "$work/qu4" --model tiny-rn --max_steps 1 --val_at_start false --shard_optimizer false
awk -v all="$(held "$work/qu4" moments)" -v share="$(held "$work/q4" moments)" -v of="$(held "$work/q4" "share of")" \
    'BEGIN { d = share - all / 4; exit !(all > 10 && of == all && d * d <= (0.05 + 0.05 / 4 + 0.008192) ^ 2) }' && ok ||
    fail "4 ranks keep $(held "$work/q4" moments) MB of $(held "$work/qu4" moments) MB of moments"

# In bf16 the masters are in shares too: 4 bytes of a weight less, but for a rank's share of them.
half() { # RANKS FOLDER OPTIONS...
    local ranks=$1 folder=$2
    shift 2
    train "$ranks" "$folder" --precision bf16 --bucket_mb 1 --keep 9 "$@"
}
holds "bf16, 4 ranks, sharded" half 4 "$work/h4"
holds "bf16, 4 ranks, unsharded" half 4 "$work/hu4" --shard_optimizer false
same "bf16, 4 ranks, sharded and unsharded" "$work/h4/latest" "$work/hu4/latest"
holds "bf16, saved in line" half 4 "$work/hl" --background_save false
same "bf16, saved in line" "$work/h4/latest" "$work/hl/latest"
for n in 4 2 3 1; do # from a sharded checkpoint and from a whole one, to shares and to whole masters
    for how in true false; do
        run=$work/hr$n$how
        cp "$work/h4.samples" "$run.samples"
        from=$([ $how = true ] && echo "$work/hu4" || echo "$work/h4")
        holds "bf16, 4 ranks resumed on $n, shard_optimizer $how" half $n "$run" --resume "$(echo "$from"/epoch_*_step_5.h5)" \
            --shard_optimizer $how
        equal "bf16, 4 ranks resumed on $n, shard_optimizer $how: the samples" "$work/one.samples" "$run.samples"
    done
    same "bf16, 4 ranks resumed on $n, sharded and unsharded" "$work/hr${n}true/latest" "$work/hr${n}false/latest"
done
same "bf16, resumed on 4 ranks" "$work/h4/latest" "$work/hr4true/latest"
freeze=(--freeze "visual.*,bert.embeddings.*")
holds "bf16, frozen, sharded" half 3 "$work/hf" "${freeze[@]}"
holds "bf16, frozen, unsharded" half 3 "$work/hfu" "${freeze[@]}" --shard_optimizer false
same "bf16, frozen, sharded and unsharded" "$work/hf/latest" "$work/hfu/latest"
resnet=(--model tiny-rn --max_steps 3 --save_interval 3 --val_interval 3 --val_at_start false)
holds "bf16, ResNet, sharded" half 3 "$work/hn" "${resnet[@]}"
holds "bf16, ResNet, unsharded" half 3 "$work/hnu" "${resnet[@]}" --shard_optimizer false
same "bf16, ResNet, sharded and unsharded" "$work/hn/latest" "$work/hnu/latest"
awk -v whole="$(held "$work/hnu" gradients)" -v share="$(held "$work/hn" gradients)" -v moments="$(held "$work/hnu" moments)" \
    'BEGIN { d = whole - share - moments / 2 * 2 / 3; exit !(share > 1 && moments > 1 && d < 0.2 && d > -0.2) }' && ok ||
    fail "3 ranks keep $(held "$work/hn" gradients) MB of $(held "$work/hnu" gradients) MB of weights and gradients"

# Where the time goes, with several ranks: the share of the reduction that backward hid.
holds "profile" train 3 "$work/p" --profile --micro_batch 4
holds "without" train 3 "$work/pu" --micro_batch 4
same "the profile changes nothing" "$work/p/latest" "$work/pu/latest"
grep -Eq "gradient reduction on rank 0: [0-9.]+ ms a step from posting to completion [(]late ranks included[)], [0-9.]+ ms of it waited for, [0-9.]+ % hidden" "$work/p/log.jsonl" && ok || fail "the hidden share is not said"
if ! command -v python3 >/dev/null; then echo "SKIP the parts of --profile: no python3"; else python3 - "$work/p/log.jsonl" >"$work/out" 2>&1 <<'PY' && ok || fail "the parts of --profile do not add up"
import json, sys
p = [r for r in map(json.loads, open(sys.argv[1])) if r["event"] == "profile"]
assert len(p) == 1 and p[0]["steps"] == 10, p
parts = ["data", "batch", "image", "text", "exchange", "loss", "backward", "reduction", "optimizer", "save", "validation", "other"]
for i, r in enumerate(p[0]["ranks"]):
    assert (r["rank"] == 0) == (i == 0) and 0 <= r["rank"] < 3, r
    assert all(r[k] >= 0 for k in parts), r
    assert r["image"] > 0 and r["text"] > 0 and r["backward"] > 0 and r["exchange"] > 0 and r["reduction_under_way"] > 0, r
    assert 0 <= r["reduction_hidden"] <= 1, r
    assert abs(r["reduction_hidden"] - max(0, 1 - r["reduction"] / r["reduction_under_way"])) < 1e-9, r
assert abs(sum(p[0]["ranks"][0][k] for k in parts) - p[0]["seconds"]) < 1e-6 * p[0]["seconds"], p
PY
fi

# The micro-batch that fits: found from the plan, in equal parts, with the same result.
holds "micro_batch auto" train 1 "$work/m" --micro_batch auto --memory_mb 1 \
    --last_block_token false --pack_text false
grep -Eq "micro_batch auto: ([2-9]|11) of a rank's 22 pairs at a time" "$work/m/log.jsonl" && ok || fail "auto: $(grep -h "micro_batch auto" "$work/m/log.jsonl")"
near "micro_batch auto has the same losses" "$work/one/log.jsonl" "$work/m/log.jsonl" 10
# On several ranks, each of which has 22 pairs again.
wide=(--batch 66 --last_block_token false --pack_text false)
holds "a wide batch" train 1 "$work/m1" "${wide[@]}"
holds "micro_batch auto on 3 ranks" train 3 "$work/m3" "${wide[@]}" --micro_batch auto --memory_mb 1
auto=$(sed -n "s/.*micro_batch auto: \([2-9]\|11\) of a rank's 22 pairs at a time; .*/\1/p" "$work/m3/log.jsonl")
[ -n "$auto" ] && ok || fail "auto on 3 ranks: $(grep -h "micro_batch auto" "$work/m3/log.jsonl")"
near "micro_batch auto on 3 ranks has the same losses" "$work/m1/log.jsonl" "$work/m3/log.jsonl" 10
# A run that goes on keeps it wherever it fits, though more would; where it does not, or with other settings, the log says so.
warnings() { grep -Eho "resumed with [^:]*|the configuration differs from the resumed run's: [^\"]*" "$1/log.jsonl"; }
again() { # NAME FROM FOLDER OPTIONS...: on 3 ranks from FROM's step 5
    local name=$1 from=$2 folder=$3
    shift 3
    cp "$work/m1.samples" "$folder.samples"
    holds "$name" train 3 "$folder" "${wide[@]}" --resume "$(echo "$from"/epoch_*_step_5.h5)" "$@"
    equal "$name: the samples" "$work/m1.samples" "$folder.samples"
    near "$name: the losses" "$work/m1/log.jsonl" "$folder/log.jsonl" 5
}
again "auto with more memory" "$work/m3" "$work/m3more" --micro_batch auto --memory_mb 1000
same "auto resumed with more memory" "$work/m3/latest" "$work/m3more/latest"
grep -q "micro_batch auto: $auto of a rank's 22 pairs at a time, as before" "$work/m3more/log.jsonl" && ok || fail "auto resumed is not as before"
[ -z "$(warnings "$work/m3more")" ] && ok || fail "auto resumed with more memory: $(warnings "$work/m3more")"
again "auto as a number" "$work/m3" "$work/m3same" --micro_batch "${auto:-1}"
same "auto resumed as a number" "$work/m3/latest" "$work/m3same/latest"
[ -z "$(warnings "$work/m3same")" ] && ok || fail "auto resumed as a number: $(warnings "$work/m3same")"
again "another micro_batch and bucket_mb" "$work/m3" "$work/m3other" --micro_batch 22 --bucket_mb 1 --keep 9 --save_interval 1
warnings "$work/m3other" >"$work/said"
[ "$(wc -l <"$work/said")" = 3 ] && grep -q ": bucket_mb was 16, is 1$" "$work/said" && grep -q ": save_interval was 5, is 1$" "$work/said" &&
    grep -q "with 3 ranks, 1 threads, a micro-batch of 22, saved with 3 ranks, 1 threads, a micro-batch of $auto$" "$work/said" && ok ||
    fail "another micro_batch and bucket_mb: $(cat "$work/said")"
holds "auto that does not fit" train 3 "$work/m3less" "${wide[@]}" --resume "$(echo "$work/m3other"/epoch_*_step_7.h5)" --micro_batch auto --memory_mb 1
grep -q "resumed with 3 ranks, 1 threads, a micro-batch of $auto, saved with 3 ranks, 1 threads, a micro-batch of 22:" "$work/m3less/log.jsonl" && ok ||
    fail "auto that does not fit: $(warnings "$work/m3less")"
refuses "memory for no pair" 1 "not even one pair" "$tuwen" train "${common[@]}" --output "$work/m0" --micro_batch auto --memory_mb 1 \
    --resolution 256

# Stopped on 4 ranks at some step, by a file and by a signal; resumed on others: the same samples, none lost, none twice.
stop_run() { # FOLDER file|USR1|TERM: starts a run on 4 ranks, stops it at some step and returns its exit code
    local pid code try
    local start=(bash tests/mpirun.sh 4 "$tuwen" train) # becomes mpirun: its number is the one to signal
    if [ "$2" = TERM ]; then start=(env TUWEN="$tuwen" ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" scripts/launch/one_host.sh -n 4 --); fi
    steps=$((RANDOM % 5 + 2)) # global: failures name it
    # A quick machine may end the run before the request reaches it: then it is asked sooner, and from the start.
    for try in 1 2 3 4 5 6 7 8; do
        rm -rf "$1" "$1.samples" "$1.stop"
        "${start[@]}" "${common[@]}" --output "$1" --sample_log "$1.samples" --stop_file "$1.stop" >"$work/out" 2>"$work/err" &
        pid=$!
        until grep -qs "\"step\":$steps," "$1/log.jsonl" || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
        if [ "$2" = file ]; then touch "$1.stop"; else kill "-$2" $pid; fi
        wait $pid
        code=$?
        # (A signal that comes when the run is over may still end mpirun itself.)
        grep -q '"event":"end"' "$1/log.jsonl" && ! grep -q "stopped by" "$work/err" || break
        steps=1
    done
    return $code
}
stopped() { # NAME [CODE]: the run of stop_run ended well, and said so once
    local code=$?
    [ $code -eq "${2:-0}" ] && [ "$(grep -c "stopped by" "$work/err")" = 1 ] && ok || fail "$1 at step $steps: exit code $code"
}
stop_run "$work/g" USR1
stopped "USR1 to mpirun"
holds "resume after USR1 at step $steps" train 4 "$work/g" --resume latest
equal "4 ranks stopped by USR1 at step $steps: the samples" "$work/one.samples" "$work/g.samples"
same "4 ranks stopped by USR1 at step $steps and resumed" "$work/n4/latest" "$work/g/latest"
# mpirun kills its ranks on SIGTERM and SIGINT; the launch scripts give them the time to save.
stop_run "$work/t" TERM
stopped "SIGTERM to one_host.sh" 143
holds "resume after SIGTERM at step $steps" train 4 "$work/t" --resume latest
same "4 ranks stopped by SIGTERM at step $steps and resumed" "$work/n4/latest" "$work/t/latest"
stop_run "$work/s" file
stopped "the stop file"
for n in 2 3 1 4; do
    cp -r "$work/s" "$work/r$n"
    cp "$work/s.samples" "$work/r$n.samples"
    holds "resume on $n ranks at step $steps" train $n "$work/r$n" --resume latest
    equal "4 ranks resumed on $n at step $steps: the samples" "$work/one.samples" "$work/r$n.samples"
    near "4 ranks resumed on $n at step $steps: the losses" "$work/one/log.jsonl" "$work/r$n/log.jsonl" 10
done
same "stopped at step $steps and resumed on 4 ranks" "$work/n4/latest" "$work/r4/latest"

# Stopped while they validate, and within a step of many micro-batches: all ranks end together, and nothing is lost.
stop_within() { # FOLDER STEP WHAT OPTIONS...: on 3 ranks, behind that step, while they do WHAT as the log says
    local folder=$1 step=$2 what=$3 pid try ms=0 # ms: asked so much later, where it was too early before
    shift 3
    for try in $(seq 25); do
        rm -rf "$folder" "$folder.samples" "$folder.stop"
        bash tests/mpirun.sh 3 "$tuwen" train "${common[@]}" --output "$folder" --sample_log "$folder.samples" --stop_file "$folder.stop" \
            "$@" >"$work/out" 2>"$work/err" &
        pid=$!
        until grep -qs "\"step\":$step," "$folder/log.jsonl" || ! kill -0 $pid 2>/dev/null; do sleep 0.002; done
        sleep "$(printf 0.%03d $ms)"
        if [ $((try % 2)) = 1 ]; then touch "$folder.stop"; else kill -USR1 $pid; fi
        wait $pid
        grep -Eq "asked to stop by (the stop file|SIGUSR1) \($what\): saving step $step$" "$work/out" && [ "$(grep -c "stopped by" "$work/err")" = 1 ] && { ok; return; }
        if grep -q "asked to stop .*: saving step $step\$" "$work/out"; then ms=$((ms < 500 ? 2 * ms + 1 : ms)); else ms=$((ms / 2)); fi
    done
    fail "3 ranks were never stopped at step $step while $what"
}
slow=(--val_data "$data/lmdb/train" --val_batch 1 --val_at_start false)
stop_within "$work/v3" 5 "features of 92 items were being computed" "${slow[@]}"
holds "resume after a stop in a validation" train 3 "$work/v3" "${slow[@]}" --resume latest
same "3 ranks stopped in a validation and resumed" "$work/n3/latest" "$work/v3/latest"
equal "3 ranks stopped in a validation and resumed: the samples" "$work/one.samples" "$work/v3.samples"
[ "$(grep -o '"event":"validation","step":[0-9]*' "$work/v3/log.jsonl" | sed 's/.*://' | xargs)" = "5 10" ] && ok ||
    fail "the validations of resumed ranks: $(grep -o '"event":"validation","step":[0-9]*' "$work/v3/log.jsonl" | xargs)"
many=(--batch 92 --micro_batch 1 --max_steps 3 --val_at_start false --val_interval 100)
holds "many micro-batches" train 3 "$work/mb" "${many[@]}"
stop_within "$work/mbstop" 1 "step 2 was under way and is dropped" "${many[@]}"
holds "resume after a stop in a step" train 3 "$work/mbstop" "${many[@]}" --resume latest
same "3 ranks stopped in a step and resumed" "$work/mb/latest" "$work/mbstop/latest"
equal "3 ranks stopped in a step and resumed: the samples" "$work/mb.samples" "$work/mbstop.samples"

# What goes wrong on one rank ends all, and is said once.
one_differs() { # NAME CODE TEXT OPTIONS...: rank 1 gets other options
    local name=$1 code=$2 text=$3
    shift 3
    local command=("$tuwen" train "${common[@]}" --output "$work/x" "${from[@]}")
    refuses "$name" "$code" "$text" on 2 bash tests/rank_differs.sh ${#command[@]} "${command[@]}" "$@"
    [ "$(grep -c "tuwen train:" "$work/err")" = 1 ] && ok || fail "$name: not said once"
}
from=(--init "$(echo "$work/one"/epoch_*_step_5.h5)") # with equal weights nothing but the configuration and the data can differ
options="rank 1 differs from rank 0 in the configuration:"
one_differs "another seed on one rank" 2 "$options seed is 4, and on rank 0 123:" --seed 4
one_differs "another lr on one rank" 2 "$options lr is 0.002, and on rank 0 0.001:" --lr 2e-3
one_differs "another micro_batch on one rank" 2 "$options micro_batch is auto, and on rank 0 0:" --micro_batch auto
one_differs "another bucket_mb on one rank" 2 "$options bucket_mb is 1, and on rank 0 16:" --bucket_mb 1
one_differs "other frozen parameters on one rank" 2 "$options freeze is visual.*, and on rank 0 not set:" --freeze "visual.*"
one_differs "no validation on one rank" 1 "rank 1 differs from rank 0 in the validation data" --val_data ""
holds "other shapes" "$tuwen" shapes "$work/data2" --train 92 --valid 23 --size 32 --seed 9
holds "prepare others" "$tuwen" prepare --data_dir "$work/data2" --splits train,valid
one_differs "other training data on one rank" 1 "rank 1 differs from rank 0 in the training data" --train_data "$work/data2/lmdb/train"
one_differs "other validation data on one rank" 1 "rank 1 differs from rank 0 in the validation data" --val_data "$work/data2/lmdb/valid"
sed '$d' "$data/vocab.txt" >"$work/vocab2.txt"
echo 鲸 >>"$work/vocab2.txt"
one_differs "another vocabulary on one rank" 1 "rank 1 differs from rank 0 in the vocabulary" --vocab "$work/vocab2.txt"
one_differs "other weights on one rank" 1 "rank 1 differs from rank 0 in the weights" --init "$work/one/latest"
from+=(--precision bf16)
one_differs "other bf16 weights on one rank" 1 "rank 1 differs from rank 0 in the weights" --init "$work/one/latest"
from=()
# Hosts may have their files elsewhere, and other sizes.
cp -r "$data" "$work/data3"
own=("$tuwen" train "${common[@]}" --output "$work/own")
holds "places and sizes of a host's own" on 2 bash tests/rank_differs.sh ${#own[@]} "${own[@]}" --train_data "$work/data3/lmdb/train" \
    --val_data "$work/data3/lmdb/valid" --vocab "$work/data3/vocab.txt" --num_workers 2 --prefetch 3 --output "$work/own2" \
    --stop_file "$work/own.stop" --keep 1
same "places and sizes of a host's own" "$work/n2/latest" "$work/own/latest"
# The checkpoint that is resumed is the same file on all hosts, to the last byte: here one with the same weights and moments.
mkdir "$work/here" "$work/there"
cp "$work/one"/epoch_*_step_5.h5 "$work/here/c.h5"
cp "$work/n1"/epoch_*_step_5.h5 "$work/there/c.h5"
same "a run and its repetition" "$work/here/c.h5" "$work/there/c.h5"
# shellcheck disable=SC2016
refuses "another checkpoint on one host" 1 "rank 1 differs from rank 0 in the checkpoint to go on from" on 2 bash -c \
    'cd "$0/$([ "$OMPI_COMM_WORLD_RANK" = 1 ] && echo there || echo here)" && exec "$@"' "$work" "$(realpath "$tuwen")" train "${common[@]}" \
    --output "$work/x" --resume c.h5
one_differs "no data on one rank" 1 "nowhere" --train_data "$work/nowhere"
refuses "a second run in the same folder" 2 "holds a run already" train 2 "$work/n2"

# Features and scores.
model=$work/one/latest
for n in 1 2 3; do
    mkdir "$work/f$n"
    for format in h5 npy; do
        holds "extract on $n ranks" on $n "$tuwen" extract --checkpoint "$model" --data "$data/lmdb/train" --output "$work/f$n" \
            --batch 7 --threads 1 --format $format
    done
    holds "evaluate on $n ranks" on $n "$tuwen" evaluate --checkpoint "$model" --data "$data/lmdb/valid" --output "$work/f$n/scores" \
        --batch 7 --threads 1
done
[ "$(ls "$work/f1" | wc -l)" -ge 5 ] && ok || fail "files are missing: $(ls "$work/f1" | tr '\n' ' ')"
for n in 2 3; do
    for file in "$work"/f1/*; do equal "$n ranks write the same $(basename "$file")" "$file" "$work/f$n/$(basename "$file")"; done
done
# What is not needed is not opened: of a split whose pairs are damaged, the images; of one without images, the texts beside it.
mkdir -p "$work/parts/lmdb/train/pairs"
ln -s "$data/lmdb/train/imgs" "$work/parts/lmdb/train/imgs"
echo damaged >"$work/parts/lmdb/train/pairs/data.mdb"
cp "$data/train_texts.jsonl" "$work/parts/bare_texts.jsonl"
holds "the images alone" on 2 "$tuwen" extract --checkpoint "$model" --data "$work/parts/lmdb/train" --images_only \
    --output "$work/parts" --batch 7 --threads 1
equal "the images alone" "$work/f1/train_imgs.img_feat.h5" "$work/parts/train_imgs.img_feat.h5"
holds "the texts alone" on 2 "$tuwen" extract --checkpoint "$model" --data "$work/parts/lmdb/bare" --texts_only \
    --output "$work/parts" --name train --batch 7 --threads 1
equal "the texts alone" "$work/f1/train_texts.txt_feat.h5" "$work/parts/train_texts.txt_feat.h5"
finish
