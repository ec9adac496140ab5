/* What a rank makes of its own columns and rows once it has every rank's part of its columns' log-sum-exps
 * (layers/contrastive.c). Of R ranks with n own of N pairs, inputs: lse (R,n) f32, in place: becomes the
 * gradient of each rank's log-sum-exp of the column, exp(lse_r - total) / 2N; most (R,n), the largest logits;
 * row_lse (n), target (n); is_first (2,n) i32. outputs: tally (6): 2N times the loss of these rows and
 * columns, split in three (split_math.h), images and texts that find their own first, and the first own pair
 * whose target is not finite, -1 if all are (what the features of all pairs spoil is no rank's own: this is);
 * row_slope (n) = 1/2N and target_slope (n) = -1/N, the gradients of row_lse and target. */
#include "autograd/cuda/scratch.h"
#include "autograd/op.h"
#include "autograd/ops/contrastive_sums_math.h"

enum { LSE, MOST, ROW_LSE, TARGET, IS_FIRST };

tw_status tw_contrastive_sums_shape(tw_call *c) {
    const tw_contrastive_sums_attr *attr = c->attr;
    const tw_tensor *lse = &c->input[LSE];
    if (!tw_present(lse) || lse->ndim != 2)
        return FAIL(TW_ERR_SHAPE, "contrastive_sums: lse must be (ranks, pairs)");
    int64_t ranks = lse->shape[0], n = lse->shape[1], tally = TW_SPLIT + 3;
    TRY(tw_call_check_f32(c, LSE, "lse", 2, lse->shape));
    TRY(tw_call_check_f32(c, MOST, "most", 2, lse->shape));
    TRY(tw_call_check_f32(c, ROW_LSE, "row_lse", 1, &n));
    TRY(tw_call_check_f32(c, TARGET, "target", 1, &n));
    TRY(tw_call_check(c, IS_FIRST, "is_first", TW_I32, 2, (int64_t[]){2, n}));
    if (attr->rank < 0 || attr->rank >= ranks || attr->pairs < n)
        return FAIL(TW_ERR_ARGUMENT, "contrastive_sums: rank %d of %lld with %lld of %lld pairs", attr->rank,
                    (long long)ranks, (long long)n, (long long)attr->pairs);
    tw_call_output(c, 0, TW_F32, 1, &tally);
    tw_call_output(c, 1, TW_F32, 1, &n);
    tw_call_output(c, 2, TW_F32, 1, &n);
    c->n_results = 3;
    tw_call_scratch_cuda(c, tw_sums_blocks(n) * 4 * (int64_t)sizeof(double), 0);
    return TW_OK;
}

tw_status tw_contrastive_sums_forward_cpu(const tw_call *c) {
    const tw_contrastive_sums_attr *attr = c->attr;
    tw_own_columns own = {.ranks = (int)c->input[LSE].shape[0],
                          .rank = attr->rank,
                          .own = c->input[LSE].shape[1],
                          .pairs = attr->pairs,
                          .lse = c->input[LSE].data,
                          .most = c->input[MOST].data,
                          .row_lse = c->input[ROW_LSE].data,
                          .target = c->input[TARGET].data,
                          .is_first = c->input[IS_FIRST].data};
    double tally[3] = {0};
    int64_t bad = -1;
    float *out = c->output[0].data, *row = c->output[1].data, *target = c->output[2].data;
    for (int64_t j = 0; j < own.own; j++) {
        if (bad < 0 && tw_pair_is_bad(&own, j)) bad = j;
        tw_tally_pair(&own, j, tally);
        row[j] = (float)(0.5 / (double)attr->pairs);
        target[j] = (float)(-1.0 / (double)attr->pairs);
    }
    tw_split(tally[0], out);
    out[TW_SPLIT] = (float)tally[1], out[TW_SPLIT + 1] = (float)tally[2];
    out[TW_SPLIT + 2] = (float)bad;
    return TW_OK;
}
