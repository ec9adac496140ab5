#!/usr/bin/env bash
# scripts/launch: what they start, with stand-ins for mpirun, srun and scontrol that write down how they were called.
# The real mpirun starts two ranks of the micro model, where this build and machine have MPI. Argument: the build folder.
set -u
. tests/shell.sh "$1"
launch=scripts/launch
export TUWEN=$tuwen

for script in "$launch"/*; do holds "$script parses" bash -n "$script"; done
if command -v shellcheck >/dev/null; then
    holds "shellcheck" shellcheck -x -P $launch -s bash $launch/*
else
    echo "SKIP shellcheck: it is not installed"
fi
says() { # NAME TEXT: the last command's output contains TEXT
    if grep -qF -- "$2" "$work/out"; then ok; else fail "$1: no '$2' in the output"; fi
}

# Stand-ins first on the PATH.
mkdir "$work/bin"
stand_in() { # NAME BODY
    printf '#!/bin/bash\nprintf "%%q " "$(basename "$0")" "$@" >>%q; echo >>%q\n%s\n' "$work/calls" "$work/calls" "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
with() { : >"$work/calls" && PATH="$work/bin:$PATH" "$@"; }
called() { # NAME TEXT: a stand-in was called so
    if grep -qF -- "$2" "$work/calls"; then ok; else fail "$1: no '$2' in $(cat "$work/calls")"; fi
}
stand_in mpirun 'exit "${MPIRUN_CODE:-0}"'
stand_in nvidia-smi 'printf "GPU 0: a\nGPU 1: b\nGPU 2: c\n"'

# One host.
holds "one rank" with $launch/one_host.sh -n 1 --print -- --config a.yaml
says "one rank needs no launcher" "$tuwen train --config a.yaml"
holds "as many ranks as GPUs" with $launch/one_host.sh -- --config a.yaml --name 'two words'
called "as many ranks as GPUs" "mpirun -n 3 "
called "options arrive as they are" "--share-cores $tuwen train --config a.yaml --name two\\ words"
holds "more ranks than cores" with $launch/one_host.sh -n 1000 -- --config a.yaml
called "more ranks than cores" "--oversubscribe"
refuses "no options" 2 "give the options of tuwen train" $launch/one_host.sh
refuses "no number" 2 "-n x: a number" $launch/one_host.sh -n x -- --config a.yaml
refuses "-n alone" 2 "one_host.sh: -n needs a number" $launch/one_host.sh -n
refuses "--interface alone" 2 "hosts.sh: --interface needs a name" $launch/hosts.sh "$work/none" --interface
refuses "a folder for a host file" 2 "hosts.sh: $work: no such host file" $launch/hosts.sh "$work" -- --config a.yaml
refuses "no program" 2 "TUWEN=/nowhere is no program" env TUWEN=/nowhere $launch/one_host.sh -n 1 -- --config a.yaml
MPIRUN_CODE=7 with $launch/one_host.sh -n 2 -- --config a.yaml >"$work/out" 2>"$work/err"
code=$?
[ $code = 7 ] && ok || fail "mpirun's exit code is lost: $code"

# Several hosts.
printf '# the cluster\n\nfirst slots=8\n  second slots=4  # half of it\nthird slots=1' >"$work/hosts"
holds "hosts" with $launch/hosts.sh "$work/hosts" --interface ib0 -- --config a.yaml
called "one rank a slot" "-n 13 --wdir $PWD $PWD/$launch/rank.sh --share-cores $tuwen train --config a.yaml"
called "the interface" "--mca btl_tcp_if_include ib0 --mca oob_tcp_if_include ib0 -x NCCL_SOCKET_IFNAME=ib0"
called "hosts are looked at first" "--map-by ppr:1:node"
[ "$(wc -l <"$work/calls")" = 2 ] && ok || fail "two calls of mpirun, not $(wc -l <"$work/calls")"
settings=(NCCL_DEBUG=INFO NCCL_SOCKET_IFNAME=eth7 UCX_NET_DEVICES=mlx5_0:1 OMP_NUM_THREADS=3 GOMP_SPINCOUNT=0 CUDA_HOME=/opt/cuda
    CUDA_DEVICE_ORDER=PCI_BUS_ID OMPI_MCA_pml=ucx LD_LIBRARY_PATH=/opt/lib)
holds "settings" with env "${settings[@]}" NCCLISH=1 XNCCL_A=1 SECRET=x CUDA_VISIBLE_DEVICES=0,1 $launch/hosts.sh "$work/hosts" -- --config a.yaml
for setting in "${settings[@]}" PATH=; do called "$setting reaches the ranks" " -x ${setting%%=*} "; done
for setting in NCCLISH XNCCL_A SECRET HOME CUDA_VISIBLE_DEVICES; do grep -q -e " -x $setting" "$work/calls" && fail "$setting is no business of the ranks" || ok; done
[ "$(grep -o -e ' -x NCCL_DEBUG ' "$work/calls" | wc -l)" = 2 ] && ok || fail "not once for each mpirun"
holds "settings, an interface" with env "${settings[@]}" $launch/hosts.sh "$work/hosts" --interface ib0 -- --config a.yaml
called "the interface given here counts" "-x NCCL_SOCKET_IFNAME=ib0"
grep -q -e "-x NCCL_SOCKET_IFNAME " "$work/calls" && fail "NCCL_SOCKET_IFNAME is given twice" || ok
holds "no library path" with env -u LD_LIBRARY_PATH $launch/hosts.sh "$work/hosts" -- --config a.yaml
grep -q LD_LIBRARY_PATH "$work/calls" && fail "a setting that is not there is given to the ranks" || ok
stand_in mpirun 'env >"'"$work/environment"'"'
for own in 15 99; do
    set=()
    [ $own = 15 ] || set=(OMPI_MCA_oob_tcp_keepalive_time=$own)
    holds "keep-alive" with env "${set[@]}" $launch/hosts.sh "$work/hosts" -- --config a.yaml
    for setting in OMPI_MCA_oob_tcp_keepalive_time=$own PRTE_MCA_oob_tcp_keepalive_time=15 OMPI_MCA_oob_tcp_keepalive_intvl=5 \
        OMPI_MCA_oob_tcp_keepalive_probes=3; do
        grep -qx "$setting" "$work/environment" && ok || fail "mpirun is not given $setting"
    done
done
stand_in mpirun 'exit "${MPIRUN_CODE:-0}"'
refuses "a host that does not answer" 3 "cannot be reached by ssh" with env MPIRUN_CODE=1 $launch/hosts.sh "$work/hosts" -- --config a.yaml
for line in 'second slots=' 'second slots=0' 'second slots=x' 'second slot=4' 'two words slots=4'; do
    printf 'first slots=8\n%s\n' "$line" >"$work/bad"
    refuses "host file with '$line'" 2 "bad:2: '$line' is not of the form" with $launch/hosts.sh "$work/bad" -- --config a.yaml
done
: >"$work/bad"
refuses "an empty host file" 2 "names no host" with $launch/hosts.sh "$work/bad" -- --config a.yaml
refuses "no host file" 2 "no such host file" with $launch/hosts.sh "$work/nowhere" -- --config a.yaml
# mpirun that stays when its ranks have gone, and one that is asked to stop.
as_rank='[[ "$*" == *ppr:1:node* ]] && exit
bash -c "exec -a \"$TUWEN train\" sleep 5" &'
stand_in mpirun "$as_rank exec sleep 300"
refuses "an mpirun that does not end" 137 "but mpirun has not" with env TW_MPIRUN_PATIENCE=1 $launch/hosts.sh "$work/hosts" -- --config a.yaml
refuses "one on one host" 137 "but mpirun has not" with env TW_MPIRUN_PATIENCE=1 $launch/one_host.sh -n 2 -- --config a.yaml
stand_in mpirun "trap 'exit 5' USR1; $as_rank echo begun >$work/begun; wait; sleep 20 & wait"
PATH="$work/bin:$PATH" $launch/hosts.sh "$work/hosts" -- --config a.yaml >"$work/out" 2>"$work/err" &
for _ in $(seq 1200); do [ -s "$work/begun" ] || ! kill -0 $! 2>/dev/null && break; sleep 0.05; done
kill -USR1 $!
wait_for $! 60
code=$?
[ $code = 5 ] && ok || fail "a signal is not passed on: exit code $code"
# The first SIGTERM asks the ranks to save and end, by SIGUSR1; the second is mpirun's own.
for second in no yes; do
    rm -f "$work/begun" "$work/asked"
    at_usr1="exit 0"
    [ $second = no ] || at_usr1="touch $work/asked"
    stand_in mpirun "trap '$at_usr1' USR1; trap 'exit 7' TERM; echo begun >$work/begun; for i in \$(seq 600); do sleep 0.1; done"
    PATH="$work/bin:$PATH" $launch/one_host.sh -n 2 -- --config a.yaml >"$work/out" 2>"$work/err" &
    for _ in $(seq 1200); do [ -s "$work/begun" ] || ! kill -0 $! 2>/dev/null && break; sleep 0.05; done
    kill -TERM $!
    sleep 0.1
    kill -HUP $! 2>/dev/null # the same word again
    if [ $second = yes ]; then
        sleep 3
        for _ in $(seq 1200); do [ -e "$work/asked" ] || ! kill -0 $! 2>/dev/null && break; sleep 0.05; done
        kill -TERM $!
    fi
    wait_for $! 60
    code=$?
    if [ $second = yes ]; then want=7; else want=143; fi
    [ $code = $want ] && ok || fail "SIGTERM, a second one: $second: exit code $code, not $want"
done
# Ctrl-C on a terminal goes to every process of the foreground; mpirun, for which it is a demand to kill the ranks, must not have
# it, and SIGUSR1 once. It sets its own handlers, whatever it was started with, as the stand-in does.
if command -v perl >/dev/null && SHELL=/bin/sh script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    # Counts each as it comes; a shell's traps count those that come together as one.
    cat >"$work/counter" <<'END'
my ($work, $count, $asked, $file) = ($ARGV[0], 0, 0);
$SIG{INT} = sub { $count++ };
$SIG{USR1} = sub { $asked++ };
sub tell_file { open($file, '>', "$work/$_[0]"); print $file "$_[1]\n"; close $file }
tell_file('begun', 'begun');
for (1 .. 600) { last if $count + $asked; select(undef, undef, undef, 0.1) }
my $end = time + 2;
select(undef, undef, undef, 0.1) while time < $end; # for what may follow
tell_file('interrupts', "$asked and $count");
exit 6;
END
    stand_in mpirun '[[ "$*" == *ppr:1:node* ]] && exit; PERL_SIGNALS=unsafe exec perl '"$work/counter $work"
    rm -f "$work/begun" "$work/interrupts"
    mkfifo "$work/keys"
    # Perl undoes what & does, which is to ignore SIGINT. script takes the shell of $SHELL, and of these some start the command as
    # a child and end by the SIGINT themselves: exec, so that there is none.
    PATH="$work/bin:$PATH" SHELL=/bin/sh perl -e '$SIG{INT} = "DEFAULT"; exec @ARGV' \
        script -qec "exec $launch/hosts.sh $work/hosts -- --config a.yaml" /dev/null \
        <"$work/keys" >"$work/out" 2>"$work/err" &
    exec 4>"$work/keys"
    for _ in $(seq 600); do [ -s "$work/begun" ] && break; sleep 0.1; done
    printf '\003' >&4
    wait_for $! 90
    code=$?
    exec 4>&-
    [ $code = 6 ] && ok || fail "after Ctrl-C: exit code $code, not mpirun's"
    got=$(cat "$work/interrupts" 2>/dev/null)
    [ "$got" = "1 and 0" ] && ok || fail "after Ctrl-C mpirun had SIGUSR1 and SIGINT '$got' times"
else
    echo "SKIP Ctrl-C on a terminal: it needs perl, and script with a terminal to give"
fi
stand_in mpirun 'exit "${MPIRUN_CODE:-0}"'
stand_in df 'printf "Filesystem 1024-blocks Used Available Capacity Mounted\ntmpfs 100 96 4 96%% /tmp\n"'
refuses "a full /tmp" 1 "/tmp has no room left (4 kB)" with env -u TMPDIR $launch/one_host.sh -n 2 -- --config a.yaml
stand_in df 'exit 1'
holds "a df that fails" with $launch/one_host.sh -n 2 -- --config a.yaml
rm "$work/bin/df"
refuses "an option for a host file" 2 "first argument is the host file" with $launch/hosts.sh --config a.yaml

printf 'first slots=8\n  second # one\n' >"$work/hosts"
holds "a host without slots" with $launch/hosts.sh "$work/hosts" -- --config a.yaml
called "a host without slots has one" "-n 9 "

# What a rank gets.
rank() { env OMPI_COMM_WORLD_LOCAL_RANK="$1" OMPI_COMM_WORLD_LOCAL_SIZE="$2" "${@:3}"; }
# shellcheck disable=SC2016
show='echo "gpu $CUDA_VISIBLE_DEVICES cores $(nproc)"'
holds "its own GPU" rank 1 2 $launch/rank.sh sh -c "$show"
says "its own GPU" "gpu 1 cores $(nproc)"
holds "its GPU of a list" rank 1 2 env CUDA_VISIBLE_DEVICES=4,7 $launch/rank.sh sh -c "$show"
says "its GPU of a list" "gpu 7 "
holds "the launcher's GPU" rank 1 2 env CUDA_VISIBLE_DEVICES=5 $launch/rank.sh sh -c "$show"
says "the launcher's GPU" "gpu 5 "
refuses "fewer GPUs than ranks" 2 "3 ranks on" rank 2 3 env CUDA_VISIBLE_DEVICES=4,7 $launch/rank.sh true
if command -v taskset >/dev/null && [ "$(nproc)" -ge 2 ]; then
    holds "its share of the cores" rank 1 2 $launch/rank.sh --share-cores sh -c "$show"
    says "its share of the cores" "cores $((($(nproc) + 1) / 2))"
    holds "more ranks than cores" rank 1 1000 $launch/rank.sh --share-cores sh -c "$show"
    says "more ranks than cores share all" "cores $(nproc)"
else
    echo "SKIP shares of cores: needs taskset and two cores"
fi

# Slurm: the job is resumed by itself, and goes back into the queue when its time is nearly over.
slurm() { with env SLURM_JOB_ID=42 TW_DELAY=0 SLURM_SUBMIT_DIR="$PWD" SLURM_CPUS_PER_TASK=8 bash $launch/slurm.sbatch "$@"; }
stand_in srun 'exit 0'
# What Slurm says of the job, in $work/job, and where it was asked.
stand_in scontrol '[ "$1" = requeue ] && exit "${REQUEUE_CODE:-0}"; cat '"$work/job"
requeued() { grep -q "^scontrol requeue" "$work/calls"; }
job_is() { # STATE [REASON [RESTARTS [PREEMPTED]]]: as Slurm 22.05 writes it
    echo "JobId=42 JobName=tuwen UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901759 Nice=0 Account=(null) QOS=(null)" \
        "JobState=$1 Reason=${2:-None} Dependency=(null) Requeue=1 Restarts=${3:-0} BatchFlag=1 Reboot=0 ExitCode=0:0 TimeLimit=00:05:00" \
        "StartTime=2026-12-01T01:35:15 Deadline=N/A ${4:+PreemptEligibleTime=2026-12-01T01:35:15 PreemptTime=$4 }SuspendTime=None" >"$work/job"
}
job_is RUNNING
mkdir "$work/run"
touch "$work/run/stop" # left behind
holds "a job" slurm "$work/run" --config a.yaml
called "a job" "srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=8 scripts/launch/rank.sh $tuwen train --output $work/run --resume auto --config a.yaml --stop_file $work/run/stop"
requeued && fail "a job that is done goes back into the queue" || ok
[ -e "$work/run/stop" ] && fail "an old stop file ends the new job" || ok
# starts CODE COUNT CODES...: the I-th start of the ranks ends with the I-th of CODES, the last again and again.
starts() {
    local want=$1 count=$2 code
    echo "${@:3}" >"$work/codes"
    slurm "$work/run" --config a.yaml >"$work/out" 2>"$work/err"
    code=$?
    if [ $code = "$want" ] && [ "$(grep -c '^srun .*train' "$work/calls")" = "$count" ]; then ok
    else fail "starts that end with ${*:3}: exit code $code after $(grep -c '^srun .*train' "$work/calls") starts"; fi
}
# A start, or the question whether the nodes answer.
stand_in srun '[ "${*: -1}" != true ] || exit ${NODES:-0}; read -ra codes <'"$work/codes"'; i=$(grep -c "^srun .*train" '"$work/calls"'); [ $i -le ${#codes[@]} ] || i=${#codes[@]}; exit ${codes[i-1]}'
starts 0 1 0
starts 0 3 137 1 0
starts 1 4 1
starts 2 1 2
starts 0 3 1 2 0 # what was good once is no usage error
TW_RESTARTS=0 starts 7 1 7
TW_RESTARTS=5 starts 9 6 9
called "it is asked whether the nodes answer" "srun --nodes=1 --ntasks=1 --ntasks-per-node=1 true"
requeued && fail "a job whose nodes answer goes back into the queue" || ok
# A node is gone: other nodes, at once; without a checkpoint only a few times.
NODES=1 starts 9 1 9
called "a node is gone" "scontrol requeue 42"
NODES=1 SLURM_RESTART_COUNT=3 starts 9 4 9
requeued && fail "a job that never saves goes back into the queue without end" || ok
touch "$work/run/latest"
NODES=1 SLURM_RESTART_COUNT=3 starts 9 1 9
called "a node is gone again" "scontrol requeue 42"
rm "$work/run/latest"
# Cancelled, and the ranks and nodes were faster than the script's SIGTERM; or a preemption is announced, of which it has none.
job_is COMPLETING
NODES=1 starts 9 1 9
says "cancelled, the nodes do not answer" "the job is cancelled and stays out of the queue"
requeued && fail "a cancelled job that fails goes back into the queue" || ok
starts 143 1 143
requeued && fail "a cancelled job whose ranks have ended goes back into the queue" || ok
job_is RUNNING None 0 2026-12-01T01:36:00
starts 143 1 143
called "a preemption is announced" "scontrol requeue 42"
says "a preemption is announced" "saved on SIGTERM, as the job is preempted; back into the queue"
job_is RUNNING None 0 None
starts 0 2 143 0 # somebody's SIGTERM to the ranks
refuses "no number of restarts" 2 "numbers are needed" env TW_RESTARTS=many SLURM_SUBMIT_DIR="$PWD" bash $launch/slurm.sbatch "$work/run" --config a.yaml
stand_in srun 'touch '"$work/started"'; for i in $(seq 1200); do [ -e '"$work/run/stop"' ] && { sleep 0.2; exit ${SRUN_CODE:-0}; }; sleep 0.1; done; exit 9'
# asks_to_save SIGNAL CODE WANT TEXT: a job gets SIGNAL, its ranks end with CODE (143: they had a SIGTERM too), and the script with WANT and
# TEXT.
asks_to_save() {
    local got
    rm -f "$work/started" "$work/run/stop"
    : >"$work/calls"
    PATH="$work/bin:$PATH" SRUN_CODE=$2 SLURM_JOB_ID=42 SLURM_SUBMIT_DIR=$PWD TUWEN=$tuwen \
        bash $launch/slurm.sbatch "$work/run" --config a.yaml >"$work/out" 2>&1 &
    local pid=$!
    for _ in $(seq 1200); do [ -e "$work/started" ] || ! kill -0 $pid 2>/dev/null && break; sleep 0.05; done
    if [ ! -e "$work/started" ]; then
        fail "slurm.sbatch never came to srun"
        kill $pid 2>/dev/null
        return
    fi
    kill "-$1" $pid
    wait $pid
    got=$?
    [ $got = "$3" ] && ok || fail "after SIG$1, $(cat "$work/job"): exit code $got, expected $3"
    says "after SIG$1, $(cat "$work/job")" "$4"
}
goes_back() { asks_to_save "$1" "$2" "$2" "$3; back into the queue" && called "after SIG$1" "scontrol requeue 42"; }
stays_out() { asks_to_save "$@" && { requeued && fail "after SIG$1: it goes back into the queue" || ok; }; }
job_is RUNNING
goes_back USR1 0 "saved when Slurm asked for it"
goes_back USR1 143 "saved when Slurm asked for it"
goes_back TERM 0 "saved on SIGTERM"
stays_out USR1 1 1 "exit code 1 when asked to save: the last checkpoint is older"
REQUEUE_CODE=1 asks_to_save USR1 0 1 "scontrol requeue failed: submit the same line"
job_is COMPLETING
for signal in TERM USR1; do
    stays_out $signal 0 0 "the job is cancelled and stays out of the queue"
    stays_out $signal 143 143 "the job is cancelled and stays out of the queue"
done
job_is CANCELLED
stays_out TERM 0 0 "the job is cancelled and stays out of the queue"
job_is COMPLETING None 0 None # it could be preempted, but is cancelled
stays_out TERM 143 143 "the job is cancelled and stays out of the queue"
job_is COMPLETING None 0 2026-12-01T01:36:00
goes_back TERM 143 "saved on SIGTERM, as the job is preempted"
job_is COMPLETING TimeLimit
goes_back TERM 143 "saved on SIGTERM, at the time limit"
job_is COMPLETING None 1 # by the administrator, a preemption or a lost node
stays_out TERM 143 143 "Slurm itself has put the job back into the queue"
export SLURM_RESTART_COUNT=1
stays_out TERM 143 143 "the job is cancelled and stays out of the queue"
unset SLURM_RESTART_COUNT
: >"$work/job" # slurmctld does not answer
goes_back USR1 0 "saved when Slurm asked for it"
stays_out TERM 0 1 "Slurm does not say whether the job is cancelled"
refuses "no run folder" 2 "first argument is the run folder" slurm --config a.yaml
refuses "submitted elsewhere" 2 "submit from the project's folder" with env SLURM_SUBMIT_DIR="$work" bash $launch/slurm.sbatch "$work/run" --config a.yaml

# The real thing.
if ! command -v mpirun >/dev/null || ! ldd "$tuwen" | grep -q libmpi; then
    echo "SKIP two ranks: mpirun is not installed or this build has no MPI"
else
    data=$work/data
    export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
    holds "shapes" "$tuwen" shapes "$data" --train 40 --valid 8 --size 32
    holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train,valid
    options=(--model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --batch 20 --max_steps 3 --warmup 1
        --mask_ratio 0.5 --log_interval 1)
    export ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # as tests/mpirun.sh: Open MPI's plug-ins
    holds "one rank" $launch/one_host.sh -n 1 -- "${options[@]}" --output "$work/one" --threads 1
    holds "two ranks" $launch/one_host.sh -n 2 -- "${options[@]}" --output "$work/two"
    losses() { grep -o '"loss": *[0-9.]*' "$1/log.jsonl" | sed 's/.*: *//'; }
    if [ "$(losses "$work/two" | wc -l)" = 3 ] && paste <(losses "$work/one") <(losses "$work/two") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-4 * $1) bad = 1 } END { exit bad }'; then ok; else
        fail "two ranks give other losses than one: $(losses "$work/one" | xargs) and $(losses "$work/two" | xargs)"
    fi
    if "$tuwen" info "$work/two/latest" 2>/dev/null | grep -q "ranks: 2"; then ok; else fail "the checkpoint was not made by two ranks"; fi
    refuses "a usage error ends the job" 2 "unknown option" $launch/one_host.sh -n 2 -- "${options[@]}" --output "$work/no" --batchsize 3
    [ "$(grep -c "unknown option" "$work/err")" = 1 ] && ok || fail "a usage error is not said once"
    echo "batchsize: 3" >"$work/wrong.yaml"
    # One that only a rank other than 0 has is said all the same.
    command=("$tuwen" train "${options[@]}" --output "$work/no")
    refuses "a recipe that one rank cannot read" 2 "unknown key 'batchsize'" tests/mpirun.sh 2 bash tests/rank_differs.sh \
        ${#command[@]} "${command[@]}" --config "$work/wrong.yaml"
fi
finish
