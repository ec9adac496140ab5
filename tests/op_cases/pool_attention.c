#include "layer_norm.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_pool_attention_attr *attr = config->attr;
    bool packed = in[3].v != NULL;
    int64_t heads = attr->heads, batch = in[0].shape[0], d = in[0].shape[1], width = d / heads;
    int64_t tokens = packed ? attr->tokens : in[1].shape[1];
    op_expect_shape(&out[0], 2, (int64_t[]){batch, d});
    for (int64_t i = 0; i < batch * heads; i++) {
        int64_t b = i / heads, h = i % heads, at = h * width;
        int64_t first = packed ? (int64_t)in[3].v[b] : b * tokens, keys = tokens;
        if (packed) keys = (int64_t)in[3].v[b + 1] - first;
        if (in[2].v) keys = (int64_t)in[2].v[b];
        const double *q = in[0].v + b * d + at, *kv = in[1].v + first * 2 * d + at;
        double p[128], sum = 0, *y = out[0].v + b * d + at;
        for (int64_t t = 0; t < keys; t++) {
            p[t] = 0;
            for (int64_t e = 0; e < width; e++) p[t] += q[e] * kv[t * 2 * d + e];
            sum += p[t] = exp(p[t] / sqrt((double)width));
        }
        for (int64_t e = 0; e < width; e++) y[e] = 0;
        for (int64_t t = 0; t < keys; t++) { /* drawn as attention draws for query 0 */
            double kept = dropout_factor(config, attr->dropout, attr->layer, b, h * tokens * tokens + t);
            for (int64_t e = 0; e < width; e++) y[e] += p[t] / sum * kept * kv[t * 2 * d + d + e];
        }
    }
}

static const tw_pool_attention_attr one = {.heads = 1}, two = {.heads = 2}, three = {.heads = 3},
                                    none = {.heads = 0}, dropped = {.heads = 2, .dropout = 0.3f, .layer = 5},
                                    packed = {.heads = 2, .tokens = 6},
                                    packed_dropped = {.heads = 2, .dropout = 0.3f, .layer = 5, .tokens = 6},
                                    certain = {.heads = 2, .dropout = 1};

#define NUMBERS(n, ...)                                                                                      \
    {                                                                                                        \
        OP_SHAPE(n), .dtype = OP_I32, .values = (const double[]) {                                           \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

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
    {.name = "lengths",
     .attr = &two,
     .input = {{OP_SHAPE(4, 8), RANGE}, {OP_SHAPE(4, 5, 16), .padding = 3, RANGE}, NUMBERS(4, 5, 1, 0, 3)}},
    {.name = "dropout",
     .attr = &dropped,
     .input = {{OP_SHAPE(3, 8), RANGE}, {OP_SHAPE(3, 7, 16), RANGE}},
     .step = {.seed = 77, .step = 3, .sample = 11}},
    {.name = "dropout, lengths",
     .attr = &dropped,
     .input = {{OP_SHAPE(3, 8), RANGE}, {OP_SHAPE(3, 7, 16), RANGE}, NUMBERS(3, 2, 7, 5)},
     .step = {.seed = 78, .step = 3, .sample = 1}},
    {.name = "packed",
     .attr = &packed,
     .input =
         {{OP_SHAPE(3, 8), RANGE}, {OP_SHAPE(12, 16), .padding = 1, RANGE}, {0}, NUMBERS(4, 0, 6, 7, 12)}},
    {.name = "packed, rows left over, dropout",
     .attr = &packed_dropped,
     .input = {{OP_SHAPE(3, 8), RANGE}, {OP_SHAPE(13, 16), RANGE}, {0}, NUMBERS(4, 0, 3, 9, 10)},
     .step = {.seed = 78, .step = 3, .sample = 1}},
    {.name = "packed, no samples",
     .attr = &packed,
     .input = {{OP_SHAPE(0, 8)}, {OP_SHAPE(3, 16)}, {0}, NUMBERS(1, 0)}},
    {.name = "packed, of other samples",
     .attr = &packed,
     .input = {{OP_SHAPE(2, 8)}, {OP_SHAPE(3, 16)}, {0}, NUMBERS(4, 0, 1, 2, 3)},
     .fails = TW_ERR_SHAPE,
     .message = "offsets is i32 (4), i32 (3) is needed"},
    {.name = "packed with lengths",
     .attr = &packed,
     .input = {{OP_SHAPE(2, 8)}, {OP_SHAPE(3, 16)}, NUMBERS(2, 1, 1), NUMBERS(3, 0, 1, 2)},
     .fails = TW_ERR_ARGUMENT,
     .message = "offsets for packed ones"},
    {.name = "dropout of 1",
     .attr = &certain,
     .input = {{OP_SHAPE(2, 4)}, {OP_SHAPE(2, 3, 8)}},
     .fails = TW_ERR_ARGUMENT,
     .message = "not in [0, 1)"},
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
