#!/usr/bin/env bash
# What can only be checked on a machine with a GPU, in stages of less than nine minutes each, the most valuable checks
# first; what there is no time for is left out, and said.
#
#     scripts/gpu_check.sh --stage quick|tests|sanitize|bench [--build FOLDER | --bundle FOLDER] [--out FOLDER]
#                          [--budget SECONDS] [--groups NAMES] [--pack FILE.tar.gz] [--patience N]
#
#   quick     six minutes of all: the device's properties, operations, graphs, golden values, training and ranks over NCCL
#             (one, and one a GPU where there are several) side by side, as nothing of that is timed; then ViT-B-16 at batch
#             128 beside PyTorch, eager and compiled, and what else there is time for; with a longer --budget the other
#             checks that train and bench's other groups too
#   tests     what machine and libraries are; the device's properties as cuDNN tells them; every operation against its f64
#             reference; the models' graphs by cuDNN; towers' golden values, their gradients, 20 AdamW steps, queued and
#             captured ones; training (scripts/gpu_train.sh): against the CPU, 20 steps of ViT-B-16 against the reference,
#             resumed, graphs on and off, recomputed, in micro-batches, bf16; every command; ranks over NCCL, one a GPU:
#             steps, gradients, training, faults; the loss of 262,144 pairs in 2 GB; R@1 of the demonstration set in bf16
#             and f32; a batch of 12,800 pairs. Needs no Python
#   sanitize  compute-sanitizer: memcheck on every operation and on steps, racecheck on operations with shared memory
#   bench     scripts/bench/step_gpu.py: tuwen and PyTorch side by side, of it --groups (its --help) where they are named;
#             the loss of 262,144 pairs, a batch of 12,800
#
# --budget is 360 for quick and 500 for the others. The build folder (default build/cuda) is configured and built first if
# it is not there: cmake --preset cuda. --bundle takes what scripts/gpu_bundle.sh made instead, for a machine without our
# packages. Raw output goes to --out (default out/gpu), one file a check; the last line says how many passed. --pack puts
# what is small of it into one file. --patience multiplies the limits of single checks, for a slow machine. device.json, if it came out, belongs into tests/data/device_properties/ under the
# GPU's name. docs/gpu/how-to-spend-15-minutes.md has the calls for a machine that is lent for so long.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
usage="usage: scripts/gpu_check.sh --stage quick|tests|sanitize|bench [--build FOLDER | --bundle FOLDER] [--out FOLDER] [--budget SECONDS] [--groups NAMES] [--pack FILE.tar.gz] [--patience N]"
stage=
build=build/cuda
bundle=
out=out/gpu
budget=
groups=
pack=
patience=1
while [ $# -gt 0 ]; do
    case $1 in
        --stage) stage=${2:-} ;;
        --build) build=${2:-} ;;
        --bundle) bundle=${2:-} ;;
        --out) out=${2:-} ;;
        --budget) budget=${2:-} ;;
        --groups) groups=${2:-} ;;
        --pack) pack=${2:-} ;;
        --patience) patience=${2:-} ;;
        *) stage= && break ;;
    esac
    shift 2 || { stage= && break; }
done
case $stage in
    quick) : "${budget:=360}" ;;
    tests | sanitize | bench) : "${budget:=500}" ;;
    *) echo "$usage" >&2 && exit 2 ;;
esac
mkdir -p "$out" || exit 1

# What is there so far, so that it is there too when the last check takes the machine with it.
pack_up() {
    [ -n "$pack" ] || return 0
    (cd "$out" && find . -type f -size -1024k \( -name '*.txt' -o -name '*.json' -o -name '*.jsonl' -o -name '*.md' -o -name '*.log' \) \
        ! -path './*/data/*' ! -path './data/*' ! -path './demo/*' -print0) | tar -C "$out" --null -T - -czf "$pack.part" && mv "$pack.part" "$pack"
}
# At the end, however it comes: ends what still runs, packs, removes the unpacked bundle.
place=
leave() {
    local job
    trap - EXIT
    for job in $(jobs -rp); do pkill -TERM -P "$job"; done
    pack_up
    [ -z "$place" ] || rm -rf "$place"
}
trap leave EXIT
trap 'exit 143' TERM INT

