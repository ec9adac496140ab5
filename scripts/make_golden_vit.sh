#!/usr/bin/env bash
# Writes tests/golden/vit_b16_losses.txt: 20 losses of the reference implementation's ViT-B-16, trained in f32 from the
# weights that `tuwen train --seed 1` starts from, on pictures that `tuwen shapes` draws. The weights are not kept: whoever
# compares (scripts/gpu_train.sh vit_b16, whose data and settings these are) draws the same ones.
#
#     scripts/make_golden_vit.sh [WORK]        (a folder for 4 GB of files; default: a temporary one)
#
# Eight pictures, seen ten times, move the loss in every step, and an epsilon as large as the gradients keeps AdamW from
# cancelling their scale. What errors in all 20 steps do to the reference's own losses, largest relative difference:
#
#     error                                                    steps 1-10   11-20
#     the last bit of one weight (what rounding does)          2.7e-7       1.8e-5
#     one layer's weight gradient, resblocks.5.mlp.c_fc: 1 %   9.3e-6       1.5e-5
#     1 % of its root mean square added, signs at random       6.1e-7       2.2e-6
#     the image tower's LayerNorm weights decayed              3.5e-4       1.2e-3
#     the text tower's not decayed                             3.8e-5       3.3e-4
#     no bias correction                                       8.3e-2       4.8e-1
#
# So gpu_train.sh allows 5e-6 in the first ten steps and 1e-4 in all. Gradients element by element: test_towers.
#
# Needs build/release/tuwen, and for PYTHON (default python3) what scripts/reference_run.py needs. Takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
tuwen=build/release/tuwen
golden=tests/golden/vit_b16_losses.txt
if [ $# -gt 0 ]; then
    work=$1
    mkdir -p "$work"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
# Only the words of the drawn captions: the published vocabulary would cost 16 million weights and say nothing more.
sed 's/vocabulary: .*/vocabulary: 0/' configs/models/ViT-B-16.yaml >"$work/ViT-B-16.yaml"
shapes="--train 8 --valid 8 --size 224 --format png"
rates=(lr=2e-5 eps=3e-5 weight_decay=10 warmup=4 max_steps=20)
settings="--batch=4 --seed=1 --text_dropout=0 --attention_dropout=0 ${rates[*]/#/--}"
# shellcheck disable=SC2086
"$tuwen" shapes "$work/data" $shapes --force
"$tuwen" prepare --data_dir "$work/data" --splits train,valid --force
run() {
    # shellcheck disable=SC2086
    "$tuwen" train --train_data "$work/data/lmdb/train" --val_data "" --vocab "$work/data/vocab.txt" --device cpu \
        --report false --save_epochs 0 $settings "$@"
}
rm -rf "$work/init" "$work/order"
# A step at a rate of nearly 0 leaves the weights as they were drawn. The order of samples is the same for any model.
run --model "$work/ViT-B-16.yaml" --output "$work/init" --max_steps 1 --lr 1e-10
run --model micro --output "$work/order" --sample_log "$work/samples.txt"
"${PYTHON:-python3}" scripts/reference_run.py --init "$work/init/latest" --samples "$work/samples.txt" \
    --train "$work/data/lmdb/train" --output "$work/reference.jsonl" --cache "$work/cache" \
    "${rates[@]/#/--set=}"
{
    echo "# 20 losses of ViT-B-16 by the reference implementation in f32 (scripts/make_golden_vit.sh)"
    echo "# shapes: $shapes"
    echo "# train: $settings"
    sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$work/reference.jsonl"
} >"$golden"
[ "$(grep -vc '^#' "$golden")" = 20 ]
