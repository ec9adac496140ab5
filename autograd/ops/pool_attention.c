#include "autograd/cuda/scratch.h"
#include "autograd/ops/dropout_rows.h"
#include "autograd/ops/packed.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

#include <math.h>

/* Multi-head attention of one query a sample: per head softmax(q k^T / sqrt(width)) v. inputs: q (B,D), kv
 * (B,T,2D), keys before values, as q, of which the first lengths[b] are seen, or all; or kv (rows,2D) packed,
 * sample b's from row offsets[b] on. outputs: y (B,D) as q, probabilities (B,heads,T) f32, kept for backward.
 * T > 0. Dropout draws as attention does for a sample's query 0: its first token is asked here, if any. */

enum { Q, KV, LENGTHS, OFFSETS };

static const tw_pool_attention_attr *attr_of(const tw_call *c) {
    return c->attr;
}

static bool is_packed(const tw_call *c) {
    return tw_present(&c->input[OFFSETS]);
}

static int64_t tokens_of(const tw_call *c) {
    return is_packed(c) ? attr_of(c)->tokens : c->input[KV].shape[1];
}

static tw_status check_layout(const tw_call *c) {
    const tw_tensor *q = &c->input[Q], *kv = &c->input[KV];
    bool packed = is_packed(c), lengths = tw_present(&c->input[LENGTHS]);
    int64_t heads = attr_of(c)->heads;
    char a[64], b[64];
    if (q->ndim != 2 || kv->ndim != (packed ? 2 : 3) || (!packed && kv->shape[0] != q->shape[0]) ||
        tw_tensor_cols(kv) != 2 * q->shape[1] || kv->dtype != q->dtype || (!packed && kv->shape[1] < 1) ||
        heads < 1 || q->shape[1] % heads != 0)
        return FAIL(TW_ERR_SHAPE,
                    "pool_attention: q %s and kv %s are not (B,D) and (%s,2D) of one type with T > 0 and D "
                    "divisible by %lld heads",
                    tw_tensor_shape_text(q, a), tw_tensor_shape_text(kv, b), packed ? "rows" : "B,T",
                    (long long)heads);
    if (!packed) return lengths ? tw_call_check(c, LENGTHS, "lengths", TW_I32, 1, q->shape) : TW_OK;
    if (lengths)
        return FAIL(TW_ERR_ARGUMENT,
                    "pool_attention: lengths are for samples with padding, offsets for packed ones");
    TRY(tw_offsets_check(c, OFFSETS, attr_of(c)->tokens));
    int64_t n = q->shape[0] + 1;
    return tw_call_check(c, OFFSETS, "offsets", TW_I32, 1, &n);
}

static int64_t forward_floats(const tw_call *c) {
    return 4 * c->input[Q].shape[1] + (attr_of(c)->dropout > 0 ? attr_of(c)->heads * tokens_of(c) : 0);
}

tw_status tw_pool_attention_shape(tw_call *c) {
    const tw_tensor *q = &c->input[Q];
    float p = attr_of(c)->dropout;
    TRY(tw_call_check_rows(c, Q, "q"));
    TRY(tw_call_check_rows(c, KV, "kv"));
    TRY(check_layout(c));
    int64_t heads = attr_of(c)->heads, d = q->shape[1];
    if (!(p >= 0 && p < 1))
        return FAIL(TW_ERR_ARGUMENT, "pool_attention: dropout %g is not in [0, 1)", (double)p);
    int64_t tokens = tokens_of(c), probabilities[3] = {q->shape[0], heads, tokens};
    tw_call_output(c, 0, q->dtype, 2, q->shape);
    tw_call_output(c, 1, TW_F32, 3, probabilities);
    c->saved_inputs = 1u << Q | 1u << KV;
    for (int i = LENGTHS; i <= OFFSETS; i++)
        if (tw_present(&c->input[i])) c->saved_inputs |= 1u << i;
    c->saved_outputs = 1u << 1;
    /* forward: rows of q, y, kv and, dropped, of T a head; backward: q, dy, dq, kv, dkv, two of T a head */
    c->forward_scratch = (size_t)(tw_threads() * forward_floats(c)) * sizeof(float);
    c->backward_scratch = (size_t)(tw_threads() * (7 * d + 2 * heads * tokens)) * sizeof(float);
    tw_call_scratch_cuda(c, 0, q->shape[0] * heads * tokens * (int64_t)sizeof(float));
    return TW_OK;
}

