#include "autograd/cuda/dnn_attention.h"

#include <math.h>
#include <string.h>

enum { KIND_ATTENTION = 1 };
enum { LENGTHS = 1, STATISTICS = 2, BACKWARD = 4, DETERMINISTIC = 8 };

static int64_t bits(float x) {
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return (int64_t)b;
}

static float unbits(int64_t b) {
    uint32_t low = (uint32_t)b;
    float x;
    memcpy(&x, &low, sizeof x);
    return x;
}

tw_dnn_key tw_dnn_attention_key(const tw_dnn_attention *a) {
    int64_t flags = (a->lengths ? LENGTHS : 0) | (a->statistics ? STATISTICS : 0) |
                    (a->backward ? BACKWARD : 0) | (a->deterministic ? DETERMINISTIC : 0);
    return (tw_dnn_key){KIND_ATTENTION,
                        {a->batch, a->heads, a->queries, a->keys, a->width, a->q.sample, a->q.token,
                         a->kv.sample, a->kv.token, a->o.sample, a->o.token, a->dq.sample, a->dq.token,
                         a->dkv.sample, a->dkv.token, bits(a->scale), bits(a->dropout), flags}};
}

static tw_dnn_attention attention_of(const tw_dnn_key *key) {
    const int64_t *n = key->number;
    tw_dnn_attention a = {.batch = n[0],
                          .heads = n[1],
                          .queries = n[2],
                          .keys = n[3],
                          .width = n[4],
                          .q = {n[5], n[6]},
                          .kv = {n[7], n[8]},
                          .o = {n[9], n[10]},
                          .dq = {n[11], n[12]},
                          .dkv = {n[13], n[14]},
                          .scale = unbits(n[15]),
                          .dropout = unbits(n[16])};
    a.lengths = n[17] & LENGTHS, a.statistics = n[17] & STATISTICS;
    a.backward = n[17] & BACKWARD, a.deterministic = n[17] & DETERMINISTIC;
    return a;
}

/* What the graph is described with: the tensors that more than one operation reads. */
typedef struct work {
    tw_dnn_graph *g;
    tw_dnn_attention a;
    int q, kt, seq_q, seq_kv; /* kt: (B,heads,width,keys) */
    int keep;                 /* dropout's mask, of 0 and 1 */
} work;

/* (B,heads,n,width), or (B,heads,width,n): the same memory with its last dimensions exchanged. */
static int tokens(const work *w, int slot, int64_t n, tw_dnn_tokens t, bool exchanged) {
    const tw_dnn_attention *a = &w->a;
    int64_t dim[4] = {a->batch, a->heads, n, a->width}, stride[4] = {t.sample, a->width, t.token, 1};
    int64_t other[4] = {a->batch, a->heads, a->width, n}, other_stride[4] = {t.sample, a->width, 1, t.token};
    return tw_dnn_memory(w->g, slot, TW_DNN_BF16, exchanged ? other : dim, exchanged ? other_stride : stride);
}

/* f32 (B,heads,queries,n) in memory. */
static int rows(const work *w, int slot, int64_t n) {
    int64_t dim[4] = {w->a.batch, w->a.heads, w->a.queries, n};
    int64_t stride[4] = {w->a.heads * w->a.queries * n, w->a.queries * n, n, 1};
    return tw_dnn_memory(w->g, slot, TW_DNN_F32, dim, stride);
}

/* Of scores within the graph. */
static int square(const work *w, tw_dnn_type type) {
    return tw_dnn_inside(w->g, type, (int64_t[]){w->a.batch, w->a.heads, w->a.queries, w->a.keys});
}

static int column(const work *w) {
    return tw_dnn_inside(w->g, TW_DNN_F32, (int64_t[]){w->a.batch, w->a.heads, w->a.queries, 1});
}

static int times(const work *w, int x, float factor) {
    return tw_dnn_apply(w->g, TW_DNN_MUL, x, tw_dnn_value(w->g, factor));
}

/* out = x y; the parts of m, n and k that count, or TW_DNN_NONE. */
static void product(const work *w, int x, int y, int out, int m, int n, int k) {
    tw_dnn_node *node = tw_dnn_add(w->g, TW_DNN_MATMUL, x, y, m, out);
    node->in[3] = n, node->in[4] = k;
}

