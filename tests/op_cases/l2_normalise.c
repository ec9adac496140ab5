#include "op_case.h"
#include "tw_test.h"

#include <math.h>

static void reference(const op_config *config, op_value *in, op_value *out) {
    (void)config;
    const op_value *x = &in[0];
    int64_t d = x->shape[x->ndim - 1], rows = d ? x->count / d : 0;
    op_expect_shape(&out[0], x->ndim, x->shape);
    ck_assert_int_eq(out[0].dtype, TW_F32);
    for (int64_t i = 0; i < rows; i++) {
        double square = 0;
        for (int64_t k = 0; k < d; k++) square += x->v[i * d + k] * x->v[i * d + k];
        for (int64_t k = 0; k < d; k++) out[0].v[i * d + k] = x->v[i * d + k] / sqrt(square);
    }
}

static const tw_l2_normalise_attr none;

static const op_config configs[] = {
    {.name = "matrix", .attr = &none, .input = {{OP_SHAPE(4, 7)}}},
    {.name = "gaps", .attr = &none, .input = {{OP_SHAPE(5, 9), .padding = 3}}},
    {.name = "three dimensions", .attr = &none, .input = {{OP_SHAPE(2, 3, 6)}}},
    {.name = "one column: the sign", .attr = &none, .input = {{OP_SHAPE(5, 1), .low = 0.5, .high = 2}}},
    {.name = "vector", .attr = &none, .input = {{OP_SHAPE(8)}}},
    {.name = "small values",
     .attr = &none,
     .input = {{OP_SHAPE(3, 4), .dtype = OP_F32, .low = 0.01, .high = 0.02}}},
    {.name = "no rows", .attr = &none, .input = {{OP_SHAPE(0, 4)}}},
    {.name = "no columns", .attr = &none, .input = {{OP_SHAPE(4, 0)}}},
    {.name = "wide", .attr = &none, .input = {{OP_SHAPE(7, 90), .padding = 2}}},
    /* widths that GPU kernels share among threads and warps in different ways */
    {.name = "two packs a thread", .attr = &none, .input = {{OP_SHAPE(3, 264)}}},
    {.name = "several warps a row, odd", .attr = &none, .input = {{OP_SHAPE(2, 2059), .padding = 5}}},
    {.name = "one element", .attr = &none, .input = {{OP_SHAPE(1, 1), .low = 0.5, .high = 2}}},
    {.name = "whole numbers",
     .attr = &none,
     .input = {{OP_SHAPE(4, 3), .dtype = OP_I32}},
     .fails = TW_ERR_SHAPE,
     .message = "x is i32"},
};

/* A row of zeros has no direction: NaN, as in the reference, in that row alone. Squares that f32 cannot hold
 * are no reason for one. */
static const char *zero_and_extreme_rows(void) {
    static float x[3][2] = {{0, 0}, {3e30f, 4e30f}, {3e-30f, 4e-30f}}, y[3][2], norm[3], scratch[2];
    const int64_t shape[] = {3, 2};
    tw_device *device;
    if (tw_device_cpu(1, &device)) return "no device";
    tw_call c = {.op = TW_OP_l2_normalise, .device = device, .attr = (void *)&none, .n_inputs = 1};
    c.input[0] = tw_tensor_of(x, TW_F32, 2, shape);
    bool ok = tw_op_prepare(&c) == TW_OK && c.forward_scratch <= sizeof scratch;
    c.output[0].data = y, c.output[1].data = norm, c.scratch = scratch;
    ok = ok && tw_op_forward(&c) == TW_OK;
    tw_device_free(device);
    if (!ok) return "forward fails";
    if (!isnan(y[0][0]) || !isnan(y[0][1])) return "a zero row is not NaN";
    for (int i = 1; i < 3; i++)
        if (fabsf(y[i][0] - 0.6f) > 1e-6f || fabsf(y[i][1] - 0.8f) > 1e-6f) return "extreme values are lost";
    return NULL;
}

const op_case op_case_l2_normalise = {
    .reference = reference, OP_CONFIGS(configs), .also = zero_and_extreme_rows};
