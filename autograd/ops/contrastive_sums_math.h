/* One column of the contrastive loss over all ranks, once for both compilers. */
#ifndef TW_AUTOGRAD_OPS_CONTRASTIVE_SUMS_MATH_H
#define TW_AUTOGRAD_OPS_CONTRASTIVE_SUMS_MATH_H

#include "autograd/ops/split_math.h"

#include <stdbool.h>

/* What one of `ranks` ranks knows of its `own` columns. */
typedef struct tw_own_columns {
    int ranks, rank;
    int64_t own, pairs;
    float *lse;                    /* (ranks, own), becomes the weights / 2N */
    const float *most;             /* (ranks, own) */
    const float *row_lse, *target; /* (own) */
    const int32_t *is_first;       /* (2, own) */
} tw_own_columns;

/* Own column j's log-sum-exp over all ranks; its entries become d loss / d theirs. */
TW_MATH double tw_combine_column(const tw_own_columns *c, int64_t j) {
    double most = -(double)INFINITY, sum = 0.0, total;
    for (int r = 0; r < c->ranks; r++) most = fmax(most, (double)c->lse[r * c->own + j]);
    for (int r = 0; r < c->ranks; r++) sum += exp((double)c->lse[r * c->own + j] - most);
    total = most + log(sum);
    for (int r = 0; r < c->ranks; r++) {
        float *x = &c->lse[r * c->own + j];
        *x = (float)(exp((double)*x - total) / (2.0 * (double)c->pairs));
    }
    return total;
}

/* Whether own column j's target is the first of the largest of all rows. */
TW_MATH bool tw_column_hit(const tw_own_columns *c, int64_t j) {
    bool hit = c->is_first[c->own + j] != 0;
    for (int r = 0; r < c->ranks; r++) {
        float most = c->most[r * c->own + j];
        if (r < c->rank) hit = hit && c->target[j] > most;
        if (r > c->rank) hit = hit && c->target[j] >= most;
    }
    return hit;
}

/* Whether the features of pair j are not all finite: their product is not, then. */
TW_MATH bool tw_pair_is_bad(const tw_own_columns *c, int64_t j) {
    return !(fabsf(c->target[j]) < INFINITY);
}

/* Adds column j and row j: 2N times their loss, and hits of the image and of the text. */
TW_MATH void tw_tally_pair(const tw_own_columns *c, int64_t j, double *tally) {
    tally[1] += c->is_first[j] ? 1.0 : 0.0;
    tally[2] += tw_column_hit(c, j) ? 1.0 : 0.0;
    tally[0] += tw_combine_column(c, j) + (double)c->row_lse[j] - 2.0 * (double)c->target[j];
}

#endif
