# What the suites share in which `tuwen train` on $1 ranks is disturbed; sourced after shell.sh. Makes a data set and an
# undisturbed run ($work/whole, of $whole_s seconds); says SKIP and ends the suite where there are no ranks.
ranks=$1
hash=$build/tests/tool_checkpoint_hash
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP faults of training: this build has no MPI, or mpirun is not installed"
    finish
    exit
fi

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 60 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
options=(--model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --batch 18 --max_steps 60 --warmup 3 --lr 1e-3
    --save_interval 4 --log_interval 1 --threads 1 --num_workers 1 --text_dropout 0.1 --report false --rank_timeout 6)
whole_s=$SECONDS
holds "undisturbed" timeout 600 tests/mpirun.sh "$ranks" "$tuwen" train "${options[@]}" --output "$work/whole" \
    --sample_log "$work/whole.samples"
whole_s=$((SECONDS - whole_s + 1))
if ! grep -q "$ranks ranks start from the same weights" "$work/whole/log.jsonl" "$work/out"; then
    echo "SKIP faults of training: tuwen train of this build does not join the ranks of a launcher"
    finish
    exit
fi
slack=$((20 + whole_s)) # seconds that this machine takes to start and stop a job, beyond the rank_timeout

begin() { # FOLDER OPTIONS...: so many ranks, in the background
    local folder=$1
    shift
    "${begin_on[@]}" tests/mpirun.sh "$ranks" "$tuwen" train "${options[@]}" --output "$folder" "$@" >"$work/out" 2>"$work/err" &
    job=$!
}
begin_on=() # what goes before mpirun: it begins on another host
left() { pgrep -f "^$tuwen train .*--output $work" | wc -l; }
# find_pids FOLDER: the process of each rank of the run there (pids), once all are there or the job has ended; fails if
# neither comes.
find_pids() {
    local latest=$((SECONDS + 300)) p r
    pids=()
    while [ ${#pids[@]} -lt "$ranks" ] && kill -0 $job 2>/dev/null; do
        [ $SECONDS -lt $latest ] || return 1
        for p in $(pgrep -f "^$tuwen train .*--output $1( |\$)"); do
            r=$(tr '\0' '\n' 2>/dev/null <"/proc/$p/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
            [ -z "$r" ] || pids[r]=$p
        done
        sleep 0.02
    done
}
# after_step FOLDER STEP: waits until it is logged or the job has ended; fails if neither comes.
after_step() {
    local latest=$((SECONDS + 300))
    until grep -qs "\"step\":$2," "$1/log.jsonl" || ! kill -0 $job 2>/dev/null; do
        [ $SECONDS -lt $latest ] || return 1
        sleep 0.01
    done
}
over() { grep -qs '"event":"end"' "$1/log.jsonl"; }
# strike NAME FOLDER COMMAND...: begins a run, does COMMAND (pids are known) at a random step ($step) and waits for the end
# (code, after took seconds). A quick machine may end the run before: then it is struck sooner, and from the start.
undo=true # takes the command back then
strike() {
    local name=$1 folder=$2 try limit=$((2 * (6 + slack)))
    shift 2
    step=$((RANDOM % 40 + 5))
    for try in 1 2 3 4 5 6 7 8; do
        rm -rf "$folder"
        [ $try = 1 ] || $undo
        begin "$folder"
        took=$SECONDS
        if find_pids "$folder" && after_step "$folder" $step; then
            took=$SECONDS
            "$@" 2>/dev/null
        else
            fail "$name: step $step has not come"
            limit=0
        fi
        wait_for $job $limit
        code=$?
        took=$((SECONDS - took))
        [ $took -lt $limit ] && over "$folder" || return 0
        step=$((step / 2 + 1))
    done
    fail "$name: the run was always over before"
}
# ended NAME MESSAGE: the job ended in time and with MESSAGE once, and nothing is left of it.
ended() {
    for _ in $(seq $((10 * slack))); do [ "$(left)" = 0 ] && break; sleep 0.1; done
    if [ $code = 0 ] || [ $took -gt $((6 + slack)) ]; then fail "$1: exit code $code after $took s"
    elif [ "$(grep -h -E "$2" "$work/out" "$work/err" | wc -l)" != 1 ]; then fail "$1: not one '$2'"
    elif [ "$(left)" != 0 ]; then fail "$1: processes are left"
    else ok; fi
}
same() { # NAME FOLDER: it ended as the undisturbed run did
    local a b
    a=$($hash "$work/whole/latest" 2>&1) && b=$($hash "$2/latest" 2>&1) && [ "$a" = "$b" ] && { ok; return; }
    fail "$1: '$a' is not '$b'"
}
resumed() { # NAME FOLDER: on as many ranks
    holds "$1, resumed" timeout 600 tests/mpirun.sh "$ranks" "$tuwen" train "${options[@]}" --output "$2" --resume auto
    same "$1" "$2"
}
