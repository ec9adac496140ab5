#!/usr/bin/env bash
# Feature extraction with ViT-B-16, batch 32: tuwen (f32, bf16) and PyTorch eager f32 by turns on the same machine.
#     scripts/bench/extract.sh PYTHON [BATCHES [FOLDER]]
# PYTHON: an interpreter with torch and cn_clip; BATCHES timed of each (5); FOLDER of image files: the whole way too.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?the Python to run the peer with}
batches=${2:-5}
folder=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uptime
build/release/scripts/bench/bench_extract ViT-B-16 32 "$batches" f32 0 ${folder:+"$work/model.h5"}
"$python" scripts/bench/peer_extract.py --threads "$(nproc)" --batches "$batches" ${folder:+--files "$folder"}
build/release/scripts/bench/bench_extract ViT-B-16 32 "$batches" bf16 0
if [ -n "$folder" ]; then
    # The images need no vocabulary; any of the model's size will do.
    printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n' >"$work/vocab.txt"
    for i in $(seq 6 21128); do echo "word$i"; done >>"$work/vocab.txt"
    for type in f32 bf16; do
        build/release/tuwen extract --checkpoint "$work/model.h5" --vocab "$work/vocab.txt" --images "$folder" --batch 32 \
            --num_workers 1 --precision $type --output "$work" 2>/dev/null | sed "s/^/tuwen from files, $type: /"
    done
fi
uptime