# mpirun is the bundle's, as is what it reads, whatever the machine has of its own.
open_mpi() {
    [ -x "$place/openmpi/bin/mpirun" ] || return 0
    export PATH=$place/openmpi/bin:$PATH OPAL_PREFIX=$place/openmpi OPAL_PKGLIBDIR=$place/openmpi/plugins
    export OPAL_PKGDATADIR=$place/openmpi/share/openmpi OPAL_SYSCONFDIR=$place/openmpi/etc
    export PMIX_MCA_pcompress_base_silence_warning=1 # PMIx's own plug-ins are not needed
}
# Unpacks a bundle; its tests look for their golden values where they were compiled.
library_path=${LD_LIBRARY_PATH-}
library_path_was_set=${LD_LIBRARY_PATH+yes}
bundle_path=
open_bundle() {
    local source
    place=$(mktemp -d) || return 1
    bundle_path=$("$bundle/unpack.sh" "$place") || return 1
    export LD_LIBRARY_PATH=$bundle_path${library_path:+:$library_path}
    build=$place/bin
    open_mpi
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
# The report is read whole: a reader that stops early would end its writer with SIGPIPE.
timeout -k 5 60 "$tuwen" doctor >"$out/doctor.txt" 2>&1
if ! grep -q '^  GPU [0-9]' "$out/doctor.txt"; then
    cat "$out/doctor.txt" >&2
    echo "gpu_check.sh: no GPU is seen" >&2
    exit 1
fi

passed=0
failed=0
left_out=0
side_by_side=6
started=()
declare -A commands # of each check, to run it again
# Of the cores, `share` for each command, `turns` times; 0: all for each.
share=0
turns=1
turn=0
pinned() {
    if [ "$share" -eq 0 ]; then "$@"; else taskset -c "$((turn * share))-$((turn * share + share - 1))" "$@"; fi
}
# start NAME COMMAND...: in the background, its output to $out/NAME.txt. MOST=SECONDS before it: no longer than that.
start() {
    local name=$1 left most=$((${MOST:-240} * patience))
    shift
    started+=("$name")
    commands[$name]=$(printf '%q ' "$@")
    rm -f "$out/$name.end"
    while [ "$(jobs -rp | wc -l)" -ge $side_by_side ]; do wait -n; done
    left=$((budget - SECONDS))
    [ "$left" -ge 5 ] || return 0
    [ "$most" -lt "$left" ] || most=$left
    turn=$(((turn + 1) % turns))
    {
        from=$SECONDS status=0
        pinned timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>&1 || status=$?
        echo "$status $((SECONDS - from)) $most" >"$out/$name.end"
    } &
}
# Which access it was, where a check failed by one that the GPU tells after the fact and of no kernel: once more under
# compute-sanitizer. Of the first two, where there is time; step_gpu.py looks for itself.
closer_looks=2
look_closer() {
    local name=$1 left=$((budget - SECONDS))
    case $name in step_gpu | more) return ;; esac
    grep -qE 'cudaError(IllegalAddress|MisalignedAddress|LaunchFailure|IllegalInstruction|InvalidAddressSpace|HardwareStackError)' "$out/$name.txt" || return 0
    [ "$stage" != sanitize ] && [ $closer_looks -gt 0 ] && [ $left -ge 30 ] && command -v compute-sanitizer >/dev/null || return 0
    closer_looks=$((closer_looks - 1))
    CK_FORK=no timeout -k 5 $((left - 10 < 60 ? left - 10 : 60)) compute-sanitizer --tool memcheck --target-processes all \
        bash -c "${commands[$name]}" >"$out/$name.memcheck.txt" 2>&1
    echo "        once more under compute-sanitizer: $out/$name.memcheck.txt"
    grep -m 6 -A 2 -E '^=+ +(Invalid|Misaligned)' "$out/$name.memcheck.txt" | cut -c 1-300 | sed 's/^/        /'
}
# Waits for all that were started, and says in their order how they ended; fails where one did.
finish() {
    local name status took most bad=0
    wait
    for name in "${started[@]}"; do
        if [ ! -f "$out/$name.end" ]; then
            left_out=$((left_out + 1))
            echo "left out, no time  $name"
            continue
        fi
        read -r status took most <"$out/$name.end"
        rm "$out/$name.end"
        if [ "$status" -eq 0 ]; then
            passed=$((passed + 1))
            echo "passed  $name  $took s"
            grep '^SKIP ' "$out/$name.txt" | sort -u | cut -c 1-300 | sed 's/^/        /'
            continue
        fi
        failed=$((failed + 1)) bad=1
        echo "FAILED  $name  $took s: $out/$name.txt$([ "$status" -ne 124 ] || echo "  (cut after $most s)")"
        tail -n 5 "$out/$name.txt" | cut -c 1-400 | sed 's/^/        /'
        look_closer "$name"
    done
    started=()
    pack_up
    return $bad
}
# check NAME COMMAND...: by itself.
check() {
    start "$@"
    finish
}
# What later sessions without a GPU need, and whether its cuDNN has engines for every graph of the models.
read_device() {
    "$build/scripts/bench/bench_cudnn_properties" "$out/device.json" && TW_DEVICE_PROPERTIES="$out/device.json" "$build/tests/test_cudnn_graphs"
}
on_gpu() { TW_DEVICE=cuda exec "$build/tests/test_$1"; }
machine() {
    nvidia-smi
    "$tuwen" doctor
}
export -f read_device on_gpu machine
export tuwen build out
train() {
    local name=$1
    shift
    start "$name" scripts/gpu_train.sh "$@"
}

