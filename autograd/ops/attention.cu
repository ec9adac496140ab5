#include "autograd/cuda/attention_graph.h"
#include "autograd/cuda/rows.h"

/* Multi-head attention over fused qkv (B,T,3D), or packed (rows,3D) with offsets: the kernel that others are
 * measured by, and what runs where they cannot. It keeps f32 throughout, never holds (T,T) and needs no
 * tensor cores.
 *
 * A block has WARPS queries (or, for the gradients of keys and values, WARPS keys) of one head of one sample,
 * one a warp. The other side passes by in tiles of 32 in shared memory; lane j works on the tile's row j. The
 * log-sum-exp and the draws are the CPU's (attention.c). */

namespace {

enum { QKV, LENGTHS, OFFSETS };
enum { Q, K, V };
enum { WARPS = 8, THREADS = WARPS * TW_WARP, TILE = TW_WARP, WIDEST = 128, PARTS = WIDEST / TW_WARP };

struct attention_args {
    tw_view qkv, o, dqkv;   /* o: output, or its gradient */
    const int32_t *lengths; /* or NULL */
    const int32_t *offsets; /* of packed samples, else NULL */
    float *lse;             /* (B,heads,T), packed (heads,rows), or NULL */
    float *dots;            /* backward's scratch, as lse: sum over keys of probability times its gradient */
    const tw_step *step;
    int64_t tokens, heads, width, d, tiles; /* tokens: the most of a sample; tiles: blocks a head */
    int64_t batch, rows;
    uint32_t layer, threshold;
    float scale, keep; /* keep: 1 / (1 - p); 1: no dropout */
};

/* What a block works on. */
struct place {
    int64_t b, h, first, keys; /* first: of the block's queries or keys */
    int64_t row, queries;      /* row: of the sample's first token */
    int64_t kept;              /* of lse: where the head's begin */
    int lane, warp;
    tw_draw draw;
};

TW_DEVICE place place_here(const attention_args &a) {
    place at = {};
    int64_t head = blockIdx.x / a.tiles;
    at.b = head / a.heads, at.h = head % a.heads;
    at.first = blockIdx.x % a.tiles * WARPS;
    at.lane = (int)threadIdx.x % TW_WARP, at.warp = (int)threadIdx.x / TW_WARP;
    int64_t n = a.lengths ? a.lengths[at.b] : a.tokens;
    at.row = at.b * a.tokens, at.queries = a.tokens;
    at.kept = head * a.tokens;
    if (a.offsets) {
        at.row = a.offsets[at.b];
        n = at.queries = a.offsets[at.b + 1] - at.row;
        at.kept = at.h * a.rows + at.row;
    }
    at.keys = n < 0 ? 0 : n > a.tokens ? a.tokens : n;
    if (a.keep != 1.0f)
        at.draw = tw_dropout_draw(a.step, a.layer, at.b); /* without dropout there may be no step */
    return at;
}

/* Rows [first, first + n) of part `part` of the head to shared memory, 0 beyond `end`; part 3: of o. A thread
 * a pack: rows of shared memory are an odd number of words apart, so that a column is free of conflicts, and
 * take single elements. */
TW_DEVICE void load_tile(const attention_args &a, const place &at, int part, int64_t first, int n,
                         int64_t end, float (*tile)[WIDEST + 1]) {
    const tw_view &from = part == 3 ? a.o : a.qkv;
    int64_t column = part == 3 ? at.h * a.width : (part * a.heads + at.h) * a.width;
    int width = (int)a.width, packs = (width + TW_PACK - 1) / TW_PACK;
    for (int i = (int)threadIdx.x; i < n * packs; i += THREADS) {
        int row = i / packs, c = i % packs * TW_PACK;
        float v[TW_PACK] = {};
        if (first + row < end) tw_load_head(from, at.row + first + row, column + c, width - c, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++)
            if (c + e < width) tile[row][c + e] = v[e];
    }
}

TW_DEVICE float dot(const float *x, const float *y, int64_t n) {
    float sum = 0.0f;
    for (int64_t c = 0; c < n; c++) sum += x[c] * y[c];
    return sum;
}

/* Dropout of query i's probability of key j. */
TW_DEVICE float drop(const attention_args &a, const place &at, int64_t i, int64_t j, float x) {
    if (a.keep == 1.0f) return x;
    return tw_dropout_one(at.draw, a.threshold, a.keep, (at.h * a.tokens + i) * a.tokens + j, x);
}

/* sum[k] += sum over the warp's lanes of (lane's x) * tile[lane][32 k + this lane] */
TW_DEVICE void add_rows(float x, const float (*tile)[WIDEST + 1], int lane, int64_t width, float *sum) {
    for (int j = 0; j < TILE; j++) {
        float weight = __shfl_sync(0xffffffffu, x, j);
#pragma unroll
        for (int k = 0; k < PARTS; k++)
            if (k * TW_WARP + lane < width) sum[k] += weight * tile[j][k * TW_WARP + lane];
    }
}

/* The warp's row `row` of part `part` of dqkv. */
TW_DEVICE void deliver(const attention_args &a, const place &at, int part, int64_t row, const float *v) {
    int64_t to = (at.row + row) * 3 * a.d + (part * a.heads + at.h) * a.width;
#pragma unroll
    for (int k = 0; k < PARTS; k++)
        if (k * TW_WARP + at.lane < a.width) tw_put_one(a.dqkv, to + k * TW_WARP + at.lane, v[k]);
}

__global__ void __launch_bounds__(THREADS) attention_forward(attention_args a) {
    __shared__ float q[WARPS][WIDEST + 1], tile[TILE][WIDEST + 1];
    place at = place_here(a);
    if (at.first >= at.queries) return; /* the whole block */
    int64_t i = at.first + at.warp;
    float most = -INFINITY, total = 0.0f, sum[PARTS] = {};
    load_tile(a, at, Q, at.first, WARPS, at.queries, q);
    for (int64_t first = 0; first < at.keys; first += TILE) {
        int64_t j = first + at.lane;
        __syncthreads();
        load_tile(a, at, K, first, TILE, at.keys, tile);
        __syncthreads();
        float score = j < at.keys ? a.scale * dot(q[at.warp], tile[at.lane], a.width) : -INFINITY;
        float above = fmaxf(most, tw_warp_max(score)), p = j < at.keys ? expf(score - above) : 0.0f;
        float shrink = most > -INFINITY ? expf(most - above) : 0.0f;
        total = total * shrink + tw_warp_sum(p), most = above;
#pragma unroll
        for (int k = 0; k < PARTS; k++) sum[k] *= shrink;
        __syncthreads();
        load_tile(a, at, V, first, TILE, at.keys, tile);
        __syncthreads();
        add_rows(drop(a, at, i, j, p), tile, at.lane, a.width, sum);
    }
    if (i >= at.queries) return;
    float inverse = total > 0.0f ? 1.0f / total : total == 0.0f ? 0.0f : total; /* NaN stays */
    int64_t to = (at.row + i) * a.d + at.h * a.width;
#pragma unroll
    for (int k = 0; k < PARTS; k++)
        if (k * TW_WARP + at.lane < a.width) tw_put_one(a.o, to + k * TW_WARP + at.lane, sum[k] * inverse);
    if (a.lse && at.lane == 0) a.lse[at.kept + i] = at.keys > 0 ? most + logf(total) : 0.0f;
}

/* ---- backward ---- */

/* The gradient of queries, and dots for that of keys and values. Two passes over the keys: the sum of p g,
 * which each query's slopes need, and then the slopes. */
__global__ void __launch_bounds__(THREADS) attention_backward_q(attention_args a) {
    __shared__ float q[WARPS][WIDEST + 1], g[WARPS][WIDEST + 1], k_tile[TILE][WIDEST + 1],
        v_tile[TILE][WIDEST + 1];
    place at = place_here(a);
    if (at.first >= at.queries) return; /* the whole block */
    int64_t i = at.first + at.warp, kept = at.kept + i;
    float lse = i < at.queries ? a.lse[kept] : 0.0f, sum[PARTS] = {}, whole = 0.0f;
    load_tile(a, at, Q, at.first, WARPS, at.queries, q);
    load_tile(a, at, 3, at.first, WARPS, at.queries, g);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t first = 0; first < at.keys; first += TILE) {
            int64_t j = first + at.lane;
            __syncthreads();
            load_tile(a, at, K, first, TILE, at.keys, k_tile);
            load_tile(a, at, V, first, TILE, at.keys, v_tile);
            __syncthreads();
            float p = j < at.keys ? expf(a.scale * dot(q[at.warp], k_tile[at.lane], a.width) - lse) : 0.0f;
            float slope = drop(a, at, i, j, dot(g[at.warp], v_tile[at.lane], a.width));
            if (pass == 0)
                whole += p * slope;
            else
                add_rows(p * (slope - whole) * a.scale, k_tile, at.lane, a.width, sum);
        }
        if (pass == 0) whole = tw_warp_sum(whole);
    }
    if (i >= at.queries) return;
    if (at.lane == 0) a.dots[kept] = whole;
    deliver(a, at, Q, i, sum);
}

