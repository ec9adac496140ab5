#!/usr/bin/env bash
# Faults of real processes while ranks join and leave, when MPI tells nobody of anybody, and errors that ranks find before
# or as soon as they have joined: one message, and nothing left running. Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/faults.sh "$build/tests/tool_ranks"
slack=40 # joining and leaving get 15 s at least

if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP faults at the start: this build has no MPI, or mpirun is not installed (openmpi-bin)"
    finish
    exit
fi

# stopped HOW RANK NAME DOES: three ranks, of which RANK is stopped.
stopped() {
    launch 3 "$ranks_tool" "$work/pids" $timeout_s "$1" "$2"
    all_begun 3
    ends "$3" "^tuwen: the run ends: rank [0-2] of 3 \(process [0-9]+ on .*\) has waited .* s for the other ranks to $4.*: rank $2 \(process $(pid "$2")\) on this host is stopped"
}
stopped before 1 "a rank stopped before it joins" "join \(MPI_Init\)"
stopped init 2 "a rank stopped in MPI_Init" "join \(MPI_Init\)"
stopped init 0 "rank 0 stopped in MPI_Init" "join \(MPI_Init\)"
stopped finalize 1 "a rank stopped in MPI_Finalize" "leave \(MPI_Finalize\)"

# A rank whose program never begins: its wrapper waits.
launch 3 bash -c '[ "$OMPI_COMM_WORLD_RANK" = 1 ] && { echo $$ >"$0/1"; exec sleep 300; }; exec "$@"' "$work/pids" \
    "$ranks_tool" "$work/pids" $timeout_s
for _ in $(seq 3000); do [ -s "$work/pids/1" ] || ! kill -0 $job 2>/dev/null && break; sleep 0.1; done
ends "a rank that never begins" "^tuwen: the run ends: rank [02] of 3 .*: rank 1 \(process $(pid 1)\) on this host has not begun to"
for _ in $(seq $((10 * slack))); do kill -0 "$(pid 1)" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$(pid 1)" 2>/dev/null; then fail "a rank that never begins: its wrapper is left"; else ok; fi

# ---- input that cannot be read ----
data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 6 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits valid
holds "a checkpoint" "$tuwen" train --model micro --train_data "$data/lmdb/valid" --vocab "$data/vocab.txt" --batch 2 \
    --max_steps 1 --output "$work/run" --report false --threads 1

# refused NAME TEXT COMMAND...: on three ranks; one message, and none of the program's without a rank's number.
refused() {
    local name=$1 text=$2 code
    shift 2
    timeout 300 tests/mpirun.sh 3 "$@" >"$work/out" 2>"$work/err"
    code=$?
    if [ $code != 1 ]; then fail "$name: exit code $code"
    elif [ "$(grep -c "^tuwen " "$work/err")" != 1 ]; then fail "$name: not one message: $(grep "^tuwen " "$work/err")"
    elif ! grep -q -E "^tuwen [a-z]+: $text" "$work/err"; then fail "$name: not '$text'"
    else ok; fi
}
# Only rank 1 sees the other folder.
one_sees='[ "$OMPI_COMM_WORLD_RANK" = 1 ] && set -- "${@/%DATA/'$work/nowhere'}"; exec "${@/%DATA/'$data/lmdb/valid'}"'
evaluate=("$tuwen" evaluate --checkpoint "$work/run/latest" --device cpu --threads 1 --output "$work/scores.json")
refused "evaluate, on all ranks" "rank 0 of 3 on .*nowhere" "${evaluate[@]}" --data "$work/nowhere"
if grep -q "rank 0 of 3 on .*nowhere" "$work/scores.json"; then ok; else fail "the failure file: $(cat "$work/scores.json")"; fi
refused "evaluate, on one rank" "rank 1 of 3 on .*nowhere" bash -c "$one_sees" rank "${evaluate[@]}" --data DATA
if grep -q "rank 1 of 3 on .*nowhere" "$work/scores.json"; then ok; else fail "the failure file: $(cat "$work/scores.json")"; fi
extract=("$tuwen" extract --checkpoint "$work/run/latest" --device cpu --threads 1 --output "$work/features")
refused "extract, on all ranks" "rank 0 of 3 on .*nowhere" "${extract[@]}" --data "$work/nowhere"
refused "extract, on one rank" "rank 1 of 3 on .*nowhere" bash -c "$one_sees" rank "${extract[@]}" --data DATA
refused "predictions, which rank 0 reads alone" ".*nowhere" "$tuwen" evaluate --predictions "$work/nowhere" \
    --texts "$data/valid_texts.jsonl" --output "$work/scores.json"
holds "evaluate" timeout 300 tests/mpirun.sh 3 "${evaluate[@]}" --data "$data/lmdb/valid"
if [ "$(grep -c "text-to-image" "$work/out")" = 1 ]; then ok; else fail "evaluate: its scores come from one rank"; fi
finish
