#!/usr/bin/env bash
# A value that is not finite, made by the data of one rank of three: one pair has a token that no other has, and its
# embedding is NaN. The step is skipped by all, rank and pair are named, and `max_skipped` in a row end the job; of several
# ranks with such a pair the first is named, and how many more there are. Argument: the build folder.
set -u
. tests/shell.sh "$1"
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP a value that is not finite: this build has no MPI, or mpirun is not installed"
    finish
    exit
fi

pairs=18 odd=7 # the pair with the token, from 0
data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train $pairs --valid 4 --size 32
echo 鲸 >>"$data/vocab.txt"
token=$(($(wc -l <"$data/vocab.txt") - 1))
sed -i "$((odd + 1))s/\"text\": \"/\"text\": \"鲸/" "$data/train_texts.jsonl"
[ "$(grep -c 鲸 "$data/train_texts.jsonl")" = 1 ] && ok || fail "the token is not in one text"
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
options=(--model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --warmup 3 --lr 1e-3 --log_interval 1
    --threads 1 --num_workers 1 --report false --rank_timeout 6)
limit=300 # seconds for a run; later what the first one shows this machine to take
train() { # FOLDER OPTIONS...: on three ranks
    local folder=$1
    shift
    timeout $limit tests/mpirun.sh 3 "$tuwen" train "${options[@]}" --output "$folder" --sample_log "$folder.samples" "$@"
}
# The rank whose part of step STEP's batch of SIZE pairs has the odd one; nothing if none has.
culprit() { # FOLDER STEP
    sed -n "$2p" "$1.samples" | awk -v odd=$odd '{ for (i = 1; i <= NF; i++) if ($i == odd) {
        r = 0; first = 0; for (; r < 3; r++) { n = int(NF / 3) + (r < NF % 3); if (i <= first + n) break; first += n }
        print r } }'
}
skipped() {
    sed -n 's/.*step \([0-9]*\) skipped: .* on rank \([0-9]*\) is not finite (\([0-9]*\) in a row, .* all): the features of pair '$odd', on rank \2, are not finite".*/\1 \2 \3/p' "$1/log.jsonl"
}
left() { pgrep -f "^$tuwen train .*--output $work" | wc -l; }

holds "a start" "$tuwen" train "${options[@]}" --output "$work/start" --batch 6 --max_steps 2
holds "poisoned" "$build/tests/tool_checkpoint_poison" "$work/start/latest" "$work/nan.h5" --row $token \
    bert.embeddings.word_embeddings.weight

# Once an epoch of three steps: the run goes on, all ranks skipped the same steps, and what was learned is finite.
began=$SECONDS
holds "a pair now and then" train "$work/now" --init "$work/nan.h5" --batch 6 --max_steps 9 --max_skipped 2
skipped "$work/now" >"$work/said"
for step in 1 2 3 4 5 6 7 8 9; do
    rank=$(culprit "$work/now" $step)
    [ -n "$rank" ] && echo "$step $rank 1"
done >"$work/true"
[ "$(wc -l <"$work/true")" = 3 ] && cmp -s "$work/said" "$work/true" && ok ||
    fail "skipped '$(xargs <"$work/said")', the pair was at '$(xargs <"$work/true")' (step, rank, in a row)"
[ "$(grep -c '"event":"step"' "$work/now/log.jsonl")" = 9 ] && ok || fail "not all of 9 steps are in the log"
[ "$(grep '"event":"step"' "$work/now/log.jsonl" | grep -c '"loss":[0-9]')" = 6 ] && ok || fail "not 6 of 9 losses are finite"
grep -q '"skipped":3,"bad_samples"' "$work/now/log.jsonl" && ok || fail "the end does not count 3 skipped steps"

# Sanitizers on a loaded machine make a start of three ranks slow: seconds count from there.
enough=$((26 + 2 * (SECONDS - began)))
limit=$((2 * enough))

