#include "autograd/cuda/attention_graph.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_attention.h"
#include "autograd/cuda/launch.h"

namespace {

enum { QKV, LENGTHS };
enum { WIDEST = 128, UNIT = 8, THREADS = 128 };

/* What a call's graphs are, and where their scratch lies. */
struct graphs {
    tw_dnn_attention a;
    tw_dnn_plan *forward, *backward; /* NULL: own kernels */
    size_t numbers, dq_sum, row_sum; /* bytes of scratch */
};

size_t padded(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

bool serves(const tw_call *c) {
    const tw_attention_attr *attr = (const tw_attention_attr *)c->attr;
    const tw_tensor *x = &c->input[QKV];
    int64_t stride;
    if (x->dtype != TW_BF16 || x->ndim != 3 || tw_tensor_count(x) == 0) return false;
    int64_t width = x->shape[2] / 3 / attr->heads;
    return tw_tensor_is_rows(x, &stride) && stride % UNIT == 0 && width % UNIT == 0 && width <= WIDEST;
}

tw_dnn_attention describe(const tw_call *c) {
    const tw_attention_attr *attr = (const tw_attention_attr *)c->attr;
    const tw_tensor *x = &c->input[QKV];
    tw_dnn_attention a = {};
    int64_t stride = 0, d = x->shape[2] / 3;
    (void)tw_tensor_is_rows(x, &stride);
    a.batch = x->shape[0], a.heads = attr->heads, a.queries = a.keys = x->shape[1], a.width = d / a.heads;
    a.q = a.kv = tw_dnn_tokens{x->shape[1] * stride, stride};
    a.o = tw_dnn_tokens{x->shape[1] * d, d};
    a.dq = a.dkv = tw_dnn_tokens{x->shape[1] * 3 * d, 3 * d};
    a.scale = 1.0f / sqrtf((float)a.width), a.dropout = attr->dropout;
    a.lengths = tw_present(&c->input[LENGTHS]), a.statistics = c->needs_grad;
    return a;
}

/* Both directions have a graph, or neither: they must draw the same dropout. */
tw_status find(const tw_call *c, graphs *out) {
    *out = graphs{};
    if (!serves(c)) return TW_OK;
    tw_dnn_attention a = out->a = describe(c);
    size_t rows = (size_t)(a.batch * a.heads * a.queries) * sizeof(float);
    out->numbers = padded(4 * sizeof(int64_t) + 2 * (size_t)(a.batch + 3) * sizeof(int32_t));
    out->dq_sum = padded(rows * (size_t)a.width), out->row_sum = padded(rows);
    tw_dnn_key key = tw_dnn_attention_key(&a);
    TRY(tw_dnn_find(c->device, &key, tw_dnn_attention_describe, &out->forward));
    if (!out->forward || !c->needs_grad) return TW_OK;
    a.backward = true, a.statistics = false, a.deterministic = tw_cuda_deterministic(c->device);
    key = tw_dnn_attention_key(&a);
    TRY(tw_dnn_find(c->device, &key, tw_dnn_attention_describe, &out->backward));
    if (!out->backward) out->forward = nullptr;
    return TW_OK;
}

/* ---- numbers that graphs read from device memory ---- */

struct numbers {
    int64_t *random;        /* seed, and the offset 16 bytes on; NULL: no dropout */
    int32_t *seq_q, *seq_k; /* (B) */
    const int32_t *lengths; /* or NULL */
    const tw_step *step;
    int64_t batch, tokens;
    uint32_t layer;
};

TW_DEVICE int64_t length_of(const int32_t *lengths, int64_t b, int64_t tokens) {
    int64_t n = lengths[b];
    return n < 0 ? 0 : n > tokens ? tokens : n;
}

/* A sample without keys has no queries either. The seed is drawn as dropout's mask is elsewhere, for an
 * element that none has. */
__global__ void prepare(numbers n) {
    int64_t b = tw_global_thread();
    if (b == 0 && n.random) {
        tw_draw draw = tw_dropout_draw(n.step, n.layer, 0);
        uint32_t words[4];
        tw_random4(&draw, 0xffffffffu, words);
        n.random[0] = (int64_t)((uint64_t)(words[0] >> 1) << 32 | words[1]);
        n.random[2] = 0;
    }
    if (b >= n.batch || !n.lengths) return;
    int64_t length = length_of(n.lengths, b, n.tokens);
    n.seq_k[b] = (int32_t)length, n.seq_q[b] = length > 0 ? (int32_t)n.tokens : 0;
}

/* Writes them to the beginning of scratch, and where they are to `slot`. */
tw_status prepare_numbers(const tw_call *c, const tw_dnn_attention &a, void **slot) {
    numbers n = {};
    int64_t *random = (int64_t *)c->scratch;
    n.seq_q = (int32_t *)(random + 4), n.seq_k = n.seq_q + (a.batch + 3) / 4 * 4;
    slot[TW_DNN_SEED] = random, slot[TW_DNN_OFFSET] = random + 2;
    slot[TW_DNN_SEQ_Q] = n.seq_q, slot[TW_DNN_SEQ_KV] = n.seq_k;
    if (a.dropout > 0.0f) n.random = random;
    if (a.lengths) n.lengths = (const int32_t *)c->input[LENGTHS].data;
    if (!n.random && !n.lengths) return TW_OK;
    n.step = c->step, n.batch = a.batch, n.tokens = a.keys;
    n.layer = ((const tw_attention_attr *)c->attr)->layer;
    return TW_LAUNCH(c->device, prepare, tw_blocks(a.batch, THREADS), THREADS, 0, n);
}

/* ---- what the library promises nothing for ---- */

struct rest {
    const int32_t *lengths;
    int64_t tokens, d, heads;
    uint16_t *o, *dqkv; /* forward's or backward's result; the other is NULL */
    float *lse;         /* (B,heads,T) or NULL */
};

/* Zeros for samples without keys, and for the gradients of keys and values that no one sees. A block takes
 * every gridDim.y-th token of a sample. */
__global__ void clear_rest(rest r) {
    int64_t b = blockIdx.x, length = length_of(r.lengths, b, r.tokens);
    for (int64_t t = blockIdx.y; t < r.tokens; t += gridDim.y) {
        int64_t row = b * r.tokens + t, first = length == 0 ? 0 : r.d;
        if (r.dqkv && t >= length)
            for (int64_t i = first + threadIdx.x; i < 3 * r.d; i += blockDim.x) r.dqkv[row * 3 * r.d + i] = 0;
        if (length > 0) continue;
        for (int64_t i = threadIdx.x; r.o && i < r.d; i += blockDim.x) r.o[row * r.d + i] = 0;
        for (int64_t h = threadIdx.x; r.lse && h < r.heads; h += blockDim.x)
            r.lse[(b * r.heads + h) * r.tokens + t] = 0.0f;
    }
}

tw_status clear(const tw_call *c, const tw_dnn_attention &a, bool forward) {
    if (!a.lengths) return TW_OK;
    rest r = {};
    r.lengths = (const int32_t *)c->input[LENGTHS].data;
    r.tokens = a.keys, r.d = a.heads * a.width, r.heads = a.heads;
    if (forward)
        r.o = (uint16_t *)c->output[0].data, r.lse = a.statistics ? (float *)c->output[1].data : nullptr;
    else
        r.dqkv = (uint16_t *)c->input_grad[QKV].data;
    return TW_LAUNCH(c->device, clear_rest, dim3((unsigned)a.batch, 8), THREADS, 0, r);
}

/* q, k and v lie side by side in a token. */
void name_parts(const tw_tensor *t, int64_t d, void **slot, int q, int k, int v) {
    uint16_t *first = (uint16_t *)t->data;
    slot[q] = first, slot[k] = first + d, slot[v] = first + 2 * d;
}

bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

} // namespace

tw_status tw_attention_graph_shape(tw_call *c) {
    graphs g;
    TRY(find(c, &g));
    if (!g.forward) return TW_OK;
    size_t forward = g.numbers + tw_dnn_scratch(g.forward);
    if (forward > c->forward_scratch) c->forward_scratch = forward;
    if (!g.backward) return TW_OK;
    size_t backward = g.numbers + g.dq_sum + g.row_sum + tw_dnn_scratch(g.backward);
    if (backward > c->backward_scratch) c->backward_scratch = backward;
    c->saved_outputs |= 1u << 0;
    return TW_OK;
}

tw_status tw_attention_graph_forward(const tw_call *c, bool *done) {
    graphs g;
    void *slot[TW_DNN_SLOTS] = {};
    *done = false;
    TRY(find(c, &g));
    if (!g.forward || !aligned(c->input[QKV].data) || !aligned(c->output[0].data)) return TW_OK;
    name_parts(&c->input[QKV], g.a.heads * g.a.width, slot, TW_DNN_Q, TW_DNN_K, TW_DNN_V);
    slot[TW_DNN_O] = c->output[0].data;
    if (g.a.statistics) slot[TW_DNN_STATISTICS] = c->output[1].data;
    TRY(prepare_numbers(c, g.a, slot));
    *done = true;
    TRY(tw_dnn_run(c->device, g.forward, slot, (char *)c->scratch + g.numbers));
    return clear(c, g.a, true);
}

tw_status tw_attention_graph_backward(const tw_call *c, bool *done) {
    const tw_tensor *dy = &c->output_grad[0], *dqkv = &c->input_grad[QKV];
    graphs g;
    void *slot[TW_DNN_SLOTS] = {};
    *done = false;
    TRY(find(c, &g));
    if (!g.backward || !aligned(c->input[QKV].data) || !aligned(c->output[0].data)) return TW_OK;
    bool can = dy->dtype == TW_BF16 && dqkv->dtype == TW_BF16 && c->input_mode[QKV] == TW_WRITE &&
               aligned(dy->data) && aligned(dqkv->data);
    if (!can && g.a.dropout > 0.0f) /* own kernels would draw another mask than forward did */
        return FAIL(TW_ERR_UNSUPPORTED,
                    "after dropout by cuDNN the gradient of qkv can only be written, as bf16 and on 16-byte "
                    "boundaries");
    if (!can) return TW_OK;
    int64_t d = g.a.heads * g.a.width;
    char *scratch = (char *)c->scratch + g.numbers;
    name_parts(&c->input[QKV], d, slot, TW_DNN_Q, TW_DNN_K, TW_DNN_V);
    name_parts(dqkv, d, slot, TW_DNN_DQ, TW_DNN_DK, TW_DNN_DV);
    slot[TW_DNN_O] = c->output[0].data, slot[TW_DNN_STATISTICS] = c->output[1].data;
    slot[TW_DNN_DO] = dy->data;
    slot[TW_DNN_DQ_SUM] = scratch, slot[TW_DNN_ROW_SUM] = scratch + g.dq_sum;
    TRY(prepare_numbers(c, g.a, slot));
    *done = true;
    TRY(tw_dnn_run(c->device, g.backward, slot, scratch + g.dq_sum + g.row_sum));
    return clear(c, g.a, false);
}
