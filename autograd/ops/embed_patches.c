#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

/* ViT's input: the class embedding before the patches of each image, plus positions.
 * inputs: patches (B,n,D), class (D) f32, positions (n+1,D) as patches; output: (B,n+1,D) as patches. */

tw_status tw_embed_patches_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "patches"));
    const tw_tensor *x = &c->input[0];
    if (x->ndim != 3) return FAIL(TW_ERR_SHAPE, "embed_patches: patches must be (B,n,D)");
    int64_t d = x->shape[2], positions[2] = {x->shape[1] + 1, d}, y[3] = {x->shape[0], x->shape[1] + 1, d};
    TRY(tw_call_check_f32(c, 1, "class", 1, &d));
    TRY(tw_call_check(c, 2, "positions", x->dtype, 2, positions));
    tw_call_output(c, 0, x->dtype, 3, y);
    c->forward_scratch = (size_t)(tw_threads() * 2 * d) * 4;
    c->backward_scratch = (size_t)(tw_threads() * 2 * d) * 4;
    return TW_OK;
}

tw_status tw_embed_patches_forward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    int64_t rows = tw_tensor_rows(y), tokens = y->shape[1], d = y->shape[2], stride;
    tw_tensor_is_rows(x, &stride);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 2 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            int64_t t = i % tokens, image = i / tokens;
            const float *in =
                t ? tw_row_read(x, stride, image * (tokens - 1) + t - 1, mine) : c->input[1].data;
            const float *p = tw_row_read(&c->input[2], d, t, mine + d);
            float *out = tw_row_target(y, i, mine + d);
#pragma omp simd
            for (int64_t k = 0; k < d; k++) out[k] = in[k] + p[k];
            tw_row_deliver(y, i, out, TW_WRITE);
        }
    }
    return TW_OK;
}

/* Sum over the batch of token t's gradient: each token belongs to one thread, images are added in order. */
static void sum_token(const tw_tensor *dy, int64_t t, float *sum, float *buffer) {
    int64_t tokens = dy->shape[1], d = dy->shape[2];
    memset(sum, 0, (size_t)d * 4);
    for (int64_t b = 0; b < dy->shape[0]; b++) {
        const float *g = tw_row_read(dy, d, b * tokens + t, buffer);
#pragma omp simd
        for (int64_t k = 0; k < d; k++) sum[k] += g[k];
    }
}

tw_status tw_embed_patches_backward_cpu(const tw_call *c) {
    const tw_tensor *dy = &c->output_grad[0], *dx = &c->input_grad[0];
    int64_t tokens = dy->shape[1], d = dy->shape[2], images = dy->shape[0];
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 2 * d;
        tw_range r = tw_my_share(images * (tokens - 1));
        for (int64_t i = r.begin; dx->data && i < r.end; i++) {
            int64_t image = i / (tokens - 1), t = i % (tokens - 1) + 1;
            tw_row_deliver(dx, i, tw_row_read(dy, d, image * tokens + t, mine), c->input_mode[0]);
        }
        r = tw_my_share(tokens);
        for (int64_t t = r.begin; t < r.end; t++) {
            if (!c->input_grad[2].data && !(t == 0 && c->input_grad[1].data)) continue;
            sum_token(dy, t, mine, mine + d);
            if (t == 0 && c->input_grad[1].data) tw_row_deliver(&c->input_grad[1], 0, mine, c->input_mode[1]);
            if (c->input_grad[2].data) tw_row_deliver(&c->input_grad[2], t, mine, c->input_mode[2]);
        }
    }
    return TW_OK;
}
