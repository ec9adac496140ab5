#!/usr/bin/env bash
# Are the tests worth anything? Seeds faults into a copy of the tree, one at a time, and runs the tests that should see each.
#
#     scripts/mutate.sh [PATTERN]       only the faults whose file matches PATTERN
#     scripts/mutate.sh --check         whether each fault still finds its place, and its tests; nothing is built
#
# That is looked at first in any case, for all faults: one that changes nothing says nothing about the tests. The last line is
# "mutations: N caught, M survived"; the exit status is 0 only if there were any, and none survived.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
pattern=${1:-}
caught=0
survived=0
stale=0
# look FILE SED TESTS
look() {
    local file=$1 edit=$2 test
    if [ ! -f "$file" ] || sed "$edit" "$file" | cmp -s - "$file"; then
        echo "STALE    $file: $edit changes nothing" >&2
        stale=$((stale + 1))
    fi
    for test in ${3//|/ }; do
        # Programs that are made of others' sources have a name in a CMakeLists.txt only.
        compgen -G "tests/$test.*" >/dev/null || grep -rqw --include=CMakeLists.txt -- "$test" tests 2>/dev/null && continue
        echo "STALE    $file: there is no $test" >&2
        stale=$((stale + 1))
    done
}
# seed FILE SED TESTS
seed() {
    local file=$1 edit=$2 tests=$3
    [[ $file == *$pattern* ]] || return
    cp "$file" "$work/original"
    sed -i "$edit" "$file"
    if ! cmake --build --preset release >"$work/log" 2>&1; then
        echo "BROKEN   $file: $edit does not compile"
        survived=$((survived + 1))
    elif ctest --test-dir build/release -R "^($tests)\$" --timeout 300 --no-tests=error >"$work/log" 2>&1; then
        echo "SURVIVED $file: $edit"
        survived=$((survived + 1))
    else
        echo "caught   $file: $edit"
        caught=$((caught + 1))
    fi
    cp "$work/original" "$file"
}
# faults WHAT: calls WHAT FILE SED TESTS for each; TESTS are CTest names with | between.
faults() {
    "$1" autograd/arena.c 's/a->first <= b->last/a->first < b->last/' 'test_arena|test_tape_memory|test_step'
    "$1" autograd/tape_plan.c 's/v->param || v->grad_buffer != TW_NONE ? TW_ADD : TW_WRITE/TW_WRITE/' 'test_tape|test_towers|test_step'
    "$1" autograd/tape_plan.c 's/v->wants_grad |= v->requires_grad;/v->wants_grad |= true;/' 'test_tape|test_towers|test_train'
    "$1" autograd/tape_gradients.c 's/m->torn = new->torn = true/m->torn = false/' 'test_tape_gradients'
    "$1" autograd/random.c 's/draw = \*d;/draw = *d; first ^= 1;/; s/const tw_draw draw/tw_draw draw/' 'test_random|test_ops'
    "$1" autograd/ops/layer_norm_rows.h 's/sum - (x\[i\] - mean) \* rstd \* dot/sum/' 'test_ops'
    "$1" autograd/ops/embed_tokens.c 's/ids\[i\] == attr->padding_id/false/' 'test_ops|test_towers'
    "$1" autograd/ops/adamw_math.h 's/\*p \* r->keep/*p/' 'test_ops|test_adamw|test_step'
    "$1" autograd/ops/dropout_math.h 's/step->sample + (uint32_t)sample/(uint32_t)sample/' 'test_ops|test_train'
    "$1" autograd/ops/unit_norm.h 's/at + BLOCK < n ? at + BLOCK : n/at + BLOCK < n ? at + BLOCK - 1 : n/' 'test_ops|test_adamw'
    "$1" optim/schedule.c 's/(double)(step + 1)/(double)step/' 'test_schedule|test_step|test_towers'
    "$1" optim/adamw.c 's/return host.skip ? TW_OK : tw_adamw_set_steps/return tw_adamw_set_steps/' 'test_adamw|test_train'
    "$1" layers/bert.c 's/TW_ERF_GELU/TW_QUICK_GELU/' 'test_towers|test_step'
    "$1" layers/vit.c 's/tw_norm_forward(tape, &vit->ln_post, x)/x/' 'test_towers|test_step'
    "$1" data/resize.c 's/a = -0\.5;/a = -0.49;/' 'test_resize|test_image'
    "$1" data/sampler.c 's/i > 0; i--/i > 1; i--/' 'test_sampler'
    "$1" data/loader_work.c 's/l->epoch++/l->epoch += 2/' 'test_loader'
    "$1" data/base64.c "s/value_of\['-'\] = 62/value_of['-'] = 61/" 'test_base64|test_shards'
    "$1" data/unicode.c 's/if (c == 0x3A3) {/if (c == 0x3A4) {/' 'test_unicode|test_tokenizer'
    "$1" train/recall.c 's/hits\[1\] += rank < 5/hits[1] += rank < 6/' 'test_recall|test_scores'
    "$1" train/step_inputs.c 's/record.sample = (uint32_t)(c->first + at);/record.sample = (uint32_t)c->first;/' 'test_step|test_train'
    "$1" train/run_checkpoint.c 's/meta->position = run->position;/meta->position = 0;/' 'test_train'
    "$1" train/run_checkpoint.c 's/meta->adam_steps = tw_adamw_steps(run->adamw);/meta->adam_steps = 0;/' 'test_train'
    "$1" train/formats/seal.c 's/get64(seal + AT_CHECK) != tw_xxh64(seal, AT_CHECK, 0)/false/' 'test_checkpoint|test_features'
    "$1" data/label_folder.c 's/    sort(&w.folders);//' 'test_label_folder'
    "$1" data/label_folder.c 's/if (id < 0 || id == c) continue;/if (id < 0 || id != c) continue;/' 'test_label_folder'
    "$1" train/zeroshot.c 's/row\[c\] == row\[target\] \&\& c < target/false/' 'test_zeroshot'
    "$1" train/zeroshot.c 's/"%.6f"/"%.7f"/' 'test_zeroshot'
    "$1" train/zeroshot.h 's/TW_ZEROSHOT_SCALE = 100/TW_ZEROSHOT_SCALE = 99/' 'test_zeroshot'
    "$1" train/commands/classify.c 's/tw_image_list_load_file_rgb_first/tw_image_list_load_file/' 'test_zeroshot'
    "$1" train/commands/similarity.c 's/as_is = true/as_is = false/' 'test_classify'
    "$1" train/image_list.c 's/memset(features + i \* embed, 0,/memset(features + i * embed, 1,/' 'test_library'
    "$1" train/library.c 's/omp_set_num_threads(before.threads);/(void)before.threads;/' 'test_library'
    "$1" train/library.c 's/if (threads > 0) omp_set/if (threads > 4096) omp_set/' 'test_library'
    "$1" train/library.c 's/in->stride ? in->stride : row/row/' 'test_library'
    # ranks
    "$1" layers/contrastive.c 's/TRY(comm->reduce_scatter(comm, gradient, gradient + c->first \* c->embed, elements));/(void)gradient;/' 'test_contrastive|test_step_ranks'
    "$1" layers/contrastive.c 's/TRY(comm->all_to_all(comm, c->parts.most->data, pairs, c->columns\[1\], mine));//' 'test_contrastive|test_step_ranks'
    "$1" train/buckets.c 's/b->pending\[b->next\] == 0/b->pending[b->next] <= 1/' 'test_step_ranks'
    "$1" train/buckets.c 's/if (statistics) TRY/if (statistics < 0) TRY/' 'test_step_ranks|test_resnet_ranks'
    "$1" train/buckets.c 's/int from = tw_partition_bucket_of(b->partition, p->offset + p->count - 1);/int from = tw_partition_bucket_of(b->partition, p->offset);/' 'test_step_ranks'
    "$1" optim/gradient_norm.c 's/a->unit_at\[u \/ UNIT\] = at++;/a->unit_at[u \/ UNIT] = (int32_t)(u \/ UNIT), at++;/' 'test_adamw_ranks'
    "$1" optim/gradient_norm.c 's/if (!all\[r\]) report->rank = r,/if (all[r]) report->rank = r,/' 'test_adamw_ranks|test_faults_nan'
    "$1" optim/adamw.c 's/strcmp(p->name, "logit_scale") == 0/false/' 'test_adamw|test_adamw_ranks'
    "$1" optim/adamw.c 's/bool clip = a->config.clip > 0.0f/bool clip = a->config.clip > 1e9f/' 'test_adamw'
    "$1" train/comm_mpi_op.c 's/op->at += e->sum_bytes;/op->at += e->sum_bytes + 4;/' 'test_comm_mpi'
    "$1" train/step.c 's/bool first = part == c->parts - 1;/bool first = part == 0;/' 'test_step|test_step_order'
    # what crosses to a GPU, and back
    "$1" train/inputs.c 's/TRY(d->wait(d, TW_QUEUE_COPY, s->taken));//' 'shim_step|test_shim_commands'
    "$1" train/inputs.c 's/TRY(d->wait(d, TW_QUEUE_COMPUTE, s->sent));//' 'shim_step|test_shim_commands'
    "$1" train/inputs.c 's/TRY(d->await(d, s->sent));//' 'shim_step|test_shim_commands'
    "$1" train/step_results.c 's/TRY(d->await(d, e->ended));//' 'shim_step|test_shim_commands'
    "$1" train/graphs.c 's/g->entries\[i\].plan == plan && //' 'test_graphs|shim_step|test_shim_commands'
    "$1" train/comm_nccl.c 's/return d->wait(d, TW_QUEUE_COMPUTE, c->last);/return TW_OK;/' 'test_comm_nccl|test_step_nccl|test_norm_nccl'
    "$1" train/comm_nccl.c 's/out += counts\[r++\])/out += counts[0], r++)/' 'test_comm_nccl'
    # kernels
    "$1" autograd/cuda/padded.cu 's/a.rows > end ? a.rows - end : 0/0/' 'test_cuda_kernels|test_cuda_graphs'
    "$1" autograd/cuda/padded.cu 's/t < n ? (const uint16_t \*)part.packed + (first + t) \* part.stride : nullptr/(const uint16_t *)part.packed + (first + t) * part.stride/' 'test_cuda_kernels|test_cuda_graphs'
    "$1" autograd/ops/contrastive_loss.cu '/^    __syncthreads();$/d' 'test_cuda_kernels'
    "$1" autograd/ops/contrastive_loss.cu 's/a.row ? a.row_lse\[t.row + r\] : 0.0f/a.row ? a.row_lse[r] : 0.0f/' 'test_cuda_kernels'
    "$1" autograd/ops/contrastive_loss.cu 's/t.row == 0 \&\& t.col == 0/t.row == 0/' 'test_cuda_kernels'
    "$1" autograd/cuda/dnn_attention.c 's/p = times(w, p, 1.0f \/ (1.0f - w->a.dropout));//' 'test_cuda_kernels|test_cuda_graphs'
    "$1" autograd/cuda/dnn_attention.c 's/(void)tw_dnn_add(w->g, TW_DNN_AND, row, col, TW_DNN_NONE, seen);/(void)tw_dnn_add(w->g, TW_DNN_AND, row, row, TW_DNN_NONE, seen);/' 'test_cuda_kernels|test_cuda_graphs'
}

faults look
[ $stale -eq 0 ] || exit 1
[ "$pattern" != --check ] || exit 0

source=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work" 2>/dev/null
cd "$work" || exit 1
[ -d "$source/../shared" ] && export TW_SHARED=${TW_SHARED:-$source/../shared}
cmake --preset release -DTW_WERROR=OFF >/dev/null && cmake --build --preset release >"$work/log" 2>&1 || {
    tail "$work/log"
    exit 1
}

faults seed
echo "mutations: $caught caught, $survived survived"
[ $survived -eq 0 ] && [ $caught -gt 0 ]
