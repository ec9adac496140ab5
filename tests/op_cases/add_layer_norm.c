#include "layer_norm.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_add_layer_norm_attr *attr = config->attr;
    const op_value *x = &in[0];
    int64_t d = x->shape[x->ndim - 1], rows = d ? x->count / d : 0;
    int64_t samples = x->ndim > 1 ? x->shape[0] : 1, a_sample = samples ? x->count / samples : 0;
    double sum[2059];
    op_expect_shape(&out[0], x->ndim, x->shape);
    if (in[4].v) a_sample = attr->tokens * d;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = in[4].v ? (int64_t)in[4].v[i] : i;
        for (int64_t k = 0; k < d; k++) {
            int64_t e = row * d + k;
            double kept =
                row < 0 ? 1 : dropout_factor(config, attr->dropout, attr->layer, e / a_sample, e % a_sample);
            sum[k] = x->v[i * d + k] + in[1].v[i * d + k] * kept;
        }
        layer_norm_row(sum, d, in[2].v, in[3].v, (double)attr->eps, out[0].v + i * d);
    }
}

static const tw_add_layer_norm_attr plain = {.eps = 1e-5f}, bert = {.eps = 1e-12f},
                                    dropped = {.eps = 1e-5f, .dropout = 0.1f, .layer = 7},
                                    half = {.eps = 1e-5f, .dropout = 0.5f, .layer = 3},
                                    certain = {.eps = 1e-5f, .dropout = 1}, nan_ = {.eps = 1, .dropout = NAN},
                                    packed = {.eps = 1e-5f, .dropout = 0.5f, .layer = 3, .tokens = 4};

#define ORIGIN(n, ...)                                                                                       \
    {                                                                                                        \
        OP_SHAPE(n), .dtype = OP_I32, .values = (const double[]) {                                           \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

/* The sum is kept in bf16, and what is normalised is what was kept. */
#define NARROW .low = -2, .high = 2

static const op_config configs[] = {
    {.name = "matrix", .attr = &plain, .input = {{OP_SHAPE(4, 7)}, {OP_SHAPE(4, 7)}, GAIN_OF(7), BIAS_OF(7)}},
    {.name = "three dimensions, gaps",
     .attr = &bert,
     .input = {{OP_SHAPE(2, 3, 19), .padding = 3},
               {OP_SHAPE(2, 3, 19), .padding = 8, NARROW},
               GAIN_OF(19),
               BIAS_OF(19)}},
    {.name = "dropout",
     .attr = &dropped,
     .input = {{OP_SHAPE(3, 5, 13)}, {OP_SHAPE(3, 5, 13), .padding = 1}, GAIN_OF(13), BIAS_OF(13)},
     .step = {.seed = 99, .step = 12, .sample = 1000}},
    {.name = "dropout of a matrix",
     .attr = &half,
     .input = {{OP_SHAPE(6, 18)}, {OP_SHAPE(6, 18)}, GAIN_OF(18), BIAS_OF(18)},
     .step = {.seed = 1ull << 40, .step = 1, .sample = 3}},
    {.name = "dropout, wide", /* widths that GPU kernels share among threads and warps in different ways */
     .attr = &dropped,
     .input = {{OP_SHAPE(2, 2, 520)}, {OP_SHAPE(2, 2, 520)}, GAIN_OF(520), BIAS_OF(520)},
     .step = {.seed = 9, .step = 2, .sample = 5}},
    {.name = "dropout, wide and odd",
     .attr = &dropped,
     .input = {{OP_SHAPE(2, 2, 2059)}, {OP_SHAPE(2, 2, 2059)}, GAIN_OF(2059), BIAS_OF(2059)},
     .step = {.seed = 10, .step = 3, .sample = 6}},
    {.name = "one row", .attr = &plain, .input = {{OP_SHAPE(9)}, {OP_SHAPE(9)}, GAIN_OF(9), BIAS_OF(9)}},
    {.name = "packed",
     .attr = &packed,
     .input = {{OP_SHAPE(7, 18)},
               {OP_SHAPE(7, 18), .padding = 2},
               GAIN_OF(18),
               BIAS_OF(18),
               ORIGIN(7, 0, 1, 2, 4, 5, -1, -1)},
     .step = {.seed = 1ull << 40, .step = 1, .sample = 3}},
    {.name = "packed, odd",
     .attr = &packed,
     .input = {{OP_SHAPE(3, 13)}, {OP_SHAPE(3, 13)}, GAIN_OF(13), BIAS_OF(13), ORIGIN(3, 0, 4, 5)},
     .step = {.seed = 3, .step = 1, .sample = 3}},
    {.name = "packed in three dimensions",
     .attr = &packed,
     .input = {{OP_SHAPE(1, 3, 13)}, {OP_SHAPE(1, 3, 13)}, GAIN_OF(13), BIAS_OF(13), ORIGIN(3, 0, 4, 5)},
     .fails = TW_ERR_SHAPE,
     .message = "packed x is (rows,D)"},
    {.name = "no rows",
     .attr = &half,
     .input = {{OP_SHAPE(0, 2, 5)}, {OP_SHAPE(0, 2, 5)}, GAIN_OF(5), BIAS_OF(5)}},
    {.name = "no columns",
     .attr = &half,
     .input = {{OP_SHAPE(2, 0)}, {OP_SHAPE(2, 0)}, GAIN_OF(0), BIAS_OF(0)}},
    {.name = "shapes differ",
     .attr = &plain,
     .input = {{OP_SHAPE(4, 7)}, {OP_SHAPE(7, 4)}, GAIN_OF(7), BIAS_OF(7)},
     .fails = TW_ERR_SHAPE,
     .message = "(4,7), h is"},
    {.name = "types differ",
     .attr = &plain,
     .input = {{OP_SHAPE(4, 7), .dtype = OP_F32}, {OP_SHAPE(4, 7), .dtype = OP_BF16}, GAIN_OF(7), BIAS_OF(7)},
     .fails = TW_ERR_SHAPE,
     .message = "h is bf16"},
    {.name = "everything dropped",
     .attr = &certain,
     .input = {{OP_SHAPE(4, 7)}, {OP_SHAPE(4, 7)}, GAIN_OF(7), BIAS_OF(7)},
     .fails = TW_ERR_ARGUMENT,
     .message = "dropout 1"},
    {.name = "dropout is no number",
     .attr = &nan_,
     .input = {{OP_SHAPE(4, 7)}, {OP_SHAPE(4, 7)}, GAIN_OF(7), BIAS_OF(7)},
     .fails = TW_ERR_ARGUMENT,
     .message = "dropout"},
};

/* In bf16 the kept sum is rounded once more than x and h were. */
const op_case op_case_add_layer_norm = {.reference = reference, OP_CONFIGS(configs)};
