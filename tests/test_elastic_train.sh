#!/usr/bin/env bash
# scripts/run_elastic.sh with the program and mpirun: a rank of three is killed, and the run goes on from its last checkpoint by
# itself. On as many ranks it ends with the bits of a run that nothing happened to; on two, with the same samples in the
# same order. Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/faults_train.sh 3
# nvidia-smi decides how many ranks there are; of three GPUs one is lost once $work/lost exists.
mkdir "$work/bin"
cat >"$work/bin/nvidia-smi" <<'END'
#!/bin/bash
printf 'GPU 0: a\nGPU 1: b\n'
[ -e "$WORK/lost" ] || echo "GPU 2: c"
END
chmod +x "$work/bin/nvidia-smi"
export WORK=$work PATH=$work/bin:$PATH TUWEN=$tuwen OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # as tests/mpirun.sh: Open MPI's plug-ins

number=() # -n RANKS; without it, as many as GPUs
begin() { # FOLDER
    scripts/run_elastic.sh --delay 0 "${number[@]}" -- "${options[@]}" --device cpu --output "$1" --sample_log "$1.samples" \
        >"$work/out" 2>"$work/err" &
    job=$!
}
over() { ! grep -q "run_elastic.sh: .*restart 1 of 3" "$work/err"; }
# There is something to go on from: steps may be quicker than the thread that saves.
kill_rank() {
    until [ -e "$folder/latest" ] || ! kill -0 $job 2>/dev/null; do sleep 0.01; done
    kill -9 "${pids[$1]}"
}
lose_gpu() { touch "$work/lost" && kill_rank 2; }
undo=find_gpu
find_gpu() { rm -f "$work/lost"; }
went_on() { # NAME FOLDER RANKS: after one restart, to the end, on so many ranks
    local from
    from=$(sed -n 's/.*resum.* step \([0-9]*\).*/\1/p' "$2/log.jsonl" | tail -n 1)
    if [ $code != 0 ]; then fail "$1: exit code $code"
    elif [ "$(grep -c "run_elastic.sh: .*restart" "$work/err")" != 1 ]; then fail "$1: not one restart: $(grep -E "^(run_elastic.sh|tuwen)|exited on" "$work/err")"
    elif [ "${from:-0}" -lt 4 ]; then fail "$1: it did not go on from a checkpoint, but from step ${from:-0}"
    elif ! "$tuwen" info "$2/latest" 2>/dev/null | grep -q "ranks: $3"; then fail "$1: not $3 ranks ended it"
    elif ! cmp -s "$work/whole.samples" "$2.samples"; then fail "$1: the samples are others"
    elif [ "$(left)" != 0 ]; then fail "$1: processes are left"
    else ok; fi
}
strike "a rank killed" "$work/again" kill_rank 1
went_on "a rank killed at step $step" "$work/again" 3
same "a rank killed at step $step" "$work/again"
for number in "" "-n 3"; do # the job itself asks for a rank a GPU, or its user does
    read -ra number <<<"$number"
    strike "a GPU lost" "$work/fewer" lose_gpu
    went_on "a GPU lost at step $step, ${number[*]:-ranks as GPUs}" "$work/fewer" 2
    find_gpu
done
finish
