/* y = act(x W^T + b) + residual: products with bias, bias gradient and residual in the same pass where
 * cuBLASLt can, and own kernels for the activations, which it has only in the tanh form; or, forward, one
 * graph of cuDNN's with the activation in it, where that takes less time. */
#include "autograd/cuda/choice.h"
#include "autograd/cuda/dnn_linear.h"
#include "autograd/cuda/linear_graph.h"
#include "autograd/cuda/product.h"
#include "autograd/cuda/rows.h"
#include "autograd/ops/linear_scratch.h"

namespace {

enum { X, W, BIAS, RESIDUAL, SUM_WARPS = 8 };

const tw_linear_attr *attr_of(const tw_call *call) {
    return (const tw_linear_attr *)call->attr;
}

tw_view no_view() {
    tw_view v = {};
    return v;
}

/* Of one row. */
__global__ void to_bf16_kernel(tw_view from, tw_view to, int64_t n) {
    int64_t first = tw_global_thread() * TW_PACK;
    float v[TW_PACK];
    if (first >= n) return;
    tw_load_columns(from, 0, first, n, v);
    tw_store_columns(to, 0, first, n, v);
}

/* ---- forward ---- */

struct finish_args {
    int64_t rows, cols;
    tw_view bias;              /* still to be added, or absent */
    tw_view z, keep, residual; /* keep: where z + bias goes; keep and residual may be absent */
    tw_view y;                 /* may be z */
    tw_activation activation;
};

TW_DEVICE float activated(tw_activation activation, float z) {
    if (activation == TW_QUICK_GELU) return tw_quick_gelu(z);
    return activation == TW_ERF_GELU ? tw_erf_gelu(z) : z;
}

/* A thread 8 columns of a row. */
__global__ void finish_kernel(finish_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.cols, &row, &col)) return;
    float v[TW_PACK], r[TW_PACK];
    tw_load_columns(a.z, row, col, a.cols, v);
    if (a.bias.data) {
        tw_load_columns(a.bias, 0, col, a.cols, r);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[e] += r[e];
    }
    if (a.keep.data) tw_store_columns(a.keep, row, col, a.cols, v);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) v[e] = activated(a.activation, v[e]);
    if (a.residual.data) {
        tw_load_columns(a.residual, row, col, a.cols, r);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[e] += r[e];
    }
    tw_store_columns(a.y, row, col, a.cols, v);
}

