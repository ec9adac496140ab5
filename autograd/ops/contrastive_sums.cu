#include "autograd/cuda/launch.h"
#include "autograd/ops/contrastive_sums_math.h"
extern "C" {
#include "autograd/cuda/scratch.h"
}

/* A thread a column; blocks leave their sums, which one more block adds in order. */

namespace {

enum { THREADS = TW_SUMS_THREADS };

struct sums_args {
    tw_own_columns own;
    double *parts; /* (blocks, 4): three sums, and -j of the first bad pair j, -INFINITY if there is none */
    float *row, *target;
};

__global__ void combine_columns(sums_args a) {
    double tally[3] = {0.0, 0.0, 0.0}, bad = -(double)INFINITY, *part = a.parts + 4 * (int64_t)blockIdx.x;
    int64_t j = tw_global_thread();
    if (j < a.own.own) {
        if (tw_pair_is_bad(&a.own, j)) bad = -(double)j;
        tw_tally_pair(&a.own, j, tally);
        a.row[j] = (float)(0.5 / (double)a.own.pairs);
        a.target[j] = (float)(-1.0 / (double)a.own.pairs);
    }
    tw_block_sum(tally);
    bad = tw_block_max(bad);
    if (threadIdx.x < 3) part[threadIdx.x] = tally[threadIdx.x];
    if (threadIdx.x == 3) part[3] = bad;
}

__global__ void add_parts(const double *parts, int64_t blocks, float *out) {
    double tally[3] = {0.0, 0.0, 0.0}, bad = -(double)INFINITY;
    for (int64_t b = threadIdx.x; b < blocks; b += THREADS) {
        for (int i = 0; i < 3; i++) tally[i] += parts[4 * b + i];
        bad = fmax(bad, parts[4 * b + 3]);
    }
    tw_block_sum(tally);
    bad = tw_block_max(bad);
    if (threadIdx.x != 0) return;
    tw_split(tally[0], out);
    out[TW_SPLIT] = (float)tally[1], out[TW_SPLIT + 1] = (float)tally[2];
    out[TW_SPLIT + 2] = bad > -(double)INFINITY ? (float)-bad : -1.0f;
}

} // namespace

tw_status tw_contrastive_sums_forward_cuda(const tw_call *c) {
    const tw_contrastive_sums_attr *attr = (const tw_contrastive_sums_attr *)c->attr;
    sums_args a = {};
    a.own.ranks = (int)c->input[0].shape[0], a.own.own = c->input[0].shape[1];
    a.own.rank = attr->rank, a.own.pairs = attr->pairs;
    a.own.lse = (float *)c->input[0].data, a.own.most = (const float *)c->input[1].data;
    a.own.row_lse = (const float *)c->input[2].data, a.own.target = (const float *)c->input[3].data;
    a.own.is_first = (const int32_t *)c->input[4].data;
    a.parts = (double *)c->scratch;
    a.row = (float *)c->output[1].data, a.target = (float *)c->output[2].data;
    int64_t blocks = tw_sums_blocks(a.own.own);
    TRY(TW_LAUNCH(c->device, combine_columns, (unsigned)blocks, THREADS, 0, a));
    return TW_LAUNCH(c->device, add_parts, 1, THREADS, 0, (const double *)a.parts, blocks,
                     (float *)c->output[0].data);
}
