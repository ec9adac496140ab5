#!/usr/bin/env bash
# scripts/gpu_check.sh, gpu_train.sh and step_gpu.py without a GPU: the CPU and stand-ins take its place. That every line
# of theirs runs, that what fails or hangs is said, and what there is no time for left out: on a GPU that is lent by the
# minute a slip would cost all of it. Argument: the build folder.
set -u
. tests/shell.sh "$(cd "$1" && pwd)"
command -v python3 >/dev/null || {
    echo "SKIP gpu_check.sh: there is no python3"
    finish
    exit
}
real=$build
build=$work/build
mkdir -p "$build/tests" "$build/scripts/bench" "$work/path"

# stand_in FILE: a shell script of the pretended build folder, from stdin
stand_in() {
    { echo '#!/usr/bin/env bash' && cat; } >"$1"
    chmod +x "$1"
}
# The program itself, on the CPU and with the smallest models.
sed 's/^name: .*/name: micro-rn/; s/resolution: .*/resolution: 32/; s/width: .*/width: 8/; s/heads: 8/heads: 4/
    s/hidden: .*/hidden: 32/; s/layers: .*/layers: 1/; s/intermediate: .*/intermediate: 64/' configs/models/tiny-rn.yaml >"$work/micro-rn.yaml"
stand_in "$build/tuwen" <<END_OF_FILE
[ \$1 = doctor ] && printf 'CUDA\n  GPU 0             a stand-in\n' && exit
arguments=()
[[ " \$* " != " shapes "* || " \$* " == *" --train "* ]] || set -- "\$@" --train 60 --valid 20 --size 32
for a in "\$@"; do
    case \$a in
        cuda) a=cpu ;;
        tiny | */ViT-B-16.yaml) a=micro ;;
        tiny-rn) a=$work/micro-rn.yaml ;;
    esac
    arguments+=("\$a")
    [[ \$a != */shapes_tiny_cpu.yaml ]] || arguments+=(--model micro --max_steps 20 --warmup 5 --val_interval 20)
done
exec $real/tuwen "\${arguments[@]}"
END_OF_FILE
for name in ops model_graphs step step_masks towers resnet adamw contrastive step_order memory_need cudnn_graphs; do
    stand_in "$build/tests/test_$name" <<<'echo "${TW_OP:-all}"; [ "${TW_DEVICE-}" = cuda ] || [ -s "${TW_DEVICE_PROPERTIES-}" ]'
