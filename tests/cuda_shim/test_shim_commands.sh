#!/usr/bin/env bash
# Every command that computes, with --device cuda, on the shim's device (device_shim.c: late, memory out of the host's
# reach), against the same commands on the CPU. Argument: the build folder.
set -u
. tests/shell.sh "$1"
hash=$build/tests/tool_checkpoint_hash
shim=$build/tests/cuda_shim/tuwen_shim
export OMP_NUM_THREADS=1

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 40 --valid 12 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train,valid

# train PROGRAM FOLDER OPTIONS...
train() {
    local program=$1 folder=$2
    shift 2
    "$program" train --model micro --train_data "$data/lmdb/train" --val_data "$data/lmdb/valid" --vocab "$data/vocab.txt" \
        --output "$folder" --batch 10 --max_steps 6 --warmup 2 --lr 1e-3 --save_interval 3 --val_interval 6 --grad_clip 1 \
        --log_interval 2 --threads 1 --report false "$@"
}
same() { # NAME A B: checkpoints are the same to the bit
    local a b
    a=$($hash "$2" 2>&1) && b=$($hash "$3" 2>&1) && [ "$a" = "$b" ] && { ok; return; }
    fail "$1: '$a' is not '$b'"
}
# losses FOLDER: of the log, one a line
losses() { sed -n 's/.*"event":"step".*"loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl"; }
# near NAME TOLERANCE A B: two files of numbers, one a line
near() {
    if paste "$3" "$4" | awk -v t="$2" 'NF != 2 || ($1 - $2) ^ 2 > (t * $2) ^ 2 { bad = 1 } END { exit bad || NR == 0 }'; then ok; else
        fail "$1: $(tr '\n' ' ' <"$3") is not near $(tr '\n' ' ' <"$4")"
    fi
}

plain="--text_dropout 0 --attention_dropout 0"
holds "train on the CPU" train "$tuwen" "$work/cpu" $plain
losses "$work/cpu" >"$work/cpu.losses"
holds "train" train "$shim" "$work/gpu" --device cuda $plain
grep -q "f32 on cuda shim" "$work/out" && ok || fail "the log does not name the device"
grep -qi "captured" "$work/err" "$work/out" && fail "something was not captured" || ok
losses "$work/gpu" >"$work/gpu.losses"
near "losses as on the CPU" 1e-5 "$work/gpu.losses" "$work/cpu.losses"

# Dropout, micro-batches, bf16: with and without graphs the same bits; stopped and resumed too.
for options in "--micro_batch 4" "--precision bf16" "--precision bf16 --deterministic true" "--mask_ratio 0.5 --use_augment"; do
    holds "train $options" train "$shim" "$work/a" --device cuda $options
    holds "train $options without graphs" train "$shim" "$work/b" --device cuda $options --cuda_graphs false
    same "graphs change nothing with $options" "$work/a/latest" "$work/b/latest"
    # the device's own answer, so that the key has reached it
    wanted=0 && [ "${options#*deterministic}" = "$options" ] || wanted=1
    said=$(grep -c "deterministic: cuda shim gives the same bits" "$work/out")
    [ "$said" = $wanted ] && ok || fail "with $options the device said $said times that it is deterministic"
    rm -rf "$work/a" "$work/b"
done
holds "train in one go" train "$shim" "$work/c" --device cuda
holds "train to step 3" train "$shim" "$work/d" --device cuda
rm -f "$work"/d/*step_6.h5 "$work/d/latest"
holds "train from step 3" train "$shim" "$work/d" --device cuda --resume "$work/d/$(ls "$work/d" | grep step_3.h5)"
same "resumed" "$work/c/latest" "$work/d/latest"
# Stopped within a step, which is dropped, and done when the run goes on. On the device that runs at once: the late one's time
# passes where nobody asks.
parts=(--device cuda --micro_batch 2 --val_at_start false)
holds "train in parts" train "$shim" "$work/g" "${parts[@]}"
said="asked to stop by the stop file (step 3 was under way and is dropped): saving step 2$"
for _ in $(seq 25); do
    rm -rf "$work/e"
    TW_SHIM_LATE=0 train "$shim" "$work/e" "${parts[@]}" --log_interval 1 >"$work/out" 2>"$work/err" &
    until grep -qs '"step":2,' "$work/e/log.jsonl" || ! kill -0 $! 2>/dev/null; do sleep 0.002; done
    touch "$work/e/stop"
    wait $!
    grep -q "$said" "$work/out" && break
done
grep -q "$said" "$work/out" && ok || fail "never stopped within step 3"
holds "train from step 2" train "$shim" "$work/e" "${parts[@]}" --resume latest
same "stopped within a step and resumed" "$work/g/latest" "$work/e/latest"
holds "train a ResNet" "$shim" train --model tiny-rn --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" \
    --output "$work/rn" --batch 4 --max_steps 2 --warmup 1 --log_interval 1 --threads 1 --report false --device cuda

# The plan of memory asks the device for its graphs: attention's where texts are not packed, a ResNet's.
holds "micro_batch auto with graphs" train "$shim" "$work/auto" --device cuda --micro_batch auto --precision bf16 --pack_text false
grep -q "micro_batch auto: 10 of a rank's 10 pairs" "$work/out" && ok || fail "micro_batch auto did not choose the whole batch"
holds "micro_batch auto of a ResNet" "$shim" train --model tiny-rn --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" \
    --output "$work/rn_auto" --batch 4 --max_steps 2 --warmup 1 --threads 1 --report false --device cuda --micro_batch auto \
    --precision bf16

holds "statistics over the ranks of a single one" "$shim" train --model tiny-rn --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" \
    --output "$work/rn_sync" --batch 4 --max_steps 2 --warmup 1 --log_interval 1 --threads 1 --report false --device cuda --batch_norm sync
losses "$work/rn" >"$work/rn.losses"
losses "$work/rn_sync" >"$work/rn_sync.losses"
near "statistics over one rank are its own" 1e-6 "$work/rn_sync.losses" "$work/rn.losses"

# What the library refuses is said, once, and own kernels do it.
holds "train without graphs of the library" env TW_SHIM_REFUSES=1 "$shim" train --model tiny-rn --train_data "$data/lmdb/train" \
    --vocab "$data/vocab.txt" --output "$work/refused" --batch 4 --max_steps 3 --warmup 1 --threads 1 --report false --device cuda \
    --precision bf16
said=$(grep -c 'graphs that cuDNN refused; .*told to refuse it' "$work/refused/log.jsonl")
[ "$said" = 1 ] && ok || fail "the log tells $said times that graphs were refused"
grep -q 'graphs that cuDNN refused' "$work/rn/log.jsonl" && fail "graphs were refused that nobody refused" || ok

# Steps whose gradient is not finite are found one step late, and end the run all the same, with the pair of that step.
holds "poison" "$build/tests/tool_checkpoint_poison" "$work/cpu/latest" "$work/poisoned.h5" text_projection
refuses "skipped steps end the run" 1 "2 steps in a row had a gradient that is not finite" train "$shim" "$work/bad" --device cuda \
    --init "$work/poisoned.h5" --max_skipped 2 --val_data "" --sample_log "$work/bad.samples"
pair=$(sed -n 2p "$work/bad.samples" | cut -d' ' -f1)
grep -q "at step 2: the features of pair $pair are not finite" "$work/err" && ok || fail "pair $pair is not named"

set=$work/set
mkdir -p "$set"/test/{0,1}
printf '红色的圆形\n蓝色的方块\n' >"$set/label_cn.txt"
cp tests/golden/images/jpeg_420.jpg "$set/test/0"
cp tests/golden/images/png_rgba8.png "$set/test/1"

for device in cpu cuda; do
    program=$tuwen
    [ $device = cuda ] && program=$shim
    holds "extract on $device" "$program" extract --checkpoint "$work/cpu/latest" --data "$data/lmdb/valid" \
        --output "$work/f$device" --format jsonl --device $device
    holds "evaluate on $device" "$program" evaluate --checkpoint "$work/cpu/latest" --data "$data/lmdb/valid" --device $device
    grep -o '"r[0-9]*": *[0-9.]*\|R@[0-9]* *[0-9.]*' "$work/out" >"$work/scores.$device"
    holds "retrieve on $device" "$program" retrieve --images "$work/fcpu/valid_imgs.img_feat.jsonl" \
        --texts "$work/fcpu/valid_texts.txt_feat.jsonl" --output "$work/r$device" --device $device
    holds "similarity on $device" "$program" similarity --checkpoint "$work/cpu/latest" --device $device --json \
        tests/golden/images/jpeg_420.jpg 红色的圆 蓝色的方块
    grep -o '[0-9][0-9.]*[0-9]' "$work/out" >"$work/similarity.$device"
    holds "classify on $device" "$program" classify --checkpoint "$work/cpu/latest" --data "$set" --device $device \
        --predictions "$work/classes.$device"
    grep -o '0\.[0-9]*' "$work/classes.$device" >"$work/classes.$device.txt"
done
for kind in imgs.img texts.txt; do
    for device in cpu cuda; do
        sed 's/.*"feature": *\[//; s/\].*//' "$work/f$device/valid_$kind"_feat.jsonl | tr ',' '\n' |
            awk '{ printf "%.9f\n", $1 + 2 }' >"$work/values.$device"
    done
    near "features of $kind" 1e-6 "$work/values.cuda" "$work/values.cpu"
done
for file in valid_predictions.jsonl valid_tr_predictions.jsonl; do
    cmp -s "$work/rcpu/$file" "$work/rcuda/$file" && ok || fail "$file differs"
done
[ -s "$work/scores.cpu" ] && cmp -s "$work/scores.cpu" "$work/scores.cuda" && ok || fail "scores differ"
near "similarity" 1e-4 "$work/similarity.cuda" "$work/similarity.cpu"
near "classes" 1e-4 "$work/classes.cuda.txt" "$work/classes.cpu.txt"

refuses "no CUDA in the plain build" 1 "this build has no CUDA" "$tuwen" extract --checkpoint "$work/cpu/latest" \
    --data "$data/lmdb/valid" --output "$work/none" --device cuda
refuses "no such device" 2 "device" "$tuwen" extract --checkpoint "$work/cpu/latest" --data "$data/lmdb/valid" \
    --output "$work/none" --device tpu
finish
