#include "autograd/cuda/rows.h"
#include "autograd/ops/patchify_math.h"

/* inputs: u8 (B,R,R,3) or f32 (B,3,R,R), kept (B,k) i32 or absent; y[b, patch, (channel, py, px)]. y is
 * contiguous, so threads take packs of its elements regardless of where patches end. */

namespace {

struct patch_args {
    const uint8_t *bytes; /* or NULL */
    const float *floats;
    const int32_t *kept; /* or NULL */
    tw_view y;           /* one row: all elements */
    int64_t n, r, p;     /* elements of y, pixels a side, of a patch */
    int64_t patches;     /* of an image in y */
    float mean[3], std[3];
};

/* Where in an image element i of its patches comes from, and its channel. An image has fewer than 2^31
 * elements, so that divisions are short. */
TW_DEVICE uint32_t source(const patch_args &a, int64_t image, uint32_t i, uint32_t *channel) {
    uint32_t r = (uint32_t)a.r, p = (uint32_t)a.p, side = r / p, x = i % p, y = i / p;
    uint32_t c = y / p, patch = c / 3;
    y %= p, c %= 3;
    if (a.kept) patch = (uint32_t)a.kept[image * a.patches + patch];
    if (patch >= side * side) patch = 0; /* kept by no one who checked */
    uint32_t line = patch / side * p + y, column = patch % side * p + x;
    *channel = c;
    return a.bytes ? (line * r + column) * 3 + c : (c * r + line) * r + column;
}

__global__ void patchify_forward(patch_args a) {
    __shared__ float table[3][256];
    for (int i = (int)threadIdx.x; i < 3 * 256; i += (int)blockDim.x)
        table[i / 256][i % 256] = tw_pixel_value(i % 256, a.mean[i / 256], a.std[i / 256]);
    __syncthreads();
    int64_t first = tw_global_thread() * TW_PACK;
    if (first >= a.n) return;
    int64_t per_image = a.patches * 3 * a.p * a.p, pixels = 3 * a.r * a.r, image = first / per_image;
    uint32_t i = (uint32_t)(first - image * per_image), channel = 0, left = 0; /* left: of a patch's line */
    int64_t from = 0;
    float v[TW_PACK];
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) {
        v[e] = 0.0f;
        if (first + e >= a.n) continue;
        if (left == 0)
            from = image * pixels + source(a, image, i, &channel), left = (uint32_t)a.p - i % (uint32_t)a.p;
        v[e] = a.bytes ? table[channel][a.bytes[from]] : a.floats[from];
        from += a.bytes ? 3 : 1, left--;
        if (++i == (uint32_t)per_image) i = 0, image++;
    }
    tw_store_columns(a.y, 0, first, a.n, v);
}

} // namespace

tw_status tw_patchify_forward_cuda(const tw_call *c) {
    const tw_patchify_attr *attr = (const tw_patchify_attr *)c->attr;
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    if (x->shape[2] >= 1 << 14)
        return FAIL(TW_ERR_UNSUPPORTED, "images of %lld pixels a side", (long long)x->shape[2]);
    patch_args a = {};
    if (tw_present(&c->input[1])) a.kept = (const int32_t *)c->input[1].data;
    a.patches = a.kept ? c->input[1].shape[1] : x->shape[2] / attr->patch * (x->shape[2] / attr->patch);
    a.n = tw_tensor_count(y), a.r = x->shape[2], a.p = attr->patch;
    if (x->dtype == TW_U8)
        a.bytes = (const uint8_t *)x->data;
    else
        a.floats = (const float *)x->data;
    a.y = tw_view_of(y->data, y->dtype, a.n, a.n);
    memcpy(a.mean, attr->mean, sizeof a.mean), memcpy(a.std, attr->std, sizeof a.std);
    return TW_LAUNCH(c->device, patchify_forward, tw_blocks(tw_packs_of(a.n), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}
