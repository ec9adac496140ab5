#include "op_case.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    int64_t k = ((const tw_avg_pool_attr *)config->attr)->size;
    const int64_t *x = in[0].shape, y[4] = {x[0], x[1] / k, x[2] / k, x[3]};
    op_expect_shape(&out[0], 4, y);
    for (int64_t i = 0; i < out[0].count; i++) {
        int64_t c = i % y[3], column = i / y[3] % y[2], line = i / (y[3] * y[2]) % y[1],
                image = i / (y[3] * y[2] * y[1]);
        out[0].v[i] = 0;
        for (int64_t r = line * k; r < (line + 1) * k; r++)
            for (int64_t s = column * k; s < (column + 1) * k; s++)
                out[0].v[i] += in[0].v[((image * x[1] + r) * x[2] + s) * x[3] + c] / (double)(k * k);
    }
}

static const tw_avg_pool_attr one = {1}, two = {2}, three = {3}, none = {0};

static const op_config configs[] = {
    {.name = "squares of two", .attr = &two, .input = {{OP_SHAPE(2, 4, 6, 5)}}},
    {.name = "whole units",
     .attr = &two,
     .input = {{OP_SHAPE(2, 4, 6, 16)}}}, /* what a GPU's library takes */
    {.name = "a rest", .attr = &two, .input = {{OP_SHAPE(3, 5, 7, 4)}}},
    {.name = "squares of three", .attr = &three, .input = {{OP_SHAPE(2, 7, 6, 17)}}},
    {.name = "squares of one", .attr = &one, .input = {{OP_SHAPE(2, 3, 2, 3)}}},
    {.name = "smaller than a square", .attr = &three, .input = {{OP_SHAPE(2, 2, 4, 3)}}},
    {.name = "no images", .attr = &two, .input = {{OP_SHAPE(0, 4, 4, 3)}}},
    {.name = "no channels", .attr = &two, .input = {{OP_SHAPE(2, 4, 4, 0)}}},
    {.name = "many", .attr = &two, .input = {{OP_SHAPE(5, 8, 8, 20)}}},
    {.name = "no squares",
     .attr = &none,
     .input = {{OP_SHAPE(2, 4, 4, 3)}},
     .fails = TW_ERR_ARGUMENT,
     .message = "side 0"},
    {.name = "three dimensions",
     .attr = &two,
     .input = {{OP_SHAPE(4, 4, 3)}},
     .fails = TW_ERR_SHAPE,
     .message = "(B,H,W,C)"},
};

const op_case op_case_avg_pool = {.reference = reference, OP_CONFIGS(configs)};
