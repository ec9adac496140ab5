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
if [ "$code" = wait ]; then # for a signal
    trap 'echo USR1 >>"$WORK/signals"; exit 0' USR1
    trap 'echo TERM >>"$WORK/signals"; exit 143' TERM
    touch "$WORK/ready"
    for ((i = 0; i < 600; i++)); do sleep 0.1; done
fi
exit "$code"
END
# mpirun: a check of hosts succeeds, unless $work/checks has a line, which it takes away; a job is the program once.
cat >"$work/bin/mpirun" <<'END'
#!/bin/bash
if [[ "$*" == *ppr:1:node* ]]; then
    [ -s "$WORK/checks" ] || exit 0
    sed -i 1d "$WORK/checks"
    exit 1
fi
for ((i = 1; i <= $#; i++)); do
    [ "${!i}" != -n ] || { j=$((i + 1)); echo "ranks ${!j}" >>"$WORK/ranks"; exec tuwen; }
done
END
# ssh: host b is gone once $work/gone exists, and does not see this folder once $work/bare does.
cat >"$work/bin/remote" <<'END'
#!/bin/bash
echo "welcome to $1"
[ "$1" != b ] || [ ! -e "$WORK/gone" ] || exit 255
question=$2
[ "$1" != b ] || [ ! -e "$WORK/bare" ] || question=${question//"$PWD"/"$PWD/none"}
HOST=$1 sh -c "$question"
END
# nvidia-smi: the host's line of $work/gpus says how many; the first of them is lost with the job's second start.
cat >"$work/bin/nvidia-smi" <<'END'
#!/bin/bash
n=$(sed -n "s/^$HOST //p" "$WORK/gpus" 2>/dev/null)
[ "$(wc -l <"$WORK/starts")" -lt 1 ] || [ "$HOST" != a ] || n=$((n - 1))
for ((i = 0; i < n; i++)); do echo "GPU $i: a"; done
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
try "1 2 0" 0 3 -n 1 -- --output run # what was good once is no usage error
refuses "resume" 2 "--resume is set here" $elastic -n 1 -- --output run --resume latest
refuses "no options" 2 "give the options" $elastic -k 2
refuses "no host file" 2 "no such host file" $elastic --hosts "$work/none" -- --output run
refuses "bad number" 2 "are numbers" $elastic -k many -- --output run
for option in -k -n --hosts --interface --min-ranks --delay; do refuses "$option alone" 2 "run_elastic.sh: $option needs" $elastic $option; done
refuses "a folder for a host file" 2 "run_elastic.sh: $work: no such host file" $elastic --hosts "$work" -- --output run
# What was never there is no host that is lost: nothing is tried again.
echo '# none' >"$work/nobody"
refuses "no host in the file" 2 "names no host" $elastic --delay 0 --hosts "$work/nobody" -- --output run
echo 'a slots=4' >"$work/four"
refuses "more ranks than the hosts have" 2 "--min-ranks 5: there are only 4 ranks" $elastic --delay 0 --hosts "$work/four" --min-ranks 5 -- --output run
refuses "more ranks than asked for" 2 "--min-ranks 3: there are only 2 ranks" $elastic --delay 0 -n 2 --min-ranks 3 -- --output run

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
rm "$work/gone"
touch "$work/bare"
try "0" 0 1 --hosts "$work/hosts" -- --output run
if grep -q "b has no folder" "$work/err"; then ok; else fail "the host without the folder is named"; fi
holds "no ranks without the folder" grep -qx "ranks 4" "$work/ranks"
rm "$work/bare"
echo fails >"$work/checks" # a host answers ssh and is gone when mpirun asks it
try "0" 0 1 --hosts "$work/hosts" -- --output run
if grep -q "exit code 3: restart 1 of 3" "$work/err"; then ok; else fail "a host that fails mpirun's check ends the run"; fi
printf 'a 4\nb 2\n' >"$work/gpus"
try "1 0" 0 2 --hosts "$work/hosts" -- --output run
holds "a rank fewer without a GPU" diff <(printf 'ranks 6\nranks 5\n') "$work/ranks"
rm "$work/gpus"
printf 'a\nb slots=2\n' >"$work/hosts"
try "0" 0 1 --hosts "$work/hosts" -- --output run
holds "a host without slots has one" grep -qx "ranks 3" "$work/ranks"
echo 'a slots=many' >"$work/hosts"
try "0" 2 0 --hosts "$work/hosts" -- --output run

# ---- this machine with fewer GPUs ----
export HOST=a
echo "a 4" >"$work/gpus"
try "1 0" 0 2 -n 4 -- --output run
if grep -q "this machine has 3 GPUs, at the first start 4" "$work/err"; then ok; else fail "the lost GPU is not said"; fi
holds "a rank fewer on this machine" diff <(printf 'ranks 4\nranks 3\n') "$work/ranks"
try "1 0" 0 2 -- --output run
holds "as many ranks as GPUs" diff <(printf 'ranks 4\nranks 3\n') "$work/ranks"
try "1 0" 0 2 -n 3 -- --output run
holds "ranks that three GPUs serve" diff <(printf 'ranks 3\nranks 3\n') "$work/ranks"
try "1 0" 0 2 -n 6 -- --output run # not one a GPU
holds "ranks beyond the GPUs" diff <(printf 'ranks 6\nranks 5\n') "$work/ranks"
try "9 0" 1 1 -k 1 -n 4 --min-ranks 4 -- --output run
if grep -q "3 ranks are left, at least 4" "$work/err"; then ok; else fail "too few ranks on this machine"; fi
echo "a 1" >"$work/gpus"
try "9 0" 1 1 -k 1 -- --output run
if grep -q "0 ranks are left, at least 1" "$work/err"; then ok; else fail "no GPU is left: it goes on with something else"; fi
rm "$work/gpus"
unset HOST

# ---- asked to stop: the job gets the signal and is not started again ----
asked() { # SIGNAL GETS CODE ARGUMENTS...
    local signal=$1 gets=$2 want=$3 job code
    shift 3
    echo wait >"$work/codes"
    rm -f "$work/starts" "$work/signals" "$work/ready"
    # A shell cannot trap what was ignored when it began, as SIGHUP is under nohup.
    env --default-signal=HUP $elastic --delay 0 "$@" -- --output run >"$work/out" 2>"$work/err" &
    job=$!
    for _ in $(seq 600); do [ -e "$work/ready" ] && break; sleep 0.1; done
    [ -e "$work/ready" ] && ok || fail "the job was not started within a minute"
    kill "-$signal" $job
    wait $job
    code=$?
    if [ $code = "$want" ] && [ "$(wc -l <"$work/starts")" = 1 ] && [ "$(cat "$work/signals")" = "$gets" ]; then ok
    else fail "$signal: exit code $code, the job got $(cat "$work/signals" 2>/dev/null)"; fi
}
asked TERM TERM 143 -n 1
asked HUP TERM 143 -n 1
asked USR1 USR1 0 -n 1
printf 'a slots=2\n' >"$work/hosts"
asked USR1 USR1 0 --hosts "$work/hosts"
# While it waits for the next start: nothing is started, and nothing left.
echo 9 >"$work/codes"
rm -f "$work/starts"
delay=$((1000000 + $$)) # no other test's
$elastic --delay $delay -n 1 -- --output run >"$work/out" 2>"$work/err" &
job=$!
for _ in $(seq 600); do grep -q "restart 1 of 3" "$work/err" && break; sleep 0.01; done
kill -TERM $job
wait $job
code=$?
if [ $code = 9 ] && [ "$(wc -l <"$work/starts")" = 1 ] && ! pgrep -f "^sleep $delay" >/dev/null; then ok
else fail "stopped between two starts: exit code $code"; fi
finish