/* The gradients of keys and values; 0 for those that no one sees. */
__global__ void __launch_bounds__(THREADS) attention_backward_kv(attention_args a) {
    __shared__ float k[WARPS][WIDEST + 1], v[WARPS][WIDEST + 1], q_tile[TILE][WIDEST + 1],
        g_tile[TILE][WIDEST + 1];
    place at = place_here(a);
    if (at.first >= at.queries) return; /* the whole block */
    int64_t j = at.first + at.warp, head = at.kept;
    float dk[PARTS] = {}, dv[PARTS] = {};
    load_tile(a, at, K, at.first, WARPS, at.keys, k);
    load_tile(a, at, V, at.first, WARPS, at.keys, v);
    for (int64_t first = 0; first < at.queries; first += TILE) {
        int64_t i = first + at.lane;
        __syncthreads();
        load_tile(a, at, Q, first, TILE, at.queries, q_tile);
        load_tile(a, at, 3, first, TILE, at.queries, g_tile);
        __syncthreads();
        bool seen = i < at.queries && j < at.keys;
        float p = seen ? expf(a.scale * dot(k[at.warp], q_tile[at.lane], a.width) - a.lse[head + i]) : 0.0f;
        float slope = drop(a, at, i, j, dot(v[at.warp], g_tile[at.lane], a.width));
        float score = seen ? p * (slope - a.dots[head + i]) * a.scale : 0.0f;
        add_rows(score, q_tile, at.lane, a.width, dk);
        add_rows(drop(a, at, i, j, p), g_tile, at.lane, a.width, dv);
    }
    if (j >= at.queries) return;
    deliver(a, at, K, j, dk);
    deliver(a, at, V, j, dv);
}

