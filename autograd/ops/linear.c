/* y = act(x W^T + b) + residual. CPU. */
#include "autograd/cuda/linear_graph.h"
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"
#include "autograd/ops/activation_math.h"
#include "autograd/ops/linear_scratch.h"
#include "autograd/ops/rows.h"

#include <omp.h>

enum { X, W, BIAS, RESIDUAL };

/* Elements of y made by one product before bias and activation pass over them: few enough to be still in the
 * last-level cache then, enough rows for the product's own rearranging of the weight not to count (with a
 * quarter of this, ViT-B-16's forward takes 5 to 15 % longer). */
enum { TILE = 1 << 22, SUM_ROWS = 32 };

static int64_t tile_rows(int64_t cols) {
    int64_t rows = TILE / (cols > 0 ? cols : 1);
    return rows < 64 ? 64 : rows;
}

static const tw_linear_attr *attr_of(const tw_call *call) {
    return call->attr;
}

static tw_dtype result_type(const tw_call *call) {
    return attr_of(call)->output_f32 ? TW_F32 : call->input[X].dtype;
}

static tw_status check_inputs(const tw_call *call, int64_t k, int64_t m) {
    const tw_tensor *x = &call->input[X], *residual = &call->input[RESIDUAL];
    int64_t shape[2] = {attr_of(call)->in_out ? k : m, attr_of(call)->in_out ? m : k};
    TRY(tw_call_check(call, W, "the weight", x->dtype, 2, shape));
    if (tw_present(&call->input[BIAS])) TRY(tw_call_check_f32(call, BIAS, "the bias", 1, &m));
    if (!tw_present(residual)) return TW_OK;
    TRY(tw_call_check_rows(call, RESIDUAL, "the residual"));
    char got[64], wanted[64];
    if (!tw_tensor_same_shape(residual, &call->output[0]) || residual->dtype != result_type(call))
        return FAIL(TW_ERR_SHAPE, "linear: the residual is %s %s, y is %s %s", tw_dtype_name(residual->dtype),
                    tw_tensor_shape_text(residual, got), tw_dtype_name(result_type(call)),
                    tw_tensor_shape_text(&call->output[0], wanted));
    return TW_OK;
}

static void scratch_cpu(tw_call *call, int64_t rows, int64_t m) {
    int64_t tile = tile_rows(m);
    /* bf16 results are finished from a tile of f32 sums. */
    if (result_type(call) == TW_BF16)
        call->forward_scratch = (size_t)((rows < tile ? rows : tile) * m) * sizeof(float);
    size_t sums = (size_t)omp_get_max_threads() * 2 * (size_t)(m + 16) * sizeof(float);
    call->backward_scratch = (sums + 63) / 64 * 64;
}

static void scratch_cuda(tw_call *call, int64_t m) {
    /* The bias in the type that the product adds. */
    if (result_type(call) == TW_BF16 && tw_present(&call->input[BIAS]))
        call->forward_scratch = (size_t)m * sizeof(uint16_t);
    call->backward_scratch = tw_linear_sums_bytes(m);
#ifdef TW_WITH_CUDA
    tw_linear_graph_shape(call);
#endif
}

tw_status tw_linear_shape(tw_call *call) {
    const tw_linear_attr *attr = attr_of(call);
    const tw_tensor *x = &call->input[X], *w = &call->input[W];
    TRY(tw_call_check_rows(call, X, "x"));
    if (!tw_present(w) || w->ndim != 2)
        return FAIL(TW_ERR_SHAPE, "linear: the weight is %s", tw_present(w) ? "not a matrix" : "missing");
    int64_t m = w->shape[attr->in_out ? 1 : 0];
    int64_t shape[TW_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = m;
    tw_call_output(call, 0, result_type(call), x->ndim, shape);
    TRY(check_inputs(call, tw_tensor_cols(x), m));
    bool keeps = call->needs_grad && attr->activation != TW_IDENTITY;
    if (keeps) {
        tw_call_output(call, 1, result_type(call), x->ndim, shape);
        call->saved_outputs = 1u << 1;
        call->restorable = !tw_present(&call->input[RESIDUAL]);
    }
    call->saved_inputs = 1u << X | 1u << W;
    size_t rows = (size_t)tw_tensor_rows(x), converted = 0;
    /* Backward turns an f32 gradient into bf16 once. */
    if (result_type(call) == TW_F32 && x->dtype == TW_BF16) converted = rows * (size_t)m * sizeof(uint16_t);
    if (!call->device || tw_on_cpu(call->device))
        scratch_cpu(call, (int64_t)rows, m);
    else
        scratch_cuda(call, m);
    call->backward_scratch += converted;
    return TW_OK;
}

static void activate(tw_activation activation, const float *z, float *y, int64_t n) {
    if (activation == TW_QUICK_GELU) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = tw_quick_gelu(z[i]);
    } else if (activation == TW_ERF_GELU) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = tw_erf_gelu(z[i]);
    } else if (y != z) {
        memcpy(y, z, (size_t)n * sizeof(float));
    }
}

