#!/usr/bin/env bash
# scripts/cores.sh: quotas of control groups of both versions, on made-up files. Argument: the build folder.
set -u
. tests/shell.sh "$1"
gives() { # NAME CORES
    local got
    got=$(scripts/cores.sh "$work/groups" 2>"$work/err")
    [ "$got" = "$2" ] && [ ! -s "$work/err" ] && ok || fail "$1: '$got' cores, expected $2"
}
all=$(nproc)
gives "no control groups" "$all"
mkdir -p "$work/groups"
version2() { echo "$1" >"$work/groups/cpu.max" && gives "cpu.max is '$1'" "$2"; }
version2 "max 100000" "$all"
version2 "100000 100000" 1
version2 "20000 100000" 1
version2 "$((all * 200000)) 100000" "$all"
version2 "$((all * 100000 - 30000)) 100000" "$all" # a part of a core counts as one
version2 "damaged" "$all"
rm "$work/groups/cpu.max"
mkdir "$work/groups/cpu"
version1() { echo "$1" >"$work/groups/cpu/cpu.cfs_quota_us" && gives "the quota is $1" "$2"; }
echo 100000 >"$work/groups/cpu/cpu.cfs_period_us"
version1 -1 "$all"
version1 50000 1
version1 "$((all * 100000))" "$all"
finish
