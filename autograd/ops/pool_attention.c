#include "autograd/cuda/scratch.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

#include <math.h>

/* Multi-head attention of one query a sample: per head softmax(q k^T / sqrt(width)) v. inputs: q (B,D), kv
 * (B,T,2D), keys before values, as q; outputs: y (B,D) as q, probabilities (B,heads,T) f32, kept for
 * backward. T > 0. */

enum { Q, KV };

tw_status tw_pool_attention_shape(tw_call *c) {
    const tw_tensor *q = &c->input[Q], *kv = &c->input[KV];
    int64_t heads = ((const tw_pool_attention_attr *)c->attr)->heads;
    char a[64], b[64];
    TRY(tw_call_check_rows(c, Q, "q"));
    TRY(tw_call_check_rows(c, KV, "kv"));
    if (q->ndim != 2 || kv->ndim != 3 || kv->shape[0] != q->shape[0] || kv->shape[2] != 2 * q->shape[1] ||
        kv->dtype != q->dtype || kv->shape[1] < 1 || heads < 1 || q->shape[1] % heads != 0)
        return FAIL(TW_ERR_SHAPE,
                    "pool_attention: q %s and kv %s are not (B,D) and (B,T,2D) of one type with T > 0 and D "
                    "divisible by %lld heads",
                    tw_tensor_shape_text(q, a), tw_tensor_shape_text(kv, b), (long long)heads);
    int64_t probabilities[3] = {q->shape[0], heads, kv->shape[1]}, d = q->shape[1];
    tw_call_output(c, 0, q->dtype, 2, q->shape);
    tw_call_output(c, 1, TW_F32, 3, probabilities);
    c->saved_inputs = 1u << Q | 1u << KV;
    c->saved_outputs = 1u << 1;
    /* forward: rows of q, y, kv; backward: q, dy, dq, kv, dkv and a row of T a head */
    c->forward_scratch = (size_t)(tw_threads() * 4 * d) * sizeof(float);
    c->backward_scratch = (size_t)(tw_threads() * (7 * d + heads * kv->shape[1])) * sizeof(float);
    tw_call_scratch_cuda(c, 0, q->shape[0] * heads * kv->shape[1] * (int64_t)sizeof(float));
    return TW_OK;
}

static float dot(const float *a, const float *b, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void add_scaled(float *to, float scale, const float *from, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] += scale * from[i];
}

static void softmax(float *x, int64_t n) {
    float most = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) most = fmaxf(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - most);
    for (int64_t i = 0; i < n; i++) x[i] /= sum;
}

/* One sample; p (heads,T) is where its probabilities go. */
static void forward_sample(const tw_call *c, int64_t b, int64_t heads, float *mine, float *p) {
    const tw_tensor *q = &c->input[Q], *kv = &c->input[KV], *y = &c->output[0];
    int64_t tokens = kv->shape[1], d = q->shape[1], width = d / heads, q_stride, kv_stride;
    tw_tensor_is_rows(q, &q_stride);
    tw_tensor_is_rows(kv, &kv_stride);
    float scale = 1.0f / sqrtf((float)(width > 0 ? width : 1)), *out = tw_row_target(y, b, mine + d);
    const float *query = tw_row_read(q, q_stride, b, mine);
    for (int64_t t = 0; t < tokens; t++) {
        const float *key = tw_row_read(kv, kv_stride, b * tokens + t, mine + 2 * d);
        for (int64_t h = 0; h < heads; h++)
            p[h * tokens + t] = scale * dot(query + h * width, key + h * width, width);
    }
    for (int64_t h = 0; h < heads; h++) softmax(p + h * tokens, tokens);
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t t = 0; t < tokens; t++) {
        const float *value = tw_row_read(kv, kv_stride, b * tokens + t, mine + 2 * d) + d;
        for (int64_t h = 0; h < heads; h++)
            add_scaled(out + h * width, p[h * tokens + t], value + h * width, width);
    }
    tw_row_deliver(y, b, out, TW_WRITE);
}

