#include "op_case.h"

#include <math.h>

static double activated(tw_activation activation, double z) {
    switch (activation) {
    case TW_IDENTITY:
        return z;
    case TW_QUICK_GELU:
        return z / (1 + exp(-1.702 * z));
    case TW_ERF_GELU:
        break;
    }
    return z * 0.5 * (1 + erf(z / sqrt(2)));
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_linear_attr *attr = config->attr;
    const op_value *x = &in[0], *w = &in[1], *bias = &in[2], *residual = &in[3];
    int64_t k = x->shape[x->ndim - 1], m = w->shape[attr->in_out ? 1 : 0], rows = 1;
    int64_t shape[TW_MAX_DIMS];
    for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
    for (int d = 0; d + 1 < x->ndim; d++) rows *= x->shape[d];
    shape[x->ndim - 1] = m;
    op_expect_shape(&out[0], x->ndim, shape);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < m; j++) {
            double z = bias->v ? bias->v[j] : 0;
            for (int64_t i = 0; i < k; i++) z += x->v[r * k + i] * w->v[attr->in_out ? i * m + j : j * k + i];
            out[0].v[r * m + j] = activated(attr->activation, z) + (residual->v ? residual->v[r * m + j] : 0);
        }
}

static const tw_linear_attr plain = {.activation = TW_IDENTITY}, quick = {.activation = TW_QUICK_GELU},
                            erf_gelu = {.activation = TW_ERF_GELU}, in_out = {.in_out = true},
                            f32_out = {.output_f32 = true},
                            all = {.activation = TW_ERF_GELU, .in_out = true, .output_f32 = true};

#define WEIGHT(a, b)                                                                                         \
    { OP_SHAPE(a, b), .parameter = true }
#define BIAS_OF(m)                                                                                           \
    { OP_SHAPE(m), .dtype = OP_F32, .parameter = true }

