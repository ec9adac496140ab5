#!/usr/bin/env bash
# Compiles our kernels for every GPU generation that tuwen serves and fails where one spills registers to memory, or
# where a block of the size that the kernel is bound to (__launch_bounds__; 1024 threads without) would need more than
# the 65,536 registers that a block can have: such a launch would be refused. Also where a kernel has a name by which
# scripts/gpu_check.sh would not know it as one of ours: it lies in an anonymous namespace, or its name begins with tw_.
#
#     scripts/check_archs.sh [FILE.cu ...]        (all of autograd/ by default; one compiler at a time)
#
# Needs nvcc, but no GPU. TW_ARCHS="90 120" limits the generations. TW_VERBOSE=1 lists every kernel's registers and
# threads.
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

# What is wrong with the kernels of one file, a line each; from the PTX (.entry NAME ... .maxntid THREADS) and ptxas'
# log ("Compiling entry function 'NAME' for 'sm_90'", "N bytes spill stores", "Used N registers"). Registers go to warps
# by 256, that is 8 a thread.
judge() {
    awk -v quote="'" -v verbose="${TW_VERBOSE:-0}" '
        FILENAME ~ /\.ptx$/ {
            if (match($0, /\.entry [A-Za-z0-9_$]+/)) entry = substr($0, RSTART + 7, RLENGTH - 7)
            if ($1 == ".maxntid") { gsub(/[^0-9 ]/, " "); split($0, size, " "); bound[entry] = size[1] * (size[2] ? size[2] : 1) * (size[3] ? size[3] : 1) }
            next
        }
        /Compiling entry function/ {
            split($0, part, quote); name = part[2]; arch = part[4]
            if (name !~ /_GLOBAL__N__|tw_/) print "  " arch ": " name ": neither in an anonymous namespace nor named tw_..."
        }
        /spill stores/ && !/ 0 bytes spill stores, 0 bytes spill loads/ { print "  " arch ": " name ": " $0 }
        match($0, /Used [0-9]+ registers/) {
            registers = substr($0, RSTART + 5, RLENGTH - 15) + 0
            threads = name in bound ? bound[name] : 1024
            block = int((registers + 7) / 8) * 8 * int((threads + 31) / 32) * 32
            if (verbose == 1) print arch, registers, threads, name >"/dev/stderr"
            if (block > 65536) print "  " arch ": " name ": " registers " registers x " threads " threads = " block
        }' "$@"
}

bad=0
kernels=0
for file in "${files[@]}"; do
    rm -f "$work"/*
    if ! "$nvcc" -std=c++17 -O3 -DTW_WITH_CUDA -I. "${flags[@]}" -Xptxas -v --keep --keep-dir "$work" -c "$file" -o "$work/out.o" \
        >"$work/log" 2>&1; then
        grep -v '^ptxas info' "$work/log"
        echo "check_archs.sh: $file does not compile for sm_${archs[*]}" >&2
        bad=$((bad + 1))
        continue
    fi
    # Bounds are the same for every generation.
    ptx=$(ls "$work"/*.ptx | head -n 1)
    wrong=$(judge "$ptx" "$work/log")
    kernels=$((kernels + $(grep -c 'Compiling entry function' "$work/log")))
    if [ -n "$wrong" ]; then
        printf '%s: spilled, too many registers for a block, or a name that is not ours:\n%s\n' "$file" "$wrong" >&2
        bad=$((bad + 1))
    fi
done
echo "check_archs.sh: $kernels kernels (all generations together) in ${#files[@]} files for sm_${archs[*]}: $bad files failed"
[ "$bad" -eq 0 ]
