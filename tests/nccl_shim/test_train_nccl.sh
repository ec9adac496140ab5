#!/usr/bin/env bash
# `tuwen train --device cuda` on ranks of GPUs (stand-ins: processes, each with a device of threads) against one rank on
# one: the losses; resumed on as many ranks and on one. Arguments: the build folder, and, in a build with CUDA, "gpus".
set -u
. tests/shell.sh "$1"
. tests/nccl_shim/ranks.sh "training on GPU ranks" "${2:-}"
one=(env TW_SHIM_LATE=1 "$build/tests/cuda_shim/tuwen_shim")
ranked=$build/tests/nccl_shim/tuwen_nccl
rounding=1e-4 # of a ResNet's losses; on GPUs cuDNN's convolutions round as its engines for each batch do
if [ "$gpus" -gt 0 ]; then
    [ "$gpus" -gt 1 ] || skip "training on GPU ranks" "one GPU is seen"
    one=("$tuwen")
    ranked=$tuwen
    rounding=1e-3
fi

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 20 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
cat >"$work/rn.yaml" <<EOF
name: rn
embed_dim: 16
context_length: 16
image: {kind: resnet, resolution: 32, width: 4, stages: [1, 1, 1, 1], heads: 4}
text: {vocabulary: 0, positions: 16, types: 2, hidden: 16, layers: 1, heads: 2, intermediate: 32}
EOF

# train RANKS FOLDER OPTIONS...
train() {
    local ranks=$1 folder=$2
    shift 2
    local command=(train --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --output "$folder" --batch 8 --max_steps 3
        --warmup 1 --lr 1e-4 --grad_clip 1 --log_interval 1 --threads 1 --report false --device cuda "$@")
    if [ "$ranks" = 1 ]; then "${one[@]}" "${command[@]}"; else
        timeout 300 bash tests/mpirun.sh "$ranks" "$ranked" "${command[@]}"
    fi
}
losses() { sed -n 's/.*"event":"step".*"loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl"; }
near() { # NAME A B TOLERANCE [STEPS]: the losses of both runs, three or STEPS each, agree within TOLERANCE
    losses "$2" >"$work/left"
    losses "$3" >"$work/right"
    if paste "$work/left" "$work/right" |
        awk -v t="$4" -v steps="${5:-3}" 'NF != 2 || ($1 - $2) ^ 2 > (t * $2) ^ 2 { bad = 1 } END { exit bad || NR != steps }'; then ok
    else
        paste "$work/left" "$work/right" >"$work/out"
        fail "$1"
    fi
}

rn=(--model "$work/rn.yaml" --batch_norm)
holds "a ResNet on one rank" train 1 "$work/rn1" "${rn[@]}" sync
holds "a ResNet on $n ranks" train $n "$work/rn3" "${rn[@]}" sync
near "a ResNet on $n ranks" "$work/rn3" "$work/rn1" $rounding
grep -q "not captured" "$work/out" "$work/err" && fail "a synchronised pass was to be captured" || ok
holds "a ResNet on 2 ranks without sync" train 2 "$work/rn_own" "${rn[@]}" train
losses "$work/rn_own" | cmp -s - <(losses "$work/rn1") && fail "own statistics are as good as those of all" || ok
holds "a ViT on one rank" train 1 "$work/vit1" --model micro
holds "a ViT on 2 ranks" train 2 "$work/vit2" --model micro --micro_batch 2
near "a ViT on 2 ranks" "$work/vit2" "$work/vit1" 1e-4
# Sharded, the copies that products take cross in bf16.
holds "a ViT on one rank, bf16" train 1 "$work/half1" --model micro --precision bf16
holds "a ViT on 2 ranks, bf16" train 2 "$work/half2" --model micro --precision bf16
near "a ViT on 2 ranks, bf16" "$work/half2" "$work/half1" 2e-2

# Within an epoch; on as many ranks the same bits come.
longer=(--model micro --max_steps 5 --save_interval 3 --deterministic true)
hash_of() { "$build/tests/tool_checkpoint_hash" "$1"; }
holds "five steps on 2 ranks" train 2 "$work/whole" "${longer[@]}"
middle=$(find "$work/whole" -name '*step_3.h5')
holds "resumed on 2 ranks" train 2 "$work/again" "${longer[@]}" --resume "$middle"
a=$(hash_of "$work/whole/latest" 2>&1) && b=$(hash_of "$work/again/latest" 2>&1) && [ "$a" = "$b" ] && ok || fail "resumed: '$a' is not '$b'"
holds "resumed on one rank" train 1 "$work/alone" "${longer[@]}" --resume "$middle"
sed -i '/"step":[123],/d' "$work/whole/log.jsonl"
near "resumed on one rank" "$work/alone" "$work/whole" 1e-4 2

# Between two norms of a pass nobody waits: the error comes out all the same, with its call.
if [ "$gpus" = 0 ]; then
    TW_SHIM_NCCL_FAULT=error:1:20 refuses "an error within a synchronised pass" 1 "a cable was pulled" train 2 "$work/bad" \
        "${rn[@]}" sync
    grep -qE "rank 1 of 2 on .*: all_gather number [0-9]+: .*NCCL" "$work/err" && ok || fail "the error does not name rank and call"
fi
finish
