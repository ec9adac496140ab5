#!/usr/bin/env bash
# rank.sh [--share-cores] PROGRAM ARGUMENTS...: what one process of a launch runs. It gives the process its GPU, by its
# number on the host, unless the launcher has given the GPUs out already; with --share-cores also its share of the cores.
local_rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${SLURM_LOCALID:-0}}
local_ranks=${OMPI_COMM_WORLD_LOCAL_SIZE:-${SLURM_NTASKS_PER_NODE:-1}}
if [ "$local_ranks" -gt 1 ] 2>/dev/null; then
    if [ -z "${CUDA_VISIBLE_DEVICES:-}" ]; then
        export CUDA_VISIBLE_DEVICES=$local_rank
    elif [[ $CUDA_VISIBLE_DEVICES == *,* ]]; then # a list for all ranks of the host
        IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES"
        if [ "$local_rank" -ge "${#devices[@]}" ]; then
            echo "rank.sh: $local_ranks ranks on $(hostname), but CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES" >&2
            exit 2
        fi
        export CUDA_VISIBLE_DEVICES=${devices[local_rank]}
    fi
fi
if [ "$1" = --share-cores ]; then
    shift
    allowed=$(taskset -pc $$ 2>/dev/null) && allowed=${allowed##*: }
    cores=()
    for range in ${allowed//,/ }; do
        for ((core = ${range%-*}; core <= ${range#*-}; core++)); do cores+=("$core"); done
    done
    first=$((${#cores[@]} * local_rank / local_ranks)) end=$((${#cores[@]} * (local_rank + 1) / local_ranks))
    # More ranks than cores share all of them; so they do where there is no taskset.
    if [ "$local_ranks" -gt 1 ] && [ "${#cores[@]}" -ge "$local_ranks" ]; then
        mine=$(IFS=, && echo "${cores[*]:first:end-first}")
        taskset -pc "$mine" $$ >/dev/null
    fi
fi
# Threads that wait for others sleep: a spinning one takes a core from a rank, the loader or the network.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
exec "$@"
