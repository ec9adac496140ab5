#include "autograd/ops/kept.h"
#include "autograd/ops/patchify_math.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

/* Pixels to the rows of the patch product: y[b, patch, (channel, py, px)], patches row by row, the element
 * order of a flattened convolution weight (width, 3, P, P). input: u8 (B,R,R,3), normalised here as the
 * reference does it in f32: (p / 255 - mean) / std; or f32 (B,3,R,R), taken as normalised already. R a
 * multiple of P. With P = 1 and `grid` the result is the image as convolutions read it, (B,R,R,3). With the
 * input kept (B,k) i32 only the patches it numbers are cut out, in its order: (B,k,3PP). */

tw_status tw_patchify_shape(tw_call *c) {
    const tw_patchify_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0];
    if (!tw_present(x) || x->ndim != 4 || (x->dtype != TW_U8 && x->dtype != TW_F32) ||
        !tw_tensor_is_contiguous(x))
        return FAIL(TW_ERR_SHAPE, "patchify: pixels must be contiguous u8 (B,R,R,3) or f32 (B,3,R,R)");
    int64_t r = x->shape[2], p = attr->patch, channels = x->dtype == TW_U8 ? x->shape[3] : x->shape[1];
    int64_t other = x->dtype == TW_U8 ? x->shape[1] : x->shape[3];
    if (channels != 3 || other != r || p < 1 || r % p != 0) {
        char shape[64];
        return FAIL(TW_ERR_SHAPE, "patchify: pixels %s do not divide into patches of %lld",
                    tw_tensor_shape_text(x, shape), (long long)p);
    }
    if (attr->type != TW_F32 && attr->type != TW_BF16)
        return FAIL(TW_ERR_SHAPE, "patchify: patches of type %s", tw_dtype_name(attr->type));
    if (tw_present(&c->input[1])) TRY(tw_kept_check(c, 1, x->shape[0], r / p * (r / p)));
    if (tw_present(&c->input[1]) && attr->grid)
        return FAIL(TW_ERR_ARGUMENT, "patchify: a grid cannot be of kept patches only");
    int64_t side = r / p, each = tw_present(&c->input[1]) ? c->input[1].shape[1] : side * side;
    int64_t rows[3] = {x->shape[0], each, 3 * p * p};
    int64_t grid[4] = {x->shape[0], side, side, 3 * p * p};
    tw_call_output(c, 0, attr->type, attr->grid ? 4 : 3, attr->grid ? grid : rows);
    c->forward_scratch = (size_t)(tw_threads() * 3 * p * p) * 4;
    return TW_OK;
}

static void patch_of_bytes(const uint8_t *image, int64_t r, int64_t p, int64_t py, int64_t px,
                           float table[3][256], float *out) {
    for (int64_t ch = 0; ch < 3; ch++)
        for (int64_t y = 0; y < p; y++) {
            const uint8_t *in = image + ((py * p + y) * r + px * p) * 3 + ch;
            for (int64_t x = 0; x < p; x++) *out++ = table[ch][in[3 * x]];
        }
}

static void patch_of_floats(const float *image, int64_t r, int64_t p, int64_t py, int64_t px, float *out) {
    for (int64_t ch = 0; ch < 3; ch++)
        for (int64_t y = 0; y < p; y++, out += p)
            memcpy(out, image + (ch * r + py * p + y) * r + px * p, (size_t)p * 4);
}

tw_status tw_patchify_forward_cpu(const tw_call *c) {
    const tw_patchify_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0], *out = &c->output[0];
    const int32_t *kept = tw_present(&c->input[1]) ? c->input[1].data : NULL;
    int64_t r = x->shape[2], p = attr->patch, side = r / p,
            patches = kept ? c->input[1].shape[1] : side * side, rows = x->shape[0] * patches;
    if (kept) TRY(tw_kept_check_values(c, 1, side * side));
    float table[3][256];
    for (int ch = 0; ch < 3; ch++)
        for (int v = 0; v < 256; v++) table[ch][v] = tw_pixel_value(v, attr->mean[ch], attr->std[ch]);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 3 * p * p;
        tw_range range = tw_my_share(rows);
        for (int64_t i = range.begin; i < range.end; i++) {
            int64_t image = i / patches, patch = kept ? kept[i] : i % patches, py = patch / side,
                    px = patch % side;
            float *row = tw_row_target(out, i, mine);
            if (x->dtype == TW_U8)
                patch_of_bytes((const uint8_t *)x->data + image * r * r * 3, r, p, py, px, table, row);
            else
                patch_of_floats((const float *)x->data + image * r * r * 3, r, p, py, px, row);
            tw_row_deliver(out, i, row, TW_WRITE);
        }
    }
    return TW_OK;
}
