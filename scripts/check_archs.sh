#!/usr/bin/env bash
# Compiles our kernels for every GPU generation that tuwen serves and fails where one spills registers to memory.
#
#     scripts/check_archs.sh [FILE.cu ...]        (all of autograd/ by default; one compiler at a time)
#
# Needs nvcc, but no GPU. TW_ARCHS="90 120" limits the generations.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
read -ra archs <<<"${TW_ARCHS:-80 86 89 90 120}"
nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
if [ ! -x "$nvcc" ]; then
    echo "SKIP check_archs: nvcc was not found"
    exit 0
fi
files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(git ls-files 'autograd/*.cu')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=()
for arch in "${archs[@]}"; do flags+=(-gencode "arch=compute_$arch,code=sm_$arch"); done
bad=0
kernels=0
for file in "${files[@]}"; do
    if ! "$nvcc" -std=c++17 -O3 -DTW_WITH_CUDA -I. "${flags[@]}" -Xptxas -v -c "$file" -o "$work/out.o" >"$work/log" 2>&1; then
        grep -v '^ptxas info' "$work/log"
        echo "check_archs.sh: $file does not compile for sm_${archs[*]}" >&2
        bad=$((bad + 1))
        continue
    fi
    # "Compiling entry function 'NAME' for 'sm_90'", two lines on "0 bytes stack frame, 0 bytes spill stores, ..."
    spills=$(awk -v quote="'" '
        /Compiling entry function/ { split($0, part, quote); name = part[2]; arch = part[4] }
        /spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ { print "  " arch ": " name ": " $0 }' "$work/log")
    kernels=$((kernels + $(grep -c 'Compiling entry function' "$work/log")))
    if [ -n "$spills" ]; then
        printf '%s spills:\n%s\n' "$file" "$spills" >&2
        bad=$((bad + 1))
    fi
done
echo "check_archs.sh: $kernels kernels (all generations together) in ${#files[@]} files for sm_${archs[*]}: $bad files failed"
[ "$bad" -eq 0 ]
