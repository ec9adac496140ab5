#!/usr/bin/env bash
# ResNet image towers over ranks against one: with frozen statistics, whose batch may then be cut in any way, and the real
# RN50 (at 32 px) with synchronised ones. Argument: the build folder.
set -u
. tests/shell.sh "$1"
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP ResNet over ranks: this build has no MPI, or mpirun is not installed"
    finish
    exit
fi
data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 60 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
train() { # RANKS FOLDER OPTIONS...
    local ranks=$1 folder=$2
    shift 2
    timeout 600 bash tests/mpirun.sh "$ranks" "$tuwen" train --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --resolution 32 \
        --warmup 1 --log_interval 1 --threads 1 --num_workers 1 --report false --output "$folder" --sample_log "$folder.samples" "$@"
}
losses() { sed -n 's/.*"event":"step","step":\([0-9]*\),.*"loss":\([0-9.e+-]*\),.*/\1 \2/p' "$1/log.jsonl"; }
near() { # NAME FOLDER FOLDER STEPS: the losses of the same steps agree within 1e-4, and there are so many
    if paste -d ' ' <(losses "$2") <(losses "$3") |
        awk -v n="$4" '{ d = $2 - $4; if (d < 0) d = -d; if ($1 != $3 || d > 1e-4 * $2) bad = 1 } END { exit bad || NR != n }'; then ok
    else fail "$1: $(losses "$2" | xargs) and $(losses "$3" | xargs)"; fi
    if cmp -s "$2.samples" "$3.samples"; then ok; else fail "$1: the samples are others"; fi
}
statistics() { # FOLDER: names and hashes of its running means and variances
    "$tuwen" convert "$1/latest" "$1.pt" --force >"$work/out" 2>"$work/err" &&
        "$build/tests/tool_weights_list" "$1.pt" | grep running_ | sort
}

# From statistics that are not those of a start: a run that keeps them up to date makes them.
tiny=(--model tiny-rn --batch 20 --lr 1e-3)
holds "statistics to start from" train 1 "$work/start" "${tiny[@]}" --max_steps 4
frozen=(--init "$work/start/latest" --batch 20 --lr 1e-3 --max_steps 6 --batch_norm frozen)
holds "frozen, 1 rank" train 1 "$work/f1" "${frozen[@]}"
for way in "3 --shard_optimizer true" "3 --micro_batch 2" "2 --shard_optimizer false"; do
    read -ra options <<<"$way"
    folder=$work/f$(tr -dc a-z0-9 <<<"$way")
    holds "frozen, $way" train "${options[0]}" "$folder" "${frozen[@]}" "${options[@]:1}"
    near "frozen, $way" "$work/f1" "$folder" 6
    kept=$(statistics "$folder")
    [ "$(wc -l <<<"$kept")" -gt 10 ] && [ "$kept" = "$(statistics "$work/start")" ] && ok || fail "frozen, $way: the statistics moved"
done
# That they do is no matter of course.
holds "not frozen" train 3 "$work/moved" "${frozen[@]}" --batch_norm train
[ "$(statistics "$work/moved")" != "$(statistics "$work/start")" ] && ok || fail "not frozen: the statistics did not move"
if paste -d ' ' <(losses "$work/f1") <(losses "$work/moved") | awk '{ d = $2 - $4; if (d > 1e-3 || d < -1e-3) bad = 1 } END { exit !bad }'; then ok
else fail "frozen and moving statistics give the same losses: the comparison sees nothing"; fi

# The paper's RN50, but for the vocabulary of the generated texts.
sed 's/vocabulary: 21128/vocabulary: 0/' configs/models/RN50.yaml >"$work/rn50.yaml"
rn50=(--model "$work/rn50.yaml" --batch 12 --lr 1e-5 --max_steps 2 --keep 1 --batch_norm sync)
for n in 1 2; do
    holds "RN50 on $n ranks" train $n "$work/r$n" "${rn50[@]}"
done
near "RN50, 2 ranks" "$work/r1" "$work/r2" 2
finish
