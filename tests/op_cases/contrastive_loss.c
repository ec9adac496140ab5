#include "op_case.h"

#include <math.h>
#include <stdlib.h>

/* The log-sum-exp of each row and each column; one exponential a logit, as there are a million: in f64 the
 * largest of all serves every row. */
static void log_sums(const double *logit, int64_t rows, int64_t n, double *of_rows, double *of_columns) {
    double most = rows > 0 && n > 0 ? logit[0] : 0;
    for (int64_t i = 0; i < rows * n; i++) most = logit[i] > most ? logit[i] : most;
    for (int64_t i = 0; i < rows; i++) of_rows[i] = 0;
    for (int64_t j = 0; j < n; j++) of_columns[j] = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++) {
            double e = exp(logit[i * n + j] - most);
            of_rows[i] += e, of_columns[j] += e;
        }
    for (int64_t i = 0; i < rows; i++) of_rows[i] = most + log(of_rows[i]);
    for (int64_t j = 0; j < n; j++) of_columns[j] = most + log(of_columns[j]);
}

/* The place of the first of the largest. */
static int64_t first_largest(const double *logit, int64_t count, int64_t step) {
    int64_t best = 0;
    for (int64_t j = 1; j < count; j++)
        if (logit[j * step] > logit[best * step]) best = j;
    return best;
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    int64_t rows = in[0].shape[0], n = in[1].shape[0], d = in[0].shape[1];
    int64_t first = ((const tw_contrastive_loss_attr *)config->attr)->first;
    op_expect_shape(&out[0], 1, &rows), op_expect_shape(&out[2], 1, &rows);
    op_expect_shape(&out[1], 1, &n), op_expect_shape(&out[3], 1, &n);
    op_expect_shape(&out[4], 2, (int64_t[]){2, rows});
    double *logit = calloc((size_t)(rows * n) + 1, sizeof *logit), scale = exp(in[2].v[0]);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t c = 0; c < d; c++)
                logit[i * n + j] += scale * in[0].v[i * d + c] * in[1].v[j * d + c];
    log_sums(logit, rows, n, out[0].v, out[1].v);
    for (int64_t i = 0; i < rows; i++) {
        out[2].v[i] = logit[i * n + first + i];
        out[4].v[i] = first_largest(logit + i * n, n, 1) == first + i;
        out[4].v[rows + i] = first_largest(logit + first + i, rows, n) == i;
    }
    for (int64_t j = 0; j < n; j++) out[3].v[j] = logit[first_largest(logit + j, rows, n) * n + j];
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

static const tw_contrastive_loss_attr whole = {0}, later = {.first = 2}, last = {.first = 1023};

static const op_config configs[] = {
    {.name = "square", .attr = &whole, .input = {FEATURES(5, 4), FEATURES(5, 4), SCALE(0.5)}},
    {.name = "starting scale", .attr = &whole, .input = {FEATURES(9, 3), FEATURES(9, 3), SCALE(2.6592)}},
    {.name = "largest scale", .attr = &whole, .input = {FEATURES(4, 3), FEATURES(4, 3), SCALE(4.6052)}},
    {.name = "strided",
     .attr = &whole,
     .input = {{OP_SHAPE(7, 5), .dtype = OP_F32, .padding = 3},
               {OP_SHAPE(7, 5), .dtype = OP_F32, .padding = 1},
               SCALE(1)}},
    /* logit_scale's gradient is a sum of 17,161 terms of either sign: with two columns these values cancel so
     * far that the rounding of a logit shows, which differs from processor to processor. */
    {.name = "more than a chunk of columns",
     .attr = &whole,
     .input = {FEATURES(131, 4), FEATURES(131, 4), SCALE(1)}},
    {.name = "one pair", .attr = &whole, .input = {FEATURES(1, 4), FEATURES(1, 4), SCALE(1)}},
    {.name = "no pairs", .attr = &whole, .input = {FEATURES(0, 4), FEATURES(0, 4), SCALE(1)}},
    {.name = "repeated pairs",
     .attr = &whole,
     .input = {{OP_SHAPE(4, 2), .dtype = OP_F32, .values = (const double[]){1, 0, 0, 1, 1, 0, 0.5, 0.75}},
               {OP_SHAPE(4, 2), .dtype = OP_F32, .values = (const double[]){1, 0, 0, 1, 1, 0, 1, 0}},
               SCALE(1)}},
    {.name = "no features", .attr = &whole, .input = {FEATURES(3, 0), FEATURES(3, 0), SCALE(1)}},
    {.name = "several tiles", .attr = &whole, .input = {FEATURES(1030, 1), FEATURES(1030, 1), SCALE(0.7)}},
    {.name = "rows of a larger batch", .attr = &later, .input = {FEATURES(3, 4), FEATURES(7, 4), SCALE(1.5)}},
    {.name = "the last rows", .attr = &later, .input = {FEATURES(5, 4), FEATURES(7, 4), SCALE(1.5)}},
    {.name = "the first rows", .attr = &whole, .input = {FEATURES(4, 4), FEATURES(7, 4), SCALE(1.5)}},
    {.name = "repeated rows of a larger batch",
     .attr = &later,
     .input = {{OP_SHAPE(3, 2), .dtype = OP_F32, .values = (const double[]){1, 0, 0, 1, 1, 0}},
               {OP_SHAPE(6, 2), .dtype = OP_F32,
                .values = (const double[]){0, 1, 0.5, 0, 1, 0, 0, 1, 1, 0, 1, 0}},
               SCALE(1)}},
    {.name = "rows whose targets lie in two tiles",
     .attr = &last,
     .input = {FEATURES(3, 1), FEATURES(1030, 1), SCALE(0.7)}},
    {.name = "two tiles of rows",
     .attr = &later,
     .input = {FEATURES(1026, 1), FEATURES(1029, 1), SCALE(0.7)}},
    {.name = "different widths",
     .attr = &whole,
     .input = {FEATURES(3, 5), FEATURES(3, 4), SCALE(1)},
     .fails = TW_ERR_SHAPE,
     .message = "image features are f32 (3,5) and text features f32 (3,4)"},
    {.name = "more images than texts",
     .attr = &later,
     .input = {FEATURES(3, 4), FEATURES(4, 4), SCALE(1)},
     .fails = TW_ERR_SHAPE,
     .message = "3 images from 2 on for 4 texts"},
    {.name = "bf16 features",
     .attr = &whole,
     .input = {{OP_SHAPE(3, 4), .dtype = OP_BF16}, {OP_SHAPE(3, 4), .dtype = OP_BF16}, SCALE(1)},
     .fails = TW_ERR_SHAPE,
     .message = "both must be f32"},
    {.name = "scale is not a scalar",
     .attr = &whole,
     .input = {FEATURES(3, 4), FEATURES(3, 4), FEATURES(1, 1)},
     .fails = TW_ERR_SHAPE,
     .message = "logit_scale"},
};

const op_case op_case_contrastive_loss = {.reference = reference, OP_CONFIGS(configs)};
