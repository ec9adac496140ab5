#!/usr/bin/env bash
# Training steps of several ranks of one thread each against one rank of as many threads, on the same cores of this machine: one
# global batch, random weights, drawn pictures. The two take turns, so that what else the machine does falls on both.
#     scripts/bench/ranks.sh [--model ViT-B-16] [--batch 64] [--ranks 2] [--steps 1] [--rounds 5] [-- OPTIONS OF tuwen train]
# Each run is a `tuwen train` (TUWEN: the program) of one step more, the first of which is not counted; its figure is the median of
# its steps. Prints every run's, the median over the rounds of each side, and the ratio: above 1 the ranks are faster.
# A minute with a small model: scripts/bench/ranks.sh --model small --batch 128 --steps 8
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/launch/common.sh

model=ViT-B-16 batch=64 ranks=2 steps=1 rounds=5
while [ $# -gt 0 ]; do
    case $1 in
    --model) need_value "a model" "$@" && model=$2 && shift 2 ;;
    --batch | --ranks | --steps | --rounds)
        need_value "a number" "$@"
        is_number "$2" || die "$1 $2: a number of at least 1 is needed"
        declare "${1#--}=$2"
        shift 2
        ;;
    --) shift && break ;;
    *) die "unknown option '$1': options of tuwen train come behind --" ;;
    esac
done
program=$(find_program)
need_mpirun
description=$model
[ -r "$description" ] || description=configs/models/$model.yaml
[ -r "$description" ] || die "$model is neither a model description nor a name in configs/models"

allowed=() # cores of this process
list=$(taskset -pc $$) && list=${list##*: }
for range in ${list//,/ }; do mapfile -t -O ${#allowed[@]} allowed < <(seq "${range%-*}" "${range#*-}"); done
[ ${#allowed[@]} -ge "$ranks" ] || die "$ranks ranks of one core each: this process has ${#allowed[@]} cores"
cores=$(IFS=, && echo "${allowed[*]:0:ranks}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quietly() { "$@" >"$work/out" 2>&1 || { tail -n 20 "$work/out" >&2 && die_with 1 "failed: $*"; }; }
side=$(awk '$1 == "resolution:" { print $2; exit }' "$description")
quietly "$program" shapes "$work/data" --train $((batch * (steps + 1))) --valid 8 --size "$side"
quietly "$program" prepare --data_dir "$work/data" --splits train
words=$(awk '$1 == "vocabulary:" { print $2; exit }' "$description") # 0: as many as there are
have=$(wc -l <"$work/data/vocab.txt")
[ "$words" -le "$have" ] || seq -f "[unused%.0f]" "$((have + 1))" "$words" >>"$work/data/vocab.txt"
options=(--model "$model" --batch "$batch" --train_data "$work/data/lmdb/train" --vocab "$work/data/vocab.txt" --max_steps $((steps + 1))
    --log_interval 1 --save_epochs 0 --num_workers 1 --report false --output "$work/run" "$@")

median() { sort -g | awk '{ x[NR] = $1 } END { if (!NR) exit 1; printf "%.3f", (x[int((NR + 1) / 2)] + x[int(NR / 2) + 1]) / 2 }'; }
run() { # COMMAND...: the median of its steps but the first, in seconds
    rm -rf "$work/run"
    quietly taskset -c "$cores" "$@"
    sed -n 's/.*"event":"step","step":[0-9]*,.*"batch_time":\([0-9.e+-]*\),.*/\1/p' "$work/run/log.jsonl" | tail -n +2 | median ||
        die_with 1 "no step behind the first in the log of: $*"
}

uptime
echo "$model, $batch pairs a step, cores $cores; seconds a step (median of $steps)"
for round in $(seq "$rounds"); do
    one=$(run "$program" train "${options[@]}" --threads "$ranks")
    several=$(TUWEN=$program run scripts/launch/one_host.sh -n "$ranks" -- "${options[@]}" --threads 1)
    echo "round $round: 1 rank of $ranks threads $one, $ranks ranks of one thread $several"
    echo "$one" >>"$work/one"
    echo "$several" >>"$work/several"
done
one=$(median <"$work/one") several=$(median <"$work/several")
echo "medians: 1 rank of $ranks threads $one, $ranks ranks of one thread $several; ratio $(awk "BEGIN { printf \"%.3f\", $one / $several }")"
uptime
