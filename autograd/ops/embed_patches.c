#include "autograd/ops/kept.h"
#include "autograd/ops/kept_tokens.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

/* ViT's input: the class embedding before the patches of each image, plus positions.
 * inputs: patches (B,n,D), class (D) f32, positions (N+1,D) as patches, kept (B,n) i32: the ascending numbers
 * that the patches have among the N of their image; absent: all are there, N = n. output: (B,n+1,D) as
 * patches.
 */

enum { PATCHES, CLASS, POSITIONS, KEPT };

tw_status tw_embed_patches_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "patches"));
    const tw_tensor *x = &c->input[0];
    if (x->ndim != 3) return FAIL(TW_ERR_SHAPE, "embed_patches: patches must be (B,n,D)");
    int64_t d = x->shape[2], positions[2] = {x->shape[1] + 1, d}, y[3] = {x->shape[0], x->shape[1] + 1, d};
    TRY(tw_call_check_f32(c, CLASS, "class", 1, &d));
    if (tw_present(&c->input[KEPT])) {
        const tw_tensor *all = &c->input[POSITIONS];
        if (tw_present(all) && all->ndim == 2) positions[0] = all->shape[0];
        TRY(tw_kept_check(c, KEPT, x->shape[0], positions[0] - 1));
        if (c->input[KEPT].shape[1] != x->shape[1])
            return FAIL(TW_ERR_SHAPE, "embed_patches: %lld patches of %lld kept ones", (long long)x->shape[1],
                        (long long)c->input[KEPT].shape[1]);
        c->saved_inputs = 1u << KEPT;
    }
    TRY(tw_call_check(c, POSITIONS, "positions", x->dtype, 2, positions));
    tw_call_output(c, 0, x->dtype, 3, y);
    c->forward_scratch = (size_t)(tw_threads() * 2 * d) * 4;
    c->backward_scratch = (size_t)(tw_threads() * 2 * d) * 4;
    return TW_OK;
}

tw_status tw_embed_patches_forward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    int64_t rows = tw_tensor_rows(y), tokens = y->shape[1], d = y->shape[2], stride;
    const int32_t *kept = tw_present(&c->input[KEPT]) ? c->input[KEPT].data : NULL;
    if (kept) TRY(tw_kept_check_values(c, KEPT, c->input[POSITIONS].shape[0] - 1));
    tw_tensor_is_rows(x, &stride);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 2 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            int64_t t = i % tokens, from = i / tokens * (tokens - 1) + t - 1;
            const float *in = t ? tw_row_read(x, stride, from, mine) : c->input[CLASS].data;
            const float *p = tw_row_read(&c->input[POSITIONS], d, t && kept ? kept[from] + 1 : t, mine + d);
            float *out = tw_row_target(y, i, mine + d);
#pragma omp simd
            for (int64_t k = 0; k < d; k++) out[k] = in[k] + p[k];
            tw_row_deliver(y, i, out, TW_WRITE);
        }
    }
    return TW_OK;
}

static int64_t token_at(const tw_tensor *kept, int64_t b, int64_t t) {
    if (!tw_present(kept)) return t;
    int64_t n = kept->shape[1];
    return tw_kept_token((const int32_t *)kept->data + b * n, n, t);
}

/* Sum over the batch of position t's gradient: each position belongs to one thread, images are added in
 * order. */
static void sum_token(const tw_tensor *dy, const tw_tensor *kept, int64_t t, float *sum, float *buffer) {
    int64_t tokens = dy->shape[1], d = dy->shape[2];
    memset(sum, 0, (size_t)d * 4);
    for (int64_t b = 0; b < dy->shape[0]; b++) {
        int64_t at = token_at(kept, b, t);
        if (at < 0) continue;
        const float *g = tw_row_read(dy, d, b * tokens + at, buffer);
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
        r = tw_my_share(c->input[POSITIONS].shape[0]);
        for (int64_t t = r.begin; t < r.end; t++) {
            if (!c->input_grad[POSITIONS].data && !(t == 0 && c->input_grad[CLASS].data)) continue;
            sum_token(dy, &c->input[KEPT], t, mine, mine + d);
            if (t == 0 && c->input_grad[CLASS].data)
                tw_row_deliver(&c->input_grad[CLASS], 0, mine, c->input_mode[CLASS]);
            if (c->input_grad[POSITIONS].data)
                tw_row_deliver(&c->input_grad[POSITIONS], t, mine, c->input_mode[POSITIONS]);
        }
    }
    return TW_OK;
}