tw_status finish(const tw_call *call, const tw_cuda_product_args *p, bool add_bias, bool add_residual) {
    const tw_tensor *y = &call->output[0];
    finish_args a = {};
    a.rows = p->m, a.cols = p->n, a.activation = attr_of(call)->activation;
    a.y = tw_view_out(y, TW_WRITE);
    a.z = tw_view_of(p->out, p->out_type, p->out_stride, p->n);
    a.bias = a.keep = a.residual = no_view();
    if (add_bias) a.bias = tw_view_of(call->input[BIAS].data, TW_F32, p->n, p->n);
    if (add_bias && call->n_outputs > 1) a.keep = a.z;
    if (add_residual) a.residual = tw_view_rows(&call->input[RESIDUAL]);
    return TW_LAUNCH(call->device, finish_kernel, tw_blocks(p->m * tw_packs_of(p->n), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

/* The bias in the type of the result: its own memory, its set's copy, or scratch. */
tw_status bias_for(const tw_call *call, tw_dtype type, int64_t m, void **out) {
    const uint16_t *half = call->input_half[BIAS];
    *out = call->input[BIAS].data;
    if (type == TW_F32) return TW_OK;
    *out = (void *)half;
    if (half && (uintptr_t)half % 16 == 0) return TW_OK;
    *out = call->scratch;
    return TW_LAUNCH(call->device, to_bf16_kernel, tw_blocks(tw_packs_of(m), 64), 64, 0,
                     tw_view_of(call->input[BIAS].data, TW_F32, m, m),
                     tw_view_of(call->scratch, TW_BF16, m, m), m);
}

tw_status forward_by_product(const tw_call *call) {
    const tw_linear_attr *attr = attr_of(call);
    const tw_tensor *x = &call->input[X], *w = &call->input[W], *y = &call->output[0];
    const tw_tensor *residual = &call->input[RESIDUAL];
    bool has_bias = tw_present(&call->input[BIAS]), has_residual = tw_present(residual), fused;
    bool acts = attr->activation != TW_IDENTITY;
    tw_cuda_product_args p = {};
    p.m = tw_tensor_rows(x), p.n = tw_tensor_cols(y), p.k = tw_tensor_cols(x);
    if (p.m == 0 || p.n == 0) return TW_OK;
    p.a.data = x->data;
    (void)tw_tensor_is_rows(x, &p.a.stride);
    p.b.data = w->data, p.b.stride = attr->in_out ? p.n : p.k, p.b.transposed = !attr->in_out;
    p.type = x->dtype, p.out_type = y->dtype;
    p.out = call->output[call->n_outputs - 1].data, p.out_stride = p.n;
    if (call->restore) return finish(call, &p, false, false);
    bool residual_in_product = has_residual && !acts && p.k > 0;
    if (residual_in_product) {
        p.c = residual->data;
        (void)tw_tensor_is_rows(residual, &p.c_stride);
    }
    if (has_bias && p.k > 0) {
        p.fused = TW_FUSED_BIAS;
        TRY(bias_for(call, y->dtype, p.n, &p.vector));
    }
    TRY(tw_cuda_product(call->device, &p, &fused));
    bool add_bias = has_bias && !fused, add_residual = has_residual && !residual_in_product;
    if (!acts && !add_bias && !add_residual) return TW_OK;
    return finish(call, &p, add_bias, add_residual);
}

tw_status forward(const void *context, tw_way way) {
    const tw_call *call = (const tw_call *)context;
    return way == TW_WAY_GRAPH ? tw_linear_graph_run(call) : forward_by_product(call);
}

} // namespace

tw_status tw_linear_forward_cuda(const tw_call *call) {
    tw_way way = TW_WAY_OWN;
    tw_dnn_key key;
    bool found;
    TRY(tw_linear_graph_find(call, &key, &found));
    const tw_choice_ways ways = {forward, call, "cuBLASLt and a pass", tw_dnn_linear_tell};
    if (found) TRY(tw_cuda_choose(call->device, &key, &ways, &way));
    return forward(call, way);
}

/* ---- backward ---- */

namespace {

struct slope_args {
    int64_t rows, cols;
    tw_view dy, z, dz, dr; /* z, dz and dr may be absent; dz may be dy */
    tw_activation activation;
};

__global__ void slope_kernel(slope_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.cols, &row, &col)) return;
    float g[TW_PACK], z[TW_PACK];
    tw_load_columns(a.dy, row, col, a.cols, g);
    if (a.dr.data) tw_store_columns(a.dr, row, col, a.cols, g);
    if (!a.dz.data) return;
    if (a.z.data) {
        tw_load_columns(a.z, row, col, a.cols, z);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++)
            g[e] *= a.activation == TW_QUICK_GELU ? tw_quick_gelu_slope(z[e]) : tw_erf_gelu_slope(z[e]);
    }
    tw_store_columns(a.dz, row, col, a.cols, g);
}

/* *dz: dy times the activation's slope, in x's type: over dy, or in scratch. Delivers the residual's
 * gradient. */
