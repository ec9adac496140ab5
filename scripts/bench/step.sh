#!/usr/bin/env bash
# Whole training steps of a model (ViT-B-16, RN50, ...), batch 16: tuwen and PyTorch by turns on the same machine.
#     scripts/bench/step.sh PYTHON [ROUNDS [MODEL]]      PYTHON: an interpreter with torch and cn_clip
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:?the Python to run the peer with} model=${3:-ViT-B-16}
for _ in $(seq 1 "${2:-1}"); do
    uptime
    build/release/scripts/bench/bench_step "$model" 16 3 f32
    "$python" scripts/bench/peer_step.py --model "$model" --threads "$(nproc)" --steps 3 --warmup 1
done
build/release/scripts/bench/bench_step "$model" 16 2 bf16
