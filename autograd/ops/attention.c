/* Multi-head attention over fused qkv: per sample and head softmax(q k^T / sqrt(d)) v. CPU.
 *
 * Samples lie in (B,T,3D), or packed in (rows,3D): sample b's tokens are the rows from offsets[b] to before
 * offsets[b + 1]. The rows behind the last sample get zeros and have no gradient. The log-sum-exp is
 * (B,heads,T), packed (heads,rows). Dropout draws by (sample, head, query, key) of the padded layout, so that
 * packing changes no draw.
 *
 * A head's (T,T) scores live in one thread's scratch and are made again in backward from the saved
 * log-sum-exp; keys at or beyond a sample's length are never touched. f32 heads are multiplied where they
 * lie in qkv; bf16 heads are copied to f32 first. */
#include "autograd/cuda/attention_graph.h"
#include "autograd/cuda/scratch.h"
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"
#include "autograd/ops/activation_math.h"
#include "autograd/ops/dropout_rows.h"
#include "autograd/ops/packed.h"
#include "autograd/ops/rows.h"

#include <omp.h>

enum { QKV, LENGTHS, OFFSETS };
enum { Q, K, V, O, HEAD_PARTS };
/* Rows of scores are padded to whole vectors, so that passes over them have no tails. */
enum { ROW_UNIT = 16 };

typedef struct sizes {
    int64_t batch, tokens, heads, width; /* tokens: the most of a sample; width: of a head */
    int64_t rows;                        /* of qkv */
    int64_t stride;                      /* between tokens of qkv */
    float scale;                         /* 1 / sqrt(width) */
} sizes;

static const tw_attention_attr *attr_of(const tw_call *call) {
    return call->attr;
}

static bool is_packed(const tw_call *call) {
    return tw_present(&call->input[OFFSETS]);
}

static sizes sizes_of(const tw_call *call) {
    const tw_tensor *x = &call->input[QKV];
    sizes s = {.batch = x->shape[0], .tokens = x->shape[1], .heads = attr_of(call)->heads};
    if (is_packed(call)) s.batch = call->input[OFFSETS].shape[0] - 1, s.tokens = attr_of(call)->tokens;
    s.rows = tw_tensor_rows(x);
    s.width = tw_tensor_cols(x) / 3 / s.heads;
    (void)tw_tensor_is_rows(x, &s.stride);
    s.scale = s.width > 0 ? 1.0f / sqrtf((float)s.width) : 1.0f;
    return s;
}

