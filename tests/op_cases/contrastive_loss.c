#include "op_case.h"

#include <math.h>
#include <stdlib.h>

/* Mean cross entropy of rows (or columns) of logits (n,n) with the diagonal as target. */
static double cross_entropy(const double *logit, int64_t n, int64_t row_step, int64_t col_step) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < n; j++) most = fmax(most, logit[i * row_step + j * col_step]);
        for (int64_t j = 0; j < n; j++) sum += exp(logit[i * row_step + j * col_step] - most);
        total += most + log(sum) - logit[i * n + i];
    }
    return total / (double)n;
}

/* How many targets are the first of the largest of their row (or column). */
static double hits(const double *logit, int64_t n, int64_t row_step, int64_t col_step) {
    double count = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t best = 0;
        for (int64_t j = 1; j < n; j++)
            if (logit[i * row_step + j * col_step] > logit[i * row_step + best * col_step]) best = j;
        count += best == i;
    }
    return count;
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    (void)config;
    int64_t n = in[0].shape[0], d = in[0].shape[1];
    op_expect_shape(&out[0], 0, NULL);
    op_expect_shape(&out[1], 1, (int64_t[]){2});
    out[0].v[0] = out[1].v[0] = out[1].v[1] = 0;
    if (n == 0) return;
    double *logit = calloc((size_t)(n * n), sizeof *logit), scale = exp(in[2].v[0]);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t c = 0; c < d; c++)
                logit[i * n + j] += scale * in[0].v[i * d + c] * in[1].v[j * d + c];
    out[0].v[0] = (cross_entropy(logit, n, n, 1) + cross_entropy(logit, n, 1, n)) / 2;
    out[1].v[0] = hits(logit, n, n, 1);
    out[1].v[1] = hits(logit, n, 1, n);
    free(logit);
}

#define SCALE(x)                                                                                             \
    {                                                                                                        \
        OP_SCALAR, .dtype = OP_F32, .parameter = true, .values = (const double[]) {                          \
            x                                                                                                \
        }                                                                                                    \
    }
#define FEATURES(n, e)                                                                                       \
    { OP_SHAPE(n, e), .dtype = OP_F32 }

static const op_config configs[] = {
    {.name = "square", .input = {FEATURES(5, 4), FEATURES(5, 4), SCALE(0.5)}},
    {.name = "starting scale", .input = {FEATURES(9, 3), FEATURES(9, 3), SCALE(2.6592)}},
    {.name = "largest scale", .input = {FEATURES(4, 3), FEATURES(4, 3), SCALE(4.6052)}},
    {.name = "strided",
     .input = {{OP_SHAPE(7, 5), .dtype = OP_F32, .padding = 3},
               {OP_SHAPE(7, 5), .dtype = OP_F32, .padding = 1},
               SCALE(1)}},
    {.name = "more than a chunk of columns", .input = {FEATURES(131, 2), FEATURES(131, 2), SCALE(1)}},
    {.name = "one pair", .input = {FEATURES(1, 4), FEATURES(1, 4), SCALE(1)}},
    {.name = "no pairs", .input = {FEATURES(0, 4), FEATURES(0, 4), SCALE(1)}},
    {.name = "repeated pairs",
     .input = {{OP_SHAPE(4, 2), .dtype = OP_F32, .values = (const double[]){1, 0, 0, 1, 1, 0, 0.5, 0.75}},
               {OP_SHAPE(4, 2), .dtype = OP_F32, .values = (const double[]){1, 0, 0, 1, 1, 0, 1, 0}},
               SCALE(1)}},
    {.name = "no features", .input = {FEATURES(3, 0), FEATURES(3, 0), SCALE(1)}},
    {.name = "several tiles", .input = {FEATURES(1030, 1), FEATURES(1030, 1), SCALE(0.7)}},
    {.name = "different numbers",
     .input = {FEATURES(3, 4), FEATURES(4, 4), SCALE(1)},
     .fails = TW_ERR_SHAPE,
     .message = "image features are f32 (3,4) and text features f32 (4,4)"},
    {.name = "bf16 features",
     .input = {{OP_SHAPE(3, 4), .dtype = OP_BF16}, {OP_SHAPE(3, 4), .dtype = OP_BF16}, SCALE(1)},
     .fails = TW_ERR_SHAPE,
     .message = "both must be f32"},
    {.name = "scale is not a scalar",
     .input = {FEATURES(3, 4), FEATURES(3, 4), FEATURES(1, 1)},
     .fails = TW_ERR_SHAPE,
     .message = "logit_scale"},
};

const op_case op_case_contrastive_loss = {.reference = reference, OP_CONFIGS(configs)};