# Python, its PyTorch and what that starts (a compiler) have the libraries that they had before the bundle's came first.
python() {
    if [ -z "$bundle" ]; then
        python3 "$@"
    elif [ "$library_path_was_set" = yes ]; then
        LD_LIBRARY_PATH=$library_path python3 "$@"
    else
        env -u LD_LIBRARY_PATH python3 "$@"
    fi
}
export -f python
export bundle library_path library_path_was_set
# peers NAMES RESERVE [NAME]: step_gpu.py's groups, RESERVE seconds before the end at the latest; under another name than
# step_gpu into a folder of that name.
peers() {
    local most=$((budget - SECONDS - $2)) name=${3:-step_gpu}
    if [ $most -lt 30 ]; then
        left_out=$((left_out + 1))
        echo "left out, no time  $name"
        return 0
    fi
    MOST=$((most + 5)) check "$name" bash -c 'python "$@"' - scripts/bench/step_gpu.py --program "$build/scripts/bench/bench_step_gpu" \
        --launcher "${bundle:+env LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}}" --out "$out${3:+/$3}" --groups "$1" --budget "$most"
    cat "$out/$name.txt"
}
# figures NAME...: what these checks measured
figures() {
    local name
    for name in "$@"; do
        [ ! -f "$out/$name.txt" ] || tail -n 3 "$out/$name.txt" | cut -c 1-600 | sed "s/^/$name: /"
    done
}

# The test programs, their own timeouts being longer than what there is here.
programs() {
    local name
    MOST=20 start machine bash -c machine
    MOST=150 start cudnn bash -c read_device
    MOST=150 start operations bash -c 'on_gpu ops'
    # cuDNN compiles some fifty graphs for it: 0.4-1.0 s of a core each for attention, 0.4-0.9 for batch norm, about 1.0 for
    # linear with GELU, 0.3-0.4 for pooling (a Xeon's, cuDNN 9.19).
    MOST=150 start model_graphs bash -c 'on_gpu model_graphs'
    # One process for all its tests, as each would compile the same graphs anew: ten seconds a step's shapes.
    MOST=150 start resnet bash -c 'CK_FORK=no on_gpu resnet'
    for name in step step_masks towers adamw contrastive step_order memory_need; do MOST=60 start "$name" bash -c "on_gpu $name"; done
}
# Ranks over NCCL, one a GPU: these programs start themselves on one rank and on as many more as there are GPUs for.
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
over_nccl() {
    local name
    if [ ! -x "$build/tests/nccl_shim/test_step_nccl" ]; then
        left_out=$((left_out + 1))
        echo "left out: ranks over NCCL: this build has no MPI"
        return
    fi
    for name in comm step norm; do MOST=90 start "${name}_nccl" "$build/tests/nccl_shim/test_${name}_nccl"; done
    [ "$gpus" -lt 2 ] || MOST=150 start train_nccl bash tests/nccl_shim/test_train_nccl.sh "$build" gpus
}
# FEWEST: GPUs that this is for. With one it tries that further ranks are refused.
faults_over_nccl() {
    [ "$gpus" -ge "$1" ] && [ -x "$build/tests/nccl_shim/tool_ranks_nccl" ] || return 0
    MOST=280 start faults_nccl bash tests/nccl_shim/test_faults_nccl.sh "$build" gpus
}
# beside COMMAND...: what it starts runs side by side, each on a quarter of the cores. Nothing of it may be timed.
beside() {
    local cores
    cores=$(nproc)
    share=$((cores < 4 ? 1 : cores / 4)) turns=$((cores < 4 ? cores : 4))
    for ((turn = 0; turn < turns; turn++)); do pinned true 2>/dev/null || share=0; done # cores that are not ours
    turn=0
    [ "$share" -gt 0 ] || turns=1
    export OMP_WAIT_POLICY=passive # threads that wait leave the core to the others
    "$@"
    finish
    unset OMP_WAIT_POLICY
    share=0 turns=1
}
alone() {
    MOST=60 check large_loss scripts/gpu_train.sh large_loss
    MOST=90 check large_batch scripts/gpu_train.sh large_batch
    figures large_loss large_batch
}

