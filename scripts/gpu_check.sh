#!/usr/bin/env bash
# What can only be checked on a machine with a GPU, in three stages of less than nine minutes each, the most valuable
# checks first; what there is no time for is left out, and said.
#
#     scripts/gpu_check.sh --stage tests|sanitize|bench [--build FOLDER | --bundle FOLDER] [--out FOLDER] [--budget SECONDS]
#
#   tests     what machine and libraries are; every operation against its f64 reference; towers' golden values, their
#             gradients, 20 AdamW steps, queued and captured ones; training: against the CPU, resumed, graphs on and off,
#             recomputed, in micro-batches, bf16; every command; the devices' properties as cuDNN tells them; the loss of
#             262,144 pairs; a batch of 12,800 pairs
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
open_bundle() {
    local place
    place=$(mktemp -d) || return 1
    trap 'rm -rf "$place"' EXIT
    LD_LIBRARY_PATH=$("$bundle/unpack.sh" "$place")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} || return 1
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

# ---- training, on a generated data set ----

data=
make_data() {
    data=$out/data
    [ -f "$data/vocab.txt" ] && return 0
    "$tuwen" shapes "$data" --train 200 --valid 40 --size 64 && "$tuwen" prepare --data_dir "$data" --splits train,valid
}
# train FOLDER OPTIONS...
train() {
    local folder=$1
    shift
    rm -rf "$folder"
    continue_train "$folder" "$@"
}
continue_train() {
    local folder=$1
    shift
    "$tuwen" train --model tiny --train_data "$data/lmdb/train" --val_data "$data/lmdb/valid" --vocab "$data/vocab.txt" \
        --output "$folder" --batch 32 --max_steps 20 --warmup 4 --lr 5e-4 --save_interval 10 --val_interval 20 \
        --log_interval 1 --grad_clip 5 --report false "$@"
}
# losses FOLDER: of the log, one a line
losses() { sed -n 's/.*"event":"step".*"loss":\([0-9.]*\).*/\1/p' "$1/log.jsonl"; }
# near TOLERANCE FOLDER FOLDER: losses of two runs
near() {
    paste <(losses "$2") <(losses "$3") | tee /dev/stderr |
        awk -v t="$1" 'NF != 2 || ($1 - $2) ^ 2 > (t * $2) ^ 2 { bad = 1 } END { exit bad || NR < 20 }'
}
same() { [ "$("$build/tests/tool_checkpoint_hash" "$1/latest")" = "$("$build/tests/tool_checkpoint_hash" "$2/latest")" ]; }
# No dropout: the CPU's attention dropout need not be the GPU's.
dry="--text_dropout 0 --attention_dropout 0"
against_cpu() { train "$out/run_cpu" --device cpu $dry && train "$out/run_f32" --device cuda $dry && near 1e-4 "$out/run_f32" "$out/run_cpu"; }
graphs_change_nothing() {
    train "$out/run_a" --device cuda && train "$out/run_b" --device cuda --cuda_graphs false && same "$out/run_a" "$out/run_b" &&
        ! grep -q "not captured" "$out/run_a/log.jsonl" "$out/graphs.txt"
}
resumed() {
    train "$out/run_c" --device cuda && rm -f "$out"/run_c/*step_20.h5 "$out/run_c/latest" &&
        continue_train "$out/run_c" --device cuda --resume "$(ls "$out"/run_c/*step_10.h5)" && same "$out/run_a" "$out/run_c"
}
recomputed() { train "$out/run_d" --device cuda $dry --recompute block && near 1e-5 "$out/run_d" "$out/run_f32"; }
in_parts() { train "$out/run_e" --device cuda $dry --micro_batch 12 && near 1e-4 "$out/run_e" "$out/run_f32"; }
in_bf16() { train "$out/run_g" --device cuda $dry --precision bf16 && near 5e-2 "$out/run_g" "$out/run_f32"; }
resnet() {
    train "$out/run_r" --model tiny-rn --device cpu $dry --max_steps 20 && train "$out/run_s" --model tiny-rn --device cuda $dry &&
        near 1e-3 "$out/run_s" "$out/run_r"
}
profiled() { train "$out/run_p" --device cuda --profile && grep -q '"event":"profile"' "$out/run_p/log.jsonl"; }
commands() {
    local device
    for device in cpu cuda; do
        "$tuwen" extract --checkpoint "$out/run_f32/latest" --data "$data/lmdb/valid" --output "$out/f_$device" --format jsonl --device $device &&
            "$tuwen" retrieve --images "$out/f_$device/valid_imgs.img_feat.jsonl" --texts "$out/f_$device/valid_texts.txt_feat.jsonl" \
                --output "$out/p_$device" --device $device &&
            "$tuwen" evaluate --checkpoint "$out/run_f32/latest" --data "$data/lmdb/valid" --device $device &&
            "$tuwen" similarity --checkpoint "$out/run_f32/latest" --device $device --json tests/golden/images/jpeg_420.jpg 红色的圆 蓝色的方块 || return 1
    done
    diff "$out/p_cpu/valid_predictions.jsonl" "$out/p_cuda/valid_predictions.jsonl" | head -n 6
    # Ties and near-ties may fall the other way: nine of ten answers are the same.
    [ "$(diff "$out/p_cpu/valid_predictions.jsonl" "$out/p_cuda/valid_predictions.jsonl" | grep -c '^<')" -lt 5 ]
}
# Three seeds of the demonstration set's first steps, f32 and bf16; R@1 is for whoever reads.
demonstration() {
    local seed precision
    for seed in 1 2 3; do
        for precision in f32 bf16; do
            train "$out/run_demo" --model small --device cuda --precision $precision --seed $seed --max_steps 300 --log_interval 100 \
                --val_interval 300 --save_interval 300 || return 1
            echo "seed $seed $precision: $(grep '"event":"validation"' "$out/run_demo/log.jsonl" | tail -n 1)"
        done
    done
}

tests() {
    check machine bash -c 'nvidia-smi; "$1" doctor' - "$tuwen"
    export TW_DEVICE=cuda
    check operations "$build/tests/test_ops"
    check steps "$build/tests/test_step"
    check towers "$build/tests/test_towers"
    check adamw "$build/tests/test_adamw"
    unset TW_DEVICE
    if [ -x "$build/scripts/bench/bench_cudnn_properties" ]; then
        check device_properties "$build/scripts/bench/bench_cudnn_properties" "$out/device.json"
    fi
    export -f make_data train continue_train losses near same against_cpu graphs_change_nothing resumed recomputed in_parts in_bf16 resnet \
        profiled commands demonstration
    data=$out/data
    export tuwen build out data dry
    check data bash -c make_data
    check train_as_cpu bash -c against_cpu
    check graphs bash -c graphs_change_nothing
    check resume bash -c resumed
    check recompute bash -c recomputed
    check micro_batches bash -c in_parts
    check bf16 bash -c in_bf16
    check commands bash -c commands
    check resnet bash -c resnet
    check profile bash -c profiled
    # 262,144 pairs of width 1024 in less than 2 GB beyond the features; 12,800 pairs of ViT-B-16 in parts.
    check large_loss env TW_DEVICE=cuda "$build/scripts/bench/bench_contrastive_loss" 262144 1024
    check large_batch env TW_DEVICE=cuda "$build/scripts/bench/bench_step_gpu" model=ViT-B-16 batch=12800 micro=256 steps=1
    check demonstration bash -c demonstration
}

sanitize() {
    command -v compute-sanitizer >/dev/null || {
        echo "gpu_check.sh: compute-sanitizer was not found" >&2
        exit 1
    }
    # Check's forked children cannot share a CUDA context with their parent.
    export CK_FORK=no TW_DEVICE=cuda MOST=60
    for op in $(sed -n 's/^\(OP\|KERNEL\)(\([a-z0-9_]*\),.*/\2/p' autograd/ops.def); do
        check "memcheck_$op" env TW_OP="$op" compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_ops"
    done
    check memcheck_adamw compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_adamw"
    for op in layer_norm add_layer_norm attention embed_tokens contrastive_loss contrastive_sums gradient_rule finite_norm top_k; do
        check "racecheck_$op" env TW_OP="$op" compute-sanitizer --tool racecheck --error-exitcode 1 "$build/tests/test_ops"
    done
    MOST=120 check memcheck_steps compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_step"
}

bench() {
    MOST=$budget check step_gpu python3 scripts/bench/step_gpu.py --program "$build/scripts/bench/bench_step_gpu" --out "$out" \
        --budget $((budget - SECONDS - 5))
    cat "$out/step_gpu.txt"
}

"$stage"
echo "gpu_check.sh --stage $stage: $passed passed, $failed failed, $left_out left out, $SECONDS s"
[ "$failed" -eq 0 ]
