#include "op_case.h"

/* Cross-correlation, zeros around x. */
static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_conv2d_attr *attr = config->attr;
    const int64_t *x = in[0].shape, *w = in[1].shape, k = w[2];
    int64_t y[4] = {x[0], (x[1] + 2 * attr->padding - k) / attr->stride + 1,
                    (x[2] + 2 * attr->padding - k) / attr->stride + 1, w[0]};
    op_expect_shape(&out[0], 4, y);
    for (int64_t i = 0; i < out[0].count; i++) {
        int64_t o = i % y[3], column = i / y[3] % y[2], line = i / (y[3] * y[2]) % y[1],
                image = i / (y[3] * y[2] * y[1]);
        double sum = 0;
        for (int64_t e = 0; e < x[3] * k * k; e++) {
            int64_t c = e / (k * k), r = line * attr->stride + e / k % k - attr->padding,
                    s = column * attr->stride + e % k - attr->padding;
            if (r < 0 || r >= x[1] || s < 0 || s >= x[2]) continue;
            sum += in[0].v[((image * x[1] + r) * x[2] + s) * x[3] + c] * in[1].v[o * x[3] * k * k + e];
        }
        out[0].v[i] = sum;
    }
}

static const tw_conv2d_attr plain = {.stride = 1}, same = {.stride = 1, .padding = 1},
                            halving = {.stride = 2, .padding = 1}, strided = {.stride = 2},
                            wide = {.stride = 3, .padding = 2}, nowhere = {.stride = 0},
                            beyond = {.stride = 1, .padding = 3};

#define WEIGHT(o, c, k)                                                                                      \
    { OP_SHAPE(o, c, k, k), .parameter = true }

static const op_config configs[] = {
    {.name = "1x1, a product", .attr = &plain, .input = {{OP_SHAPE(2, 3, 4, 5)}, WEIGHT(6, 5, 1)}},
    {.name = "1x1 of one pixel", .attr = &plain, .input = {{OP_SHAPE(3, 1, 1, 7)}, WEIGHT(4, 7, 1)}},
    {.name = "1x1 with a stride", .attr = &strided, .input = {{OP_SHAPE(2, 5, 4, 3)}, WEIGHT(8, 3, 1)}},
    {.name = "3x3", .attr = &same, .input = {{OP_SHAPE(2, 5, 6, 8)}, WEIGHT(16, 8, 3)}},
    {.name = "3x3, odd channels", .attr = &same, .input = {{OP_SHAPE(2, 4, 3, 5)}, WEIGHT(7, 5, 3)}},
    {.name = "3x3, more channels", .attr = &same, .input = {{OP_SHAPE(1, 7, 7, 24)}, WEIGHT(40, 24, 3)}},
    {.name = "3x3, no padding", .attr = &plain, .input = {{OP_SHAPE(2, 5, 3, 4)}, WEIGHT(3, 4, 3)}},
    {.name = "3x3 of one pixel", .attr = &same, .input = {{OP_SHAPE(2, 1, 1, 8)}, WEIGHT(8, 8, 3)}},
    {.name = "stem", .attr = &halving, .input = {{OP_SHAPE(2, 8, 8, 3)}, WEIGHT(16, 3, 3)}},
    {.name = "stem, odd side", .attr = &halving, .input = {{OP_SHAPE(1, 7, 9, 3)}, WEIGHT(5, 3, 3)}},
    {.name = "5x5, stride 3", .attr = &wide, .input = {{OP_SHAPE(1, 9, 8, 2)}, WEIGHT(3, 2, 5)}},
    {.name = "many images", .attr = &same, .input = {{OP_SHAPE(17, 3, 3, 16)}, WEIGHT(8, 16, 3)}},
    {.name = "no images", .attr = &same, .input = {{OP_SHAPE(0, 4, 4, 3)}, WEIGHT(5, 3, 3)}},
    {.name = "no images, 1x1", .attr = &plain, .input = {{OP_SHAPE(0, 4, 4, 3)}, WEIGHT(5, 3, 1)}},
    {.name = "no channels", .attr = &same, .input = {{OP_SHAPE(2, 3, 3, 0)}, WEIGHT(5, 0, 3)}},
    {.name = "no channels, 1x1", .attr = &plain, .input = {{OP_SHAPE(2, 3, 3, 0)}, WEIGHT(5, 0, 1)}},
    {.name = "nothing out", .attr = &same, .input = {{OP_SHAPE(2, 3, 3, 4)}, WEIGHT(0, 4, 3)}},
    {.name = "nothing out, 1x1", .attr = &plain, .input = {{OP_SHAPE(2, 3, 3, 4)}, WEIGHT(0, 4, 1)}},
    {.name = "other channels",
     .attr = &same,
     .input = {{OP_SHAPE(2, 4, 4, 3)}, WEIGHT(5, 4, 3)},
     .fails = TW_ERR_SHAPE,
     .message = "x (2,4,4,3) and the weight (5,4,3,3)"},
    {.name = "gaps",
     .attr = &same,
     .input = {{OP_SHAPE(2, 4, 4, 3), .padding = 1}, WEIGHT(5, 3, 3)},
     .fails = TW_ERR_SHAPE,
     .message = "not contiguous"},
    {.name = "two types",
     .attr = &same,
     .input = {{OP_SHAPE(2, 4, 4, 3), .dtype = OP_F32}, {OP_SHAPE(5, 3, 3, 3), .dtype = OP_BF16}},
     .fails = TW_ERR_SHAPE,
     .message = "x is f32, the weight is bf16"},
    {.name = "no stride",
     .attr = &nowhere,
     .input = {{OP_SHAPE(2, 4, 4, 3)}, WEIGHT(5, 3, 3)},
     .fails = TW_ERR_ARGUMENT,
     .message = "stride 0"},
    {.name = "all padding",
     .attr = &beyond,
     .input = {{OP_SHAPE(2, 4, 4, 3)}, WEIGHT(5, 3, 3)},
     .fails = TW_ERR_ARGUMENT,
     .message = "padding 3 with a kernel of 3"},
    {.name = "too small",
     .attr = &plain,
     .input = {{OP_SHAPE(2, 2, 4, 3)}, WEIGHT(5, 3, 3)},
     .fails = TW_ERR_SHAPE,
     .message = "smaller than the weight"},
};

const op_case op_case_conv2d = {.reference = reference, OP_CONFIGS(configs)};
