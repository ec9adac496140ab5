#!/usr/bin/env bash
# JPEG decode + resize + normalise on one core: this build against Pillow and NumPy, in one run, taking turns.
#   scripts/bench/image_load.sh [BUILD]      PYTHON=python3 with Pillow and NumPy; TW_SHARED=../shared for real photos
# Real photos of flickr8k-cn are 224 x 224, so `photos` at 224 is decoding alone; `mosaics` are 500 x 375, the size
# of the photographs that such sets are made from.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
python=${PYTHON:-python3}
tsv=${TW_SHARED:-../shared}/data/flickr8k-cn/valid_imgs.tsv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -r "$tsv" ] || { echo "no $tsv: generated pictures are used"; tsv=; }
cpu=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')
export OMP_NUM_THREADS=1

for case in "mosaics 224" "mosaics 336" "photos 224" "photos 64"; do
    read -r kind resolution <<<"$case"
    pack=$work/$kind
    [ -s "$pack" ] || "$python" scripts/bench/image_load_peer.py pack "$kind" "$pack" ${tsv:+"$tsv"}
    ours=0 theirs=0
    for _ in 1 2 3; do
        a=$(taskset -c "$cpu" "$build/scripts/bench/bench_image_load" "$pack" "$resolution" 1.5)
        b=$(taskset -c "$cpu" "$python" scripts/bench/image_load_peer.py time "$pack" "$resolution" 1.5)
        ours=$(awk "BEGIN {print ($a > $ours) ? $a : $ours}")
        theirs=$(awk "BEGIN {print ($b > $theirs) ? $b : $theirs}")
    done
    awk "BEGIN {printf \"%-8s -> %3d: %7.1f images/s, Pillow + NumPy %7.1f: %.2fx\n\", \"$kind\", $resolution, $ours, $theirs, $ours / $theirs}"
done