static int64_t padded(int64_t n) {
    return (n + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
}

/* Floats of one thread's scratch, rounded to cache lines: `squares` padded (T,T) matrices and the f32 copies
 * of a bf16 head's q, k, v and o. */
static int64_t thread_floats(const sizes *s, int squares, tw_dtype dtype) {
    int64_t n = squares * s->tokens * padded(s->tokens);
    if (dtype == TW_BF16) n += HEAD_PARTS * s->tokens * s->width;
    return (n + 15) / 16 * 16;
}

static tw_status check_layout(const tw_call *call) {
    const tw_tensor *x = &call->input[QKV];
    bool packed = is_packed(call);
    int64_t heads = attr_of(call)->heads;
    char text[64];
    if (heads < 1 || x->ndim != (packed ? 2 : 3) || tw_tensor_cols(x) % (3 * heads) != 0)
        return FAIL(TW_ERR_SHAPE, "attention: qkv %s is not (%s,3D) with D divisible by %lld heads",
                    tw_tensor_shape_text(x, text), packed ? "rows" : "B,T", (long long)heads);
    if (!packed) {
        if (!tw_present(&call->input[LENGTHS])) return TW_OK;
        return tw_call_check(call, LENGTHS, "lengths", TW_I32, 1, x->shape);
    }
    if (tw_present(&call->input[LENGTHS]))
        return FAIL(TW_ERR_ARGUMENT,
                    "attention: lengths are for samples with padding, offsets for packed ones");
    return tw_offsets_check(call, OFFSETS, attr_of(call)->tokens);
}

tw_status tw_attention_shape(tw_call *call) {
    const tw_tensor *x = &call->input[QKV];
    float p = attr_of(call)->dropout;
    TRY(tw_call_check_rows(call, QKV, "qkv"));
    TRY(check_layout(call));
    if (!(p >= 0 && p < 1)) return FAIL(TW_ERR_ARGUMENT, "attention: dropout %g is not in [0, 1)", (double)p);
    sizes s = sizes_of(call);
    int64_t shape[3] = {x->shape[0], x->shape[1], 0};
    shape[x->ndim - 1] = s.heads * s.width;
    tw_call_output(call, 0, x->dtype, x->ndim, shape);
    call->saved_inputs = 1u << QKV;
    for (int i = LENGTHS; i <= OFFSETS; i++)
        if (tw_present(&call->input[i])) call->saved_inputs |= 1u << i;
    if (call->needs_grad) { /* log-sum-exp */
        if (is_packed(call))
            tw_call_output(call, 1, TW_F32, 2, (int64_t[]){s.heads, s.rows});
        else
            tw_call_output(call, 1, TW_F32, 3, (int64_t[]){s.batch, s.heads, s.tokens});
        call->saved_outputs = 1u << 1;
    }
    size_t threads = (size_t)omp_get_max_threads();
    call->forward_scratch = threads * (size_t)thread_floats(&s, 1, x->dtype) * sizeof(float);
    call->backward_scratch = threads * (size_t)thread_floats(&s, 2, x->dtype) * sizeof(float);
    tw_call_scratch_cuda(call, 0, s.rows * s.heads * (int64_t)sizeof(float));
#ifdef TW_WITH_CUDA
    if (call->device && !tw_on_cpu(call->device)) TRY(tw_attention_graph_shape(call));
#endif
    return TW_OK;
}

/* One sample's head, as a thread works on it. */
typedef struct head {
    const tw_call *call;
    const sizes *s;
    int64_t b, h, first, queries, keys; /* first: row of the sample's first token */
    const float *part[3];               /* q, k, v: (T, width) */
    int64_t stride;
    int64_t pitch;    /* keys, padded */
    float *square[2]; /* (T, pitch) */
    float *copy[HEAD_PARTS];
} head;

/* Where the sample's tokens are. */
static void find_tokens(head *t) {
    const tw_call *call = t->call;
    int64_t tokens = t->s->tokens;
    t->first = t->b * tokens, t->queries = t->keys = tokens;
    if (is_packed(call)) {
        const int32_t *offsets = call->input[OFFSETS].data;
        t->first = offsets[t->b], t->queries = t->keys = offsets[t->b + 1] - t->first;
    } else if (tw_present(&call->input[LENGTHS])) {
        int64_t n = ((const int32_t *)call->input[LENGTHS].data)[t->b];
        t->keys = n < 0 ? 0 : n > tokens ? tokens : n;
    }
}

static float *lse_of(const head *t) {
    const sizes *s = t->s;
    int64_t at = is_packed(t->call) ? t->h * s->rows + t->first : (t->b * s->heads + t->h) * s->tokens;
    return (float *)t->call->output[1].data + at;
}

/* Where part p of this head starts in a token's 3D elements of sample b. */
static int64_t part_offset(const head *t, int p, int64_t stride) {
    const sizes *s = t->s;
    return t->first * stride + (p * s->heads + t->h) * s->width;
}

static void load_part(head *t, int p) {
    const tw_tensor *x = &t->call->input[QKV];
    const sizes *s = t->s;
    int64_t offset = part_offset(t, p, s->stride);
    t->stride = s->stride;
    if (x->dtype == TW_F32) {
        t->part[p] = (const float *)x->data + offset;
        return;
    }
    t->stride = s->width;
    for (int64_t i = 0; i < t->queries; i++)
        (void)tw_floats(x->data, x->dtype, offset + i * s->stride, s->width, t->copy[p] + i * s->width);
    t->part[p] = t->copy[p];
}

static head head_of(const tw_call *call, const sizes *s, int64_t task, int squares) {
    head t = {.call = call, .s = s, .b = task / s->heads, .h = task % s->heads};
    int64_t floats = thread_floats(s, squares, call->input[QKV].dtype);
    find_tokens(&t);
    t.pitch = padded(t.keys);
    float *scratch = (float *)call->scratch + omp_get_thread_num() * floats;
    for (int i = 0; i < squares; i++, scratch += s->tokens * padded(s->tokens)) t.square[i] = scratch;
    for (int i = 0; i < HEAD_PARTS; i++) t.copy[i] = scratch + i * s->tokens * s->width;
    for (int p = Q; p <= V; p++) load_part(&t, p);
    return t;
}

static tw_status scores(const head *t) {
    const sizes *s = t->s;
    return tw_gemm_f32(t->queries, t->keys, s->width, s->scale, t->part[Q], t->stride, false, t->part[K],
                       t->stride, true, 0, t->square[0], t->pitch);
}

static void drop_row(const head *t, int64_t row, float *values) {
    const tw_attention_attr *attr = attr_of(t->call);
    tw_draw draw = tw_dropout_draw(t->call->step, attr->layer, t->b);
    int64_t first = (t->h * t->s->tokens + row) * t->s->tokens;
    tw_dropout_run(&draw, attr->dropout, first, t->keys, values, values);
}

/* Scores of one query to probabilities (with dropout); returns their log-sum-exp. */
static float softmax_row(const head *t, int64_t row) {
    float *x = t->square[0] + row * t->pitch, most = x[0], sum = 0;
    int64_t n = t->pitch;
    for (int64_t j = t->keys; j < n; j++) x[j] = -INFINITY; /* no share in maximum and sum */
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) most = x[j] > most ? x[j] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        float e = tw_expf(x[j] - most);
        x[j] = e;
        sum += e;
    }
    float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) x[j] *= inverse;
    if (attr_of(t->call)->dropout > 0) drop_row(t, row, x);
    return most + logf(sum);
}

