#include "autograd/conv_dnnl.h"
#include "autograd/cuda/conv_graph.h"
#include "autograd/cuda/scratch.h"
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

/* Cross-correlation with zero padding, as PyTorch's conv2d without bias. inputs: x (B,H,W,C), w (O,C,K,K) of
 * the same type; output: y (B,H',W',O). All contiguous. A 1x1 convolution of stride 1 is a plain product; the
 * rest is oneDNN's. bf16 where the processor has none goes through f32 in scratch. */

enum { X, W };

static tw_conv conv_of(const tw_call *c) {
    const tw_conv2d_attr *attr = c->attr;
    const tw_tensor *x = &c->input[X], *w = &c->input[W];
    return (tw_conv){x->shape[0], x->shape[1],  x->shape[2],   x->shape[3], w->shape[0],
                     w->shape[2], attr->stride, attr->padding, x->dtype};
}

static bool is_product(const tw_conv *v) {
    return v->kernel == 1 && v->stride == 1 && v->padding == 0;
}

/* oneDNN computes in f32 what is stored in bf16. */
static bool is_widened(const tw_conv *v) {
    return v->dtype == TW_BF16 && !tw_gemm_has_bf16();
}

/* Elements of x, y and w. */
typedef struct counts {
    int64_t x, y, w;
} counts;

static counts counts_of(const tw_conv *v) {
    return (counts){v->batch * v->height * v->width * v->in,
                    v->batch * tw_conv_side(v, v->height) * tw_conv_side(v, v->width) * v->out,
                    v->out * v->in * v->kernel * v->kernel};
}

static tw_status check(const tw_call *c) {
    const tw_conv2d_attr *attr = c->attr;
    const tw_tensor *x = &c->input[X], *w = &c->input[W];
    char a[64], b[64];
    TRY(tw_call_check_rows(c, X, "x"));
    TRY(tw_call_check_rows(c, W, "the weight"));
    if (x->ndim != 4 || w->ndim != 4 || w->shape[1] != x->shape[3] || w->shape[2] != w->shape[3] ||
        w->shape[2] < 1 || !tw_tensor_is_contiguous(x) || !tw_tensor_is_contiguous(w))
        return FAIL(TW_ERR_SHAPE, "conv2d: x %s and the weight %s are not contiguous (B,H,W,C) and (O,C,K,K)",
                    tw_tensor_shape_text(x, a), tw_tensor_shape_text(w, b));
    if (w->dtype != x->dtype)
        return FAIL(TW_ERR_SHAPE, "conv2d: x is %s, the weight is %s", tw_dtype_name(x->dtype),
                    tw_dtype_name(w->dtype));
    if (attr->stride < 1 || attr->padding < 0 || attr->padding >= w->shape[2])
        return FAIL(TW_ERR_ARGUMENT, "conv2d: stride %d, padding %d with a kernel of %lld", attr->stride,
                    attr->padding, (long long)w->shape[2]);
    if (x->shape[1] + 2 * attr->padding < w->shape[2] || x->shape[2] + 2 * attr->padding < w->shape[2])
        return FAIL(TW_ERR_SHAPE, "conv2d: x %s is smaller than the weight %s", tw_tensor_shape_text(x, a),
                    tw_tensor_shape_text(w, b));
    return TW_OK;
}

/* Where the widened operands begin in backward's scratch: behind dx, for which it may not be possible to go
 * straight to its place. */
static int64_t behind_dx(const counts *n) {
    return (n->x + 15) / 16 * 16;
}

/* Scratch. forward: widened x, w, y; backward: dx, widened x, w, dy. */
tw_status tw_conv2d_shape(tw_call *c) {
    TRY(check(c));
    tw_conv v = conv_of(c);
    int64_t y[4] = {v.batch, tw_conv_side(&v, v.height), tw_conv_side(&v, v.width), v.out};
    tw_call_output(c, 0, v.dtype, 4, y);
    c->saved_inputs = 1u << X | 1u << W;
    int64_t weights = v.in * v.kernel * v.kernel, pixels = y[0] * y[1] * y[2];
    int64_t partial = tw_conv_parts(v.out, weights, pixels) * v.out * weights * (int64_t)sizeof(float);
    if (!is_product(&v)) {
        counts n = counts_of(&v);
        size_t widened = is_widened(&v) ? (size_t)(n.x + n.y + n.w + 48) * sizeof(float) : 0;
        c->forward_scratch = widened;
        c->backward_scratch = widened + (size_t)behind_dx(&n) * sizeof(float);
    }
    tw_call_scratch_cuda(c, 0, partial);
#ifdef TW_WITH_CUDA
    if (c->device && !tw_on_cpu(c->device)) TRY(tw_conv_graph_shape(c));
#endif
    return TW_OK;
}

