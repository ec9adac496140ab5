#!/usr/bin/env bash
# What can only be checked on a machine with a GPU, in three stages of less than nine minutes each.
#
#     scripts/gpu_check.sh --stage tests|sanitize|bench [--build FOLDER] [--out FOLDER]
#
#   tests     what machine and libraries are; every operation on the GPU against its f64 reference; the towers' golden
#             values, their gradients and 20 AdamW steps; the devices' properties as cuDNN tells them
#   sanitize  compute-sanitizer: memcheck on every operation, racecheck on those with shared memory
#   bench     scripts/bench/step on the GPU
#
# The build folder (default build/cuda) is configured and built first if it is not there: cmake --preset cuda. Raw
# output goes to --out (default out/gpu), one file a check; the last line says how many passed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
stage=
build=build/cuda
out=out/gpu
while [ $# -gt 0 ]; do
    case $1 in
        --stage) stage=${2:-} ;;
        --build) build=${2:-} ;;
        --out) out=${2:-} ;;
        *) stage= && break ;;
    esac
    shift 2 || break
done
case $stage in
    tests | sanitize | bench) ;;
    *)
        echo "usage: scripts/gpu_check.sh --stage tests|sanitize|bench [--build FOLDER] [--out FOLDER]" >&2
        exit 2
        ;;
esac
mkdir -p "$out" || exit 1
if [ ! -x "$build/tuwen" ]; then
    cmake --preset cuda >"$out/configure.log" 2>&1 && cmake --build --preset cuda >"$out/build.log" 2>&1 || {
        tail -n 40 "$out/configure.log" "$out/build.log" >&2
        echo "gpu_check.sh: the build failed" >&2
        exit 1
    }
fi
if ! "$build/tuwen" doctor | grep -q '^  GPU [0-9]'; then
    "$build/tuwen" doctor | sed -n '/^CUDA/,/^[a-z]/p' >&2
    echo "gpu_check.sh: no GPU is seen" >&2
    exit 1
fi

passed=0
failed=0
# check NAME COMMAND...: its output to $out/NAME.txt
check() {
    local name=$1 start=$SECONDS
    shift
    if timeout 480 "$@" >"$out/$name.txt" 2>&1; then
        passed=$((passed + 1))
        echo "passed  $name  $((SECONDS - start)) s"
    else
        failed=$((failed + 1))
        echo "FAILED  $name  $((SECONDS - start)) s: $out/$name.txt"
        tail -n 5 "$out/$name.txt" | sed 's/^/        /'
    fi
}

tests() {
    check machine bash -c 'nvidia-smi; "$1"/tuwen doctor' - "$build"
    if [ -x "$build/scripts/bench/bench_cudnn_properties" ]; then
        check device_properties "$build/scripts/bench/bench_cudnn_properties" "$out/device.json"
    fi
    check operations env TW_DEVICE=cuda "$build/tests/test_ops"
    check towers env TW_DEVICE=cuda "$build/tests/test_towers"
    check adamw env TW_DEVICE=cuda "$build/tests/test_adamw"
    check steps env TW_DEVICE=cuda "$build/tests/test_step"
}

sanitize() {
    command -v compute-sanitizer >/dev/null || {
        echo "gpu_check.sh: compute-sanitizer was not found" >&2
        exit 1
    }
    # Check's forked children cannot share a CUDA context with their parent.
    export CK_FORK=no TW_DEVICE=cuda
    for op in $(sed -n 's/^\(OP\|KERNEL\)(\([a-z0-9_]*\),.*/\2/p' autograd/ops.def); do
        check "memcheck_$op" env TW_OP="$op" compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_ops"
    done
    for op in layer_norm add_layer_norm attention embed_tokens contrastive_loss finite_norm top_k; do
        check "racecheck_$op" env TW_OP="$op" compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_ops"
    done
}

bench() {
    for model in ViT-B-16 ViT-L-14 ViT-H-14; do
        check "step_$model" env TW_DEVICE=cuda "$build/scripts/bench/bench_step" "$model" 128 10 bf16 0 none 0
    done
}

"$stage"
echo "gpu_check.sh --stage $stage: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