/* Zeros in the rows behind the last sample: of v (rows, cols), and of lse unless NULL. */
__global__ void clear_rest(attention_args a, tw_view v, int64_t cols, float *lse) {
    int64_t row, col, end = a.offsets[a.batch];
    const float none[TW_PACK] = {};
    if (!tw_pack_here(a.rows, cols, &row, &col) || row < end) return;
    tw_store_columns(v, row, col, cols, none);
    for (int64_t h = 0; lse && col == 0 && h < a.heads; h++) lse[h * a.rows + row] = 0.0f;
}

tw_status clear(const tw_call *c, const attention_args &a, const tw_view &v, int64_t cols, float *lse) {
    if (!a.offsets || v.add) return TW_OK;
    return TW_LAUNCH(c->device, clear_rest, tw_blocks(a.rows * tw_packs_of(cols), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a, v, cols, lse);
}

tw_status args_of(const tw_call *c, attention_args *out) {
    const tw_attention_attr *attr = (const tw_attention_attr *)c->attr;
    const tw_tensor *x = &c->input[QKV];
    attention_args a = {};
    a.qkv = tw_view_rows(x);
    if (tw_present(&c->input[LENGTHS])) a.lengths = (const int32_t *)c->input[LENGTHS].data;
    if (c->n_outputs > 1) a.lse = (float *)c->output[1].data;
    a.step = c->step;
    a.batch = x->shape[0], a.tokens = x->shape[1], a.rows = tw_tensor_rows(x);
    if (tw_present(&c->input[OFFSETS])) {
        a.offsets = (const int32_t *)c->input[OFFSETS].data;
        a.batch = c->input[OFFSETS].shape[0] - 1, a.tokens = attr->tokens;
    }
    a.heads = attr->heads, a.d = tw_tensor_cols(x) / 3, a.width = a.d / a.heads;
    a.tiles = (a.tokens + WARPS - 1) / WARPS;
    a.layer = attr->layer, a.keep = 1.0f;
    if (attr->dropout > 0.0f)
        a.threshold = tw_dropout_threshold(attr->dropout), a.keep = 1.0f / (1.0f - attr->dropout);
    a.scale = a.width > 0 ? 1.0f / sqrtf((float)a.width) : 1.0f;
    *out = a;
    if (a.width <= WIDEST) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "heads of %lld columns; the CUDA kernel takes at most %d",
                (long long)a.width, (int)WIDEST);
}

} // namespace

tw_status tw_attention_forward_cuda(const tw_call *c) {
    attention_args a;
    bool done;
    TRY(tw_attention_graph_forward(c, &done));
    if (done) return TW_OK;
    TRY(args_of(c, &a));
    a.o = tw_view_out(&c->output[0], TW_WRITE);
    unsigned blocks = (unsigned)(a.batch * a.heads * a.tiles);
    TRY(clear(c, a, a.o, a.d, a.lse));
    return TW_LAUNCH(c->device, attention_forward, blocks, THREADS, 0, a);
}

tw_status tw_attention_backward_cuda(const tw_call *c) {
    attention_args a;
    bool done;
    if (!c->input_grad[QKV].data) return TW_OK;
    TRY(tw_attention_graph_backward(c, &done));
    if (done) return TW_OK;
    TRY(args_of(c, &a));
    a.o = tw_view_out(&c->output_grad[0], TW_WRITE);
    a.dqkv = tw_view_out(&c->input_grad[QKV], c->input_mode[QKV]);
    a.dots = (float *)c->scratch;
    unsigned blocks = (unsigned)(a.batch * a.heads * a.tiles);
    TRY(clear(c, a, a.dqkv, 3 * a.d, NULL));
    TRY(TW_LAUNCH(c->device, attention_backward_q, blocks, THREADS, 0, a));
    return TW_LAUNCH(c->device, attention_backward_kv, blocks, THREADS, 0, a);
}
