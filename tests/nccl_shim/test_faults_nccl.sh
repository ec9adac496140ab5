#!/usr/bin/env bash
# Faults of ranks on GPUs, over the stand-ins for NCCL and the device: whatever happens to a rank or to NCCL, the job ends
# in bounded time with one message that names rank and cause, an exit code other than 0, and nothing left running.
# Arguments: the build folder, and, in a build with CUDA, "gpus": over NCCL on the GPUs that there are.
set -u
. tests/shell.sh "$1"
. tests/nccl_shim/ranks.sh "faults over NCCL" "${2:-}"
. tests/faults.sh "$build/tests/nccl_shim/tool_ranks_nccl"
last=$((n - 1))
spin_slack=150
if [ "$gpus" -gt 0 ]; then
    timeout_s=20 # CUDA and NCCL take seconds to start, one rank longer than another
    slack=60
fi

# begin RANKS DEVICE [ARGUMENTS OF tool_ranks_nccl]: begins a job. `each`: a shell command that each rank runs first.
each=:
begin() {
    local n=$1
    shift
    launch "$n" bash -c "$each"'; exec "$@"' rank "$ranks_tool" "$work/pids" $timeout_s "$@"
}
# start …: the same, and waits until all ranks compute.
start() {
    begin "$@"
    all_begun "$1"
}

# computes NAME TEXT: the job ends well, and says TEXT.
computes() {
    wait $job
    local code=$?
    if [ $code != 0 ]; then fail "$1: exit code $code"
    elif ! grep -qF "$2" "$work/out"; then fail "$1: no '$2'"
    elif ! grep -qF "sums are right" "$work/out"; then fail "$1: no sums"
    else ok; fi
}

# disagree CALL: what is said where rank 1 waits in it, and all others in all_reduce; of two ranks neither is alone.
disagree() { echo "rank 1 of $n .* waits in $1, rank [02] in all_reduce|rank 0 of 2 .* waits in all_reduce, rank 1 in $1"; }

of_ranks() { # the end of GPU 0's name
    local quiet=$slack
    start $n cuda stop 1; computes "$n ranks" "on cuda:0$1"
    start $n cuda; kill -9 "$(pid $last)"; ends "a rank killed" "rank $last with PID .* exited on"
    start $n cuda; kill -STOP "$(pid 1)"; ends "a rank stopped" "rank 1 of $n \(process $(pid 1) on .*has not been heard of"
    start $n cuda hang $last; ends "a rank hangs" "rank $last of $n .* hangs: rank [01] has waited .* for it in all_reduce"
    slack=$spin_slack; start $n cuda spin $last
    ends "a rank computes without end" "rank $last of $n .* hangs: rank [01] has waited .* for it in all_reduce, .* got nothing done"
    slack=$quiet
    start $n cuda fail 1; ends "a rank fails" "tool_ranks_nccl: rank 1 of $n on .*: no space left on device"
    start $n cuda host 1; ends "a call of another group" "$(disagree broadcast)"
    start $n cuda differ 1; ends "another call" "$(disagree all_gather)"
}

fault() { export TW_SHIM_NCCL_FAULT=$1; }
of_nccl() {
    fault error:1:20; begin 3 cuda; ends "an asynchronous error" \
        "rank 1 of 3 on .*: all_reduce number 20: .*NCCL 2.28.0 says unhandled system error: a cable was pulled"
    fault lost:2:20; begin 3 cuda; ends "a lost peer that nobody else knows of" \
        "rank 2 of 3 on .*: all_reduce number 20: .*remote process exited"
    fault stall:1:20; begin 3 cuda; ends "a collective that never ends" "rank [0-2] of 3 .* waits in all_reduce, .* all others wait too"
    fault init:1; begin 3 cuda; ends "a rank that is never joined" "rank [0-2] of 3 on .*: NCCL 2.28.0 has not joined the 3 ranks within 6 s"
    fault abort:1; begin 3 cuda; ends "an abort that hangs" "rank [0-2] of 3 .* waits in all_reduce"
    unset TW_SHIM_NCCL_FAULT
    export TW_SHIM_NCCL_VERSION=22005; begin 2 cuda
    ends "an old library" "rank [01] of 2 on .*: the library that is loaded is NCCL 2.20.5, but this build needs NCCL 2.28.0 or later"
    unset TW_SHIM_NCCL_VERSION
    each='[ $OMPI_COMM_WORLD_RANK = 1 ] && export TW_SHIM_NCCL_VERSION=22907'; begin 2 cuda
    ends "two versions" "rank 1 on .* has version 22907 of NCCL, rank 0 on .* has 22800"
    each=:
}

