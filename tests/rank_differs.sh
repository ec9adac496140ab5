#!/usr/bin/env bash
# rank_differs.sh COUNT WORDS...: runs the first COUNT words as a command, on rank 1 with the others behind them. (Several
# commands in one mpirun would do the same, but Debian 13's mpirun crashes on them.)
count=$1
shift
all=("${@:1:count}")
more=("${@:count+1}")
[ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ] || more=()
exec "${all[@]}" "${more[@]}"
