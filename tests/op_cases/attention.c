#include "op_case.h"

#include "autograd/random.h"

#include <math.h>

/* Inverted dropout, from its definition: keep iff the word is at least p 2^32. */
static double kept(const op_config *config, int64_t sample, int64_t element) {
    const tw_attention_attr *attr = config->attr;
    if (attr->dropout <= 0) return 1;
    tw_draw draw = {config->step.seed, TW_DRAW_DROPOUT, attr->layer, config->step.step,
                    config->step.sample + (uint32_t)sample};
    double word = (double)tw_random_u32(&draw, (uint32_t)element), p = (double)attr->dropout;
    return word >= p * 4294967296.0 ? 1 / (1 - p) : 0;
}

/* Sample b's rows begin at `first`; `keys` of them are seen. */
static void one_query(const op_config *config, const op_value *in, op_value *out, int64_t b, int64_t h,
                      int64_t i, int64_t first, int64_t keys, int64_t tokens) {
    const tw_attention_attr *attr = config->attr;
    int64_t d = in[0].shape[in[0].ndim - 1] / 3, width = d / attr->heads;
    const double *x = in[0].v + first * 3 * d;
    double *o = out[0].v + (first + i) * d + h * width, p[128], most = -INFINITY, sum = 0;
    for (int64_t c = 0; c < width; c++) o[c] = 0;
    for (int64_t j = 0; j < keys; j++) {
        p[j] = 0;
        for (int64_t c = 0; c < width; c++)
            p[j] += x[i * 3 * d + h * width + c] * x[j * 3 * d + d + h * width + c] / sqrt((double)width);
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < keys; j++) sum += p[j] = exp(p[j] - most);
    for (int64_t j = 0; j < keys; j++) {
        double weight = p[j] / sum * kept(config, b, (h * tokens + i) * tokens + j);
        for (int64_t c = 0; c < width; c++) o[c] += weight * x[j * 3 * d + 2 * d + h * width + c];
    }
}

static void packed(const op_config *config, const op_value *in, op_value *out) {
    const tw_attention_attr *attr = config->attr;
    int64_t rows = in[0].shape[0], d = in[0].shape[1] / 3, batch = in[2].shape[0] - 1;
    op_expect_shape(&out[0], 2, (int64_t[]){rows, d});
    for (int64_t e = 0; e < rows * d; e++) out[0].v[e] = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < attr->heads; h++) {
            int64_t first = (int64_t)in[2].v[b], n = (int64_t)in[2].v[b + 1] - first;
            for (int64_t i = 0; i < n; i++) one_query(config, in, out, b, h, i, first, n, attr->tokens);
        }
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_attention_attr *attr = config->attr;
    int64_t batch = in[0].shape[0], tokens = in[0].shape[1];
    if (in[2].v) {
        packed(config, in, out);
        return;
    }
    op_expect_shape(&out[0], 3, (int64_t[]){batch, tokens, in[0].shape[2] / 3});
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < attr->heads; h++)
            for (int64_t i = 0; i < tokens; i++)
                one_query(config, in, out, b, h, i, b * tokens, in[1].v ? (int64_t)in[1].v[b] : tokens,
                          tokens);
}

static const tw_attention_attr one = {.heads = 1}, two = {.heads = 2}, three = {.heads = 3},
                               dropped = {.heads = 2, .dropout = 0.3f, .layer = 5},
                               certain = {.heads = 2, .dropout = 1}, packed_two = {.heads = 2, .tokens = 7},
                               packed_dropped = {.heads = 2, .dropout = 0.3f, .layer = 5, .tokens = 7};

