#include "autograd/cuda/token_sums.h"

/* inputs: patches (B,n,D), class (D) f32, positions (N+1,D), kept (B,n) i32 or absent; output: (B,n+1,D) as
 * patches. What kept holds is not checked here: a number outside of the image's patches gives NaN. */

namespace {

enum { PATCHES, CLASS, POSITIONS, KEPT };

struct forward_args {
    tw_view patches, first, places, y;
    int64_t rows, tokens, d, positions;
    const int32_t *kept;
};

__global__ void embed_patches_forward(forward_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.d, &row, &col)) return;
    int64_t image = row / a.tokens, t = row % a.tokens, position = t;
    if (t > 0 && a.kept) position = a.kept[image * (a.tokens - 1) + t - 1] + 1;
    bool known = position >= 0 && position < a.positions;
    float v[TW_PACK], p[TW_PACK];
    if (t == 0)
        tw_load_columns(a.first, 0, col, a.d, v);
    else
        tw_load_columns(a.patches, image * (a.tokens - 1) + t - 1, col, a.d, v);
    tw_load_columns(a.places, known ? position : 0, col, a.d, p);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) v[e] = known ? v[e] + p[e] : NAN;
    tw_store_columns(a.y, row, col, a.d, v);
}

const int32_t *kept_of(const tw_call *c) {
    return tw_present(&c->input[KEPT]) ? (const int32_t *)c->input[KEPT].data : NULL;
}

} // namespace

tw_status tw_embed_patches_forward_cuda(const tw_call *c) {
    const tw_tensor *y = &c->output[0];
    forward_args a = {tw_view_rows(&c->input[PATCHES]),
                      tw_view_rows(&c->input[CLASS]),
                      tw_view_rows(&c->input[POSITIONS]),
                      tw_view_out(y, TW_WRITE),
                      tw_tensor_rows(y),
                      y->shape[1],
                      y->shape[2],
                      c->input[POSITIONS].shape[0],
                      kept_of(c)};
    return TW_LAUNCH(c->device, embed_patches_forward, tw_blocks(a.rows * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

tw_status tw_embed_patches_backward_cuda(const tw_call *c) {
    const tw_tensor *dy = &c->output_grad[0];
    tw_token_args a = {tw_view_out(dy, TW_WRITE),
                       tw_view_out(&c->input_grad[PATCHES], c->input_mode[PATCHES]),
                       tw_view_out(&c->input_grad[CLASS], c->input_mode[CLASS]),
                       tw_view_out(&c->input_grad[POSITIONS], c->input_mode[POSITIONS]),
                       0.0f,
                       dy->shape[0],
                       dy->shape[1],
                       dy->shape[2],
                       kept_of(c),
                       c->input[POSITIONS].shape[0]};
    return tw_launch_token_backward(c->device, a);
}
