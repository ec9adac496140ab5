#include "autograd/cuda/rows.h"

/* inputs: q (B,D), kv (B,T,2D), keys before values, lengths (B)?; or kv (rows,2D), offsets (B+1); outputs: y
 * (B,D), probabilities (B,heads,T) f32. A block has one head of one sample: warps take tokens for products
 * over the head's width, threads take columns for sums over tokens. */

namespace {

enum { Q, KV, LENGTHS, OFFSETS };
enum { THREADS = 128, WARPS = THREADS / TW_WARP };

struct pool_args {
    tw_view q, kv, y; /* y: or its gradient */
    tw_view dq, dkv;
    float *p;                         /* probabilities */
    float *g;                         /* scratch, as p: the scores' gradients */
    const int32_t *lengths, *offsets; /* or NULL */
    const tw_step *step;
    int64_t heads, tokens, d, width, batch, rows; /* rows: of kv */
    uint32_t layer, threshold;
    float scale, keep; /* keep: 1 / (1 - p) of dropout; 1: none */
};

/* The block's head of its sample; of kv's rows `seen` ones from `first` on, and up to `end` those that are
 * not seen. */
struct place {
    int64_t b, h, first, seen, end;
    tw_draw draw;
};

TW_DEVICE place place_here(const pool_args &a) {
    place at = {};
    at.b = blockIdx.x / a.heads, at.h = blockIdx.x % a.heads;
    if (a.offsets) {
        at.first = a.offsets[at.b];
        at.seen = at.end = a.offsets[at.b + 1] - at.first;
    } else {
        int64_t n = a.lengths ? a.lengths[at.b] : a.tokens;
        at.first = at.b * a.tokens, at.end = a.tokens;
        at.seen = n < 0 ? 0 : n > a.tokens ? a.tokens : n;
    }
    if (a.keep != 1.0f) at.draw = tw_dropout_draw(a.step, a.layer, at.b);
    return at;
}

/* Dropout of the probability of key t, as attention's of a sample's query 0. */
TW_DEVICE float drop(const pool_args &a, const place &at, int64_t t, float x) {
    if (a.keep == 1.0f) return x;
    return tw_dropout_one(at.draw, a.threshold, a.keep, at.h * a.tokens * a.tokens + t, x);
}

/* sum over the head's columns of a[i] b[i], to every lane of the warp */
TW_DEVICE float dot(const tw_view &a, int64_t at, const tw_view &b, int64_t bt, int64_t width) {
    float sum = 0.0f;
    for (int64_t i = threadIdx.x % TW_WARP; i < width; i += TW_WARP)
        sum += tw_get_one(a, at + i) * tw_get_one(b, bt + i);
    return tw_warp_sum(sum);
}

/* p[0 .. n) to its softmax, by the block. What was written to p by the block is read after a barrier. */
TW_DEVICE void softmax(float *p, int64_t n) {
    float most = -INFINITY, sum = 0.0f;
    __syncthreads();
    for (int64_t t = threadIdx.x; t < n; t += THREADS) most = fmaxf(most, p[t]);
    most = tw_block_max(most);
    for (int64_t t = threadIdx.x; t < n; t += THREADS) sum += p[t] = expf(p[t] - most);
    sum = tw_block_sum(sum);
    for (int64_t t = threadIdx.x; t < n; t += THREADS) p[t] /= sum;
    __syncthreads();
}

__global__ void __launch_bounds__(THREADS, 1) pool_attention_forward(pool_args a) {
    place at = place_here(a);
    int64_t from = at.h * a.width;
    float *p = a.p + blockIdx.x * a.tokens;
    for (int64_t t = threadIdx.x / TW_WARP; t < a.tokens; t += WARPS) {
        float score = 0.0f;
        if (t < at.seen)
            score = a.scale *
                    dot(a.q, at.b * a.q.stride + from, a.kv, (at.first + t) * a.kv.stride + from, a.width);
        if (threadIdx.x % TW_WARP == 0) p[t] = score;
    }
    softmax(p, at.seen);
    for (int64_t i = threadIdx.x; i < a.width; i += THREADS) {
        float sum = 0.0f;
        for (int64_t t = 0; t < at.seen; t++)
            sum += drop(a, at, t, p[t]) * tw_get_one(a.kv, (at.first + t) * a.kv.stride + a.d + from + i);
        tw_put_one(a.y, at.b * a.d + from + i, sum);
    }
}

/* g: first the dropped probabilities' gradient, then the scores' with the scale in it */
TW_DEVICE void score_gradients(const pool_args &a, const place &at, int64_t from, const float *p, float *g) {
    for (int64_t t = threadIdx.x / TW_WARP; t < at.seen; t += WARPS) {
        float sum = dot(a.y, at.b * a.d + from, a.kv, (at.first + t) * a.kv.stride + a.d + from, a.width);
        if (threadIdx.x % TW_WARP == 0) g[t] = drop(a, at, t, sum);
    }
    __syncthreads();
    float mean = 0.0f;
    for (int64_t t = threadIdx.x; t < at.seen; t += THREADS) mean += p[t] * g[t];
    mean = tw_block_sum(mean);
    for (int64_t t = threadIdx.x; t < at.seen; t += THREADS) g[t] = p[t] * (g[t] - mean) * a.scale;
    __syncthreads();
}

__global__ void __launch_bounds__(THREADS, 1) pool_attention_backward(pool_args a) {
    place at = place_here(a);
    int64_t from = at.h * a.width;
    const float *p = a.p + blockIdx.x * a.tokens;
    float *g = a.g + blockIdx.x * a.tokens;
    score_gradients(a, at, from, p, g);
    for (int64_t i = threadIdx.x; i < a.width; i += THREADS) {
        float sum = 0.0f, query = tw_get_one(a.q, at.b * a.q.stride + from + i),
              dy = tw_get_one(a.y, at.b * a.d + from + i);
        for (int64_t t = 0; t < at.end; t++) {
            int64_t row = at.first + t, to = row * 2 * a.d + from + i;
            bool seen = t < at.seen;
            if (seen) sum += g[t] * tw_get_one(a.kv, row * a.kv.stride + from + i);
            if (!a.dkv.data) continue;
            tw_put_one(a.dkv, to, seen ? g[t] * query : 0.0f);
            tw_put_one(a.dkv, to + a.d, seen ? drop(a, at, t, p[t]) * dy : 0.0f);
        }
        if (a.dq.data) tw_put_one(a.dq, at.b * a.d + from + i, sum);
    }
}

/* Zeros in dkv's rows behind the last sample. */
__global__ void pool_attention_clear(pool_args a) {
    int64_t row, col, end = a.offsets[a.batch];
    const float none[TW_PACK] = {};
    if (!tw_pack_here(a.rows, 2 * a.d, &row, &col) || row < end) return;
    tw_store_columns(a.dkv, row, col, 2 * a.d, none);
}

pool_args args_of(const tw_call *c) {
    const tw_pool_attention_attr *attr = (const tw_pool_attention_attr *)c->attr;
    pool_args a = {};
    a.q = tw_view_rows(&c->input[Q]), a.kv = tw_view_rows(&c->input[KV]);
    a.p = (float *)c->output[1].data, a.g = (float *)c->scratch;
    if (tw_present(&c->input[LENGTHS])) a.lengths = (const int32_t *)c->input[LENGTHS].data;
    if (tw_present(&c->input[OFFSETS])) a.offsets = (const int32_t *)c->input[OFFSETS].data;
    a.step = c->step;
    a.batch = c->input[Q].shape[0], a.rows = tw_tensor_rows(&c->input[KV]), a.heads = attr->heads;
    a.tokens = c->output[1].shape[2], a.d = c->input[Q].shape[1], a.width = a.d / a.heads;
    a.layer = attr->layer, a.keep = 1.0f;
    if (attr->dropout > 0.0f)
        a.threshold = tw_dropout_threshold(attr->dropout), a.keep = 1.0f / (1.0f - attr->dropout);
    a.scale = 1.0f / sqrtf((float)(a.width > 0 ? a.width : 1));
    return a;
}

} // namespace

tw_status tw_pool_attention_forward_cuda(const tw_call *c) {
    pool_args a = args_of(c);
    a.y = tw_view_out(&c->output[0], TW_WRITE);
    return TW_LAUNCH(c->device, pool_attention_forward, (unsigned)(a.batch * a.heads), THREADS, 0, a);
}

tw_status tw_pool_attention_backward_cuda(const tw_call *c) {
    pool_args a = args_of(c);
    a.y = tw_view_out(&c->output_grad[0], TW_WRITE);
    a.dq = tw_view_out(&c->input_grad[Q], c->input_mode[Q]);
    a.dkv = tw_view_out(&c->input_grad[KV], c->input_mode[KV]);
    TRY(TW_LAUNCH(c->device, pool_attention_backward, (unsigned)(a.batch * a.heads), THREADS, 0, a));
    if (!a.offsets || !a.dkv.data || a.dkv.add) return TW_OK;
    return TW_LAUNCH(c->device, pool_attention_clear,
                     tw_blocks(a.rows * tw_packs_of(2 * a.d), TW_PACK_THREADS), TW_PACK_THREADS, 0, a);
}
