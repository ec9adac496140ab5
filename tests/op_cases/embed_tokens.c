#include "layer_norm.h"

enum { WIDEST = 272 };

/* A padding word's row takes part in forward but has no gradient, so it must not move the differences either:
 * its values are taken from `frozen`, the values it had when the reference first ran. */
typedef struct frozen_row {
    const op_config *config;
    double v[WIDEST];
} frozen_row;

static const double *word_row(const op_config *config, const op_value *word, int64_t id) {
    static frozen_row frozen;
    const tw_embed_tokens_attr *attr = config->attr;
    int64_t d = word->shape[1];
    if (id != attr->padding_id) return word->v + id * d;
    /* The first evaluation of a pass is the undisturbed one; bf16 rounds the table anew. */
    bool same = frozen.config == config;
    for (int64_t k = 0; same && k < d; k++) same = fabs(frozen.v[k] - word->v[id * d + k]) < 1e-4;
    if (!same) memcpy(frozen.v, word->v + id * d, (size_t)d * sizeof *frozen.v);
    frozen.config = config;
    return frozen.v;
}

static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_embed_tokens_attr *attr = config->attr;
    bool packed = in[6].v != NULL;
    int64_t t = packed ? attr->tokens : in[0].shape[1], d = in[1].shape[1];
    double sum[WIDEST];
    if (packed)
        op_expect_shape(&out[0], 2, (int64_t[]){in[0].count, d});
    else
        op_expect_shape(&out[0], 3, (int64_t[]){in[0].shape[0], t, d});
    for (int64_t i = 0; i < in[0].count; i++) {
        int64_t at = packed ? (int64_t)in[6].v[i] : i;
        double *y = out[0].v + i * d;
        for (int64_t k = 0; k < d; k++) y[k] = 0;
        if (at < 0) continue;
        const double *word = word_row(config, &in[1], (int64_t)in[0].v[i]);
        for (int64_t k = 0; k < d; k++) sum[k] = word[k] + in[2].v[at % t * d + k] + in[3].v[k];
        layer_norm_row(sum, d, in[4].v, in[5].v, (double)attr->eps, y);
        for (int64_t k = 0; k < d; k++)
            y[k] *= dropout_factor(config, attr->dropout, attr->layer, at / t, at % t * d + k);
    }
}

static const tw_embed_tokens_attr plain = {.eps = 1e-12f, .padding_id = -1},
                                  padded = {.eps = 1e-12f, .padding_id = 0},
                                  dropped = {.eps = 1e-5f, .dropout = 0.25f, .layer = 4, .padding_id = 0},
                                  certain = {.eps = 1e-5f, .dropout = 1.5f},
                                  packed = {.eps = 1e-12f, .padding_id = 2, .tokens = 4},
                                  packed_dropped = {.eps = 1e-5f,
                                                    .dropout = 0.25f,
                                                    .layer = 4,
                                                    .padding_id = -1,
                                                    .tokens = 4};

