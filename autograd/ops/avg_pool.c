#include "autograd/cuda/pool_graph.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

/* x (B,H,W,C) -> (B,H/k,W/k,C): means of k x k squares that do not overlap; a rest of less than k rows or
 * columns is left out and gets a gradient of 0. Contiguous. */

tw_status tw_avg_pool_shape(tw_call *c) {
    const tw_avg_pool_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0];
    TRY(tw_call_check_rows(c, 0, "x"));
    if (x->ndim != 4 || !tw_tensor_is_contiguous(x))
        return FAIL(TW_ERR_SHAPE, "avg_pool: x must be contiguous (B,H,W,C)");
    if (attr->size < 1) return FAIL(TW_ERR_ARGUMENT, "avg_pool: squares of side %d", attr->size);
    int64_t y[4] = {x->shape[0], x->shape[1] / attr->size, x->shape[2] / attr->size, x->shape[3]};
    tw_call_output(c, 0, x->dtype, 4, y);
    c->forward_scratch = c->backward_scratch = (size_t)(tw_threads() * 2 * x->shape[3]) * sizeof(float);
#ifdef TW_WITH_CUDA
    if (c->device && !tw_on_cpu(c->device)) tw_pool_graph_shape(c);
#endif
    return TW_OK;
}

tw_status tw_avg_pool_forward_cpu(const tw_call *c) {
    const tw_tensor *x = &c->input[0], *y = &c->output[0];
    int64_t k = ((const tw_avg_pool_attr *)c->attr)->size, d = x->shape[3], height = x->shape[1],
            width = x->shape[2], rows = tw_tensor_rows(y);
    float share = 1.0f / (float)(k * k);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 2 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            int64_t column = i % y->shape[2], line = i / y->shape[2] % y->shape[1],
                    image = i / (y->shape[1] * y->shape[2]);
            float *out = tw_row_target(y, i, mine);
            memset(out, 0, (size_t)d * sizeof *out);
            for (int64_t p = 0; p < k * k; p++) {
                int64_t from = (image * height + line * k + p / k) * width + column * k + p % k;
                const float *in = tw_row_read(x, d, from, mine + d);
#pragma omp simd
                for (int64_t e = 0; e < d; e++) out[e] += in[e];
            }
#pragma omp simd
            for (int64_t e = 0; e < d; e++) out[e] *= share;
            tw_row_deliver(y, i, out, TW_WRITE);
        }
    }
    return TW_OK;
}

tw_status tw_avg_pool_backward_cpu(const tw_call *c) {
    const tw_tensor *dx = &c->input_grad[0], *dy = &c->output_grad[0];
    if (!dx->data) return TW_OK;
    int64_t k = ((const tw_avg_pool_attr *)c->attr)->size, d = dx->shape[3], rows = tw_tensor_rows(dx);
    float share = 1.0f / (float)(k * k);
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 2 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            int64_t column = i % dx->shape[2] / k, line = i / dx->shape[2] % dx->shape[1] / k,
                    image = i / (dx->shape[1] * dx->shape[2]);
            bool inside = column < dy->shape[2] && line < dy->shape[1];
            const float *g = mine;
            if (inside) g = tw_row_read(dy, d, (image * dy->shape[1] + line) * dy->shape[2] + column, mine);
            float *out = mine + d;
#pragma omp simd
            for (int64_t e = 0; e < d; e++) out[e] = inside ? g[e] * share : 0.0f;
            tw_row_deliver(dx, i, out, c->input_mode[0]);
        }
    }
    return TW_OK;
}