/* A sample's keys: `seen` rows of kv from `first` on, and up to `end` those that are not. */
typedef struct keys {
    int64_t first, seen, end;
} keys;

static keys keys_of(const tw_call *c, int64_t b) {
    int64_t tokens = tokens_of(c), n = tokens;
    if (is_packed(c)) {
        const int32_t *offsets = c->input[OFFSETS].data;
        n = offsets[b + 1] - offsets[b];
        return (keys){offsets[b], n, n};
    }
    if (tw_present(&c->input[LENGTHS])) n = ((const int32_t *)c->input[LENGTHS].data)[b];
    return (keys){b * tokens, n < 0 ? 0 : n > tokens ? tokens : n, tokens};
}

/* out = dropout(p) of head h's n probabilities. */
static void drop_row(const tw_call *c, int64_t b, int64_t h, int64_t n, const float *p, float *out) {
    int64_t tokens = tokens_of(c);
    tw_draw draw = tw_dropout_draw(c->step, attr_of(c)->layer, b);
    tw_dropout_run(&draw, attr_of(c)->dropout, h * tokens * tokens, n, p, out);
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
    float most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, x[i]);
    for (int64_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - most);
    for (int64_t i = 0; i < n; i++) x[i] /= sum;
}

/* One sample; p (heads,T) is where its probabilities go. */
static void forward_sample(const tw_call *c, int64_t b, float *mine, float *p) {
    const tw_tensor *q = &c->input[Q], *kv = &c->input[KV], *y = &c->output[0];
    int64_t heads = attr_of(c)->heads, tokens = tokens_of(c), d = q->shape[1], width = d / heads;
    int64_t q_stride, kv_stride;
    keys k = keys_of(c, b);
    tw_tensor_is_rows(q, &q_stride);
    tw_tensor_is_rows(kv, &kv_stride);
    float scale = 1.0f / sqrtf((float)(width > 0 ? width : 1)), *out = tw_row_target(y, b, mine + d);
    const float *query = tw_row_read(q, q_stride, b, mine);
    memset(p, 0, (size_t)(heads * tokens) * sizeof *p);
    for (int64_t t = 0; t < k.seen; t++) {
        const float *key = tw_row_read(kv, kv_stride, k.first + t, mine + 2 * d);
        for (int64_t h = 0; h < heads; h++)
            p[h * tokens + t] = scale * dot(query + h * width, key + h * width, width);
    }
    for (int64_t h = 0; h < heads; h++) softmax(p + h * tokens, k.seen);
    memset(out, 0, (size_t)d * sizeof *out);
    bool drops = attr_of(c)->dropout > 0;
    float *dropped = mine + 4 * d;
    for (int64_t h = 0; drops && h < heads; h++)
        drop_row(c, b, h, k.seen, p + h * tokens, dropped + h * tokens);
    const float *weight = drops ? dropped : p;
    for (int64_t t = 0; t < k.seen; t++) {
        const float *value = tw_row_read(kv, kv_stride, k.first + t, mine + 2 * d) + d;
        for (int64_t h = 0; h < heads; h++)
            add_scaled(out + h * width, weight[h * tokens + t], value + h * width, width);
    }
    tw_row_deliver(y, b, out, TW_WRITE);
}

tw_status tw_pool_attention_forward_cpu(const tw_call *c) {
    int64_t row = attr_of(c)->heads * tokens_of(c), floats = forward_floats(c);
    if (is_packed(c)) TRY(tw_offsets_check_values(c, OFFSETS, c->input[KV].shape[0], tokens_of(c)));
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * floats;
        tw_range r = tw_my_share(c->input[Q].shape[0]);
        for (int64_t b = r.begin; b < r.end; b++)
            forward_sample(c, b, mine, (float *)c->output[1].data + b * row);
    }
    return TW_OK;
}

/* g (heads,T): first the dropped probabilities' gradient, then the scores' with the scale in it. p (heads,T)
 * becomes the dropped ones. */
