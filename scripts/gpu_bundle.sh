#!/usr/bin/env bash
# A folder that runs scripts/gpu_check.sh on a machine with a GPU and neither packages nor compilers of ours: the CUDA
# build's programs, the Debian libraries they need, and of Open MPI what starts ranks on one host. CUDA's own libraries (runtime, cuBLASLt, cuDNN, NCCL) are that
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
# What ranks over NCCL are tested with, where the build has MPI and NCCL.
rank_programs=(tests/nccl_shim/test_comm_nccl tests/nccl_shim/test_step_nccl tests/nccl_shim/test_norm_nccl tests/nccl_shim/tool_ranks_nccl)
# Whose libraries that machine has.
theirs='libcuda|libcudart|libcublas|libcudnn|libnccl|libnvrtc|libnvJitLink|libnvidia|ld-linux|linux-vdso|libc\.so|libm\.so|libpthread|libdl\.so|librt\.so|libresolv'

if [ ! -f "$build/build.ninja" ]; then
    cmake --preset cuda -B "$build" -DTW_NATIVE=OFF
fi
if grep -q test_step_nccl <<<"$(cmake --build "$build" --target help)"; then
    programs+=("${rank_programs[@]}")
    with_mpi=yes
else
    echo "gpu_bundle.sh: $build has no MPI: several GPUs will not be tried"
    with_mpi=no
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
# Open MPI's programs, plug-ins and help texts, in folders as its own prefix has them. Plug-ins of networks between hosts,
# of batch systems, files and OpenSHMEM are left out, and with them what they link to.
needy=("${programs[@]/#/$build/}")
if [ "$with_mpi" = yes ]; then
    mpi=$work/openmpi
    plugins=$(ompi_info --path pkglibdir --parsable | cut -d : -f 3)
    texts=$(ompi_info --path pkgdatadir --parsable | cut -d : -f 3)
    [ -d "$plugins" ] && [ -d "$texts" ] || { echo "gpu_bundle.sh: Open MPI's plug-ins ($plugins) or texts ($texts) are not where ompi_info says" >&2; exit 1; }
    mkdir -p "$mpi/bin" "$mpi/plugins" "$mpi/share/openmpi"
    cp -L "$(command -v mpirun)" "$mpi/bin/mpirun"
    cp -L "$(command -v orted)" "$mpi/bin/orted"
    for plugin in "$plugins"/mca_*.so; do
        [[ ${plugin##*/} =~ ucx|ofi|psm|openib|monitoring|flux|slurm|gridengine|jsm|memheap|scoll|spml|sshmem|atomic_|treematch|mca_io_|mca_fs_|fbtl|fcoll|sharedfp ]] ||
            cp -L "$plugin" "$mpi/plugins/"
    done
    cp "$texts"/*.txt "$mpi/share/openmpi/"
    strip --strip-debug "$mpi"/bin/* "$mpi"/plugins/*
    needy+=("$mpi"/bin/* "$mpi"/plugins/*)
fi
missing=$(ldd "${needy[@]}" | grep 'not found' | grep -Ev "$theirs" | sort -u || true)
[ -z "$missing" ] || { echo "gpu_bundle.sh: not found here: $missing" >&2; exit 1; }
ldd "${needy[@]}" | awk '/=> \// { print $3 }' | sort -u | grep -Ev "/($theirs)" | while read -r library; do
    cp -L "$library" "$work/lib/"
done
strip --strip-debug "$work"/lib/* 2>/dev/null || true
git rev-parse HEAD >"$work/commit"
pwd -P >"$work/source" # what the tests were compiled to find their golden values in
# Most of every program is the same device code: the dictionary reaches back over all of it.
tar -C "$work" -cf - $(ls "$work") | xz --lzma2=preset=1,dict=256MiB >"$out/bundle.tar.xz"
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