tw_status output_gradient(const tw_call *call, int64_t rows, int64_t m, tw_view *dz) {
    const tw_tensor *dy = &call->output_grad[0], *dr = &call->input_grad[RESIDUAL];
    tw_dtype type = call->input[X].dtype;
    bool acts = attr_of(call)->activation != TW_IDENTITY, converts = dy->dtype != type;
    slope_args a = {};
    a.rows = rows, a.cols = m, a.activation = attr_of(call)->activation;
    a.dy = tw_view_out(dy, TW_WRITE);
    a.z = acts ? tw_view_out(&call->output[1], TW_WRITE) : no_view();
    *dz = converts ? tw_view_of((char *)call->scratch + tw_linear_sums_bytes(m), type, m, m) : a.dy;
    a.dz = acts || converts ? *dz : no_view();
    a.dr = dr->data ? tw_view_out(dr, call->input_mode[RESIDUAL]) : no_view();
    if (!a.dz.data && !a.dr.data) return TW_OK;
    return TW_LAUNCH(call->device, slope_kernel, tw_blocks(rows * tw_packs_of(m), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

/* Block (x, y) sums 256 columns of every gridDim.y-th group of 8 rows. */
__global__ void bias_kernel(tw_view dz, int64_t rows, int64_t cols, tw_view partial) {
    __shared__ float shared[SUM_WARPS * TW_GROUP_COLUMNS];
    int lane = (int)threadIdx.x % TW_WARP, warp = (int)threadIdx.x / TW_WARP;
    int64_t col = (int64_t)blockIdx.x * TW_GROUP_COLUMNS + lane * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK];
    for (int64_t row = (int64_t)blockIdx.y * SUM_WARPS + warp; row < rows;
         row += (int64_t)gridDim.y * SUM_WARPS) {
        tw_load_columns(dz, row, col, cols, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
    }
    tw_add_warps(sum, SUM_WARPS, shared);
    if (warp == 0) tw_store_columns(partial, blockIdx.y, col, cols, sum);
}

/* The sums of `parts` rows of scratch, to the bias's gradient. */
tw_status deliver_bias(const tw_call *call, int64_t parts, int64_t m) {
    tw_column_target target = {&call->input_grad[BIAS], call->input_mode[BIAS]};
    return tw_cuda_sum_columns(call->device, (const float *)call->scratch, parts, m, 1, &target);
}

tw_status bias_gradient(const tw_call *call, const tw_view &dz, int64_t rows, int64_t m) {
    int64_t parts = (rows + SUM_WARPS - 1) / SUM_WARPS;
    if (parts > TW_LINEAR_SUMS) parts = TW_LINEAR_SUMS;
    dim3 grid(tw_blocks(m, TW_GROUP_COLUMNS), (unsigned)parts);
    TRY(TW_LAUNCH(call->device, bias_kernel, grid, SUM_WARPS * TW_WARP, 0, dz, rows, m,
                  tw_view_of(call->scratch, TW_F32, m, m)));
    return deliver_bias(call, parts, m);
}

tw_cuda_product_args product_of(const tw_call *call, int64_t m, int64_t n, int64_t k, int input) {
    const tw_tensor *out = &call->input_grad[input];
    tw_cuda_product_args p = {};
    p.m = m, p.n = n, p.k = k, p.type = call->input[X].dtype;
    p.out = out->data, p.out_type = out->dtype, p.out_stride = n;
    if (call->input_mode[input] == TW_ADD) p.c = p.out, p.c_stride = n;
    return p;
}

tw_status input_gradient(const tw_call *call, const tw_view &dz, int64_t rows, int64_t m) {
    bool in_out = attr_of(call)->in_out, fused;
    int64_t k = tw_tensor_cols(&call->input[X]);
    tw_cuda_product_args p = product_of(call, rows, k, m, X);
    p.a.data = dz.data, p.a.stride = m;
    p.b.data = call->input[W].data, p.b.stride = in_out ? m : k, p.b.transposed = in_out;
    return tw_cuda_product(call->device, &p, &fused);
}

/* *summed: the bias's gradient came with it, into scratch. */
tw_status weight_gradient(const tw_call *call, const tw_view &dz, int64_t rows, int64_t m, bool *summed) {
    const tw_tensor *x = &call->input[X];
    bool in_out = attr_of(call)->in_out;
    int64_t k = tw_tensor_cols(x);
    tw_cuda_matrix xs = {x->data, k, false}, gs = {dz.data, m, false};
    (void)tw_tensor_is_rows(x, &xs.stride);
    tw_cuda_product_args p = in_out ? product_of(call, k, m, rows, W) : product_of(call, m, k, rows, W);
    p.a = in_out ? xs : gs, p.b = in_out ? gs : xs;
    p.a.transposed = true;
    if (call->input_grad[BIAS].data && p.out_type == TW_F32) {
        p.fused = in_out ? TW_FUSED_SUM_B : TW_FUSED_SUM_A;
        p.vector = call->scratch;
    }
    return tw_cuda_product(call->device, &p, summed);
}

} // namespace

tw_status tw_linear_backward_cuda(const tw_call *call) {
    const tw_tensor *dy = &call->output_grad[0];
    int64_t rows = tw_tensor_rows(dy), m = tw_tensor_cols(dy);
    bool summed = false;
    tw_view dz;
    TRY(output_gradient(call, rows, m, &dz));
    if (call->input_grad[X].data) TRY(input_gradient(call, dz, rows, m));
    if (call->input_grad[W].data) TRY(weight_gradient(call, dz, rows, m, &summed));
    if (!call->input_grad[BIAS].data) return TW_OK;
    return summed ? deliver_bias(call, 1, m) : bias_gradient(call, dz, rows, m);
}