of_pretended_gpus() {
    export TW_SHIM_GPUS=2; begin 3 cuda
    ends "more ranks than GPUs" "3 processes were started on .*, but for rank 2 none of the 2 GPUs that it sees .* is left: NCCL serves one rank a GPU"
    begin 3 auto; ends "more ranks than GPUs, auto" "3 processes were started on .*, but for rank 2 none"
    begin 2 auto stop 0; computes "as many ranks as GPUs, auto" "on cuda:0"
    export TW_SHIM_GPUS=4
    each='export CUDA_VISIBLE_DEVICES=$((3 - OMPI_COMM_WORLD_RANK))'; begin 3 cuda stop 0
    computes "a launcher that gives each rank its GPU" "on cuda:0 (GPU 3 of threads)"
    each='export CUDA_VISIBLE_DEVICES=2,3'; begin 2 cuda stop 0; computes "two of four GPUs" "on cuda:0 (GPU 2 of threads)"
    each='export CUDA_VISIBLE_DEVICES=1'; begin 2 cuda; ends "one GPU for two ranks" "2 processes were started on .*, but for rank 1 none of the 1 GPUs"
    each='[ $OMPI_COMM_WORLD_RANK = 1 ] && export TW_SHIM_GPUS=0'; begin 2 auto; ends "a host without GPU" "rank 1 on .* sees no GPU"
    each=:
    export TW_SHIM_GPUS=0; begin 2 cuda; ends "no GPU" "rank [01] of 2 on .*: no CUDA device is seen"
    begin 2 auto stop 1; computes "no GPU, auto" "on cpu"
}

# The same of those that this machine has, or that this job may use of them.
of_gpus() {
    local some mine more=$((gpus + 1))
    some=$(seq -s, 0 $((gpus - 1)))
    IFS=, read -ra mine <<<"${CUDA_VISIBLE_DEVICES:-$some}"
    begin $more cuda
    ends "more ranks than GPUs" "$more processes were started on .*, but for rank $gpus none of the $gpus GPUs that it sees .* is left: NCCL serves one rank a GPU"
    begin $more auto; ends "more ranks than GPUs, auto" "$more processes were started on .*, but for rank $gpus none"
    each="export CUDA_VISIBLE_DEVICES=${mine[0]}"; begin 2 cuda
    ends "one GPU for two ranks" "2 processes were started on .*, but for rank 1 none of the 1 GPUs"
    each='[ $OMPI_COMM_WORLD_RANK = 1 ] && export CUDA_VISIBLE_DEVICES='; begin 2 auto; ends "a host without GPU" "rank 1 on .* sees no GPU"
    each='export CUDA_VISIBLE_DEVICES='; begin 2 cuda; ends "no GPU" "rank [01] of 2 on .*: no CUDA device is seen"
    begin 2 auto stop 1; computes "no GPU, auto" "on cpu"
    each=:
    [ "$gpus" -gt 1 ] || return
    begin 2 auto stop 0; computes "as many ranks as GPUs, auto" "on cuda:0"
    each="mine=(${mine[1]} ${mine[0]})"'; export CUDA_VISIBLE_DEVICES=${mine[OMPI_COMM_WORLD_RANK]}'; begin 2 cuda stop 0
    computes "a launcher that gives each rank its GPU" "on cuda:0"
    each=:
}

if [ "$gpus" = 0 ]; then
    of_ranks " (GPU 0 of threads)"
    of_nccl
    of_pretended_gpus
else
    [ "$gpus" -gt 1 ] || echo "SKIP faults of several ranks: one GPU is seen"
    of_gpus
    [ "$gpus" -lt 2 ] || of_ranks ""
fi
finish