/* n elements to f32 at *at, which moves behind them; as they are where nothing is widened. */
static const void *widen(const void *from, int64_t n, bool widened, float **at) {
    if (!widened) return from;
    float *to = *at;
    *at += (n + 15) / 16 * 16;
    const uint16_t *half = from;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) to[i] = tw_from_bf16(half[i]);
    return to;
}

/* n f32 results to a tensor of either type, written or added. */
static void deliver(const float *from, int64_t n, const tw_tensor *to, tw_accumulate mode) {
    enum { BLOCK = 1 << 12 };
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t shape[2] = {1, n - at < BLOCK ? n - at : BLOCK};
        tw_tensor row =
            tw_tensor_of((char *)to->data + (size_t)at * tw_dtype_size(to->dtype), to->dtype, 2, shape);
        tw_row_deliver(&row, 0, from + at, mode);
    }
}

static void zero(const tw_tensor *t, tw_accumulate mode) {
    if (t->data && mode == TW_WRITE) memset(t->data, 0, tw_tensor_bytes(t));
}

tw_status tw_conv2d_forward_cpu(const tw_call *c) {
    const tw_tensor *y = &c->output[0];
    tw_conv v = conv_of(c);
    counts n = counts_of(&v);
    if (n.y == 0) return TW_OK;
    const void *x = c->input[X].data, *w = c->input[W].data;
    if (is_product(&v)) {
        tw_matrix a = {x, v.dtype, v.in, false}, b = {w, v.dtype, v.in, true};
        return tw_gemm(n.y / v.out, v.out, v.in, a, b, false, y->data, v.dtype, v.out);
    }
    if (n.w == 0) {
        zero(y, TW_WRITE);
        return TW_OK;
    }
    float *at = c->scratch;
    bool widened = is_widened(&v);
    x = widen(x, n.x, widened, &at);
    w = widen(w, n.w, widened, &at);
    if (!widened) return tw_conv_forward(&v, x, w, y->data);
    v.dtype = TW_F32;
    TRY(tw_conv_forward(&v, x, w, at));
    deliver(at, n.y, y, TW_WRITE);
    return TW_OK;
}

static tw_status backward_product(const tw_call *c, const tw_conv *v, int64_t rows) {
    const tw_tensor *dx = &c->input_grad[X], *dw = &c->input_grad[W];
    tw_matrix dy = {c->output_grad[0].data, v->dtype, v->out, false},
              w = {c->input[W].data, v->dtype, v->in, false}, x = {c->input[X].data, v->dtype, v->in, false};
    if (dx->data)
        TRY(tw_gemm(rows, v->in, v->out, dy, w, c->input_mode[X] == TW_ADD, dx->data, dx->dtype, v->in));
    if (!dw->data) return TW_OK;
    dy.transposed = true;
    return tw_gemm(v->out, v->in, rows, dy, x, c->input_mode[W] == TW_ADD, dw->data, dw->dtype, v->in);
}

tw_status tw_conv2d_backward_cpu(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[X], *dw = &c->input_grad[W];
    tw_conv v = conv_of(c);
    counts n = counts_of(&v);
    if (is_product(&v)) return backward_product(c, &v, v.batch * v.height * v.width);
    if (n.y == 0 || n.w == 0) {
        zero(dx, c->input_mode[X]);
        zero(dw, c->input_mode[W]);
        return TW_OK;
    }
    float *at = (float *)c->scratch + behind_dx(&n);
    bool widened = is_widened(&v), add = c->input_mode[X] == TW_ADD;
    const void *dy = widen(c->output_grad[0].data, n.y, widened, &at);
    if (widened) v.dtype = TW_F32;
    if (dx->data) {
        float *behind = at;
        const void *w = widen(c->input[W].data, n.w, widened, &behind);
        bool apart = add || widened; /* f32 until it is added or stored: rounded once */
        void *to = apart ? c->scratch : dx->data;
        TRY(tw_conv_backward_x(&v, dy, w, apart ? TW_F32 : dx->dtype, to));
        if (apart) deliver(to, n.x, dx, c->input_mode[X]);
    }
    if (!dw->data) return TW_OK;
    const void *x = widen(c->input[X].data, n.x, widened, &at);
    return tw_conv_backward_w(&v, x, dy, c->input_mode[W] == TW_ADD, dw->data);
}
