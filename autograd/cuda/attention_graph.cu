#include "autograd/cuda/attention_graph.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_attention.h"
#include "autograd/cuda/launch.h"
#include "autograd/cuda/padded.h"

namespace {

enum { QKV, LENGTHS, OFFSETS };
enum { WIDEST = 128, UNIT = 8, THREADS = 128 };

/* What a call's graphs are, and where their scratch lies. */
struct graphs {
    tw_dnn_attention a;
    tw_dnn_plan *forward, *backward; /* NULL: own kernels */
    bool packed;                     /* the graphs see padded copies in scratch */
    size_t numbers, dq_sum, row_sum; /* bytes of scratch */
    size_t tokens, statistics; /* of a padded copy of (B,T,D), and of the log-sum-exps; 0 unless packed */
};

size_t padded(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

bool is_packed(const tw_call *c) {
    return tw_present(&c->input[OFFSETS]);
}

bool serves(const tw_call *c) {
    const tw_attention_attr *attr = (const tw_attention_attr *)c->attr;
    const tw_tensor *x = &c->input[QKV];
    int64_t stride;
    if (x->dtype != TW_BF16 || tw_tensor_count(x) == 0) return false;
    if (is_packed(c) && c->input[OFFSETS].shape[0] < 2) return false; /* no samples */
    int64_t width = tw_tensor_cols(x) / 3 / attr->heads;
    return tw_tensor_is_rows(x, &stride) && stride % UNIT == 0 && width % UNIT == 0 && width <= WIDEST;
}

tw_dnn_attention describe(const tw_call *c) {
    const tw_attention_attr *attr = (const tw_attention_attr *)c->attr;
    const tw_tensor *x = &c->input[QKV];
    tw_dnn_attention a = {};
    int64_t d = tw_tensor_cols(x) / 3, stride = 3 * d, batch = x->shape[0], tokens = x->shape[1];
    if (is_packed(c))
        batch = c->input[OFFSETS].shape[0] - 1, tokens = attr->tokens;
    else
        (void)tw_tensor_is_rows(x, &stride);
    a.batch = batch, a.heads = attr->heads, a.queries = a.keys = tokens, a.width = d / a.heads;
    a.q = a.kv = tw_dnn_tokens{tokens * stride, stride};
    a.o = tw_dnn_tokens{tokens * d, d};
    a.dq = a.dkv = tw_dnn_tokens{tokens * 3 * d, 3 * d};
    a.scale = 1.0f / sqrtf((float)a.width), a.dropout = attr->dropout;
    a.lengths = is_packed(c) || tw_present(&c->input[LENGTHS]), a.statistics = c->needs_grad;
    return a;
}

tw_status find_backward(const tw_call *c, tw_dnn_attention a, tw_dnn_plan **out) {
    a.backward = true, a.statistics = false, a.deterministic = tw_cuda_deterministic(c->device);
    tw_dnn_key key = tw_dnn_attention_key(&a);
    return tw_dnn_find(c->device, &key, tw_dnn_attention_describe, out);
}

/* Both directions have a graph, or neither: they must draw the same dropout. */
tw_status find(const tw_call *c, graphs *out) {
    *out = graphs{};
    if (!serves(c)) return TW_OK;
    tw_dnn_attention a = out->a = describe(c);
    size_t rows = (size_t)(a.batch * a.heads * a.queries) * sizeof(float);
    out->numbers = padded(4 * sizeof(int64_t) + 2 * (size_t)(a.batch + 3) * sizeof(int32_t));
    out->dq_sum = padded(rows * (size_t)a.width), out->row_sum = padded(rows);
    out->packed = is_packed(c);
    if (out->packed)
        out->tokens = padded((size_t)(a.batch * a.keys * a.heads * a.width) * sizeof(uint16_t)),
        out->statistics = padded(rows);
    tw_dnn_key key = tw_dnn_attention_key(&a);
    TRY(tw_dnn_find(c->device, &key, tw_dnn_attention_describe, &out->forward));
    if (!out->forward || !c->needs_grad) return TW_OK;
    TRY(find_backward(c, a, &out->backward));
    if (!out->backward) out->forward = nullptr;
    return TW_OK;
}

/* ---- numbers that graphs read from device memory ---- */

struct numbers {
    int64_t *random;                  /* seed, and the offset 16 bytes on; NULL: no dropout */
    int32_t *seq_q, *seq_k;           /* (B) */
    const int32_t *lengths, *offsets; /* one of them, or neither */
    const tw_step *step;
    int64_t batch, tokens;
    uint32_t layer;
};

TW_DEVICE int64_t within(int64_t n, int64_t tokens) {
    return n < 0 ? 0 : n > tokens ? tokens : n;
}

/* A sample without keys has no queries either; a packed one has as many as keys. The seed is drawn as
 * dropout's mask is elsewhere, for an element that none has. */
__global__ void prepare(numbers n) {
    int64_t b = tw_global_thread();
    if (b == 0 && n.random) {
        tw_draw draw = tw_dropout_draw(n.step, n.layer, 0);
        uint32_t words[4];
        tw_random4(&draw, 0xffffffffu, words);
        n.random[0] = (int64_t)((uint64_t)(words[0] >> 1) << 32 | words[1]);
        n.random[2] = 0;
    }
    if (b >= n.batch || (!n.lengths && !n.offsets)) return;
    int64_t length = within(n.lengths ? n.lengths[b] : (int64_t)n.offsets[b + 1] - n.offsets[b], n.tokens);
    n.seq_k[b] = (int32_t)length;
    n.seq_q[b] = n.lengths && length > 0 ? (int32_t)n.tokens : (int32_t)length;
}

/* Writes them to the beginning of scratch, and where they are to `slot`. */
tw_status prepare_numbers(const tw_call *c, const tw_dnn_attention &a, void **slot) {
    numbers n = {};
    int64_t *random = (int64_t *)c->scratch;
    n.seq_q = (int32_t *)(random + 4), n.seq_k = n.seq_q + (a.batch + 3) / 4 * 4;
    slot[TW_DNN_SEED] = random, slot[TW_DNN_OFFSET] = random + 2;
    slot[TW_DNN_SEQ_Q] = n.seq_q, slot[TW_DNN_SEQ_KV] = n.seq_k;
    if (a.dropout > 0.0f) n.random = random;
    if (is_packed(c))
        n.offsets = (const int32_t *)c->input[OFFSETS].data;
    else if (a.lengths)
        n.lengths = (const int32_t *)c->input[LENGTHS].data;
    if (!n.random && !a.lengths) return TW_OK;
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

/* n elements, a multiple of 8, on a 16-byte boundary; by the block. */
TW_DEVICE void clear_row(uint16_t *to, int64_t n) {
    for (int64_t i = threadIdx.x; i < n / UNIT; i += blockDim.x)
        reinterpret_cast<uint4 *>(to)[i] = make_uint4(0, 0, 0, 0);
}

/* Zeros for samples without keys, and for the gradients of keys and values that no one sees. A block takes
 * every gridDim.y-th token of a sample. */
__global__ void clear_rest(rest r) {
    int64_t b = blockIdx.x, length = within(r.lengths[b], r.tokens);
    for (int64_t t = blockIdx.y; t < r.tokens; t += gridDim.y) {
        int64_t row = b * r.tokens + t, first = length == 0 ? 0 : r.d;
        if (r.dqkv && t >= length) clear_row(r.dqkv + row * 3 * r.d + first, 3 * r.d - first);
        if (length > 0) continue;
        if (r.o) clear_row(r.o + row * r.d, r.d);
        for (int64_t h = threadIdx.x; r.lse && h < r.heads; h += blockDim.x)
            r.lse[(b * r.heads + h) * r.tokens + t] = 0.0f;
    }
}

tw_status clear(const tw_call *c, const tw_dnn_attention &a, bool forward) {
    if (!tw_present(&c->input[LENGTHS])) return TW_OK;
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
void name_parts(void *qkv, int64_t d, void **slot, int q, int k, int v) {
    uint16_t *first = (uint16_t *)qkv;
    slot[q] = first, slot[k] = first + d, slot[v] = first + 2 * d;
}

bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

/* ---- packed samples ---- */

tw_padded padding_of(const tw_call *c, const graphs &g) {
    tw_padded p = {};
    p.offsets = (const int32_t *)c->input[OFFSETS].data;
    p.batch = g.a.batch, p.tokens = g.a.keys, p.rows = tw_tensor_rows(&c->input[QKV]), p.heads = g.a.heads;
    return p;
}

/* Adds rows of bf16 to what is copied, with their padded place at *scratch, which moves on; returns that. */
void *add_part(tw_padded *p, const graphs &g, const tw_tensor *t, char **scratch) {
    tw_padded_part *part = &p->part[p->parts++];
    part->cols = part->stride = tw_tensor_cols(t);
    (void)tw_tensor_is_rows(t, &part->stride);
    part->packed = t->data, part->padded = *scratch;
    *scratch += (size_t)(part->cols / (g.a.heads * g.a.width)) * g.tokens;
    return part->padded;
}

void add_statistics(tw_padded *p, const graphs &g, const tw_call *c, char **scratch) {
    p->packed_lse = (float *)c->output[1].data, p->padded_lse = (float *)*scratch;
    *scratch += g.statistics;
}

/* Names the forward graph's tensors: the call's own, or padded copies, of which *back are the results. */
tw_status name_forward(const tw_call *c, const graphs &g, void **slot, tw_padded *back, char **scratch) {
    void *qkv = c->input[QKV].data;
    slot[TW_DNN_O] = c->output[0].data;
    if (g.a.statistics) slot[TW_DNN_STATISTICS] = c->output[1].data;
    if (g.packed) {
        tw_padded there = padding_of(c, g);
        qkv = add_part(&there, g, &c->input[QKV], scratch);
        TRY(tw_cuda_pad(c->device, &there));
        *back = padding_of(c, g);
        slot[TW_DNN_O] = add_part(back, g, &c->output[0], scratch);
        if (g.a.statistics) add_statistics(back, g, c, scratch), slot[TW_DNN_STATISTICS] = back->padded_lse;
    }
    name_parts(qkv, g.a.heads * g.a.width, slot, TW_DNN_Q, TW_DNN_K, TW_DNN_V);
    return TW_OK;
}

tw_status name_backward(const tw_call *c, const graphs &g, void **slot, tw_padded *back, char **scratch) {
    void *qkv = c->input[QKV].data, *dqkv = c->input_grad[QKV].data;
    int64_t d = g.a.heads * g.a.width;
    slot[TW_DNN_O] = c->output[0].data, slot[TW_DNN_STATISTICS] = c->output[1].data;
    slot[TW_DNN_DO] = c->output_grad[0].data;
    if (g.packed) {
        tw_padded there = padding_of(c, g);
        qkv = add_part(&there, g, &c->input[QKV], scratch);
        slot[TW_DNN_O] = add_part(&there, g, &c->output[0], scratch);
        slot[TW_DNN_DO] = add_part(&there, g, &c->output_grad[0], scratch);
        add_statistics(&there, g, c, scratch), slot[TW_DNN_STATISTICS] = there.padded_lse;
        TRY(tw_cuda_pad(c->device, &there));
        *back = padding_of(c, g);
        dqkv = add_part(back, g, &c->input_grad[QKV], scratch);
    }
    name_parts(qkv, d, slot, TW_DNN_Q, TW_DNN_K, TW_DNN_V);
    name_parts(dqkv, d, slot, TW_DNN_DQ, TW_DNN_DK, TW_DNN_DV);
    return TW_OK;
}

} // namespace

tw_status tw_attention_graph_shape(tw_call *c) {
    graphs g;
    TRY(find(c, &g));
    if (!g.forward) return TW_OK;
    size_t forward = g.numbers + 4 * g.tokens + g.statistics + tw_dnn_scratch(g.forward);
    if (forward > c->forward_scratch) c->forward_scratch = forward;
    if (!g.backward) return TW_OK;
    size_t backward = g.numbers + g.dq_sum + g.row_sum + 8 * g.tokens + g.statistics; /* qkv, o, do, dqkv */
    backward += tw_dnn_scratch(g.backward);
    if (backward > c->backward_scratch) c->backward_scratch = backward;
    c->saved_outputs |= 1u << 0;
    return TW_OK;
}

tw_status tw_attention_graph_forward(const tw_call *c, bool *done) {
    graphs g;
    void *slot[TW_DNN_SLOTS] = {};
    tw_padded back;
    *done = false;
    TRY(find(c, &g));
    if (!g.forward || !aligned(c->input[QKV].data) || !aligned(c->output[0].data)) return TW_OK;
    char *scratch = (char *)c->scratch + g.numbers;
    *done = true;
    TRY(name_forward(c, g, slot, &back, &scratch));
    TRY(prepare_numbers(c, g.a, slot));
    TRY(tw_dnn_run(c->device, g.forward, slot, scratch));
    return g.packed ? tw_cuda_unpad(c->device, &back) : clear(c, g.a, true);
}

tw_status tw_attention_graph_backward(const tw_call *c, bool *done) {
    const tw_tensor *dy = &c->output_grad[0], *dqkv = &c->input_grad[QKV];
    graphs g;
    void *slot[TW_DNN_SLOTS] = {};
    tw_padded back;
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
    char *scratch = (char *)c->scratch + g.numbers;
    slot[TW_DNN_DQ_SUM] = scratch, slot[TW_DNN_ROW_SUM] = scratch + g.dq_sum;
    scratch += g.dq_sum + g.row_sum;
    *done = true;
    TRY(name_backward(c, g, slot, &back, &scratch));
    TRY(prepare_numbers(c, g.a, slot));
    TRY(tw_dnn_run(c->device, g.backward, slot, scratch));
    return g.packed ? tw_cuda_unpad(c->device, &back) : clear(c, g.a, false);
}
