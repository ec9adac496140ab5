#!/usr/bin/env bash
# Ranks under a real Slurm of two nodes: srun --mpi=pmix, and scripts/launch/slurm.sbatch, which starts again when a rank is killed, goes
# back into the queue when it is asked to save, preempted or a node is lost, and does not when it is cancelled. Argument: the build folder.
set -u
. tests/shell.sh "$1"
. tests/slurm_nodes.sh
if [ "$(id -u)" != 0 ] || ! slurm_installed; then
    echo "SKIP Slurm: needs root and Debian's slurm-wlm and munge; test_launch.sh has stand-ins for it"
    finish
    exit
fi
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build"; then
    echo "SKIP Slurm: this build has no MPI"
    finish
    exit
fi
trap 'slurm_down; kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
if slurm_up; then ok; else
    fail "Slurm does not start"
    finish
    exit
fi
# The nodes have one name and one /dev/shm, in which Open MPI's shared memory takes ranks of both for the same.
export TUWEN=$tuwen OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_base_warn_component_unused=0
export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # as tests/mpirun.sh: Open MPI's plug-ins
hash=$build/tests/tool_checkpoint_hash

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 60 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
options=(--model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --batch 18 --max_steps 1500 --warmup 3 --lr 1e-3
    --save_interval 25 --keep 2 --log_interval 1 --threads 1 --num_workers 1 --text_dropout 0.1 --report false --rank_timeout 20)
holds "srun" timeout 120 srun --mpi=pmix --nodes 2 -n 2 "$tuwen" train "${options[@]}" --output "$work/srun"
grep -q "2 ranks start from the same weights" "$work/srun/log.jsonl" && ok || fail "srun: not two ranks"

# A job, as it is submitted, for nodes of this size.
nodes=1 partition=all
submit() { # FOLDER OPTIONS...: sets job
    local folder=$1
    shift
    job=$(sbatch --parsable --partition $partition --nodes $nodes --ntasks-per-node 2 --gpus-per-node 2 --cpus-per-task 1 --time 5 --output "$work/job-%j.log" \
        --export=ALL,TW_DELAY=0 scripts/launch/slurm.sbatch "$folder" "${options[@]}" --sample_log "$folder.samples" "$@" 2>"$work/err")
}
state() { scontrol -o show job "$job" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }
restarts() { scontrol -o show job "$job" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }
until_state() { # STATES: waits until the job is in one of them, a|b, for two minutes at most
    local now
    for _ in $(seq 1200); do
        now=$(state)
        [[ "|$1|" == *"|$now|"* ]] && return 0
        sleep 0.1
    done
    fail "the job is $now, not $1: $(scontrol -o show job "$job") $(sinfo -h -N -o '%N %T' | xargs) $(tail -n 5 "$work/job-$job.log")"
    return 1
}
after_step() { # FOLDER STEP
    for _ in $(seq 6000); do grep -qs "\"step\":$2," "$1/log.jsonl" && return; sleep 0.01; done
}
last_step() { sed -n 's/.*"event":"step","step":\([0-9]*\),.*/\1/p' "$1/log.jsonl" | tail -n 1; } # FOLDER
saved_last() { # NAME FOLDER: the last completed step is in the checkpoint, and it was not the run's last
    local step
    step=$(last_step "$2")
    if [ "${step:-1500}" -ge 1500 ]; then fail "$1: the run was over: step $step"
    elif ! "$tuwen" info "$2/latest" 2>/dev/null | grep -qx " *step: $step"; then fail "$1: step $step is not saved: $(tail -n 9 "$work/job-$job.log")"
    else ok; fi
}
says() { # NAME TEXT: so says the job
    grep -qF -- "$2" "$work/job-$job.log" && ok || fail "$1: no '$2' in $(tail -n 9 "$work/job-$job.log")"
}
ended_whole() { # NAME FOLDER: completed, with the bits of the undisturbed run
    until_state "COMPLETED|FAILED|CANCELLED|TIMEOUT"
    cp "$work/job-$job.log" "$work/out" 2>/dev/null
    if [ "$(state)" != COMPLETED ]; then fail "$1: the job is $(state)"
    elif [ "$($hash "$work/srun/latest")" != "$($hash "$2/latest")" ]; then fail "$1: other weights than without"
    elif ! cmp -s "$work/job.samples" "$2.samples"; then fail "$1: other samples"
    else ok; fi
}
submit "$work/job"
ended_whole "a job" "$work/job"
grep -q "restart" "$work/job-$job.log" && fail "a job that nothing happens to starts again" || ok

