#include "op_case.h"

#include "tw_test.h"

/* y[b, patch, channel, y, x]: the order of a convolution weight (width, 3, P, P) with its kernel flattened.
 */
static void reference(const op_config *config, op_value *in, op_value *out) {
    const tw_patchify_attr *attr = config->attr;
    const op_value *x = &in[0], *kept = &in[1];
    bool bytes = x->dtype == TW_U8;
    int64_t r = x->shape[2], p = attr->patch, side = r / p, size = 3 * p * p,
            patches = kept->v ? kept->shape[1] : side * side;
    if (attr->grid)
        op_expect_shape(&out[0], 4, (int64_t[]){x->shape[0], side, side, size});
    else
        op_expect_shape(&out[0], 3, (int64_t[]){x->shape[0], patches, size});
    ck_assert_int_eq(out[0].dtype, attr->type);
    for (int64_t i = 0; i < x->shape[0] * patches; i++)
        for (int64_t e = 0; e < size; e++) {
            int64_t b = i / patches, patch = kept->v ? (int64_t)kept->v[i] : i % patches, ch = e / (p * p),
                    row = patch / side * p + e / p % p, col = patch % side * p + e % p;
            out[0].v[i * size + e] =
                bytes ? (x->v[((b * r + row) * r + col) * 3 + ch] / 255 - (double)attr->mean[ch]) /
                            (double)attr->std[ch]
                      : x->v[((b * 3 + ch) * r + row) * r + col];
        }
}

#define CLIP .mean = {0.48145466f, 0.4578275f, 0.40821073f}, .std = {0.26862954f, 0.26130258f, 0.27577711f}
static const tw_patchify_attr two = {.patch = 2, .type = TW_F32, CLIP},
                              three = {.patch = 3, .type = TW_F32, CLIP},
                              one = {.patch = 1, .type = TW_F32, CLIP},
                              grid = {.patch = 1, .grid = true, .type = TW_F32, CLIP},
                              half = {.patch = 4, .type = TW_BF16, CLIP},
                              wrong = {.patch = 2, .type = TW_I32, CLIP},
                              zero = {.patch = 0, .type = TW_F32, CLIP};

#define PIXELS(b, r)                                                                                         \
    { OP_SHAPE(b, r, r, 3), .dtype = OP_U8, .low = 0, .high = 256 }