static work start(tw_dnn_graph *g, const tw_dnn_key *key) {
    work w = {.g = g, .a = attention_of(key), .seq_q = TW_DNN_NONE, .seq_kv = TW_DNN_NONE};
    const tw_dnn_attention *a = &w.a;
    const int64_t each[4] = {a->batch, 1, 1, 1}, one[4] = {1, 1, 1, 1};
    g->rules.deterministic = a->deterministic;
    w.q = tokens(&w, TW_DNN_Q, a->queries, a->q, false);
    w.kt = tokens(&w, TW_DNN_K, a->keys, a->kv, true);
    if (a->lengths) {
        w.seq_q = tw_dnn_memory(g, TW_DNN_SEQ_Q, TW_DNN_I32, each, one);
        w.seq_kv = tw_dnn_memory(g, TW_DNN_SEQ_KV, TW_DNN_I32, each, one);
    }
    if (a->dropout > 0) {
        int seed = tw_dnn_memory(g, TW_DNN_SEED, TW_DNN_I64, one, one);
        int offset = tw_dnn_memory(g, TW_DNN_OFFSET, TW_DNN_I64, one, one);
        w.keep = square(&w, TW_DNN_F32);
        tw_dnn_add(g, TW_DNN_KEEP, seed, offset, TW_DNN_NONE, w.keep)->value = 1.0f - a->dropout;
    }
    return w;
}

static int scaled_scores(const work *w) {
    int s = square(w, TW_DNN_F32);
    product(w, w->q, w->kt, s, w->seq_q, w->seq_kv, TW_DNN_NONE);
    return times(w, s, w->a.scale);
}

static int compare_index(const work *w, int s, int axis, int limit) {
    int index = square(w, TW_DNN_I32), less = square(w, TW_DNN_BOOL);
    tw_dnn_add(w->g, TW_DNN_INDEX, s, TW_DNN_NONE, TW_DNN_NONE, index)->axis = axis;
    (void)tw_dnn_add(w->g, TW_DNN_LESS, index, limit, TW_DNN_NONE, less);
    return less;
}

/* Scores beyond the lengths become -infinity. */
static int masked(const work *w, int s) {
    if (!w->a.lengths) return s;
    int row = compare_index(w, s, 2, w->seq_q), col = compare_index(w, s, 3, w->seq_kv);
    int seen = square(w, TW_DNN_BOOL), out = square(w, TW_DNN_F32);
    (void)tw_dnn_add(w->g, TW_DNN_AND, row, col, TW_DNN_NONE, seen);
    (void)tw_dnn_add(w->g, TW_DNN_SELECT, s, tw_dnn_value(w->g, -INFINITY), seen, out);
    return out;
}

/* The last factors of probabilities, rounded to bf16 as the next product reads them. */
static int dropped(const work *w, int p) {
    if (w->a.dropout > 0) {
        p = tw_dnn_apply(w->g, TW_DNN_MUL, p, w->keep);
        p = times(w, p, 1.0f / (1.0f - w->a.dropout));
    }
    w->g->tensor[p].type = TW_DNN_BF16;
    return p;
}

static void forward(work *w) {
    tw_dnn_graph *g = w->g;
    int s = masked(w, scaled_scores(w)), most = column(w), sum = column(w), p = square(w, TW_DNN_F32);
    (void)tw_dnn_add(g, TW_DNN_MAX, s, TW_DNN_NONE, TW_DNN_NONE, most);
    int e = tw_dnn_apply(g, TW_DNN_EXP, tw_dnn_apply(g, TW_DNN_SUB, s, most), TW_DNN_NONE);
    (void)tw_dnn_add(g, TW_DNN_SUM, e, TW_DNN_NONE, TW_DNN_NONE, sum);
    /* Engines know the graph only with its statistics, wanted or not. */
    int log_sum = tw_dnn_apply(g, TW_DNN_LOG, sum, TW_DNN_NONE);
    int statistics = w->a.statistics ? rows(w, TW_DNN_STATISTICS, 1) : column(w);
    (void)tw_dnn_add(g, TW_DNN_ADD, most, log_sum, TW_DNN_NONE, statistics);
    (void)tw_dnn_add(g, TW_DNN_DIV, e, sum, TW_DNN_NONE, p);
    int v = tokens(w, TW_DNN_V, w->a.keys, w->a.kv, false);
    int o = tokens(w, TW_DNN_O, w->a.queries, w->a.o, false);
    product(w, dropped(w, p), v, o, w->seq_q, TW_DNN_NONE, w->seq_kv);
}

/* ---- backward ---- */