#define IDS(b, t, ...)                                                                                       \
    {                                                                                                        \
        OP_SHAPE(b, t), .dtype = OP_I32, .values = (const double[]) {                                        \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define ROWS(n, ...)                                                                                         \
    {                                                                                                        \
        OP_SHAPE(n), .dtype = OP_I32, .values = (const double[]) {                                           \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define TABLE(n, d)                                                                                          \
    { OP_SHAPE(n, d), .parameter = true }

static const op_config configs[] = {
    {.name = "every id once",
     .attr = &plain,
     .input = {IDS(2, 3, 5, 1, 0, 2, 4, 3), TABLE(6, 8), TABLE(3, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8)}},
    {.name = "repeated ids, unused positions",
     .attr = &plain,
     .input = {IDS(3, 4, 1, 2, 2, 1, 2, 2, 2, 2, 4, 0, 1, 2), TABLE(9, 11), TABLE(7, 11), TABLE(2, 11),
               GAIN_OF(11), BIAS_OF(11)}},
    {.name = "padding",
     .attr = &padded,
     .input = {IDS(2, 5, 1, 3, 2, 0, 0, 1, 2, 0, 0, 0), TABLE(5, 6), TABLE(5, 6), TABLE(2, 6), GAIN_OF(6),
               BIAS_OF(6)}},
    {.name = "dropout",
     .attr = &dropped,
     .input = {IDS(3, 3, 1, 3, 0, 2, 2, 0, 1, 4, 3), TABLE(5, 13), TABLE(4, 13), TABLE(2, 13), GAIN_OF(13),
               BIAS_OF(13)},
     .step = {.seed = 5, .step = 77, .sample = 8}},
    {.name = "more tokens than a GPU sorts at once",
     .attr = &dropped,
     .input = {{OP_SHAPE(18, 15), .dtype = OP_I32, .low = 0, .high = 7},
               TABLE(7, 8),
               TABLE(15, 8),
               TABLE(2, 8),
               GAIN_OF(8),
               BIAS_OF(8)},
     .step = {.seed = 6, .step = 7, .sample = 1}},
    {.name = "wide",
     .attr = &dropped,
     .input = {IDS(2, 2, 1, 2, 2, 0), TABLE(3, 264), TABLE(2, 264), TABLE(2, 264), GAIN_OF(264),
               BIAS_OF(264)},
     .step = {.seed = 6, .step = 7, .sample = 1}},
    {.name = "one token of one type",
     .attr = &plain,
     .input = {IDS(1, 1, 0), TABLE(1, 5), TABLE(1, 5), TABLE(1, 5), GAIN_OF(5), BIAS_OF(5)}},
    {.name = "no texts",
     .attr = &dropped,
     .input =
         {{OP_SHAPE(0, 3), .dtype = OP_I32}, TABLE(4, 5), TABLE(3, 5), TABLE(2, 5), GAIN_OF(5), BIAS_OF(5)}},
    {.name = "packed",
     .attr = &packed,
     .input = {ROWS(9, 5, 1, 3, 2, 4, 3, 2, 0, 1), TABLE(6, 8), TABLE(4, 8), TABLE(2, 8), GAIN_OF(8),
               BIAS_OF(8), ROWS(9, 0, 1, 2, 4, 8, 9, 10, 11, 12)}},
    {.name = "packed, rows left over, dropout",
     .attr = &packed_dropped,
     .input = {ROWS(8, 5, 1, 3, 5, 4, 0, 0, 0), TABLE(6, 13), TABLE(5, 13), TABLE(2, 13), GAIN_OF(13),
               BIAS_OF(13), ROWS(8, 0, 1, 4, 5, 6, -1, -1, -1)},
     .step = {.seed = 5, .step = 77, .sample = 8}},
    {.name = "packed, all left over",
     .attr = &packed_dropped,
     .input = {ROWS(2, 0, 0), TABLE(6, 8), TABLE(4, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8), ROWS(2, -1, -1)},
     .step = {.seed = 5, .step = 77, .sample = 8}},
    {.name = "packed, of how many tokens is not said",
     .attr = &plain,
     .input = {ROWS(2, 0, 0), TABLE(6, 8), TABLE(4, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8), ROWS(2, 0, 1)},
     .fails = TW_ERR_ARGUMENT,
     .message = "at most 0 tokens"},
    {.name = "packed, origin of other rows",
     .attr = &packed,
     .input = {ROWS(2, 0, 0), TABLE(6, 8), TABLE(4, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8),
               ROWS(3, 0, 1, 2)},
     .fails = TW_ERR_SHAPE,
     .message = "origin is i32 (3), i32 (2) is needed"},
    {.name = "more tokens than positions",
     .attr = &plain,
     .input =
         {{OP_SHAPE(1, 4), .dtype = OP_I32}, TABLE(6, 8), TABLE(3, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8)},
     .fails = TW_ERR_SHAPE,
     .message = "4 positions are needed"},
    {.name = "ids are not whole numbers",
     .attr = &plain,
     .input = {{OP_SHAPE(1, 2)}, TABLE(6, 8), TABLE(3, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8)},
     .fails = TW_ERR_SHAPE,
     .message = "i32 (1,2) is needed"},
    {.name = "no type",
     .attr = &plain,
     .input =
         {{OP_SHAPE(1, 2), .dtype = OP_I32}, TABLE(6, 8), TABLE(3, 8), TABLE(0, 8), GAIN_OF(8), BIAS_OF(8)},
     .fails = TW_ERR_SHAPE,
     .message = "table of types has no row"},
    {.name = "type is missing",
     .attr = &plain,
     .input = {{OP_SHAPE(1, 2), .dtype = OP_I32}, TABLE(6, 8), TABLE(3, 8), {0}, GAIN_OF(8), BIAS_OF(8)},
     .fails = TW_ERR_ARGUMENT,
     .message = "type is missing"},
    {.name = "widths differ",
     .attr = &plain,
     .input =
         {{OP_SHAPE(1, 2), .dtype = OP_I32}, TABLE(6, 8), TABLE(3, 7), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8)},
     .fails = TW_ERR_SHAPE,
     .message = "position is"},
    {.name = "dropout above 1",
     .attr = &certain,
     .input =
         {{OP_SHAPE(1, 2), .dtype = OP_I32}, TABLE(6, 8), TABLE(3, 8), TABLE(2, 8), GAIN_OF(8), BIAS_OF(8)},
     .fails = TW_ERR_ARGUMENT,
     .message = "dropout 1.5"},
};

/* An id outside the vocabulary is only seen in forward. */
static const char *refuses_unknown_ids(void) {
    static float table[4 * 3], ones[3] = {1, 1, 1}, y[6], stats[4], scratch[4096];
    const int64_t ids_shape[] = {1, 2}, word_shape[] = {4, 3}, position_shape[] = {2, 3}, width = 3;
    static const int32_t wrong[] = {-1, 4, INT32_MAX};
    const char *result = NULL;
    tw_device *device;
    if (tw_device_cpu(1, &device)) return "no device";
    for (int i = 0; i < 3 && !result; i++) {
        int32_t ids[2] = {3, wrong[i]};
        tw_step step = {0};
        tw_call c = {.op = TW_OP_embed_tokens, .device = device, .attr = (void *)&plain, .n_inputs = 6};
        c.input[0] = tw_tensor_of(ids, TW_I32, 2, ids_shape);
        c.input[1] = tw_tensor_of(table, TW_F32, 2, word_shape);
        c.input[2] = c.input[3] = tw_tensor_of(table, TW_F32, 2, position_shape);
        c.input[4] = c.input[5] = tw_tensor_of(ones, TW_F32, 1, &width);
        c.step = &step;
        if (tw_op_prepare(&c) || c.forward_scratch > sizeof scratch) result = "cannot be prepared";
        c.output[0].data = y, c.output[1].data = stats, c.scratch = scratch;
        if (!result && (tw_op_forward(&c) != TW_ERR_ARGUMENT || !strstr(tw_last_error(), "vocabulary of 4")))
            result = "took an id outside the vocabulary";
    }
    tw_device_free(device);
    return result;
}

const op_case op_case_embed_tokens = {
    .reference = reference, OP_CONFIGS(configs), .also = refuses_unknown_ids};