#define KEPT(b, k, ...)                                                                                      \
    {                                                                                                        \
        OP_SHAPE(b, k), .dtype = OP_I32, .values = (const double[]) {                                        \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define PLANES(b, r)                                                                                         \
    { OP_SHAPE(b, 3, r, r), .dtype = OP_F32 }

static const op_config configs[] = {
    {.name = "bytes", .attr = &two, .input = {PIXELS(2, 6)}},
    {.name = "bytes, odd patch", .attr = &three, .input = {PIXELS(3, 9)}},
    {.name = "bytes, one patch", .attr = &three, .input = {PIXELS(2, 3)}},
    {.name = "bytes, patch of a pixel", .attr = &one, .input = {PIXELS(1, 5)}},
    {.name = "bytes to an image", .attr = &grid, .input = {PIXELS(2, 5)}},
    {.name = "floats to an image", .attr = &grid, .input = {PLANES(2, 4)}},
    {.name = "floats", .attr = &two, .input = {PLANES(2, 6)}},
    {.name = "floats, odd patch", .attr = &three, .input = {PLANES(1, 9)}},
    {.name = "no images", .attr = &two, .input = {PIXELS(0, 4)}},
    {.name = "no images of floats", .attr = &two, .input = {PLANES(0, 4)}},
    {.name = "kept patches", .attr = &two, .input = {PIXELS(2, 6), KEPT(2, 4, 0, 3, 5, 8, 1, 2, 6, 7)}},
    {.name = "kept patches of floats", .attr = &three, .input = {PLANES(3, 9), KEPT(3, 1, 8, 0, 4)}},
    {.name = "all patches kept", .attr = &two, .input = {PIXELS(1, 4), KEPT(1, 4, 0, 1, 2, 3)}},
    {.name = "kept of other images",
     .attr = &two,
     .input = {PIXELS(2, 4), KEPT(1, 2, 0, 1)},
     .fails = TW_ERR_SHAPE,
     .message = "kept is i32 (1,2), i32 (2,2) is needed"},
    {.name = "more kept than there are",
     .attr = &two,
     .input = {PIXELS(1, 4), KEPT(1, 5, 0, 1, 2, 3, 4)},
     .fails = TW_ERR_SHAPE,
     .message = "5 patches are to be kept of 4"},
    {.name = "grid of kept patches",
     .attr = &grid,
     .input = {PIXELS(1, 4), KEPT(1, 2, 0, 3)},
     .fails = TW_ERR_ARGUMENT,
     .message = "grid"},
    {.name = "does not divide",
     .attr = &three,
     .input = {PIXELS(1, 8)},
     .fails = TW_ERR_SHAPE,
     .message = "(1,8,8,3) do not divide into patches of 3"},
    {.name = "not square",
     .attr = &two,
     .input = {{OP_SHAPE(1, 4, 6, 3), .dtype = OP_U8}},
     .fails = TW_ERR_SHAPE,
     .message = "(1,4,6,3)"},
    {.name = "channels last, in floats",
     .attr = &two,
     .input = {{OP_SHAPE(1, 4, 4, 3), .dtype = OP_F32}},
     .fails = TW_ERR_SHAPE,
     .message = "do not divide"},
    {.name = "gaps",
     .attr = &two,
     .input = {{OP_SHAPE(1, 4, 4, 3), .dtype = OP_U8, .padding = 1}},
     .fails = TW_ERR_SHAPE,
     .message = "contiguous"},
    {.name = "patch of nothing",
     .attr = &zero,
     .input = {PIXELS(1, 4)},
     .fails = TW_ERR_SHAPE,
     .message = "patches of 0"},
    {.name = "patches of whole numbers",
     .attr = &wrong,
     .input = {PIXELS(1, 4)},
     .fails = TW_ERR_SHAPE,
     .message = "patches of type i32"},
    {.name = "missing", .attr = &two, .input = {{0}}, .fails = TW_ERR_SHAPE, .message = "pixels must be"},
};

/* bf16 patches hold exactly the f32 values, rounded: no input is bf16, so the table's walk cannot see it. */
static const char *bf16_is_f32_rounded(void) {
    static uint8_t pixels[2 * 8 * 8 * 3];
    static float whole[2 * 4 * 48], scratch[4096];
    static uint16_t rounded[2 * 4 * 48];
    const int64_t shape[] = {2, 8, 8, 3};
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 41);
    tw_device *device;
    if (tw_device_cpu(2, &device)) return "no device";
    tw_patchify_attr full = half;
    full.type = TW_F32;
    bool ok = true;
    for (int k = 0; k < 2; k++) {
        tw_call c = {
            .op = TW_OP_patchify, .device = device, .attr = k ? (void *)&half : &full, .n_inputs = 1};
        c.input[0] = tw_tensor_of(pixels, TW_U8, 4, shape);
        ok = ok && tw_op_prepare(&c) == TW_OK && c.forward_scratch <= sizeof scratch;
        ok = ok && tw_tensor_count(&c.output[0]) == 2 * 4 * 48;
        c.output[0].data = k ? (void *)rounded : whole, c.scratch = scratch;
        ok = ok && tw_op_forward(&c) == TW_OK;
    }
    tw_device_free(device);
    if (!ok) return "forward fails";
    for (int i = 0; i < 2 * 4 * 48; i++)
        if (rounded[i] != tw_to_bf16(whole[i])) return "bf16 patches are not the rounded f32 ones";
    return NULL;
}

/* Numbers that are no patches, or not ascending, are only seen in forward. */
static const char *refuses_wrong_numbers(void) {
    static uint8_t pixels[2 * 4 * 4 * 3];
    static float patches[2 * 2 * 12], scratch[4096];
    const int64_t shape[] = {2, 4, 4, 3}, kept_shape[] = {2, 2};
    static const int32_t numbers[][4] = {
        {0, 1, 2, 4}, {-1, 1, 2, 3}, {0, 1, 3, 2}, {0, 1, 2, 2}, {0, INT32_MAX, 1, 2}};
    const char *result = NULL;
    tw_device *device;
    if (tw_device_cpu(1, &device)) return "no device";
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !result; i++) {
        int32_t kept[4];
        memcpy(kept, numbers[i], sizeof kept);
        tw_call c = {.op = TW_OP_patchify, .device = device, .attr = (void *)&two, .n_inputs = 2};
        c.input[0] = tw_tensor_of(pixels, TW_U8, 4, shape);
        c.input[1] = tw_tensor_of(kept, TW_I32, 2, kept_shape);
        if (tw_op_prepare(&c) || c.forward_scratch > sizeof scratch) result = "cannot be prepared";
        c.output[0].data = patches, c.scratch = scratch;
        if (!result &&
            (tw_op_forward(&c) != TW_ERR_ARGUMENT || !strstr(tw_last_error(), "is possible there")))
            result = "took a wrong number of a patch";
    }
    tw_device_free(device);
    return result;
}

static const char *also(void) {
    const char *message = bf16_is_f32_rounded();
    return message ? message : refuses_wrong_numbers();
}

const op_case op_case_patchify = {.reference = reference, OP_CONFIGS(configs), .also = also};
