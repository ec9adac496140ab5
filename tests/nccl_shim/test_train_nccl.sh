#!/usr/bin/env bash
# `tuwen train --device cuda` on ranks of GPUs (stand-ins: processes, each with a device of threads) against one rank on
# one: the losses. Argument: the build folder.
set -u
. tests/shell.sh "$1"
one=$build/tests/cuda_shim/tuwen_shim
ranked=$build/tests/nccl_shim/tuwen_nccl
if ! command -v mpirun >/dev/null; then
    echo "SKIP training on GPU ranks: mpirun is not installed (openmpi-bin)"
    exit 0
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
    local ranks=$1 folder=$2 program=$ranked
    shift 2
    local command=(train --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --output "$folder" --batch 8 --max_steps 3
        --warmup 1 --lr 1e-4 --grad_clip 1 --log_interval 1 --threads 1 --report false --device cuda "$@")
    if [ "$ranks" = 1 ]; then TW_SHIM_LATE=1 "$one" "${command[@]}"; else
        timeout 300 bash tests/mpirun.sh "$ranks" "$program" "${command[@]}"
    fi
}
losses() { sed -n 's/.*"event":"step".*"loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl"; }
near() { # NAME A B: the losses of both runs, three each, agree within 1e-4
    losses "$2" >"$work/left"
    losses "$3" >"$work/right"
    if paste "$work/left" "$work/right" |
        awk 'NF != 2 || ($1 - $2) ^ 2 > (1e-4 * $2) ^ 2 { bad = 1 } END { exit bad || NR != 3 }'; then ok
    else
        paste "$work/left" "$work/right" >"$work/out"
        fail "$1"
    fi
}

rn=(--model "$work/rn.yaml" --batch_norm)
holds "a ResNet on one rank" train 1 "$work/rn1" "${rn[@]}" sync
holds "a ResNet on 3 ranks" train 3 "$work/rn3" "${rn[@]}" sync
near "a ResNet on 3 ranks" "$work/rn3" "$work/rn1"
grep -q "not captured" "$work/out" "$work/err" && fail "a synchronised pass was to be captured" || ok
holds "a ResNet on 2 ranks without sync" train 2 "$work/rn_own" "${rn[@]}" train
losses "$work/rn_own" | cmp -s - <(losses "$work/rn1") && fail "own statistics are as good as those of all" || ok
holds "a ViT on one rank" train 1 "$work/vit1" --model micro
holds "a ViT on 2 ranks" train 2 "$work/vit2" --model micro --micro_batch 2
near "a ViT on 2 ranks" "$work/vit2" "$work/vit1"

# Between two norms of a pass nobody waits: the error comes out all the same, with its call.
TW_SHIM_NCCL_FAULT=error:1:20 refuses "an error within a synchronised pass" 1 "a cable was pulled" train 2 "$work/bad" \
    "${rn[@]}" sync
grep -qE "rank 1 of 2 on .*: all_gather number [0-9]+: .*NCCL" "$work/err" && ok || fail "the error does not name rank and call"
finish
