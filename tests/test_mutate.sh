#!/usr/bin/env bash
# scripts/mutate.sh: each of its faults still finds its place in the source, and one that does not is told. Argument: the build folder.
set -u
. tests/shell.sh "$1"
holds "every fault has a place and tests" scripts/mutate.sh --check
mkdir -p "$work/scripts" "$work/tests"
cp scripts/mutate.sh "$work/scripts"
refuses "faults without a place" 1 "changes nothing" "$work/scripts/mutate.sh" --check
places=$(grep -c '^    "\$1" ' scripts/mutate.sh)
[ "$places" -gt 30 ] && [ "$(grep -c 'changes nothing$' "$work/err")" = "$places" ] && ok || fail "not all of $places faults are told"
grep -q 'there is no test_arena$' "$work/err" && ok || fail "a test that is gone is not told"
finish