static tw_status forward_head(const head *t) {
    const sizes *s = t->s;
    const tw_tensor *o = &t->call->output[0];
    int64_t d = s->heads * s->width, offset = t->first * d + t->h * s->width;
    TRY(scores(t));
    for (int64_t i = 0; i < t->queries; i++) {
        float lse = t->keys > 0 ? softmax_row(t, i) : 0;
        if (t->call->n_outputs > 1) lse_of(t)[i] = lse;
    }
    bool direct = o->dtype == TW_F32;
    float *to = direct ? (float *)o->data + offset : t->copy[O];
    TRY(tw_gemm_f32(t->queries, s->width, t->keys, 1, t->square[0], t->pitch, false, t->part[V], t->stride,
                    false, 0, to, direct ? d : s->width));
    for (int64_t i = 0; !direct && i < t->queries; i++)
        tw_deliver(o->data, o->dtype, offset + i * d, s->width, to + i * s->width, false);
    return TW_OK;
}

static void clear_rest_of_statistics(const tw_call *call) {
    if (!is_packed(call) || call->n_outputs < 2) return;
    sizes s = sizes_of(call);
    int64_t end = ((const int32_t *)call->input[OFFSETS].data)[s.batch];
    for (int64_t h = 0; h < s.heads; h++)
        memset((float *)call->output[1].data + h * s.rows + end, 0, (size_t)(s.rows - end) * sizeof(float));
}

tw_status tw_attention_forward_cpu(const tw_call *call) {
    sizes s = sizes_of(call);
    tw_status status = TW_OK;
    if (is_packed(call)) TRY(tw_offsets_check_values(call, OFFSETS, s.rows, s.tokens));
    if (is_packed(call)) tw_rows_clear_rest(call, OFFSETS, &call->output[0]);
    clear_rest_of_statistics(call);
#pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < s.batch * s.heads; task++) {
        head t = head_of(call, &s, task, 1);
        tw_status mine = forward_head(&t);
        if (mine != TW_OK) {
#pragma omp atomic write
            status = mine;
        }
    }
    return status == TW_OK ? TW_OK : FAIL(status, "a head's matrix product failed");
}

/* ---- backward ---- */

/* Row i: square[0] has scores, square[1] the gradient of the (dropped) probabilities. Afterwards square[0]
 * has the dropped probabilities and square[1] the gradient of the products q k^T. */
