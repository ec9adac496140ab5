#!/usr/bin/env bash
# Feature extraction with ViT-B-16, f32: tuwen and PyTorch eager by turns, with the same threads on the same machine.
#     scripts/bench/extract.sh PYTHON [ROUNDS [FOLDER [IMAGES]]]
# PYTHON: an interpreter with torch and cn_clip. In each of ROUNDS (3) turns both run the image tower on two batches of
# 16. FOLDER of image files: IMAGES (64) of them go the whole way once, in each. About five minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?the Python to run the peer with}
rounds=${2:-3}
folder=${3:-}
images=${4:-64}
batch=16
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uptime

tuwen_tower() { build/release/scripts/bench/bench_extract ViT-B-16 $batch 2 "$1" 0 ${2:+"$2"}; }
peer() { "$python" scripts/bench/peer_extract.py --threads "$(nproc)" --batch $batch --batches 2 "$@"; }

save=${folder:+$work/model.h5}
for round in $(seq "$rounds"); do
    tuwen_tower f32 "$save" | tee -a "$work/tuwen"
    save=
    if [ "$round" = 1 ] && [ -n "$folder" ]; then
        mkdir "$work/images"
        find -L "$(realpath "$folder")" -type f | sort >"$work/list"
        head -n "$images" "$work/list" | while read -r file; do ln -s "$file" "$work/images/"; done
        peer --files "$work/images" | tee -a "$work/peer"
    else
        peer | tee -a "$work/peer"
    fi
done
tuwen_tower bf16

# The fastest of all rounds: what each can do while nothing else runs.
fastest() { grep "image tower" "$1" | sed 's/.*(fastest \([0-9.]*\)).*/\1/' | sort -g | tail -n 1; }
a=$(fastest "$work/tuwen")
b=$(fastest "$work/peer")
if [ -n "$folder" ]; then
    # The images need no vocabulary; any of the model's size will do.
    { printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n'; seq -f 'word%g' 6 21128; } >"$work/vocab.txt"
    build/release/tuwen extract --checkpoint "$work/model.h5" --vocab "$work/vocab.txt" --images "$work/images" \
        --batch $batch --num_workers 1 --output "$work" 2>/dev/null | tee "$work/whole" | sed 's/^/tuwen from files: /'
    whole=$(sed -n 's/.*, \([0-9.]*\) images\/s.*/\1/p' "$work/whole" | head -n 1)
    other=$(sed -n 's/.*from files.*: \([0-9.]*\) images\/s.*/\1/p' "$work/peer")
fi
uptime
awk -v a="$a" -v b="$b" -v c="${whole:-0}" -v d="${other:-0}" 'BEGIN {
    printf "extract: tuwen=%.2f pytorch=%.2f images/s ratio=%.2f", a, b, a / b
    if (d > 0) printf "; from files tuwen=%.2f pytorch=%.2f ratio=%.2f", c, d, c / d
    print ""
}'
