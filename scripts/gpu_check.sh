#!/usr/bin/env bash
# What can only be checked on a machine with a GPU, in three stages of less than nine minutes each, the most valuable
# checks first; what there is no time for is left out, and said.
#
#     scripts/gpu_check.sh --stage tests|sanitize|bench [--build FOLDER | --bundle FOLDER] [--out FOLDER] [--budget SECONDS]
#
#   tests     what machine and libraries are; the device's properties as cuDNN tells them; every operation against its f64
#             reference; the models' graphs by cuDNN; towers' golden values, their gradients, 20 AdamW steps, queued and
#             captured ones; training (scripts/gpu_train.sh): against the CPU, 20 steps of ViT-B-16 against the CPU,
#             resumed, graphs on and off, recomputed, in micro-batches, bf16; every command; the loss of 262,144 pairs in
#             2 GB; R@1 of the demonstration set in bf16 and f32; a batch of 12,800 pairs. Needs no Python
#   sanitize  compute-sanitizer: memcheck on every operation and on steps, racecheck on operations with shared memory
#   bench     scripts/bench/step_gpu.py: tuwen and PyTorch side by side
#
# The build folder (default build/cuda) is configured and built first if it is not there: cmake --preset cuda. --bundle
# takes what scripts/gpu_bundle.sh made instead, for a machine without our packages. Raw output goes to --out (default
# out/gpu), one file a check; the last line says how many passed. device.json, if it came out, belongs into
# tests/data/device_properties/ under the GPU's name.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
stage=
build=build/cuda
bundle=
out=out/gpu
budget=500
while [ $# -gt 0 ]; do
    case $1 in
        --stage) stage=${2:-} ;;
        --build) build=${2:-} ;;
        --bundle) bundle=${2:-} ;;
        --out) out=${2:-} ;;
        --budget) budget=${2:-} ;;
        *) stage= && break ;;
    esac
    shift 2 || break
done
case $stage in
    tests | sanitize | bench) ;;
    *)
        echo "usage: scripts/gpu_check.sh --stage tests|sanitize|bench [--build FOLDER | --bundle FOLDER] [--out FOLDER] [--budget SECONDS]" >&2
        exit 2
        ;;
esac
mkdir -p "$out" || exit 1

# Unpacks a bundle; its tests look for their golden values where they were compiled.
library_path=${LD_LIBRARY_PATH-}
library_path_was_set=${LD_LIBRARY_PATH+yes}
open_bundle() {
    local place
    place=$(mktemp -d) || return 1
    trap 'rm -rf "$place"' EXIT
    LD_LIBRARY_PATH=$("$bundle/unpack.sh" "$place")${library_path:+:$library_path} || return 1
    export LD_LIBRARY_PATH
    build=$place/bin
    local source
    source=$(cat "$place/source")
    [ -e "$source/tests/golden" ] && return 0
    mkdir -p "$(dirname "$source")" && ln -s "$PWD" "$source" || {
        echo "gpu_check.sh: the tests' values are looked for in $source, which cannot be made here" >&2
        return 1
    }
}

if [ -n "$bundle" ]; then
    open_bundle || exit 1
elif [ ! -x "$build/tuwen" ]; then
    cmake --preset cuda >"$out/configure.log" 2>&1 && cmake --build --preset cuda >"$out/build.log" 2>&1 || {
        tail -n 40 "$out/configure.log" "$out/build.log" >&2
        echo "gpu_check.sh: the build failed" >&2
        exit 1
    }
fi
tuwen=$build/tuwen
if ! "$tuwen" doctor | grep -q '^  GPU [0-9]'; then
    "$tuwen" doctor | sed -n '/^CUDA/,/^[a-z]/p' >&2
    echo "gpu_check.sh: no GPU is seen" >&2
    exit 1
fi

passed=0
failed=0
left_out=0
# check NAME COMMAND...: its output to $out/NAME.txt. MOST=SECONDS before it: no longer than that.
check() {
    local name=$1 start=$SECONDS left=$((budget - SECONDS)) most=${MOST:-240}
    shift
    [ "$most" -lt "$left" ] || most=$left
    if [ "$left" -lt 5 ]; then
        left_out=$((left_out + 1))
        echo "left out, no time  $name"
        return 0
    fi
    if timeout "$most" "$@" >"$out/$name.txt" 2>&1; then
        passed=$((passed + 1))
        echo "passed  $name  $((SECONDS - start)) s"
        return 0
    fi
    failed=$((failed + 1))
    echo "FAILED  $name  $((SECONDS - start)) s: $out/$name.txt"
    tail -n 5 "$out/$name.txt" | sed 's/^/        /'
    return 1
}