done
ln -s "$real/tests/tool_checkpoint_hash" "$build/tests/"
stand_in "$build/scripts/bench/bench_cudnn_properties" <<<'echo "{}" >"$1"'
stand_in "$build/scripts/bench/bench_contrastive_loss" <<<'echo "N 262144, d 1024, 1 ranks of 1 threads: loss 12.5 (ln N 12.4), d"; echo "H200: 5300 MB taken, of them 4295 MB features and their gradients"'
# A step of B pairs in B ms.
stand_in "$build/scripts/bench/bench_step_gpu" <<'END_OF_FILE'
for a in "$@"; do case $a in batch=*) batch=${a#*=} ;; model=*) model=${a#*=} ;; esac; done
[ "$batch" != 0 ] || batch=512
echo '{"program": "tuwen", "model": "'$model'", "batch": '$batch', "context": 52, "text_length": 52, "packed": true,' \
    '"first_token_only": true, "precision": "bf16", "recompute": "none", "device": "a stand-in", "graphs": true,' \
    '"step_ms": '$batch'.0, "pairs_per_s": 1000.0, "loss": '$(awk "BEGIN { print log($batch) + ${LOSS_OFF:-0.1} }")', "taken_mb": 900.5, "allocated_mb": 800.5, "profiled_step_ms": 130.5,' \
    '"operations": {"linear": {"calls": 3, "ms": 60.0}, "linear backward": {"calls": 3, "ms": 30.0}},' \
    '"choices": ["linear (1,2) to 3, GELU: by a cuDNN graph"]}'
END_OF_FILE
# No PyTorch: its half of the bench fails, and quickly.
echo 'raise ImportError("this is a stand-in")' >"$work/path/torch.py"
export PYTHONPATH=$work/path PATH=$work/path:$PATH
check() { scripts/gpu_check.sh --build "$build" --out "$work/gpu" "$@" >"$work/out" 2>&1; }
# says NAME TEXT...: these lines are in the output
says() {
    local name=$1 text
    shift
    for text in "$@"; do grep -qF -- "$text" "$work/out" && ok || fail "$name does not say: $text"; done
}

# The bench itself, for which a stand-in is there below.
TW_DEVICE=cpu "$real/scripts/bench/bench_step_gpu" model=micro batch=4 steps=2 precision=f32 profile=1 >"$work/out" 2>&1 && ok || fail "bench_step_gpu fails on the CPU: $(tail -n 1 "$work/out")"
says "bench_step_gpu" '"program": "tuwen"' '"operations"'

refuses "no stage" 2 "usage:" scripts/gpu_check.sh
refuses "an unknown stage" 2 "usage:" scripts/gpu_check.sh --stage all
refuses "an option without its value" 2 "usage:" scripts/gpu_check.sh --stage tests --out
mkdir -p "$work/none" && stand_in "$work/none/tuwen" <<<'echo CUDA'
refuses "no GPU" 1 "no GPU is seen" scripts/gpu_check.sh --build "$work/none" --out "$work/gpu" --stage quick

# ---- the stages, whose model is another than ViT-B-16 and hardly trained ----
check --stage tests --budget 1800 --patience 9 && fail "an untrained model passed" || ok
for name in machine cudnn operations memory_need train_as_cpu graphs_and_resuming train_recomputed train_in_full train_in_parts train_in_bf16 train_commands \
    train_small_resnet train_profiled chosen_parts large_loss large_batch; do
    says "tests" "passed  $name "
done
says "tests" "FAILED  vit_b16 " "FAILED  demonstration " "left out: ranks over NCCL: this build has no MPI" "2 failed, 1 left out" "large_loss: 1005 MB beyond the features: less than 2 GB" \
    "large_batch: 12800 pairs: 12.80 s a step, 900 MB taken"
[ "$(grep -cE '^[0-9.]+	[0-9.]+$' "$work/gpu/vit_b16.txt")" = 20 ] && ok || fail "vit_b16 does not show its losses beside the golden ones"
grep -q 'R@1, mean of 3 seeds: f32' "$work/gpu/demonstration.txt" && ok || fail "demonstration does not say its scores"
check --stage quick --pack "$work/quick.tar.gz" --budget 900 --patience 9 && fail "a wrong ViT-B-16 passed" || ok
says "quick" "passed  operations" "passed  memory_need" "passed  train_as_cpu" "FAILED  vit_b16" "passed  step_gpu" "passed  large_batch" \
    "tuwen ViT-B-16 128: 1000.0 pairs/s" "FAILED pytorch ViT-B-16 128" "ViT-B-16, batch 128: no peer ran; 16.7 % of the limit (SHORT OF 50)" \
    "- linear (1,2) to 3, GELU: by a cuDNN graph" " passed, 1 failed, 1 left out"
[ ! -e "$work/quick.tar.gz.part" ] && ok || fail "a part of a pack is left"
for name in device.json operations.txt step_gpu.md step_gpu.jsonl run_f32/log.jsonl; do
    tar -tzf "$work/quick.tar.gz" "./$name" >/dev/null 2>&1 && ok || fail "$name is not in the pack"
done
check --stage bench --groups main,variants --budget 1800 --patience 9 && ok || fail "the stage bench failed"
says "bench" "ViT-B-16 16 graphs=0" "| products | 90.000 | 69.0 |"
check --stage bench --groups none && fail "a group that is none passed" || ok
says "bench" "none is none of main, models, largest, variants"

# ---- two GPUs: ranks, which are the CPU's over MPI here ----
if command -v mpirun >/dev/null; then
    mkdir "$build/tests/nccl_shim"
    for name in comm step norm; do stand_in "$build/tests/nccl_shim/test_${name}_nccl" <<<'echo "SKIP this: on purpose"'; done
    stand_in "$build/tests/nccl_shim/tool_ranks_nccl" <<<'echo "a stand-in" >&2; exit 1'
    stand_in "$work/path/nvidia-smi" <<<'printf "GPU 0: one\nGPU 1: other\n"'
    cp "$build/tuwen" "$work/tuwen"
    sed -i "s/^\[ .*doctor.*/[ \$1 = doctor ] \&\& printf 'CUDA\\n  GPU 0  a stand-in\\n  GPU 1  a stand-in\\n' \&\& exit/" "$build/tuwen"
    check --stage quick --groups none --budget 900 --patience 9
    says "two GPUs" "passed  comm_nccl" "passed  step_nccl" "passed  norm_nccl" "SKIP this: on purpose" "passed  train_nccl"
    grep -q '^tests: [0-9]* passed, 0 failed' "$work/gpu/train_nccl.txt" && ok || fail "no training on two ranks"
    cp "$work/tuwen" "$build/tuwen"
    rm -r "$work/path/nvidia-smi" "$build/tests/nccl_shim"
else
    echo "SKIP two GPUs: mpirun is not installed"
fi

# ---- what must not pass ----
mkdir "$work/bare" && cp -r "$build/." "$work/bare" && rm "$work/bare/tests/tool_checkpoint_hash"
stand_in "$work/bare/scripts/bench/bench_contrastive_loss" <<<'echo "N 262144, d 1024: loss 12.5 (ln N"; echo "H200: 6300 MB taken, of them 4295 MB features and their gradients"'
export tuwen=$build/tuwen out=$work/gpu
build=$work/bare scripts/gpu_train.sh graphs_change_nothing >"$work/out" 2>&1 && fail "runs passed for the same without their hashes" || ok
build=$work/bare scripts/gpu_train.sh large_loss >"$work/out" 2>&1 && fail "2,005 MB passed for less than 2 GB" || ok
LOSS_OFF=-0.7 build=$work/bare scripts/gpu_train.sh large_batch >"$work/out" 2>&1 && fail "a loss far from ln N passed" || ok
says "large_batch" "(ln N 9.457: FAR OFF)"
stand_in "$work/bare/scripts/bench/bench_contrastive_loss" <<<'echo "N 262144, d 1024: loss 12.5${4:+1} (ln N"; echo "H200: 5300 MB taken, of them 4295 MB features and their gradients"'
build=$work/bare scripts/gpu_train.sh large_loss >"$work/out" 2>&1 && fail "losses in TF32 and f32 that differ passed" || ok
says "large_loss" "MORE THAN 1e-4"
unset out
# One fails, one hangs, and time runs out.
stand_in "$build/tests/test_adamw" <<<'echo "m differs"; exit 1'
stand_in "$build/tests/test_towers" <<<'sleep 600'
start=$SECONDS
check --stage quick --budget 15 && fail "failures passed" || ok
says "failures" "FAILED  adamw" "        m differs" "FAILED  towers" "(cut after" "left out, no time  step_gpu" "left out, no time  large_batch"
# A machine that has much else to do takes longer to start things; the test that hangs would take ten minutes.
[ $((SECONDS - start)) -lt 90 ] && ok || fail "15 s became $((SECONDS - start))"

# ---- compute-sanitizer ----
stand_in "$work/path/compute-sanitizer" <<<'while [[ $1 == -* ]]; do shift $(( $1 == --tool || 1 )); [[ $1 == [a-z]*check || $1 == kns=* || $1 == 1 ]] && shift; done; exec "$@"'
stand_in "$build/tests/test_adamw" <<<'echo "========= Invalid __global__ read of size 4"; exit 1'
check --stage sanitize --budget 1800 --patience 9 && fail "an invalid read passed" || ok
says "sanitize" "passed  memcheck_linear" "passed  racecheck_top_k" "passed  memcheck_steps" "passed  memcheck_masks" "FAILED  memcheck_optimizer" "Invalid __global__ read"
# What a check failed by is looked for, where the GPU says that it was an access.
cp "$build/scripts/bench/bench_contrastive_loss" "$work/loss"
stand_in "$build/scripts/bench/bench_contrastive_loss" <<<'echo "run: CUDA says an illegal memory access was encountered (cudaErrorIllegalAddress)"; exit 1'
stand_in "$work/path/compute-sanitizer" <<<'shift 4; "$@"; echo "========= Invalid __global__ read of size 4"'
check --stage bench --groups none && fail "an illegal access passed" || ok
says "an illegal access" "FAILED  large_loss" "once more under compute-sanitizer: $work/gpu/large_loss.memcheck.txt" "        ========= Invalid __global__ read of size 4"
grep -q cudaErrorIllegalAddress "$work/gpu/large_loss.memcheck.txt" && ok || fail "it was not run once more"
mv "$work/loss" "$build/scripts/bench/bench_contrastive_loss"
stand_in "$work/path/compute-sanitizer" <<<'echo "========= Error: Device not supported"; exit 1'
check --stage sanitize --budget 1800 --patience 9 && ok || fail "a sanitizer that does not serve the GPU is a failure"
says "sanitize" "left out: compute-sanitizer: Error: Device not supported"

# ---- a bundle: programs and tests have its library path, Python does not ----
mkdir -p "$work/carry"
stand_in "$work/carry/unpack.sh" <<END_OF_FILE
cp -r $build "\$1/bin"
echo $PWD >"\$1/source"
echo "\$1/lib"
END_OF_FILE
stand_in "$build/tests/test_adamw" <<<'[[ $LD_LIBRARY_PATH == */lib:/before ]]'
stand_in "$build/tests/test_towers" <<<'true'
cat "$build/scripts/bench/bench_step_gpu" >"$work/step"
{ echo '[[ $LD_LIBRARY_PATH == */lib:/before ]] || exit 1' && cat "$work/step"; } | stand_in "$build/scripts/bench/bench_step_gpu"
stand_in "$work/path/python3" <<<"[ \"\$LD_LIBRARY_PATH\" = /before ] && exec $(command -v python3) \"\$@\""
LD_LIBRARY_PATH=/before scripts/gpu_check.sh --stage quick --bundle "$work/carry" --out "$work/gpu" --groups main --budget 900 --patience 9 >"$work/out" 2>&1
says "a bundle" "passed  adamw" "passed  step_gpu" "tuwen ViT-B-16 128: 1000.0 pairs/s" " passed, 1 failed, 1 left out"

rm "$work/path/python3"

# ---- verdicts of the bench ----
holds "verdicts" python3 - <<'END_OF_FILE'
import sys
import types

sys.path.insert(0, "scripts/bench")
import step_gpu

ours = dict(program="tuwen", model="RN50", batch=128, context=52, text_length=52, precision="bf16", recompute="none", graphs=True,
            pairs_per_s=300.0, step_ms=1.0)
eager = dict(ours, peer="pytorch", mode="eager", pairs_per_s=200.0)
del eager["program"]
args = types.SimpleNamespace(limit=790, aim=60)
assert step_gpu.verdicts([ours, eager], args) == ["RN50, batch 128: 1.50 times PyTorch eager (reaches the aim of 1.2)"]
compiled = dict(eager, mode="compile", pairs_per_s=400.0)
one = dict(ours, model="ViT-B-16", taken_mb=900.0)
others = [dict(eager, model="ViT-B-16", taken_mb=1000.0), dict(compiled, model="ViT-B-16", taken_mb=600.0)]
text = step_gpu.verdicts([one] + others, args)[0]
assert "1.50 times PyTorch eager (reaches 1.4, short of the aim of 1.6) in 0.90 of its memory, " in text, text
assert "0.75 times PyTorch compile (SHORT OF 1.1) in 1.50 of its memory (MORE)" in text, text
assert "no peer ran" in step_gpu.verdicts([ours, dict(eager, batch=64)], args)[0]
vit = dict(ours, model="ViT-B-16", pairs_per_s=3700.0)
assert step_gpu.verdicts([vit], args) == ["ViT-B-16, batch 128: no peer ran; 61.8 % of the limit (reaches the aim of 60)"]
assert "| RN50 | 128 | pytorch compile | 1.00 | 400.0 |" in step_gpu.table([compiled], args, None)
refused = dict(vit, graphs=False, refused="a graph was refused")
assert step_gpu.verdicts([refused], args)[1] == "ViT-B-16, batch 128, no graphs: a graph was refused"
END_OF_FILE
# A run that fails is looked at once more, one that hangs is cut; both are in the lines.
holds "failing runs" python3 - "$work/runs" <<'END_OF_FILE'
import sys
import types

sys.path.insert(0, "scripts/bench")
import step_gpu

r = step_gpu.Runner(types.SimpleNamespace(out=sys.argv[1], budget=60, launcher="", program="/bin/false", check=True, limit=790, aim=60))
assert r.tuwen("ViT-B-16", 128) is None and r.run("a hanging one", ["sleep", "60"], most=0) is None and not r.rows
lines = open(sys.argv[1] + "/step_gpu.jsonl").read()
assert lines.count('"failed"') == 3 and "tuwen ViT-B-16 128, every launch waited for" in lines and "cut after 5 s" in lines, lines
END_OF_FILE
finish