static void backward_row(const head *t, int64_t row, float lse) {
    float *p = t->square[0] + row * t->pitch, *g = t->square[1] + row * t->pitch;
    float dot = 0, scale = t->s->scale;
    int64_t n = t->pitch;
    for (int64_t j = t->keys; j < n; j++) p[j] = g[j] = 0;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) p[j] = tw_expf(p[j] - lse);
    if (attr_of(t->call)->dropout > 0) drop_row(t, row, g);
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < n; j++) dot += p[j] * g[j];
#pragma omp simd
    for (int64_t j = 0; j < n; j++) g[j] = p[j] * (g[j] - dot) * scale;
    if (attr_of(t->call)->dropout > 0) drop_row(t, row, p);
}

/* Writes or adds part p's gradient: op(square) times other; tokens beyond the product's rows get 0. A bf16
 * gradient is made in `place` (T, width) first. */
static tw_status deliver_part(const head *t, int p, const float *square, bool transposed, const float *other,
                              int64_t other_stride, float *place) {
    const sizes *s = t->s;
    const tw_tensor *g = &t->call->input_grad[QKV];
    int64_t stride = 3 * s->heads * s->width, offset = part_offset(t, p, stride);
    int64_t rows = transposed ? t->keys : t->queries, inner = transposed ? t->queries : t->keys;
    bool add = t->call->input_mode[QKV] == TW_ADD, direct = g->dtype == TW_F32;
    float *to = direct ? (float *)g->data + offset : place;
    TRY(tw_gemm_f32(rows, s->width, inner, 1, square, t->pitch, transposed, other, other_stride, false,
                    direct && add ? 1.0f : 0.0f, to, direct ? stride : s->width));
    for (int64_t i = 0; !direct && i < rows; i++)
        tw_deliver(g->data, g->dtype, offset + i * stride, s->width, to + i * s->width, add);
    for (int64_t i = rows; !add && i < t->queries; i++)
        memset(tw_element_to(g->data, g->dtype, offset + i * stride), 0,
               (size_t)s->width * tw_dtype_size(g->dtype));
    return TW_OK;
}

static tw_status backward_head(const head *t) {
    const sizes *s = t->s;
    const tw_tensor *dy = &t->call->output_grad[0];
    const float *lse = lse_of(t);
    int64_t d = s->heads * s->width, offset = t->first * d + t->h * s->width, dy_stride = d;
    const float *g = (const float *)dy->data + offset;
    if (dy->dtype == TW_BF16) {
        for (int64_t i = 0; i < t->queries; i++)
            (void)tw_floats(dy->data, dy->dtype, offset + i * d, s->width, t->copy[O] + i * s->width);
        g = t->copy[O], dy_stride = s->width;
    }
    TRY(scores(t));
    TRY(tw_gemm_f32(t->queries, t->keys, s->width, 1, g, dy_stride, false, t->part[V], t->stride, true, 0,
                    t->square[1], t->pitch));
    for (int64_t i = 0; i < t->queries; i++) backward_row(t, i, lse[i]);
    /* v's and then k's f32 copies are done with when they are overwritten. */
    TRY(deliver_part(t, V, t->square[0], true, g, dy_stride, t->copy[V]));
    TRY(deliver_part(t, Q, t->square[1], false, t->part[K], t->stride, t->copy[V]));
    return deliver_part(t, K, t->square[1], true, t->part[Q], t->stride, t->copy[K]);
}

tw_status tw_attention_backward_cpu(const tw_call *call) {
    if (!call->input_grad[QKV].data) return TW_OK;
    sizes s = sizes_of(call);
    tw_status status = TW_OK;
    if (is_packed(call) && call->input_mode[QKV] == TW_WRITE)
        tw_rows_clear_rest(call, OFFSETS, &call->input_grad[QKV]);
#pragma omp parallel for schedule(static)
    for (int64_t task = 0; task < s.batch * s.heads; task++) {
        head t = head_of(call, &s, task, 2);
        tw_status mine = backward_head(&t);
        if (mine != TW_OK) {
#pragma omp atomic write
            status = mine;
        }
    }
    return status == TW_OK ? TW_OK : FAIL(status, "a head's matrix product failed");
}