/* A score matrix's transpose: its memory with exchanged dimensions, in bf16. */
static int transposed(const work *w, int x) {
    const tw_dnn_attention *a = &w->a;
    int64_t area = a->queries * a->keys, dim[4] = {a->batch, a->heads, a->keys, a->queries},
            stride[4] = {a->heads * area, area, 1, a->keys};
    int out = tw_dnn_memory(w->g, TW_DNN_INSIDE, TW_DNN_BF16, dim, stride);
    (void)tw_dnn_add(w->g, TW_DNN_RESHAPE, x, TW_DNN_NONE, TW_DNN_NONE, out);
    return out;
}

/* What a row's slopes have in common: sum over columns of dO O, before dropout's factor. */
static int row_sums(const work *w, int dy) {
    tw_dnn_graph *g = w->g;
    int o = tokens(w, TW_DNN_O, w->a.queries, w->a.o, false), sum = column(w),
        out = rows(w, TW_DNN_ROW_SUM, 1);
    (void)tw_dnn_add(g, TW_DNN_SUM, tw_dnn_apply(g, TW_DNN_MUL, dy, o), TW_DNN_NONE, TW_DNN_NONE, sum);
    (void)tw_dnn_add(g, TW_DNN_MUL, sum, tw_dnn_value(g, 1.0f - w->a.dropout), TW_DNN_NONE, out);
    return out;
}

static void deliver_q(const work *w, int ds) {
    const tw_dnn_attention *a = &w->a;
    int k =
        tw_dnn_memory(w->g, TW_DNN_INSIDE, TW_DNN_BF16, (int64_t[]){a->batch, a->heads, a->keys, a->width},
                      (int64_t[]){a->kv.sample, a->width, a->kv.token, 1});
    (void)tw_dnn_add(w->g, TW_DNN_RESHAPE, w->kt, TW_DNN_NONE, TW_DNN_NONE, k);
    int dq = tokens(w, TW_DNN_DQ, a->queries, a->dq, false);
    if (a->deterministic) {
        product(w, ds, k, dq, w->seq_q, TW_DNN_NONE, w->seq_kv);
        return;
    }
    /* Blocks of keys add to it in any order. */
    int sum = rows(w, TW_DNN_DQ_SUM, a->width);
    product(w, ds, k, sum, w->seq_q, TW_DNN_NONE, w->seq_kv);
    (void)tw_dnn_add(w->g, TW_DNN_COPY, sum, TW_DNN_NONE, TW_DNN_NONE, dq);
}

/* With P = exp(S - log-sum-exp), the mask M of 0 and 1 and r = 1 / (1 - dropout): dV = (r M P)^T dO,
 * dS = P (M dO V^T - rowsum(dO O) / r) r, dQ = scale dS K, dK = scale dS^T Q. */
static void backward(work *w) {
    tw_dnn_graph *g = w->g;
    const tw_dnn_attention *a = &w->a;
    float factor = 1.0f / (1.0f - a->dropout);
    int dy = tokens(w, TW_DNN_DO, a->queries, a->o, false), sums = row_sums(w, dy);
    int s = tw_dnn_apply(g, TW_DNN_SUB, scaled_scores(w), rows(w, TW_DNN_STATISTICS, 1));
    int p = tw_dnn_apply(g, TW_DNN_EXP, masked(w, s), TW_DNN_NONE), weights = p;
    if (a->dropout > 0) weights = times(w, tw_dnn_apply(g, TW_DNN_MUL, p, w->keep), factor);
    product(w, transposed(w, weights), dy, tokens(w, TW_DNN_DV, a->keys, a->dkv, false), w->seq_kv,
            TW_DNN_NONE, w->seq_q);
    int slope = square(w, TW_DNN_F32), vt = tokens(w, TW_DNN_V, a->keys, a->kv, true);
    product(w, dy, vt, slope, w->seq_q, w->seq_kv, TW_DNN_NONE);
    if (a->dropout > 0) slope = tw_dnn_apply(g, TW_DNN_MUL, slope, w->keep);
    slope = tw_dnn_apply(g, TW_DNN_MUL, tw_dnn_apply(g, TW_DNN_SUB, slope, sums), p);
    if (a->dropout > 0) slope = times(w, slope, factor);
    slope = times(w, slope, a->scale);
    g->tensor[slope].type = TW_DNN_BF16; /* as the products read it */
    product(w, transposed(w, slope), w->q, tokens(w, TW_DNN_DK, a->keys, a->dkv, false), w->seq_kv,
            TW_DNN_NONE, w->seq_q);
    deliver_q(w, slope);
}

void tw_dnn_attention_describe(const tw_dnn_key *key, tw_dnn_graph *g) {
    work w = start(g, key);
    g->name = w.a.backward ? "attention's gradient" : "attention";
    if (w.a.backward)
        backward(&w);
    else
        forward(&w);
}
