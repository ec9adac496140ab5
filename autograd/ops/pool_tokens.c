#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

/* The attention pool's input: the mean of an image's pixels before them, plus positions (the mean is taken
 * before). inputs: x (B,H,W,C), positions (HW+1,C) as x; output: (B,HW+1,C) as x. HW > 0. */

tw_status tw_pool_tokens_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "x"));
    const tw_tensor *x = &c->input[0];
    if (x->ndim != 4 || x->shape[1] * x->shape[2] == 0)
        return FAIL(TW_ERR_SHAPE, "pool_tokens: x must be (B,H,W,C) with pixels");
    int64_t d = x->shape[3], y[3] = {x->shape[0], x->shape[1] * x->shape[2] + 1, d};
    TRY(tw_call_check(c, 1, "positions", x->dtype, 2, y + 1));
    tw_call_output(c, 0, x->dtype, 3, y);
    c->forward_scratch = (size_t)(tw_threads() * 4 * d) * sizeof(float);
    c->backward_scratch = (size_t)(tw_threads() * 3 * d) * sizeof(float);
    return TW_OK;
}

/* scratch per thread: x row, position row, sum, out row */
static void forward_image(const tw_call *c, int64_t image, float *mine) {
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    int64_t tokens = y->shape[1], d = y->shape[2], stride;
    float *sum = mine + 2 * d;
    tw_tensor_is_rows(x, &stride);
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t t = 1; t <= tokens; t++) { /* the mean's token last */
        const float *in = sum, *p = tw_row_read(&c->input[1], d, t % tokens, mine + d);
        if (t < tokens) in = tw_row_read(x, stride, image * (tokens - 1) + t - 1, mine);
        float share = t < tokens ? 1.0f : 1.0f / (float)(tokens - 1);
        int64_t row = image * tokens + t % tokens;
        float *out = tw_row_target(y, row, mine + 3 * d);
#pragma omp simd
        for (int64_t e = 0; e < d; e++) out[e] = in[e] * share + p[e];
        tw_row_deliver(y, row, out, TW_WRITE);
        if (t == tokens) break;
#pragma omp simd
        for (int64_t e = 0; e < d; e++) sum[e] += in[e];
    }
}

tw_status tw_pool_tokens_forward_cpu(const tw_call *c) {
    int64_t d = c->output[0].shape[2];
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 4 * d;
        tw_range r = tw_my_share(c->output[0].shape[0]);
        for (int64_t image = r.begin; image < r.end; image++) forward_image(c, image, mine);
    }
    return TW_OK;
}

/* Each token's positions belong to one thread, images are added in order. */
static void backward_position(const tw_call *c, int64_t t, float *sum, float *buffer) {
    const tw_tensor *dy = &c->output_grad[0];
    int64_t tokens = dy->shape[1], d = dy->shape[2];
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t image = 0; image < dy->shape[0]; image++) {
        const float *g = tw_row_read(dy, d, image * tokens + t, buffer);
#pragma omp simd
        for (int64_t e = 0; e < d; e++) sum[e] += g[e];
    }
    tw_row_deliver(&c->input_grad[1], t, sum, c->input_mode[1]);
}

tw_status tw_pool_tokens_backward_cpu(const tw_call *c) {
    const tw_tensor *dy = &c->output_grad[0], *dx = &c->input_grad[0];
    int64_t tokens = dy->shape[1], d = dy->shape[2], images = dy->shape[0];
    float share = 1.0f / (float)(tokens - 1);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 3 * d;
        tw_range r = tw_my_share(images * (tokens - 1));
        for (int64_t i = r.begin; dx->data && i < r.end; i++) {
            int64_t image = i / (tokens - 1), t = i % (tokens - 1) + 1;
            const float *g = tw_row_read(dy, d, image * tokens + t, mine),
                        *mean = tw_row_read(dy, d, image * tokens, mine + d);
            float *out = mine + 2 * d;
#pragma omp simd
            for (int64_t e = 0; e < d; e++) out[e] = g[e] + mean[e] * share;
            tw_row_deliver(dx, i, out, c->input_mode[0]);
        }
        r = tw_my_share(tokens);
        for (int64_t t = r.begin; c->input_grad[1].data && t < r.end; t++)
            backward_position(c, t, mine, mine + d);
    }
    return TW_OK;
}
