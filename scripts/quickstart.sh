#!/usr/bin/env bash
# The main job, end to end, on a generated data set: installs, builds, draws the data, prepares shards, trains a model from
# random weights, scores it on scenes it has not seen, and writes a page to look at.
#
#     scripts/quickstart.sh [--no-install] [--output FOLDER]
#
# The last line is "quickstart: t2i_r1=... i2t_r1=... train_seconds=... total_seconds=...".
set -euo pipefail
cd "$(dirname "$0")/.."

install=yes
out=out/quickstart
while [ $# -gt 0 ]; do
    case $1 in
        --no-install) install=no ;;
        --output)
            out=${2:?--output needs a folder}
            shift
            ;;
        *)
            echo "usage: scripts/quickstart.sh [--no-install] [--output FOLDER]" >&2
            exit 2
            ;;
    esac
    shift
done

start=$(date +%s)
step() { printf '\n== %s\n' "$*"; }

if [ "$install" = yes ]; then
    step "packages"
    scripts/install_deps.sh
fi

step "build"
cmake --preset release >/dev/null
cmake --build --preset release --target tuwen --parallel "$(scripts/cores.sh)"
tuwen=build/release/tuwen

step "data: coloured shapes with Chinese captions"
"$tuwen" shapes "$out/data" --force
"$tuwen" prepare --data_dir "$out/data" --splits train,valid --force

step "training, from random weights"
rm -rf "$out/run"
"$tuwen" train --config configs/finetune/shapes_tiny_cpu.yaml --train_data "$out/data/lmdb/train" \
    --val_data "$out/data/lmdb/valid" --vocab "$out/data/vocab.txt" --output "$out/run"

step "scores of the last checkpoint, from the files alone"
"$tuwen" evaluate --checkpoint "$out/run/latest" --data "$out/data/lmdb/valid" --output "$out/run/scores.json"

# The figures of the log's last validation and of its last line.
field() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }
validation=$(grep '"event": *"validation"' "$out/run/log.jsonl" | tail -n 1)
t2i=$(field t2i_r1 <<<"$validation")
i2t=$(field i2t_r1 <<<"$validation")
seconds=$(grep '"event": *"end"' "$out/run/log.jsonl" | tail -n 1 | field train_seconds)
step "look at $(realpath "$out/run/report.html")"
printf 'quickstart: t2i_r1=%.1f i2t_r1=%.1f train_seconds=%.0f total_seconds=%d\n' "$t2i" "$i2t" "$seconds" \
    $(($(date +%s) - start))
