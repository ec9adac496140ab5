#include "op_case.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    (void)config;
    int64_t b = in[0].shape[0], t = in[0].shape[1], d = in[0].shape[in[0].ndim - 1];
    if (in[1].v) {
        op_expect_shape(&out[0], 2, (int64_t[]){in[1].shape[0] - 1, d});
        for (int64_t i = 0; i < (in[1].shape[0] - 1) * d; i++)
            out[0].v[i] = in[0].v[(int64_t)in[1].v[i / d] * d + i % d];
        return;
    }
    op_expect_shape(&out[0], 2, (int64_t[]){b, d});
    for (int64_t i = 0; i < b * d; i++) out[0].v[i] = in[0].v[i / d * t * d + i % d];
}

static const tw_take_token_attr none;

#define OFFSETS(n, ...)                                                                                      \
    {                                                                                                        \
        OP_SHAPE(n), .dtype = OP_I32, .values = (const double[]) {                                           \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

static const op_config configs[] = {
    {.name = "plain", .attr = &none, .input = {{OP_SHAPE(3, 4, 5)}}},
    {.name = "gaps", .attr = &none, .input = {{OP_SHAPE(2, 3, 7), .padding = 6}}},
    {.name = "one token", .attr = &none, .input = {{OP_SHAPE(4, 1, 6)}}},
    {.name = "one sample", .attr = &none, .input = {{OP_SHAPE(1, 5, 3)}}},
    {.name = "no samples", .attr = &none, .input = {{OP_SHAPE(0, 2, 3)}}},
    {.name = "no columns", .attr = &none, .input = {{OP_SHAPE(2, 2, 0)}}},
    {.name = "large", .attr = &none, .input = {{OP_SHAPE(6, 9, 20), .padding = 1}}},
    {.name = "packed", .attr = &none, .input = {{OP_SHAPE(7, 9), .padding = 2}, OFFSETS(4, 0, 3, 4, 6)}},
    {.name = "packed, no samples", .attr = &none, .input = {{OP_SHAPE(3, 5)}, OFFSETS(1, 0)}},
    {.name = "packed, wide", .attr = &none, .input = {{OP_SHAPE(5, 1030)}, OFFSETS(3, 0, 3, 5)}},
    {.name = "packed in three dimensions",
     .attr = &none,
     .input = {{OP_SHAPE(2, 3, 4)}, OFFSETS(3, 0, 3, 6)},
     .fails = TW_ERR_SHAPE,
     .message = "packed x must be (rows,D)"},
    {.name = "no offsets at all",
     .attr = &none,
     .input = {{OP_SHAPE(2, 3)}, OFFSETS(0, 0)},
     .fails = TW_ERR_SHAPE,
     .message = "offsets are (B+1)"},
    {.name = "no tokens",
     .attr = &none,
     .input = {{OP_SHAPE(2, 0, 3)}},
     .fails = TW_ERR_SHAPE,
     .message = "T > 0"},
    {.name = "matrix",
     .attr = &none,
     .input = {{OP_SHAPE(2, 3)}},
     .fails = TW_ERR_SHAPE,
     .message = "(B,T,D)"},
};

const op_case op_case_take_token = {.reference = reference, OP_CONFIGS(configs)};
