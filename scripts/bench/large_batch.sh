#!/usr/bin/env bash
# One step of a batch far larger than memory would hold at once, on one device: peak memory must be that of a
# micro-batch, plus the batch's own pixels, texts and features.
#     scripts/bench/large_batch.sh [BATCH [MICRO [THREADS]]]      default 12800 64 0 (all cores)
set -euo pipefail
cd "$(dirname "$0")/../.."
uptime
build/release/scripts/bench/bench_step ViT-B-16 "${1:-12800}" 1 bf16 "${3:-0}" none 0 "${2:-64}" 32 12