/* One row: z is the product, in its final place (f32) or in scratch (bf16). */
static void finish_row(const tw_call *call, int64_t row, int64_t m, float *z) {
    const tw_tensor *bias = &call->input[BIAS], *residual = &call->input[RESIDUAL], *y = &call->output[0];
    int64_t residual_stride = m;
    if (tw_present(residual)) (void)tw_tensor_is_rows(residual, &residual_stride);
    float finished[TW_ROW_BLOCK], buffer[TW_ROW_BLOCK];
    for (int64_t c = 0; c < m; c += TW_ROW_BLOCK) {
        int64_t n = m - c < TW_ROW_BLOCK ? m - c : TW_ROW_BLOCK;
        float *zc = z + c;
        if (tw_present(bias)) {
            const float *b = (const float *)bias->data + c;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) zc[i] += b[i];
        }
        if (call->n_outputs > 1) tw_deliver(call->output[1].data, y->dtype, row * m + c, n, zc, false);
        float *out = y->dtype == TW_F32 ? (float *)y->data + row * m + c : finished;
        activate(attr_of(call)->activation, zc, out, n);
        if (tw_present(residual)) {
            const float *r = tw_floats(residual->data, residual->dtype, row * residual_stride + c, n, buffer);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) out[i] += r[i];
        }
        tw_deliver(y->data, y->dtype, row * m + c, n, out, false);
    }
}

/* y again, from what the activation was given. */
static tw_status restore(const tw_call *call) {
    const tw_tensor *z = &call->output[1], *y = &call->output[0];
    int64_t count = tw_tensor_count(y);
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < count; at += TW_ROW_BLOCK) {
        int64_t n = count - at < TW_ROW_BLOCK ? count - at : TW_ROW_BLOCK;
        float buffer[TW_ROW_BLOCK], made[TW_ROW_BLOCK];
        activate(attr_of(call)->activation, tw_floats(z->data, z->dtype, at, n, buffer), made, n);
        tw_deliver(y->data, y->dtype, at, n, made, false);
    }
    return TW_OK;
}

tw_status tw_linear_forward_cpu(const tw_call *call) {
    if (call->restore) return restore(call);
    const tw_tensor *x = &call->input[X], *w = &call->input[W], *y = &call->output[0];
    int64_t rows = tw_tensor_rows(x), k = tw_tensor_cols(x), m = tw_tensor_cols(y), stride;
    (void)tw_tensor_is_rows(x, &stride);
    bool finish = tw_present(&call->input[BIAS]) || tw_present(&call->input[RESIDUAL]) ||
                  attr_of(call)->activation != TW_IDENTITY || y->dtype == TW_BF16;
    int64_t tile = finish ? tile_rows(m) : rows;
    const tw_matrix b = {w->data, w->dtype, attr_of(call)->in_out ? m : k, !attr_of(call)->in_out};
    for (int64_t first = 0; first < rows; first += tile) {
        int64_t n = rows - first < tile ? rows - first : tile;
        float *z = call->scratch;
        if (y->dtype == TW_F32) z = (float *)call->output[call->n_outputs - 1].data + first * m;
        const tw_matrix a = {tw_element(x->data, x->dtype, first * stride), x->dtype, stride, false};
        TRY(tw_gemm(n, m, k, a, b, false, z, TW_F32, m));
        if (!finish) continue;
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < n; r++) finish_row(call, first + r, m, z + r * m);
    }
    return TW_OK;
}

/* ---- backward ---- */

static void slope_times(tw_activation activation, const float *z, const float *dy, float *dz, int64_t n) {
    if (activation == TW_QUICK_GELU) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) dz[i] = dy[i] * tw_quick_gelu_slope(z[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) dz[i] = dy[i] * tw_erf_gelu_slope(z[i]);
    }
}

