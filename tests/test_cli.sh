#!/usr/bin/env bash
# The program's manners: exit codes, where output goes, and what errors say. Argument: the build folder.
set -u
tuwen="$1/tuwen"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAIL $1"
    sed 's/^/    /' "$work/out" "$work/err" 2>/dev/null
}

# check NAME CODE STREAM TEXT ARGUMENTS...: the exit code is CODE, STREAM (out or err) contains TEXT, and the
# other stream is empty.
check() {
    local name=$1 code=$2 stream=$3 text=$4 other=err
    shift 4
    [ "$stream" = err ] && other=out
    "$tuwen" "$@" >"$work/out" 2>"$work/err"
    local got=$?
    if [ $got -ne "$code" ]; then fail "$name: exit code $got, expected $code"
    elif ! grep -qF -- "$text" "$work/$stream"; then fail "$name: '$text' is not on std$stream"
    elif [ -s "$work/$other" ]; then fail "$name: something on std$other"
    else passed=$((passed + 1)); fi
}

check "help" 0 out "usage: tuwen COMMAND" --help
check "help names doctor" 0 out "  doctor " --help
check "help as a word" 0 out "exit codes: 0 done, 1 failed, 2 usage" help
check "no command" 2 err "usage: tuwen COMMAND"
check "version" 0 out "tuwen " --version
check "unknown command" 2 err "tuwen: unknown command 'docter'; did you mean 'doctor'?" docter
check "strange command" 2 err "unknown command 'zzzzzzzzz'; 'tuwen --help' lists the commands" zzzzzzzzz
check "unknown option" 2 err "tuwen doctor: unknown option '--jsom'; did you mean '--json'?" doctor --jsom
check "stray argument" 2 err "tuwen doctor: unexpected argument 'x'" doctor x
check "bad flag" 2 err "tuwen doctor: --json: 'maybe' is neither true nor false" doctor --json=maybe
check "place hidden" 2 err "tuwen doctor: unexpected argument" doctor x
if grep -q '\.c:' "$work/err"; then fail "the source line is told without --debug"; else passed=$((passed + 1)); fi
check "place with --debug" 2 err "raised at options.c:" doctor x --debug
check "configuration markdown" 0 out "# Configuration" --configuration-markdown

# Every command of the list has --help with a usage line, an example, and refuses an unknown option.
commands=$("$tuwen" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ -n "$commands" ] || fail "no commands listed"
for command in $commands; do
    check "$command --help" 0 out "usage: tuwen $command" "$command" --help
    check "$command --help example" 0 out "example:" "$command" --help
    check "$command: unknown option" 2 err "tuwen $command: unknown option '--no-such-option-anywhere'" \
        "$command" --no-such-option-anywhere
done

check "doctor" 0 out "oneDNN" doctor
check "doctor on MPI" 0 out "not in this build" doctor
check "doctor --json" 0 out '"libraries"' doctor --json
if command -v python3 >/dev/null; then
    if python3 -c 'import json,sys; r = json.load(open(sys.argv[1])); assert r["machine"]["usable cores"] >= 1
assert all(r["libraries"][k] for k in ("oneDNN", "HDF5", "LMDB", "libjpeg-turbo", "libspng", "libwebp", "jansson",
                                       "utf8proc", "libyaml"))' "$work/out"; then
        passed=$((passed + 1))
    else
        fail "doctor --json is no JSON or lacks a library's version"
    fi
else
    echo "SKIP doctor --json is JSON: no python3"
fi

# A pipe that nobody writes to must not be waited for, wherever a file is expected.
waits() { # NAME ARGUMENTS...: the command ends by itself, with an error that names the pipe
    local name=$1
    shift
    timeout 120 "$tuwen" "$@" >"$work/out" 2>"$work/err"
    local got=$?
    if [ $got -eq 1 ] || [ $got -eq 2 ] && grep -q "pipe" "$work/err"; then
        passed=$((passed + 1))
    else
        fail "$name: exit code $got"
    fi
}
pipe=$work/pipe
hf=tests/golden/convert/hf
mkfifo "$pipe" "$pipe.npy" "$pipe.h5" "$pipe.jsonl" "$pipe.yaml"
waits "info of a pipe" info "$pipe"
waits "model" similarity --checkpoint "$pipe" x.png a
waits "vocabulary" extract --checkpoint "$hf" --vocab "$pipe" --texts "$0" --output "$work/f"
waits "texts" extract --checkpoint "$hf" --texts "$pipe.jsonl" --output "$work/f"
waits "features" retrieve --images "$pipe.npy" --texts "$pipe.npy"
waits "HDF5 features" retrieve --images "$pipe.h5" --texts "$pipe.h5"
waits "predictions" evaluate --predictions "$pipe.jsonl" --texts "$pipe.jsonl"
waits "configuration" train --config "$pipe.yaml"
waits "description" convert tests/golden/convert/bare.pt "$work/x.h5" --model "$pipe.yaml"
for name in vocab.txt config.json model.safetensors; do
    mkdir "$work/hf-$name"
    cp "$hf"/* "$work/hf-$name"
    rm "$work/hf-$name/$name"
    mkfifo "$work/hf-$name/$name"
    waits "a folder's $name" convert "$work/hf-$name" "$work/x.h5"
done
mkdir -p "$work/lmdb/valid/imgs" "$work/lmdb/valid/pairs"
mkfifo "$work/lmdb/valid/imgs/data.mdb" "$work/lmdb/valid/pairs/data.mdb"
waits "shards" extract --checkpoint "$hf" --data "$work/lmdb/valid" --output "$work/f"
mkfifo "$work/test_imgs.tsv" "$work/test_texts.jsonl"
waits "prepare" prepare "$work" --splits test

# Output that cannot be written is a failure, not a success with half a report.
"$tuwen" doctor >/dev/full 2>"$work/err"
got=$?
: >"$work/out"
if [ $got -eq 1 ] && grep -q "standard output cannot be written" "$work/err"; then
    passed=$((passed + 1))
else
    fail "a full standard output: exit code $got, expected 1"
fi

echo "tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