static const op_config configs[] = {
    {.name = "weight only", .attr = &plain, .input = {{OP_SHAPE(3, 5)}, WEIGHT(7, 5)}},
    {.name = "bias", .attr = &plain, .input = {{OP_SHAPE(2, 3, 5)}, WEIGHT(7, 5), BIAS_OF(7)}},
    {.name = "residual without bias",
     .attr = &plain,
     .input = {{OP_SHAPE(4, 5)}, WEIGHT(3, 5), {0}, {OP_SHAPE(4, 3), .padding = 2}}},
    {.name = "strided x, bias, residual",
     .attr = &plain,
     .input = {{OP_SHAPE(2, 3, 6), .padding = 5}, WEIGHT(9, 6), BIAS_OF(9), {OP_SHAPE(2, 3, 9)}}},
    {.name = "QuickGELU",
     .attr = &quick,
     .input = {{OP_SHAPE(5, 4), .low = -3, .high = 3}, WEIGHT(13, 4), BIAS_OF(13)}},
    {.name = "QuickGELU, residual",
     .attr = &quick,
     .input = {{OP_SHAPE(5, 4), .padding = 3}, WEIGHT(6, 4), BIAS_OF(6), {OP_SHAPE(5, 6), .padding = 1}}},
    {.name = "erf GELU",
     .attr = &erf_gelu,
     .input = {{OP_SHAPE(3, 8), .low = -3, .high = 3}, WEIGHT(17, 8), BIAS_OF(17)}},
    {.name = "erf GELU, no bias", .attr = &erf_gelu, .input = {{OP_SHAPE(3, 2)}, WEIGHT(5, 2)}},
    /* sizes in multiples of 8: what a GPU's library fuses */
    {.name = "QuickGELU, whole units, strided",
     .attr = &quick,
     .input = {{OP_SHAPE(7, 16), .padding = 8, .low = -2, .high = 2}, WEIGHT(24, 16), BIAS_OF(24)}},
    {.name = "erf GELU, whole units, in_out, no bias",
     .attr = &(const tw_linear_attr){.activation = TW_ERF_GELU, .in_out = true},
     .input = {{OP_SHAPE(3, 3, 8), .low = -2, .high = 2}, WEIGHT(8, 32)}},
    {.name = "in_out", .attr = &in_out, .input = {{OP_SHAPE(4, 6), .padding = 2}, WEIGHT(6, 3), BIAS_OF(3)}},
    {.name = "f32 result", .attr = &f32_out, .input = {{OP_SHAPE(4, 6)}, WEIGHT(5, 6), BIAS_OF(5)}},
    {.name = "f32 result of all",
     .attr = &all,
     .input = {{OP_SHAPE(4, 6)}, WEIGHT(6, 5), BIAS_OF(5), {OP_SHAPE(4, 5), .dtype = OP_F32}}},
    {.name = "one element", /* in bf16 a single rounding can be most of what is left of it */
     .attr = &quick,
     .input = {{OP_SHAPE(1, 1), .dtype = OP_F32}, {OP_SHAPE(1, 1), .dtype = OP_F32}, BIAS_OF(1)}},
    {.name = "vector", .attr = &plain, .input = {{OP_SHAPE(5)}, WEIGHT(3, 5), BIAS_OF(3)}},
    {.name = "no rows", .attr = &quick, .input = {{OP_SHAPE(0, 5)}, WEIGHT(3, 5), BIAS_OF(3)}},
    {.name = "no inputs to sum", .attr = &quick, .input = {{OP_SHAPE(4, 0)}, WEIGHT(3, 0), BIAS_OF(3)}},
    {.name = "no outputs", .attr = &plain, .input = {{OP_SHAPE(4, 3)}, WEIGHT(0, 3), BIAS_OF(0)}},
    {.name = "wider than a row block, more rows than a sum block",
     .attr = &erf_gelu,
     .input = {{OP_SHAPE(70, 2)}, WEIGHT(530, 2), BIAS_OF(530), {OP_SHAPE(70, 530)}}},
    {.name = "several tiles",
     .attr = &plain,
     .input = {{OP_SHAPE(70, 1), .dtype = OP_F32}, {OP_SHAPE(17000, 1), .dtype = OP_F32}, BIAS_OF(17000)}},
    {.name = "types differ",
     .attr = &plain,
     .input = {{OP_SHAPE(3, 5), .dtype = OP_F32}, {OP_SHAPE(7, 5), .dtype = OP_BF16}},
     .fails = TW_ERR_SHAPE,
     .message = "the weight is bf16 (7,5), f32 (7,5) is needed"},
    {.name = "wrong weight",
     .attr = &plain,
     .input = {{OP_SHAPE(3, 5), .dtype = OP_F32}, {OP_SHAPE(5, 7), .dtype = OP_F32}},
     .fails = TW_ERR_SHAPE,
     .message = "the weight is f32 (5,7), f32 (5,5) is needed"},
    {.name = "bf16 bias",
     .attr = &plain,
     .input = {{OP_SHAPE(3, 5)}, {OP_SHAPE(7, 5)}, {OP_SHAPE(7), .dtype = OP_BF16}},
     .fails = TW_ERR_SHAPE,
     .message = "the bias is bf16 (7), f32 (7) is needed"},
    {.name = "wrong residual",
     .attr = &plain,
     .input = {{OP_SHAPE(3, 5)}, {OP_SHAPE(7, 5)}, {0}, {OP_SHAPE(3, 6)}},
     .fails = TW_ERR_SHAPE,
     .message = "the residual is"},
    {.name = "no weight",
     .attr = &plain,
     .input = {{OP_SHAPE(3, 5)}},
     .fails = TW_ERR_SHAPE,
     .message = "the weight is missing"},
};

/* A library's product, and what is summed for the bias, lie in bf16 on a device. */
const op_case op_case_linear = {.reference = reference, OP_CONFIGS(configs), .bf16_midway = true};
