#include "op_case.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    (void)config;
    int64_t b = in[0].shape[0], n = in[0].shape[1] * in[0].shape[2], d = in[0].shape[3];
    op_expect_shape(&out[0], 3, (int64_t[]){b, n + 1, d});
    for (int64_t i = 0; i < b; i++)
        for (int64_t e = 0; e < d; e++) {
            double mean = 0;
            for (int64_t t = 0; t < n; t++) {
                double x = in[0].v[(i * n + t) * d + e];
                mean += x / (double)n;
                out[0].v[(i * (n + 1) + t + 1) * d + e] = x + in[1].v[(t + 1) * d + e];
            }
            out[0].v[i * (n + 1) * d + e] = mean + in[1].v[e];
        }
}

static const tw_pool_tokens_attr none;

#define POSITIONS(n, d)                                                                                      \
    { OP_SHAPE(n, d), .parameter = true }

static const op_config configs[] = {
    {.name = "plain", .attr = &none, .input = {{OP_SHAPE(3, 2, 2, 5)}, POSITIONS(5, 5)}},
    {.name = "gaps, not square",
     .attr = &none,
     .input = {{OP_SHAPE(2, 3, 2, 11), .padding = 4}, POSITIONS(7, 11)}},
    {.name = "one pixel", .attr = &none, .input = {{OP_SHAPE(4, 1, 1, 3)}, POSITIONS(2, 3)}},
    {.name = "one image", .attr = &none, .input = {{OP_SHAPE(1, 3, 3, 8)}, POSITIONS(10, 8)}},
    {.name = "no images", .attr = &none, .input = {{OP_SHAPE(0, 2, 2, 4)}, POSITIONS(5, 4)}},
    {.name = "no channels", .attr = &none, .input = {{OP_SHAPE(2, 2, 2, 0)}, POSITIONS(5, 0)}},
    {.name = "many", .attr = &none, .input = {{OP_SHAPE(5, 4, 4, 20)}, POSITIONS(17, 20)}},
    {.name = "no pixels",
     .attr = &none,
     .input = {{OP_SHAPE(3, 0, 2, 4)}, POSITIONS(1, 4)},
     .fails = TW_ERR_SHAPE,
     .message = "with pixels"},
    {.name = "other resolution",
     .attr = &none,
     .input = {{OP_SHAPE(2, 2, 2, 5), .dtype = OP_F32}, {OP_SHAPE(10, 5), .dtype = OP_F32}},
     .fails = TW_ERR_SHAPE,
     .message = "positions is f32 (10,5), f32 (5,5) is needed"},
};

const op_case op_case_pool_tokens = {.reference = reference, OP_CONFIGS(configs)};
