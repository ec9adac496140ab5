#!/usr/bin/env bash
# Refuses an include that points upward: train -> {data, optim, layers} -> autograd (CONTRIBUTING.md).
# An argument after the build folder names another source tree; the test uses it to try itself.
set -u
root=${2:-.}

# The project's folders whose headers a folder may include.
allowed() {
    case $1 in
        autograd) echo "autograd" ;;
        layers) echo "autograd layers" ;;
        optim) echo "autograd optim" ;;
        data) echo "autograd data" ;;
        train) echo "autograd layers optim data train include" ;;
    esac
}

# Prints "file:line: ..." for every include that points upward or is not written from the root.
violations() {
    local tree=$1 folder file
    for folder in autograd layers optim data train; do
        [ -d "$tree/$folder" ] || continue
        find "$tree/$folder" -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.def' \) | sort |
            while read -r file; do
                awk -v file="$file" -v folder="$folder" -v ok=" $(allowed "$folder") " '
                    /^[ \t]*#[ \t]*include[ \t]*"/ {
                        split($0, quoted, "\"")
                        path = quoted[2]
                        top = path
                        sub(/\/.*/, "", top)
                        if (path ~ /(^|\/)\.\.?\//) why = "is written with . or .."
                        else if (path == "tuwen.h") why = index(ok, " include ") ? "" : "is above " folder
                        else if (path !~ /\//) why = "is not written from the root"
                        else why = index(ok, " " top " ") ? "" : "is above or beside " folder
                        if (why != "") printf "%s:%d: \"%s\" %s\n", file, FNR, path, why
                    }' "$file"
            done
    done
}

passed=0
failed=0
found=$(violations "$root")
if [ -z "$found" ]; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    echo "$found"
fi

# The check itself: one wrong include of each kind must be found, and a right one passed over.
seeded=$(mktemp -d)
trap 'rm -rf "$seeded"' EXIT
mkdir -p "$seeded"/{autograd,layers,optim,data,train}
try() { # expected (0 or 1 finding), folder, the include's path
    rm -f "$seeded"/*/*.c
    printf '#include <stdio.h>\n#include "%s"\n' "$3" >"$seeded/$2/x.c"
    if [ "$(violations "$seeded" | wc -l)" -eq "$1" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $2 including $3: expected $1 finding"
    fi
}
try 1 autograd layers/linear.h
try 1 autograd train/config.h
try 1 autograd data/tokenizer.h
try 1 layers optim/adamw.h
try 1 layers data/loader.h
try 1 optim layers/linear.h
try 1 data train/config.h
try 1 data layers/vit.h
try 1 layers tuwen.h
try 1 train ../data/loader.h
try 1 train config.h
try 0 autograd autograd/tensor.h
try 0 layers autograd/op.h
try 0 data data/loader.h
try 0 train data/loader.h
try 0 train layers/vit.h

echo "tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