# A rank is killed: the others end, and all start again in the same job.
submit "$work/killed"
after_step "$work/killed" 60
kill -9 "$(pgrep -f "^$tuwen train .*--output $work/killed" | tail -n 1)"
ended_whole "a rank killed" "$work/killed"
[ "$(grep -c "slurm.sbatch: exit code [0-9]*: restart 1 of 3" "$work/job-$job.log")" = 1 ] && ok || fail "a rank killed: not one restart: $(grep -v Global "$work/job-$job.log" | tail -n 20)"
grep -q "resumed .*: step [1-9]" "$work/killed/log.jsonl" && ok || fail "a rank killed: not from a checkpoint"

# Slurm's signal before the time limit; the recipe has a stop file of its own, which is not looked at.
echo "stop_file: $work/elsewhere" >"$work/recipe.yaml"
submit "$work/asked" --config "$work/recipe.yaml"
after_step "$work/asked" 60
scancel --batch --signal USR1 "$job"
until_state "PENDING|COMPLETED|FAILED" && [ "$(state)" = PENDING ] && ok || fail "asked to save: the job is $(state), not in the queue"
says "asked to save" "saved when Slurm asked for it; back into the queue"
saved_last "asked to save" "$work/asked"
ended_whole "asked to save" "$work/asked"
[ "$(restarts)" = 1 ] && ok || fail "asked to save: Slurm has not started it again once"

# Cancelled while it runs: the ranks have Slurm's KillWait to save, and the job stays out of the queue; the same line goes on.
submit "$work/cancelled"
after_step "$work/cancelled" 60
scancel "$job"
until_state "CANCELLED|PENDING|COMPLETED|FAILED" && [ "$(state) $(restarts)" = "CANCELLED 0" ] && ok || fail "cancelled: the job is $(state), started again $(restarts) times"
says "cancelled" "slurm.sbatch: saved on SIGTERM; the job is cancelled and stays out of the queue"
saved_last "cancelled" "$work/cancelled"
submit "$work/cancelled"
ended_whole "cancelled and submitted again" "$work/cancelled"

# Preempted, which reaches it by the same signals.
partition=low
submit "$work/preempted"
after_step "$work/preempted" 60
holds "a job that preempts" timeout 120 srun --nodes 2 --exclusive true
until_state "PENDING|RUNNING|COMPLETED|PREEMPTED|FAILED|CANCELLED" && [ "$(restarts)" = 1 ] && ok || fail "preempted: the job is $(state), started again $(restarts) times"
says "preempted" "slurm.sbatch: saved on SIGTERM, as the job is preempted; back into the queue"
ended_whole "preempted" "$work/preempted"
# Cancelled after that: it is the preemption of this start that counts.
submit "$work/both"
after_step "$work/both" 60
holds "a job that preempts" timeout 120 srun --nodes 2 --exclusive true
after_step "$work/both" $(($(last_step "$work/both") + 30))
scancel "$job"
until_state "CANCELLED|PENDING|COMPLETED|FAILED" && [ "$(state) $(restarts)" = "CANCELLED 1" ] && ok || fail "preempted and cancelled: the job is $(state), started again $(restarts) times"
partition=all

# A node is lost: the job goes back into the queue.
nodes=2
submit "$work/lost"
after_step "$work/lost" 60
[ "$(scontrol -o show job "$job" | sed -n 's/.* NumNodes=\([0-9]*\).*/\1/p')" = 2 ] && ok || fail "a node lost: the job was not on two"
lose_node tw2
until_state "PENDING|COMPLETED|FAILED" && [ "$(state)" = PENDING ] && ok || fail "a node lost: the job is $(state), not in the queue"
# It waits there for as many as it had. The same line with fewer goes on at once.
scancel "$job"
nodes=1
submit "$work/lost"
until_state "COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL"
cp "$work/job-$job.log" "$work/out"
if [ "$(state)" != COMPLETED ]; then fail "a node lost: the job is $(state)"
elif ! grep -q "4 ranks start from the same weights" "$work/lost/log.jsonl"; then fail "a node lost: it did not begin on four ranks"
elif ! "$tuwen" info "$work/lost/latest" 2>/dev/null | grep -q "ranks: 2"; then fail "a node lost: not two ranks ended it"
elif ! cmp -s "$work/job.samples" "$work/lost.samples"; then fail "a node lost: other samples"
else ok; fi
finish
