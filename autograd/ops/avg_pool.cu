#include "autograd/cuda/pool_graph.h"
#include "autograd/cuda/rows.h"

/* x (B,H,W,C) -> (B,H/k,W/k,C): means of k x k squares */

namespace {

struct pool_args {
    tw_view x, y;                             /* or their gradients */
    int64_t height, width, lines, columns, k; /* of x, of y */
    int64_t rows, d;
};

__global__ void avg_pool_forward(pool_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.d, &row, &col)) return;
    int64_t column = row % a.columns, line = row / a.columns % a.lines, image = row / (a.columns * a.lines);
    float sum[TW_PACK] = {}, v[TW_PACK], share = 1.0f / (float)(a.k * a.k);
    for (int64_t p = 0; p < a.k * a.k; p++) {
        int64_t from = (image * a.height + line * a.k + p / a.k) * a.width + column * a.k + p % a.k;
        tw_load_columns(a.x, from, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
    }
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) sum[e] *= share;
    tw_store_columns(a.y, row, col, a.d, sum);
}

__global__ void avg_pool_backward(pool_args a) {
    int64_t row, col;
    if (!tw_pack_here(a.rows, a.d, &row, &col)) return;
    int64_t column = row % a.width / a.k, line = row / a.width % a.height / a.k,
            image = row / (a.width * a.height);
    float v[TW_PACK] = {}, share = 1.0f / (float)(a.k * a.k);
    if (column < a.columns && line < a.lines)
        tw_load_columns(a.y, (image * a.lines + line) * a.columns + column, col, a.d, v);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) v[e] *= share;
    tw_store_columns(a.x, row, col, a.d, v);
}

pool_args args_of(const tw_call *c, const tw_tensor *x, const tw_tensor *y) {
    int64_t k = ((const tw_avg_pool_attr *)c->attr)->size;
    return pool_args{{}, {}, x->shape[1], x->shape[2], y->shape[1], y->shape[2], k, 0, x->shape[3]};
}

tw_status own_forward(const tw_call *c) {
    const tw_tensor *y = &c->output[0];
    pool_args a = args_of(c, &c->input[0], y);
    a.x = tw_view_rows(&c->input[0]), a.y = tw_view_out(y, TW_WRITE), a.rows = tw_tensor_rows(y);
    return TW_LAUNCH(c->device, avg_pool_forward, tw_blocks(a.rows * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

tw_status own_backward(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[0], *dy = &c->output_grad[0];
    pool_args a = args_of(c, dx, dy);
    a.x = tw_view_out(dx, c->input_mode[0]), a.y = tw_view_out(dy, TW_WRITE), a.rows = tw_tensor_rows(dx);
    return TW_LAUNCH(c->device, avg_pool_backward, tw_blocks(a.rows * tw_packs_of(a.d), TW_PACK_THREADS),
                     TW_PACK_THREADS, 0, a);
}

} // namespace

tw_status tw_avg_pool_forward_cuda(const tw_call *c) {
    bool done;
    TRY(tw_pool_graph_forward(c, own_forward, &done));
    return done ? TW_OK : own_forward(c);
}

tw_status tw_avg_pool_backward_cuda(const tw_call *c) {
    bool done;
    if (!c->input_grad[0].data) return TW_OK;
    TRY(tw_pool_graph_backward(c, own_backward, &done));
    return done ? TW_OK : own_backward(c);
}