static void score_gradients(const tw_call *c, int64_t b, const float *dy, float *buffer, float *g, float *p) {
    const tw_tensor *kv = &c->input[KV];
    int64_t heads = attr_of(c)->heads, tokens = tokens_of(c), d = tw_tensor_cols(kv) / 2, width = d / heads;
    int64_t stride;
    keys k = keys_of(c, b);
    bool drops = attr_of(c)->dropout > 0;
    float scale = 1.0f / sqrtf((float)(width > 0 ? width : 1));
    memcpy(p, (const float *)c->output[1].data + b * heads * tokens, (size_t)(heads * tokens) * sizeof *p);
    tw_tensor_is_rows(kv, &stride);
    for (int64_t t = 0; t < k.seen; t++) {
        const float *value = tw_row_read(kv, stride, k.first + t, buffer) + d;
        for (int64_t h = 0; h < heads; h++) g[h * tokens + t] = dot(dy + h * width, value + h * width, width);
    }
    for (int64_t h = 0; h < heads; h++) {
        float *ph = p + h * tokens, *gh = g + h * tokens;
        if (drops) drop_row(c, b, h, k.seen, gh, gh);
        float mean = dot(ph, gh, k.seen);
        for (int64_t t = 0; t < k.seen; t++) gh[t] = ph[t] * (gh[t] - mean) * scale;
        if (drops) drop_row(c, b, h, k.seen, ph, ph);
    }
}

/* The gradients of one key and its value, into `out` (2D). */
static void key_gradient(int64_t d, int64_t width, int64_t tokens, const float *g, const float *p,
                         const float *query, const float *dy, float *out) {
    for (int64_t from = 0, h = 0; from < d; from += width, h++) {
        float score = g[h * tokens], probability = p[h * tokens];
#pragma omp simd
        for (int64_t e = from; e < from + width; e++) {
            out[e] = score * query[e];
            out[d + e] = probability * dy[e];
        }
    }
}

static void backward_sample(const tw_call *c, int64_t b, float *mine) {
    const tw_tensor *q = &c->input[Q], *kv = &c->input[KV], *dq = &c->input_grad[Q],
                    *dkv = &c->input_grad[KV];
    int64_t heads = attr_of(c)->heads, tokens = tokens_of(c), d = q->shape[1], width = d / heads;
    int64_t q_stride, kv_stride;
    keys k = keys_of(c, b);
    tw_tensor_is_rows(q, &q_stride);
    tw_tensor_is_rows(kv, &kv_stride);
    const float *query = tw_row_read(q, q_stride, b, mine),
                *dy = tw_row_read(&c->output_grad[0], d, b, mine + d);
    float *query_grad = mine + 2 * d, *buffer = mine + 3 * d, *out = mine + 5 * d, *g = mine + 7 * d;
    float *p = g + heads * tokens;
    score_gradients(c, b, dy, buffer, g, p);
    memset(query_grad, 0, (size_t)d * sizeof *query_grad);
    for (int64_t t = 0; t < k.seen; t++) {
        const float *key = tw_row_read(kv, kv_stride, k.first + t, buffer);
        for (int64_t h = 0; h < heads; h++)
            add_scaled(query_grad + h * width, g[h * tokens + t], key + h * width, width);
        if (!dkv->data) continue;
        key_gradient(d, width, tokens, g + t, p + t, query, dy, out);
        tw_row_deliver(dkv, k.first + t, out, c->input_mode[KV]);
    }
    memset(out, 0, (size_t)(2 * d) * sizeof *out);
    for (int64_t t = k.seen; dkv->data && t < k.end; t++)
        tw_row_deliver(dkv, k.first + t, out, c->input_mode[KV]);
    if (dq->data) tw_row_deliver(dq, b, query_grad, c->input_mode[Q]);
}

tw_status tw_pool_attention_backward_cpu(const tw_call *c) {
    const tw_tensor *dkv = &c->input_grad[KV];
    int64_t floats = 7 * c->input[Q].shape[1] + 2 * attr_of(c)->heads * tokens_of(c);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * floats;
        tw_range r = tw_my_share(c->input[Q].shape[0]);
        for (int64_t b = r.begin; b < r.end; b++) backward_sample(c, b, mine);
    }
    if (is_packed(c) && dkv->data && c->input_mode[KV] == TW_WRITE) tw_rows_clear_rest(c, OFFSETS, dkv);
    return TW_OK;
}