#define OFFSETS LENGTHS
#define LENGTHS(n, ...)                                                                                      \
    {                                                                                                        \
        OP_SHAPE(n), .dtype = OP_I32, .values = (const double[]) {                                           \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

static const op_config configs[] = {
    {.name = "one head", .attr = &one, .input = {{OP_SHAPE(2, 5, 12), .low = -2, .high = 2}}},
    {.name = "heads, strided",
     .attr = &three,
     .input = {{OP_SHAPE(2, 4, 45), .padding = 3, .low = -2, .high = 2}}},
    {.name = "lengths",
     .attr = &two,
     .input = {{OP_SHAPE(3, 5, 24), .low = -2, .high = 2}, LENGTHS(3, 5, 1, 3)}},
    {.name = "no keys at all", .attr = &two, .input = {{OP_SHAPE(2, 3, 12)}, LENGTHS(2, 0, 2)}},
    {.name = "dropout",
     .attr = &dropped,
     .input = {{OP_SHAPE(2, 5, 12), .low = -2, .high = 2}},
     .step = {.seed = 77, .step = 3, .sample = 11}},
    {.name = "dropout, lengths, strided",
     .attr = &dropped,
     .input = {{OP_SHAPE(2, 7, 24), .padding = 8, .low = -2, .high = 2}, LENGTHS(2, 6, 2)},
     .step = {.seed = 78, .step = 4, .sample = 1}},
    {.name = "large scores", /* up to hundreds, of which rounding is an error of the exponential's argument */
     .attr = &one,
     .magnified = 10,
     .input = {{OP_SHAPE(1, 6, 12), .dtype = OP_F32, .low = -9, .high = 9}}},
    {.name = "one token", .attr = &two, .input = {{OP_SHAPE(2, 1, 12)}}},
    {.name = "many tokens", .attr = &one, .input = {{OP_SHAPE(1, 67, 24), .low = -2, .high = 2}}},
    /* heads of a multiple of 8 columns: what a GPU's library takes */
    {.name = "wide heads", .attr = &two, .input = {{OP_SHAPE(2, 19, 48), .low = -2, .high = 2}}},
    {.name = "wide heads, lengths, strided",
     .attr = &three,
     .input = {{OP_SHAPE(4, 9, 72), .padding = 8, .low = -2, .high = 2}, LENGTHS(4, 9, 1, 4, 0)}},
    /* 64 tokens more than a multiple of 128: where a mask given as a tensor is known to have made NaN */
    {.name = "wide heads, 64 tokens, lengths",
     .attr = &one,
     .input = {{OP_SHAPE(1, 64, 24), .low = -3, .high = 3}, LENGTHS(1, 40)}},
    {.name = "no samples", .attr = &two, .input = {{OP_SHAPE(0, 4, 12)}}},
    {.name = "no tokens", .attr = &two, .input = {{OP_SHAPE(2, 0, 12)}}},
    {.name = "packed",
     .attr = &packed_two,
     .input = {{OP_SHAPE(13, 24), .low = -2, .high = 2}, {0}, OFFSETS(4, 0, 5, 6, 13)}},
    {.name = "packed, rows left over",
     .attr = &packed_two,
     .input = {{OP_SHAPE(16, 12), .padding = 5, .low = -2, .high = 2}, {0}, OFFSETS(5, 0, 1, 1, 8, 11)}},
    {.name = "packed, dropout",
     .attr = &packed_dropped,
     .input = {{OP_SHAPE(11, 24), .low = -2, .high = 2}, {0}, OFFSETS(3, 0, 6, 8)},
     .step = {.seed = 78, .step = 4, .sample = 1}},
    {.name = "packed, no samples", .attr = &packed_two, .input = {{OP_SHAPE(3, 12)}, {0}, OFFSETS(1, 0)}},
    {.name = "packed, more rows than a GPU's block",
     .attr = &(const tw_attention_attr){.heads = 1, .tokens = 40},
     .input = {{OP_SHAPE(64, 24), .low = -2, .high = 2}, {0}, OFFSETS(4, 0, 40, 43, 60)}},
    {.name = "packed, wide heads",
     .attr = &packed_two,
     .input = {{OP_SHAPE(16, 48), .low = -2, .high = 2}, {0}, OFFSETS(6, 0, 5, 6, 6, 13, 14)}},
    {.name = "packed, wide heads, strided, no rows left over",
     .attr = &(const tw_attention_attr){.heads = 3, .tokens = 9},
     .input = {{OP_SHAPE(13, 72), .padding = 8, .low = -2, .high = 2}, {0}, OFFSETS(4, 0, 9, 10, 13)}},
    {.name = "packed, wide heads, no tokens",
     .attr = &packed_two,
     .input = {{OP_SHAPE(5, 48)}, {0}, OFFSETS(3, 0, 0, 0)}},
    {.name = "packed with lengths",
     .attr = &packed_two,
     .input = {{OP_SHAPE(4, 12)}, LENGTHS(2, 1, 1), OFFSETS(3, 0, 1, 2)},
     .fails = TW_ERR_ARGUMENT,
     .message = "offsets for packed ones"},
    {.name = "packed, of how many tokens is not said",
     .attr = &two,
     .input = {{OP_SHAPE(4, 12)}, {0}, OFFSETS(3, 0, 1, 2)},
     .fails = TW_ERR_ARGUMENT,
     .message = "at most 0 tokens"},
    {.name = "packed in three dimensions",
     .attr = &packed_two,
     .input = {{OP_SHAPE(2, 4, 12)}, {0}, OFFSETS(3, 0, 1, 2)},
     .fails = TW_ERR_SHAPE,
     .message = "is not (rows,3D)"},
    {.name = "not three parts",
     .attr = &two,
     .input = {{OP_SHAPE(2, 4, 16)}},
     .fails = TW_ERR_SHAPE,
     .message = "divisible by 2 heads"},
    {.name = "lengths of another batch",
     .attr = &two,
     .input = {{OP_SHAPE(2, 4, 12)}, LENGTHS(3, 1, 1, 1)},
     .fails = TW_ERR_SHAPE,
     .message = "lengths is i32 (3), i32 (2) is needed"},
    {.name = "dropout of 1",
     .attr = &certain,
     .input = {{OP_SHAPE(2, 4, 12)}},
     .fails = TW_ERR_ARGUMENT,
     .message = "not in [0, 1)"},
};

/* Offsets are only seen in forward. */
static const char *refuses_bad_offsets(void) {
    static float x[4 * 12], y[4 * 4], scratch[1 << 14];
    const int64_t shape[] = {4, 12}, n = 3;
    static const int32_t wrong[][3] = {{0, 2, 5}, {-1, 2, 3}, {0, 3, 2}};
    static const tw_attention_attr attr = {.heads = 2, .tokens = 3};
    const char *result = NULL;
    tw_device *device;
    if (tw_device_cpu(1, &device)) return "no device";
    for (int i = 0; i < 3 && !result; i++) {
        int32_t offsets[3];
        memcpy(offsets, wrong[i], sizeof offsets);
        tw_call c = {.op = TW_OP_attention, .device = device, .attr = (void *)&attr, .n_inputs = 3};
        c.input[0] = tw_tensor_of(x, TW_F32, 2, shape);
        c.input[1] = tw_absent();
        c.input[2] = tw_tensor_of(offsets, TW_I32, 1, &n);
        if (tw_op_prepare(&c) || c.forward_scratch > sizeof scratch) result = "cannot be prepared";
        c.output[0].data = y, c.scratch = scratch;
        if (!result && (tw_op_forward(&c) != TW_ERR_ARGUMENT || !strstr(tw_last_error(), "sample")))
            result = "took samples outside the rows";
    }
    tw_device_free(device);
    return result;
}

const op_case op_case_attention = {.reference = reference, OP_CONFIGS(configs), .also = refuses_bad_offsets};
