#include "autograd/cuda/rows.h"

/* inputs: q (B,D), kv (B,T,2D), keys before values; outputs: y (B,D), probabilities (B,heads,T) f32. A block
 * has one head of one sample: warps take tokens for products over the head's width, threads take columns for
 * sums over tokens. */

namespace {

enum { Q, KV };
enum { THREADS = 128, WARPS = THREADS / TW_WARP };

struct pool_args {
    tw_view q, kv, y; /* y: or its gradient */
    tw_view dq, dkv;
    float *p; /* probabilities */
    float *g; /* scratch, as p: the scores' gradients */
    int64_t heads, tokens, d, width;
    float scale;
};

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

__global__ void pool_attention_forward(pool_args a) {
    int64_t b = blockIdx.x / a.heads, h = blockIdx.x % a.heads, from = h * a.width;
    float *p = a.p + blockIdx.x * a.tokens;
    for (int64_t t = threadIdx.x / TW_WARP; t < a.tokens; t += WARPS) {
        float score =
            a.scale * dot(a.q, b * a.q.stride + from, a.kv, (b * a.tokens + t) * a.kv.stride + from, a.width);
        if (threadIdx.x % TW_WARP == 0) p[t] = score;
    }
    softmax(p, a.tokens);
    for (int64_t i = threadIdx.x; i < a.width; i += THREADS) {
        float sum = 0.0f;
        for (int64_t t = 0; t < a.tokens; t++)
            sum += p[t] * tw_get_one(a.kv, (b * a.tokens + t) * a.kv.stride + a.d + from + i);
        tw_put_one(a.y, b * a.d + from + i, sum);
    }
}

/* g: first the probabilities' gradient, then the scores' with the scale in it */
TW_DEVICE void score_gradients(const pool_args &a, int64_t b, int64_t from, const float *p, float *g) {
    for (int64_t t = threadIdx.x / TW_WARP; t < a.tokens; t += WARPS) {
        float sum = dot(a.y, b * a.d + from, a.kv, (b * a.tokens + t) * a.kv.stride + a.d + from, a.width);
        if (threadIdx.x % TW_WARP == 0) g[t] = sum;
    }
    __syncthreads();
    float mean = 0.0f;
    for (int64_t t = threadIdx.x; t < a.tokens; t += THREADS) mean += p[t] * g[t];
    mean = tw_block_sum(mean);
    for (int64_t t = threadIdx.x; t < a.tokens; t += THREADS) g[t] = p[t] * (g[t] - mean) * a.scale;
    __syncthreads();
}

__global__ void pool_attention_backward(pool_args a) {
    int64_t b = blockIdx.x / a.heads, h = blockIdx.x % a.heads, from = h * a.width;
    const float *p = a.p + blockIdx.x * a.tokens;
    float *g = a.g + blockIdx.x * a.tokens;
    score_gradients(a, b, from, p, g);
    for (int64_t i = threadIdx.x; i < a.width; i += THREADS) {
        float sum = 0.0f, query = tw_get_one(a.q, b * a.q.stride + from + i),
              dy = tw_get_one(a.y, b * a.d + from + i);
        for (int64_t t = 0; t < a.tokens; t++) {
            int64_t row = b * a.tokens + t, to = row * 2 * a.d + from + i;
            sum += g[t] * tw_get_one(a.kv, row * a.kv.stride + from + i);
            if (!a.dkv.data) continue;
            tw_put_one(a.dkv, to, g[t] * query);
            tw_put_one(a.dkv, to + a.d, p[t] * dy);
        }
        if (a.dq.data) tw_put_one(a.dq, b * a.d + from + i, sum);
    }
}

pool_args args_of(const tw_call *c) {
    pool_args a = {};
    a.q = tw_view_rows(&c->input[Q]), a.kv = tw_view_rows(&c->input[KV]);
    a.p = (float *)c->output[1].data, a.g = (float *)c->scratch;
    a.heads = ((const tw_pool_attention_attr *)c->attr)->heads;
    a.tokens = c->input[KV].shape[1], a.d = c->input[Q].shape[1], a.width = a.d / a.heads;
    a.scale = 1.0f / sqrtf((float)(a.width > 0 ? a.width : 1));
    return a;
}

} // namespace

tw_status tw_pool_attention_forward_cuda(const tw_call *c) {
    pool_args a = args_of(c);
    a.y = tw_view_out(&c->output[0], TW_WRITE);
    return TW_LAUNCH(c->device, pool_attention_forward, (unsigned)(c->input[Q].shape[0] * a.heads), THREADS,
                     0, a);
}

tw_status tw_pool_attention_backward_cuda(const tw_call *c) {
    pool_args a = args_of(c);
    a.y = tw_view_out(&c->output_grad[0], TW_WRITE);
    a.dq = tw_view_out(&c->input_grad[Q], c->input_mode[Q]);
    a.dkv = tw_view_out(&c->input_grad[KV], c->input_mode[KV]);
    return TW_LAUNCH(c->device, pool_attention_backward, (unsigned)(c->input[Q].shape[0] * a.heads), THREADS,
                     0, a);
}