# They compare with what train_as_cpu left. The argument is faults_over_nccl's.
later_tests() {
    local name
    faults_over_nccl "$1"
    MOST=120 train graphs_and_resuming graphs_change_nothing resumed
    for name in recomputed in_full in_parts in_bf16 commands small_resnet profiled; do MOST=90 train "train_$name" "$name"; done
}

quick() {
    quick_checks() {
        # What torch.compile makes lies in its cache when it is timed below. No check: if it fails, that does.
        timeout -k 5 150 bash -c 'python "$@"' - scripts/bench/step_gpu_peer.py --model ViT-B-16 --batch 128 --compile --steps 1 \
            >"$out/compile_warm_up.txt" 2>&1 &
        programs
        MOST=100 train train_as_cpu make_data against_cpu in_bf16 graphs_change_nothing
        MOST=100 train vit_b16 vit_b16
        over_nccl
    }
    beside quick_checks
    peers "${groups:-main,models}" 70
    alone
    # Of a longer budget, for a machine that may not come a second time.
    [ $((budget - SECONDS)) -lt 90 ] || beside later_tests 2
    [ $((budget - SECONDS)) -lt 60 ] || peers largest,variants 0 more
}

tests() {
    first_tests() {
        MOST=240 train demonstration demonstration
        programs
        MOST=120 train vit_b16 vit_b16
        MOST=120 train train_as_cpu make_data against_cpu
        over_nccl
    }
    beside first_tests
    beside later_tests 1
    MOST=90 check chosen_parts scripts/gpu_train.sh chosen_parts # asks for all the memory that is free
    alone
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
    local op
    sanitizer_serves || return 0
    MOST=240 start memcheck_steps compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_step"
    MOST=240 start memcheck_masks compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_step_masks"
    start memcheck_optimizer compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_adamw"
    for op in $(sed -n 's/^\(OP\|KERNEL\)(\([a-z0-9_]*\),.*/\2/p' autograd/ops.def); do
        MOST=120 start "memcheck_$op" env TW_OP="$op" compute-sanitizer --tool memcheck --error-exitcode 1 "$build/tests/test_ops"
    done
    # Of kernels with shared memory: those of ours, by their mangled names (scripts/check_archs.sh sees that they have them).
    # What cuDNN's and cuBLASLt's do is not ours to judge, nor to wait for.
    for op in attention linear conv2d layer_norm add_layer_norm contrastive_loss pool_attention batch_norm embed_tokens embed_patches \
        patchify contrastive_sums gradient_rule adamw top_k choose_patches pack_tokens pool_tokens; do
        MOST=120 start "racecheck_$op" env TW_OP="$op" compute-sanitizer --tool racecheck --kernel-name kns=_GLOBAL__N__ --kernel-name kns=tw_ \
            --error-exitcode 1 "$build/tests/test_ops"
    done
    finish
}

bench() {
    peers "${groups:-all}" 100
    alone
}

"$stage"
echo "gpu_check.sh --stage $stage: $passed passed, $failed failed, $left_out left out, $SECONDS s"
[ "$failed" -eq 0 ]
