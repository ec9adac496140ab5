#!/usr/bin/env bash
# A folder that runs scripts/gpu_check.sh on a machine with a GPU and neither packages nor compilers of ours: the CUDA
# build's programs and the Debian libraries they need. CUDA's own libraries (runtime, cuBLASLt, cuDNN, NCCL) are that
# machine's: they lie in its Python's nvidia/*/lib.
#
#     scripts/gpu_bundle.sh [--build FOLDER] [--out FOLDER] [--limit MIB]
#
# --build (default build/cuda-bundle) is configured and built if it is not there, for any x86-64 processor
# (TW_NATIVE=OFF), not for this one. --out is carry/gpu by default, which git ignores: bundle.tar.xz, and `unpack.sh`,
# which unpacks it beside itself. Fails where tree and bundle together are over --limit (default 64).
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/cuda-bundle
out=carry/gpu
limit=64
while [ $# -gt 0 ]; do
    case $1 in
        --build) build=${2:?} ;;
        --out) out=${2:?} ;;
        --limit) limit=${2:?} ;;
        *)
            echo "usage: scripts/gpu_bundle.sh [--build FOLDER] [--out FOLDER] [--limit MIB]" >&2
            exit 2
            ;;
    esac
    shift 2
done
# What gpu_check.sh runs.
programs=(tuwen tests/test_ops tests/test_model_graphs tests/test_cudnn_graphs tests/test_towers tests/test_adamw tests/test_step
    tests/test_step_masks tests/test_step_order tests/test_resnet tests/test_contrastive tests/test_memory_need tests/tool_checkpoint_hash
    scripts/bench/bench_step_gpu scripts/bench/bench_cudnn_properties scripts/bench/bench_contrastive_loss)
# Whose libraries that machine has.
theirs='libcuda|libcudart|libcublas|libcudnn|libnccl|libnvrtc|libnvJitLink|libnvidia|ld-linux|linux-vdso|libc\.so|libm\.so|libpthread|libdl\.so|librt\.so|libresolv'

if [ ! -f "$build/build.ninja" ]; then
    cmake --preset cuda -B "$build" -DTW_NATIVE=OFF -DTW_WITH_MPI=OFF
fi
targets=()
for program in "${programs[@]}"; do targets+=("${program##*/}"); done
cmake --build "$build" --target "${targets[@]}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/lib" "$out"
for program in "${programs[@]}"; do
    mkdir -p "$work/bin/$(dirname "$program")"
    cp "$build/$program" "$work/bin/$program"
    strip --strip-debug "$work/bin/$program"
done
missing=$(ldd "${programs[@]/#/$build/}" | grep 'not found' | grep -Ev "$theirs" | sort -u || true)
[ -z "$missing" ] || { echo "gpu_bundle.sh: not found here: $missing" >&2; exit 1; }
ldd "${programs[@]/#/$build/}" | awk '/=> \// { print $3 }' | sort -u | grep -Ev "/($theirs)" | while read -r library; do
    cp -L "$library" "$work/lib/"
done
strip --strip-debug "$work"/lib/* 2>/dev/null || true
git rev-parse HEAD >"$work/commit"
pwd -P >"$work/source" # what the tests were compiled to find their golden values in
# Most of every program is the same device code: the dictionary reaches back over all of it.
tar -C "$work" -cf - bin lib commit source | xz --lzma2=preset=1,dict=256MiB >"$out/bundle.tar.xz"
cat >"$out/unpack.sh" <<'END'
#!/usr/bin/env bash
# Unpacks the bundle into the folder given, and prints the library path that its programs need.
set -euo pipefail
to=${1:?a folder}
mkdir -p "$to"
python3 -m tarfile -e "$(dirname "$0")/bundle.tar.xz" "$to" >&2
path=$to/lib
# The machine's own C++ library, where it has one that is not older than ours: its driver may need a newer one.
own=$(/sbin/ldconfig -p 2>/dev/null | awk '/libstdc\+\+\.so\.6 .*x86-64/ && !found { print $NF; found = 1 }')
if [ -n "$own" ] && grep -q "$(grep -aoE 'GLIBCXX_3\.4\.[0-9]+' "$to/lib/libstdc++.so.6" | sort -V | tail -n 1)" "$own"; then
    rm -f "$to/lib/libstdc++.so.6" "$to/lib/libgcc_s.so.1"
fi
for folder in $(python3 - <<'PYTHON'
import glob, os, site, sysconfig
places = [sysconfig.get_paths()["purelib"]] + site.getsitepackages()
print(*sorted({f for p in places for f in glob.glob(os.path.join(p, "nvidia", "*", "lib"))}))
PYTHON
) /usr/local/cuda/lib64 /usr/local/nvidia/lib64; do
    if [ -d "$folder" ]; then path=$path:$folder; fi
done
echo "$path"
END
chmod +x "$out/unpack.sh"
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb 2>/dev/null | tail -n 1 | cut -f 1)
bytes=$(stat -c %s "$out/bundle.tar.xz")
total=$(((tree + bytes) / 1048576 + 1))
echo "gpu_bundle.sh: $out: $((bytes / 1048576)) MiB, with the tree $total of $limit MiB; $(ls "$work/lib" | wc -l) libraries"
[ "$total" -le "$limit" ]