/* One row: the residual's gradient, dz over dy, and its addition to sum (m floats or NULL). */
static void backward_row(const tw_call *call, int64_t row, int64_t m, float *sum, uint16_t *dz16) {
    const tw_tensor *dy = &call->output_grad[0], *dr = &call->input_grad[RESIDUAL];
    tw_activation activation = attr_of(call)->activation;
    float buffer[TW_ROW_BLOCK], saved[TW_ROW_BLOCK], product[TW_ROW_BLOCK];
    for (int64_t c = 0; c < m; c += TW_ROW_BLOCK) {
        int64_t n = m - c < TW_ROW_BLOCK ? m - c : TW_ROW_BLOCK, start = row * m + c;
        const float *g = tw_floats(dy->data, dy->dtype, start, n, buffer);
        if (dr->data) tw_deliver(dr->data, dr->dtype, start, n, g, call->input_mode[RESIDUAL] == TW_ADD);
        if (activation != TW_IDENTITY) {
            const tw_tensor *z = &call->output[1];
            float *dz = dy->dtype == TW_F32 ? (float *)dy->data + start : product;
            slope_times(activation, tw_floats(z->data, z->dtype, start, n, saved), g, dz, n);
            tw_deliver(dy->data, dy->dtype, start, n, dz, false);
            g = dz;
        }
        if (dz16) tw_deliver(dz16, TW_BF16, start, n, g, false);
        if (sum) {
            float *s = sum + c;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) s[i] += g[i];
        }
    }
}

static void add_row(float *total, float *part, int64_t m) {
#pragma omp simd
    for (int64_t i = 0; i < m; i++) total[i] += part[i], part[i] = 0;
}

/* All rows; each thread sums its share in blocks of SUM_ROWS, then the shares are added in thread order. */
static void backward_rows(const tw_call *call, int64_t rows, int64_t m, uint16_t *dz16) {
    const tw_tensor *db = &call->input_grad[BIAS];
    float *sums = call->scratch;
    int64_t width = m + 16; /* threads' sums do not share a cache line */
    int threads = 1;
#pragma omp parallel
    {
        int me = omp_get_thread_num(), team = omp_get_num_threads();
        float *total = sums + 2 * me * width, *part = total + width;
        if (db->data) memset(total, 0, (size_t)(2 * width) * sizeof(float));
        if (me == 0) threads = team;
        int64_t first = rows * me / team, last = rows * (me + 1) / team;
        for (int64_t r = first; r < last; r++) {
            backward_row(call, r, m, db->data ? part : NULL, dz16);
            if (db->data && ((r - first) % SUM_ROWS == SUM_ROWS - 1 || r + 1 == last))
                add_row(total, part, m);
        }
    }
    if (!db->data) return;
    for (int t = 1; t < threads; t++) add_row(sums, sums + 2 * t * width, m);
    tw_deliver(db->data, db->dtype, 0, m, sums, call->input_mode[BIAS] == TW_ADD);
}

tw_status tw_linear_backward_cpu(const tw_call *call) {
    const tw_linear_attr *attr = attr_of(call);
    const tw_tensor *x = &call->input[X], *w = &call->input[W], *dy = &call->output_grad[0];
    const tw_tensor *dx = &call->input_grad[X], *dw = &call->input_grad[W];
    int64_t rows = tw_tensor_rows(x), k = tw_tensor_cols(x), m = tw_tensor_cols(dy), stride;
    (void)tw_tensor_is_rows(x, &stride);
    uint16_t *dz16 = NULL;
    if (dy->dtype == TW_F32 && x->dtype == TW_BF16)
        dz16 = (uint16_t *)((char *)call->scratch + call->backward_scratch) - rows * m;
    if (attr->activation != TW_IDENTITY || call->input_grad[BIAS].data || call->input_grad[RESIDUAL].data ||
        dz16)
        backward_rows(call, rows, m, dz16);
    tw_matrix dz = {dz16 ? dz16 : dy->data, x->dtype, m, false};
    if (dx->data) {
        tw_matrix b = {w->data, w->dtype, attr->in_out ? m : k, attr->in_out};
        TRY(tw_gemm(rows, k, m, dz, b, call->input_mode[X] == TW_ADD, dx->data, dx->dtype, k));
    }
    if (!dw->data) return TW_OK;
    bool add = call->input_mode[W] == TW_ADD;
    tw_matrix xt = {x->data, x->dtype, stride, attr->in_out};
    dz.transposed = !attr->in_out;
    if (attr->in_out) return tw_gemm(k, m, rows, xt, dz, add, dw->data, dw->dtype, m);
    return tw_gemm(m, k, rows, dz, xt, add, dw->data, dw->dtype, k);
}