# In each batch: as many as the configuration tolerates, then the end, in bounded time, said once, by rank and cause.
for most in 2 10; do
    began=$SECONDS
    train "$work/all$most" --init "$work/nan.h5" --batch $pairs --max_steps 100 --max_skipped $most >"$work/out" 2>"$work/err"
    code=$?
    took=$((SECONDS - began))
    for _ in $(seq 50); do [ "$(left)" = 0 ] && break; sleep 0.1; done
    skipped "$work/all$most" >"$work/said"
    for step in $(seq $most); do echo "$step $(culprit "$work/all$most" "$step") $step"; done >"$work/true"
    said="^tuwen train: rank [0-2] of 3 on .*: $most steps in a row had a gradient that is not finite, last in [a-z].* on rank $(culprit "$work/all$most" $most) at step $most: the features of pair $odd, on rank [0-2], are not finite\."
    if [ $code = 0 ] || [ $code -ge 124 ]; then fail "max_skipped $most: exit code $code"
    elif [ $took -gt $enough ]; then fail "max_skipped $most: took $took s, more than $enough"
    elif [ "$(grep -c "tuwen train:" "$work/err")" != 1 ] || ! grep -Eq "$said" "$work/err"; then fail "max_skipped $most: not once '$said'"
    elif ! cmp -s "$work/said" "$work/true"; then fail "max_skipped $most: skipped '$(xargs <"$work/said")', not '$(xargs <"$work/true")'"
    elif [ "$(left)" != 0 ]; then fail "max_skipped $most: processes are left"
    else ok; fi
done

# Every rank has such pairs, in each micro-batch: the first of all is named.
holds "poisoned for all" "$build/tests/tool_checkpoint_poison" "$work/start/latest" "$work/all.h5" \
    --row $(($(grep -nxF '[CLS]' "$data/vocab.txt" | cut -d: -f1) - 1)) bert.embeddings.word_embeddings.weight
train "$work/everywhere" --init "$work/all.h5" --batch $pairs --micro_batch 2 --max_steps 9 --max_skipped 1 >"$work/out" 2>"$work/err"
code=$?
said="1 steps in a row had a gradient that is not finite, last in [a-z].* on rank 0 and 2 more at step 1: the features of pair $(cut -d' ' -f1 "$work/everywhere.samples"), on rank 0, micro-batch 1, are not finite; every rank has such"
if [ $code = 0 ] || [ $code -ge 124 ]; then fail "on all ranks: exit code $code"
elif ! grep -Eq "$said" "$work/err"; then fail "on all ranks: not '$said'"
else ok; fi

# What such an end leaves is set right by the last good checkpoint: from there the run ends as if nothing had happened.
long=(--init "$work/start/latest" --batch 6 --max_steps 9 --save_interval 3 --save_epochs 0 --keep 9)
holds "undisturbed" train "$work/whole" "${long[@]}"
good=$(cd "$work/whole" && ls epoch_*_step_3.h5)
mkdir "$work/again"
cp "$work/whole/$good" "$work/good.h5"
cp "$work/whole.samples" "$work/again.samples"
holds "poisoned on the way" "$build/tests/tool_checkpoint_poison" "$work/good.h5" "$work/again/$good" --row $token \
    bert.embeddings.word_embeddings.weight
refuses "resumed poisoned" 1 "1 steps in a row had a gradient that is not finite" \
    train "$work/again" "${long[@]}" --resume "$work/again/$good" --max_skipped 1
[ "$(grep -c '"event":"step"' "$work/again/log.jsonl")" -lt 3 ] && ok || fail "the poisoned run went on to its end"
rm -f "$work/again"/epoch_* "$work/again/latest"
cp "$work/good.h5" "$work/again/$good"
holds "resumed from the good checkpoint" train "$work/again" "${long[@]}" --resume latest
a=$("$build/tests/tool_checkpoint_hash" "$work/whole/latest") b=$("$build/tests/tool_checkpoint_hash" "$work/again/latest")
[ -n "$a" ] && [ "$a" = "$b" ] && ok || fail "resumed from the good checkpoint: '$b' is not '$a'"
cmp -s "$work/whole.samples" "$work/again.samples" && ok || fail "resumed from the good checkpoint: the samples are others"
finish