tests() {
    check machine bash -c 'nvidia-smi; "$1" doctor' - "$tuwen"
    # What later sessions without a GPU need, and whether its cuDNN has engines for every graph of the models.
    check device_properties "$build/scripts/bench/bench_cudnn_properties" "$out/device.json" &&
        check cudnn_graphs env TW_DEVICE_PROPERTIES="$out/device.json" "$build/tests/test_cudnn_graphs"
    export TW_DEVICE=cuda
    MOST=150 check operations "$build/tests/test_ops"
    MOST=60 check model_graphs "$build/tests/test_model_graphs"
    local name
    for name in step towers adamw resnet contrastive memory_need step_order; do MOST=60 check "$name" "$build/tests/test_$name"; done
    unset TW_DEVICE
    export tuwen build out
    check data scripts/gpu_train.sh make_data
    check train_as_cpu scripts/gpu_train.sh against_cpu
    MOST=120 check vit_b16 scripts/gpu_train.sh vit_b16
    for name in graphs_change_nothing resumed recomputed in_parts chosen_parts in_bf16 large_loss commands resnet profiled; do
        MOST=90 check "$name" scripts/gpu_train.sh "$name"
    done
    check demonstration scripts/gpu_train.sh demonstration
    check large_batch scripts/gpu_train.sh large_batch
    if [ -x "$build/tests/nccl_shim/test_comm_nccl" ]; then
        MOST=60 check comm_nccl "$build/tests/nccl_shim/test_comm_nccl"
    else
        left_out=$((left_out + 1))
        echo "left out: comm_nccl: this build has no MPI (scripts/gpu_bundle.sh's has none), so several GPUs were not tried"
    fi
}

# Whether compute-sanitizer serves this GPU, found out once on the smallest operation: in some sandboxes (gVisor's) it
# does not, and would call each program a failure. Its own words otherwise.
sanitizer_serves() {
    local said
    said=$(TW_OP=move_statistics timeout 90 compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_ops" 2>&1) && return 0
    printf '%s\n' "$said" >"$out/sanitizer_probe.txt"
    # What it finds in a program is about an access, and another matter.
    grep -qE '=+ +(Invalid|Misaligned|Uninitialized|Race|Error: (Race|Barrier)|Leaked)' <<<"$said" && return 0
    said=$(grep -E '^=+ ' <<<"$said" | grep -iE 'not supported|unsupported|no supported|unable|failed|could not|cannot|permission|internal|terminated' | head -n 1)
    [ -n "$said" ] || return 0
    left_out=$((left_out + 1))
    echo "left out: compute-sanitizer: ${said##*= }"
    return 1
}

sanitize() {
    command -v compute-sanitizer >/dev/null || {
        echo "gpu_check.sh: compute-sanitizer was not found" >&2
        exit 1
    }
    # Check's forked children cannot share a CUDA context with their parent.
    export CK_FORK=no TW_DEVICE=cuda MOST=60
    sanitizer_serves || return 0
    for op in $(sed -n 's/^\(OP\|KERNEL\)(\([a-z0-9_]*\),.*/\2/p' autograd/ops.def); do
        check "memcheck_$op" env TW_OP="$op" compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_ops"
    done
    check memcheck_adamw compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_adamw"
    for op in layer_norm add_layer_norm attention embed_tokens contrastive_loss contrastive_sums gradient_rule finite_norm top_k; do
        check "racecheck_$op" env TW_OP="$op" compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_ops"
    done
    MOST=120 check memcheck_steps compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_step"
}

# Python, its PyTorch and what that starts (a compiler) have the libraries that they had before the bundle's came first.
bench() {
    local launcher=
    if [ -n "$bundle" ]; then
        launcher="env LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
        if [ "$library_path_was_set" = yes ]; then export LD_LIBRARY_PATH=$library_path; else unset LD_LIBRARY_PATH; fi
    fi
    MOST=$budget check step_gpu python3 scripts/bench/step_gpu.py --program "$build/scripts/bench/bench_step_gpu" --launcher "$launcher" \
        --out "$out" --budget $((budget - SECONDS - 5))
    cat "$out/step_gpu.txt"
}

"$stage"
echo "gpu_check.sh --stage $stage: $passed passed, $failed failed, $left_out left out, $SECONDS s"
[ "$failed" -eq 0 ]
