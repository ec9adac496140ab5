#include "op_case.h"

static void reference(const op_config *config, op_value *in, op_value *out) {
    int64_t rows = ((const tw_pack_tokens_attr *)config->attr)->rows, batch = in[0].shape[0],
            tokens = in[0].shape[1], at = 0;
    op_expect_shape(&out[0], 1, &rows);
    op_expect_shape(&out[1], 1, (int64_t[]){batch + 1});
    op_expect_shape(&out[2], 1, &rows);
    out[1].v[0] = 0;
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t t = 0; t < tokens && t < (int64_t)in[1].v[b]; t++, at++) {
            out[0].v[at] = in[0].v[b * tokens + t];
            out[2].v[at] = (double)(b * tokens + t);
        }
        out[1].v[b + 1] = (double)at;
    }
    for (; at < rows; at++) out[0].v[at] = 0, out[2].v[at] = -1;
}

static const tw_pack_tokens_attr eight = {8}, exact = {6}, none = {0}, hundred = {400}, negative = {-1};

#define IDS(b, t)                                                                                            \
    { OP_SHAPE(b, t), .dtype = OP_I32, .low = 1, .high = 1000 }
#define LENGTHS(n, ...)                                                                                      \
    {                                                                                                        \
        OP_SHAPE(n), .dtype = OP_I32, .values = (const double[]) {                                           \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

static const op_config configs[] = {
    {.name = "rows left over", .attr = &eight, .input = {IDS(3, 4), LENGTHS(3, 2, 4, 1)}},
    {.name = "no row left over", .attr = &exact, .input = {IDS(2, 4), LENGTHS(2, 2, 4)}},
    {.name = "empty texts", .attr = &eight, .input = {IDS(5, 3), LENGTHS(5, 0, 2, 0, 3, 0)}},
    {.name = "lengths outside of the text", .attr = &eight, .input = {IDS(3, 3), LENGTHS(3, -2, 9, 2)}},
    {.name = "more texts than a GPU sums at once",
     .attr = &hundred,
     .input = {IDS(300, 2), {OP_SHAPE(300), .dtype = OP_I32, .low = 0, .high = 2}}},
    {.name = "no texts", .attr = &eight, .input = {IDS(0, 3), LENGTHS(0, 0)}},
    {.name = "no rows", .attr = &none, .input = {IDS(2, 3), LENGTHS(2, 0, 0)}},
    {.name = "negative rows",
     .attr = &negative,
     .input = {IDS(2, 3), LENGTHS(2, 0, 0)},
     .fails = TW_ERR_ARGUMENT,
     .message = "-1 rows"},
    {.name = "lengths of other texts",
     .attr = &eight,
     .input = {IDS(2, 3), LENGTHS(3, 1, 1, 1)},
     .fails = TW_ERR_SHAPE,
     .message = "lengths is i32 (3), i32 (2) is needed"},
};

/* How many tokens there are is only seen in forward. */
static const char *refuses_too_many_tokens(void) {
    int32_t ids[6] = {1, 2, 3, 4, 5, 6}, lengths[2] = {3, 2}, out[16];
    const int64_t shape[2] = {2, 3};
    static const tw_pack_tokens_attr four = {4};
    const char *result = NULL;
    tw_device *device;
    if (tw_device_cpu(1, &device)) return "no device";
    tw_call c = {.op = TW_OP_pack_tokens, .device = device, .attr = (void *)&four, .n_inputs = 2};
    c.input[0] = tw_tensor_of(ids, TW_I32, 2, shape);
    c.input[1] = tw_tensor_of(lengths, TW_I32, 1, shape);
    if (tw_op_prepare(&c)) result = "cannot be prepared";
    c.output[0].data = out, c.output[1].data = out + 4, c.output[2].data = out + 8;
    if (!result && (tw_op_forward(&c) != TW_ERR_ARGUMENT || !strstr(tw_last_error(), "room is for 4")))
        result = "took more tokens than rows";
    tw_device_free(device);
    return result;
}

const op_case op_case_pack_tokens = {
    .reference = reference, OP_CONFIGS(configs), .also = refuses_too_many_tokens};