tw_status tw_pool_attention_forward_cpu(const tw_call *c) {
    int64_t heads = ((const tw_pool_attention_attr *)c->attr)->heads, d = c->input[Q].shape[1],
            tokens = c->input[KV].shape[1];
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 4 * d;
        tw_range r = tw_my_share(c->input[Q].shape[0]);
        for (int64_t b = r.begin; b < r.end; b++)
            forward_sample(c, b, heads, mine, (float *)c->output[1].data + b * heads * tokens);
    }
    return TW_OK;
}

/* g (heads,T): first the probabilities' gradient, then the scores' with the scale in it. */
static void score_gradients(const tw_call *c, int64_t b, int64_t heads, const float *dy, float *buffer,
                            float *g) {
    const tw_tensor *kv = &c->input[KV];
    int64_t tokens = kv->shape[1], d = kv->shape[2] / 2, width = d / heads, stride;
    const float *p = (const float *)c->output[1].data + b * heads * tokens;
    float scale = 1.0f / sqrtf((float)(width > 0 ? width : 1));
    tw_tensor_is_rows(kv, &stride);
    for (int64_t t = 0; t < tokens; t++) {
        const float *value = tw_row_read(kv, stride, b * tokens + t, buffer) + d;
        for (int64_t h = 0; h < heads; h++) g[h * tokens + t] = dot(dy + h * width, value + h * width, width);
    }
    for (int64_t h = 0; h < heads; h++) {
        float mean = dot(p + h * tokens, g + h * tokens, tokens);
        for (int64_t t = h * tokens; t < (h + 1) * tokens; t++) g[t] = p[t] * (g[t] - mean) * scale;
    }
}

static void backward_sample(const tw_call *c, int64_t b, int64_t heads, float *mine) {
    const tw_tensor *q = &c->input[Q], *kv = &c->input[KV], *dq = &c->input_grad[Q],
                    *dkv = &c->input_grad[KV];
    int64_t tokens = kv->shape[1], d = q->shape[1], width = d / heads, q_stride, kv_stride;
    tw_tensor_is_rows(q, &q_stride);
    tw_tensor_is_rows(kv, &kv_stride);
    const float *p = (const float *)c->output[1].data + b * heads * tokens;
    const float *query = tw_row_read(q, q_stride, b, mine),
                *dy = tw_row_read(&c->output_grad[0], d, b, mine + d);
    float *query_grad = mine + 2 * d, *buffer = mine + 3 * d, *out = mine + 5 * d, *g = mine + 7 * d;
    score_gradients(c, b, heads, dy, buffer, g);
    memset(query_grad, 0, (size_t)d * sizeof *query_grad);
    for (int64_t t = 0; t < tokens; t++) {
        const float *key = tw_row_read(kv, kv_stride, b * tokens + t, buffer);
        for (int64_t h = 0; h < heads; h++) {
            float score = g[h * tokens + t], probability = p[h * tokens + t];
            int64_t from = h * width;
            add_scaled(query_grad + from, score, key + from, width);
#pragma omp simd
            for (int64_t e = from; e < from + width; e++) {
                out[e] = score * query[e];
                out[d + e] = probability * dy[e];
            }
        }
        if (dkv->data) tw_row_deliver(dkv, b * tokens + t, out, c->input_mode[KV]);
    }
    if (dq->data) tw_row_deliver(dq, b, query_grad, c->input_mode[Q]);
}

tw_status tw_pool_attention_backward_cpu(const tw_call *c) {
    int64_t heads = ((const tw_pool_attention_attr *)c->attr)->heads, d = c->input[Q].shape[1];
    int64_t floats = 7 * d + heads * c->input[KV].shape[1];
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * floats;
        tw_range r = tw_my_share(c->input[Q].shape[0]);
        for (int64_t b = r.begin; b < r.end; b++) backward_sample(c, b, heads, mine);
    }
    return TW_OK;
}
