#include "autograd/cuda/rows.h"

/* inputs: q (B,D), kv (B,T,2D), keys before values, lengths (B)?; or kv (rows,2D), offsets (B+1); outputs: y
 * (B,D), probabilities (B,heads,T) f32. A block has one head of one sample. Its threads take packs of
 * columns, as many as a head has, and tokens: `lanes` neighbours one for products over the head's width,
 * `across` of them one for sums over tokens. */

namespace {

enum { Q, KV, LENGTHS, OFFSETS };
enum { THREADS = 128 };

struct pool_args {
    tw_view q, kv, y; /* y: or its gradient */
    tw_view dq, dkv;
    float *p;                         /* probabilities */
    float *g;                         /* scratch, as p: the scores' gradients */
    const int32_t *lengths, *offsets; /* or NULL */
    const tw_step *step;
    int64_t heads, tokens, d, width, batch, rows; /* rows: of kv */
    int lanes, across; /* a power of 2, at most a warp; the packs of a head, at most THREADS */
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

/* The inner product of the head's columns of two rows, `xc` and `yc` being where they begin, to all lanes
 * that work on it; 0 unless there. Every lane of the warp calls it. */
TW_DEVICE float dot(const pool_args &a, bool there, const tw_view &x, int64_t xr, int64_t xc,
                    const tw_view &y, int64_t yr, int64_t yc) {
    float sum = 0.0f, v[TW_PACK], w[TW_PACK];
    int64_t step = a.lanes * TW_PACK;
    for (int64_t c = (int)threadIdx.x % a.lanes * TW_PACK; there && c < a.width; c += step) {
        tw_load_head(x, xr, xc + c, a.width - c, v);
        tw_load_head(y, yr, yc + c, a.width - c, w);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum += v[e] * w[e];
    }
    for (int by = a.lanes / 2; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    return sum;
}

/* How threads share columns and tokens in sums over tokens. */
struct share {
    int64_t col; /* of the head */
    int token, step, across;
    bool active;
};

/* Part `part` of the columns: a head of more than THREADS packs has several. */
TW_DEVICE share share_here(const pool_args &a, int64_t part) {
    share at;
    at.across = a.across, at.step = THREADS / a.across, at.token = (int)threadIdx.x / a.across;
    at.col = (part * a.across + (int)threadIdx.x % a.across) * TW_PACK;
    at.active = at.token < at.step && at.col < a.width;
    return at;
}

/* Adds v of the threads with the same columns, in order, and gives token 0's the sum. Every thread calls it.
 */
TW_DEVICE void add_shares(const share &at, float *v) {
    __shared__ float shared[TW_PACK * THREADS];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) shared[e * THREADS + (int)threadIdx.x] = v[e];
    __syncthreads();
    if (at.token > 0) return;
#pragma unroll
    for (int e = 0; e < TW_PACK; e++)
        for (int s = 1; s < at.step; s++) v[e] += shared[e * THREADS + s * at.across + (int)threadIdx.x];
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
    for (int64_t first = 0; first < a.tokens; first += THREADS / a.lanes) {
        int64_t t = first + (int)threadIdx.x / a.lanes;
        float score = a.scale * dot(a, t < at.seen, a.q, at.b, from, a.kv, at.first + t, from);
        if (t < a.tokens && (int)threadIdx.x % a.lanes == 0) p[t] = score; /* 0 where nothing is seen */
    }
    softmax(p, at.seen);
    for (int64_t part = 0; part * a.across * TW_PACK < a.width; part++) {
        share mine = share_here(a, part);
        float sum[TW_PACK] = {}, v[TW_PACK];
        for (int64_t t = mine.token; mine.active && t < at.seen; t += mine.step) {
            float weight = drop(a, at, t, p[t]);
            tw_load_head(a.kv, at.first + t, a.d + from + mine.col, a.width - mine.col, v);
#pragma unroll
            for (int e = 0; e < TW_PACK; e++) sum[e] += weight * v[e];
        }
        add_shares(mine, sum);
        if (mine.active && mine.token == 0)
            tw_store_head(a.y, at.b, from + mine.col, a.width - mine.col, sum);
    }
}

/* g: first the dropped probabilities' gradient, then the scores' with the scale in it */
TW_DEVICE void score_gradients(const pool_args &a, const place &at, int64_t from, const float *p, float *g) {
    for (int64_t first = 0; first < at.seen; first += THREADS / a.lanes) {
        int64_t t = first + (int)threadIdx.x / a.lanes;
        float sum = dot(a, t < at.seen, a.y, at.b, from, a.kv, at.first + t, a.d + from);
        if (t < at.seen && (int)threadIdx.x % a.lanes == 0) g[t] = drop(a, at, t, sum);
    }
    __syncthreads();
    float mean = 0.0f;
    for (int64_t t = threadIdx.x; t < at.seen; t += THREADS) mean += p[t] * g[t];
    mean = tw_block_sum(mean);
    for (int64_t t = threadIdx.x; t < at.seen; t += THREADS) g[t] = p[t] * (g[t] - mean) * a.scale;
    __syncthreads();
}

/* The gradients of token t's key and value: in columns from `col` on, n of them. */
TW_DEVICE void deliver_token(const pool_args &a, const place &at, int64_t t, int64_t col, int64_t n,
                             float key, float value, const float *query, const float *dy) {
    float dk[TW_PACK], dv[TW_PACK];
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) dk[e] = key * query[e], dv[e] = value * dy[e];
    if (t >= at.seen) /* whatever query and dy are */
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) dk[e] = dv[e] = 0.0f;
    tw_store_head(a.dkv, at.first + t, col, n, dk);
    tw_store_head(a.dkv, at.first + t, a.d + col, n, dv);
}

__global__ void __launch_bounds__(THREADS, 1) pool_attention_backward(pool_args a) {
    place at = place_here(a);
    int64_t from = at.h * a.width;
    const float *p = a.p + blockIdx.x * a.tokens;
    float *g = a.g + blockIdx.x * a.tokens;
    score_gradients(a, at, from, p, g);
    for (int64_t part = 0; part * a.across * TW_PACK < a.width; part++) {
        share mine = share_here(a, part);
        int64_t col = from + mine.col, n = mine.active ? a.width - mine.col : 0;
        float sum[TW_PACK] = {}, query[TW_PACK], dy[TW_PACK], k[TW_PACK] = {};
        tw_load_head(a.q, at.b, col, n, query);
        tw_load_head(a.y, at.b, col, n, dy);
        for (int64_t t = mine.token; mine.active && t < at.end; t += mine.step) {
            bool seen = t < at.seen;
            float key = seen ? g[t] : 0.0f;
            if (seen) tw_load_head(a.kv, at.first + t, col, n, k);
#pragma unroll
            for (int e = 0; e < TW_PACK; e++) sum[e] += seen ? key * k[e] : 0.0f;
            if (a.dkv.data)
                deliver_token(a, at, t, col, n, key, seen ? drop(a, at, t, p[t]) : 0.0f, query, dy);
        }
        add_shares(mine, sum);
        if (a.dq.data && mine.active && mine.token == 0) tw_store_head(a.dq, at.b, col, n, sum);
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
    int64_t packs = tw_packs_of(a.width);
    for (a.lanes = 1; a.lanes < TW_WARP && a.lanes < packs;) a.lanes *= 2;
    a.across = packs < 1 ? 1 : packs < THREADS ? (int)packs : (int)THREADS;
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
