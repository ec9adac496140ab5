#!/usr/bin/env bash
# scripts/run_elastic.sh with stand-ins for the program, mpirun and ssh. Argument: the build folder.
set -u
. tests/shell.sh "$1"
elastic=scripts/run_elastic.sh
mkdir "$work/bin"

# The program: its I-th start ends with the I-th word of $work/codes (the last word again and again).
cat >"$work/bin/tuwen" <<'END'
#!/bin/bash
echo "$@" >>"$WORK/starts"
read -ra codes <"$WORK/codes"
i=$(wc -l <"$WORK/starts")
[ $i -le ${#codes[@]} ] || i=${#codes[@]}
code=${codes[i-1]}
[ "$code" != wait ] || exec sleep 60
exit "$code"
END
# mpirun: a check of hosts succeeds, a job is the program once.
cat >"$work/bin/mpirun" <<'END'
#!/bin/bash
for ((i = 1; i <= $#; i++)); do
    [ "${!i}" != -n ] || { j=$((i + 1)); echo "ranks ${!j}" >>"$WORK/ranks"; exec tuwen; }
done
END
# ssh: host b is gone once $work/gone exists.
cat >"$work/bin/remote" <<'END'
#!/bin/bash
[ "$1" != b ] || [ ! -e "$WORK/gone" ]
END
chmod +x "$work/bin/"*
export WORK=$work PATH=$work/bin:$PATH TUWEN=$work/bin/tuwen TW_REMOTE=$work/bin/remote

# try CODES EXPECTED-CODE STARTS ARGUMENTS...
try() {
    local codes=$1 want=$2 starts=$3 code
    shift 3
    echo "$codes" >"$work/codes"
    rm -f "$work/starts" "$work/ranks" && touch "$work/starts"
    $elastic --delay 0 "$@" >"$work/out" 2>"$work/err"
    code=$?
    if [ $code != "$want" ]; then fail "$codes: exit code $code, expected $want"
    elif [ "$(wc -l <"$work/starts")" != "$starts" ]; then fail "$codes: $(wc -l <"$work/starts") starts, expected $starts"
    else ok; fi
}
try "0" 0 1 -n 1 -- --output run
holds "resumes" grep -qx "train --output run --resume auto" "$work/starts"
try "137 1 0" 0 3 -n 1 -- --output run
try "1" 1 4 -n 1 -- --output run
if grep -q "exit code 1 after 3 restarts: giving up" "$work/err"; then ok; else fail "says that it gives up"; fi
try "7" 7 1 -k 0 -n 1 -- --output run
try "2" 2 1 -n 1 -- --output run
refuses "resume" 2 "--resume is set here" $elastic -n 1 -- --output run --resume latest
refuses "no options" 2 "give the options" $elastic -k 2
refuses "no host file" 2 "no such host file" $elastic --hosts "$work/none" -- --output run
refuses "bad number" 2 "are numbers" $elastic -k many -- --output run

# ---- hosts that come to be missing ----
printf '# two hosts\na slots=4\nb slots=2\n' >"$work/hosts"
try "1 0" 0 2 --hosts "$work/hosts" -- --output run
holds "all ranks twice" diff <(printf 'ranks 6\nranks 6\n') "$work/ranks"
touch "$work/gone"
try "0" 0 1 --hosts "$work/hosts" -- --output run
if grep -q "b does not answer" "$work/err"; then ok; else fail "the missing host is named"; fi
holds "fewer ranks" grep -qx "ranks 4" "$work/ranks"
try "0" 1 0 -k 0 --hosts "$work/hosts" --min-ranks 5 -- --output run
if grep -q "4 ranks are left, at least 5" "$work/err"; then ok; else fail "too few ranks"; fi

# ---- asked to stop: the job gets the signal and is not started again ----
echo wait >"$work/codes"
rm -f "$work/starts"
$elastic --delay 0 -n 1 -- --output run >"$work/out" 2>"$work/err" &
job=$!
for _ in $(seq 100); do [ -s "$work/starts" ] && break; sleep 0.1; done
sleep 0.3
kill -TERM $job
wait $job
code=$?
if [ $code = 143 ] && [ "$(wc -l <"$work/starts")" = 1 ]; then ok; else fail "SIGTERM: exit code $code"; fi
finish
