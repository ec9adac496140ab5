# What the shell tests share; sourced with the build folder as argument, from the source folder. Sets tuwen
# (the program of the build folder $1) and work (a temporary folder, removed at the end with what still runs in it).
build=$1
tuwen=$build/tuwen
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
export TW_LATE_MPIRUN=$work/mpirun_late # written to by tests/mpirun.sh
passed=0
failed=0

ok() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL $1"
    tail -n 8 "$work/out" "$work/err" 2>/dev/null | sed 's/^/    /'
}
# holds NAME COMMAND...: the command succeeds.
holds() {
    local name=$1
    shift
    if "$@" >"$work/out" 2>"$work/err"; then ok; else fail "$name (exit code $?)"; fi
}
# refuses NAME CODE TEXT COMMAND...: it ends with CODE and an error that contains TEXT.
refuses() {
    local name=$1 code=$2 text=$3
    shift 3
    "$@" >"$work/out" 2>"$work/err"
    local got=$?
    if [ $got -ne "$code" ]; then fail "$name: exit code $got, expected $code"
    elif ! grep -qF -- "$text" "$work/err"; then fail "$name: no '$text' in the error"
    else ok; fi
}
# wait_for PID SECONDS: waits until this child has ended, by force if it takes longer; its exit code.
wait_for() {
    local latest=$((SECONDS + $2)) signal=TERM
    while kill -0 "$1" 2>/dev/null; do
        if [ $SECONDS -ge $latest ]; then
            kill -$signal "$1" 2>/dev/null
            signal=KILL latest=$((latest + 5))
        fi
        sleep 0.05
    done
    wait "$1"
}
# The closing line that scripts/test.sh counts; the status of the test.
finish() {
    [ ! -s "$work/mpirun_late" ] || echo "NOTE an mpirun that waited for itself was ended, $(wc -l <"$work/mpirun_late") times (tests/mpirun.sh)"
    echo "tests: $passed passed, $failed failed"
    [ $failed -eq 0 ]
}
