#include "layer_norm.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_layer_norm_attr *attr = config->attr;
    const op_value *x = &in[0];
    int64_t d = x->shape[x->ndim - 1], rows = d ? x->count / d : 0;
    op_expect_shape(&out[0], x->ndim, x->shape);
    for (int64_t i = 0; i < rows; i++)
        layer_norm_row(x->v + i * d, d, in[1].v, in[2].v, (double)attr->eps, out[0].v + i * d);
}

static const tw_layer_norm_attr vit = {.eps = 1e-5f}, large = {.eps = 0.5f};

static const op_config configs[] = {
    {.name = "matrix", .attr = &vit, .input = {{OP_SHAPE(4, 7)}, GAIN_OF(7), BIAS_OF(7)}},
    {.name = "three dimensions, gaps",
     .attr = &vit,
     .input = {{OP_SHAPE(2, 3, 17), .padding = 5}, GAIN_OF(17), BIAS_OF(17)}},
    {.name = "large eps", .attr = &large, .input = {{OP_SHAPE(3, 6)}, GAIN_OF(6), BIAS_OF(6)}},
    {.name = "far from zero", /* no variance from squares; 50 deviations off, rounding weighs as much more */
     .attr = &large,
     .magnified = 10,
     .input = {{OP_SHAPE(3, 16), .dtype = OP_F32, .low = 60, .high = 64}, GAIN_OF(16), BIAS_OF(16)}},
    {.name = "vector", .attr = &vit, .input = {{OP_SHAPE(9)}, GAIN_OF(9), BIAS_OF(9)}},
    {.name = "one column", .attr = &large, .input = {{OP_SHAPE(7, 1)}, GAIN_OF(1), BIAS_OF(1)}},
    {.name = "one row", .attr = &vit, .input = {{OP_SHAPE(1, 33)}, GAIN_OF(33), BIAS_OF(33)}},
    {.name = "wide", .attr = &vit, .input = {{OP_SHAPE(11, 70)}, GAIN_OF(70), BIAS_OF(70)}},
    /* widths that GPU kernels share among threads, warps and blocks in different ways */
    {.name = "two packs a thread", .attr = &vit, .input = {{OP_SHAPE(5, 264)}, GAIN_OF(264), BIAS_OF(264)}},
    {.name = "five packs a thread, odd",
     .attr = &vit,
     .input = {{OP_SHAPE(3, 1277), .padding = 3}, GAIN_OF(1277), BIAS_OF(1277)}},
    {.name = "several warps a row",
     .attr = &vit,
     .input = {{OP_SHAPE(3, 4112)}, GAIN_OF(4112), BIAS_OF(4112)}},
    {.name = "several rows a group", .attr = &vit, .input = {{OP_SHAPE(70, 3)}, GAIN_OF(3), BIAS_OF(3)}},
    {.name = "no rows", .attr = &vit, .input = {{OP_SHAPE(0, 5)}, GAIN_OF(5), BIAS_OF(5)}},
    {.name = "no columns", .attr = &vit, .input = {{OP_SHAPE(3, 0)}, GAIN_OF(0), BIAS_OF(0)}},
    {.name = "wrong gain",
     .attr = &vit,
     .input = {{OP_SHAPE(3, 5)}, GAIN_OF(4), BIAS_OF(5)},
     .fails = TW_ERR_SHAPE,
     .message = "gain is f32 (4), f32 (5) is needed"},
    {.name = "no bias",
     .attr = &vit,
     .input = {{OP_SHAPE(3, 5)}, GAIN_OF(5)},
     .fails = TW_ERR_ARGUMENT,
     .message = "bias is missing"},
    {.name = "whole numbers",
     .attr = &vit,
     .input = {{OP_SHAPE(3, 5), .dtype = OP_I32}, GAIN_OF(5), BIAS_OF(5)},
     .fails = TW_ERR_SHAPE,
     .message = "x is i32"},
};

const op_case op_case_layer_norm = {.reference = reference, OP_CONFIGS(configs)};
