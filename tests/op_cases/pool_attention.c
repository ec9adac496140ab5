#include "op_case.h"

#include <math.h>

static void reference(const op_config *config, op_value *in, op_value *out) {
    int64_t heads = ((const tw_pool_attention_attr *)config->attr)->heads;
    int64_t batch = in[1].shape[0], tokens = in[1].shape[1], d = in[1].shape[2] / 2, width = d / heads;
    op_expect_shape(&out[0], 2, (int64_t[]){batch, d});
    for (int64_t i = 0; i < batch * heads; i++) {
        int64_t b = i / heads, at = i % heads * width;
        const double *q = in[0].v + b * d + at, *kv = in[1].v + b * tokens * 2 * d + at;
        double p[128], sum = 0, *y = out[0].v + b * d + at;
        for (int64_t t = 0; t < tokens; t++) {
            p[t] = 0;
            for (int64_t e = 0; e < width; e++) p[t] += q[e] * kv[t * 2 * d + e];
            sum += p[t] = exp(p[t] / sqrt((double)width));
        }
        for (int64_t e = 0; e < width; e++) {
            y[e] = 0;
            for (int64_t t = 0; t < tokens; t++) y[e] += p[t] / sum * kv[t * 2 * d + d + e];
        }
    }
}

static const tw_pool_attention_attr one = {1}, two = {2}, three = {3}, none = {0};

#define RANGE .low = -2, .high = 2

static const op_config configs[] = {
    {.name = "one head", .attr = &one, .input = {{OP_SHAPE(2, 4), RANGE}, {OP_SHAPE(2, 5, 8), RANGE}}},
    {.name = "heads, gaps",
     .attr = &three,
     .input = {{OP_SHAPE(3, 15), .padding = 2, RANGE}, {OP_SHAPE(3, 4, 30), .padding = 5, RANGE}}},
    {.name = "large scores",
     .attr = &two,
     .input = {{OP_SHAPE(2, 8), .dtype = OP_F32, .low = -5, .high = 5},
               {OP_SHAPE(2, 6, 16), .dtype = OP_F32, .low = -5, .high = 5}}},
    {.name = "one token", .attr = &two, .input = {{OP_SHAPE(3, 4)}, {OP_SHAPE(3, 1, 8)}}},
    {.name = "as RN50", .attr = &two, .input = {{OP_SHAPE(2, 32)}, {OP_SHAPE(2, 50, 64)}}},
    {.name = "no samples", .attr = &two, .input = {{OP_SHAPE(0, 4)}, {OP_SHAPE(0, 3, 8)}}},
    {.name = "no width", .attr = &two, .input = {{OP_SHAPE(2, 0)}, {OP_SHAPE(2, 3, 0)}}},
    {.name = "no tokens",
     .attr = &two,
     .input = {{OP_SHAPE(2, 4)}, {OP_SHAPE(2, 0, 8)}},
     .fails = TW_ERR_SHAPE,
     .message = "T > 0"},
    {.name = "no heads",
     .attr = &none,
     .input = {{OP_SHAPE(2, 4)}, {OP_SHAPE(2, 3, 8)}},
     .fails = TW_ERR_SHAPE,
     .message = "0 heads"},
    {.name = "other batch",
     .attr = &two,
     .input = {{OP_SHAPE(2, 4)}, {OP_SHAPE(3, 3, 8)}},
     .fails = TW_ERR_SHAPE,
     .message = "q (2,4) and kv (3,3,8)"},
};

const op_case op_case_pool_attention = {.reference = reference, OP_CONFIGS(configs)};
