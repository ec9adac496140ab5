/* Products for the shim: plain loops, sums in f64. Every second device fuses nothing, so that callers' own
 * way is tested too. */
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/product.h"
#include "device_shim.h"

static double element(tw_cuda_matrix m, tw_dtype type, int64_t row, int64_t col) {
    int64_t at = m.transposed ? col * m.stride + row : row * m.stride + col;
    return type == TW_F32 ? (double)((const float *)m.data)[at]
                          : (double)tw_from_bf16(((const uint16_t *)m.data)[at]);
}

/* The sum over r of op(a)(row, r) op(b)(r, col). */
static double dot(const tw_cuda_product_args *p, int64_t row, int64_t col) {
    int64_t a = p->a.transposed ? row : row * p->a.stride, a_step = p->a.transposed ? p->a.stride : 1,
            b = p->b.transposed ? col * p->b.stride : col, b_step = p->b.transposed ? 1 : p->b.stride;
    double s = 0;
    if (p->type == TW_F32) {
        const float *x = (const float *)p->a.data + a, *y = (const float *)p->b.data + b;
        for (int64_t r = 0; r < p->k; r++) s += (double)x[r * a_step] * (double)y[r * b_step];
    } else {
        const uint16_t *x = (const uint16_t *)p->a.data + a, *y = (const uint16_t *)p->b.data + b;
        for (int64_t r = 0; r < p->k; r++)
            s += (double)tw_from_bf16(x[r * a_step]) * (double)tw_from_bf16(y[r * b_step]);
    }
    return s;
}

static double value(const void *p, tw_dtype type, int64_t at) {
    return element((tw_cuda_matrix){p, 0, false}, type, 0, at);
}

/* The sums over k of a matrix of which element(i, r) is op(a)(i, r), or op(b)(r, i). */
static void sum(const tw_cuda_product_args *p) {
    bool of_a = p->fused == TW_FUSED_SUM_A;
    for (int64_t i = 0; i < (of_a ? p->m : p->n); i++) {
        double s = 0;
        for (int64_t r = 0; r < p->k; r++)
            s += of_a ? element(p->a, p->type, i, r) : element(p->b, p->type, r, i);
        ((float *)p->vector)[i] = (float)s;
    }
}

typedef struct work {
    tw_cuda_product_args args;
    bool fused;
} work;

static void run(void *context) {
    const work *w = context;
    const tw_cuda_product_args *p = &w->args;
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double s = dot(p, i, j);
            if (p->c) s += value(p->c, p->out_type, i * p->c_stride + j);
            if (w->fused && p->fused == TW_FUSED_BIAS) s += value(p->vector, p->out_type, j);
            int64_t at = i * p->out_stride + j;
            if (p->out_type == TW_F32)
                ((float *)p->out)[at] = (float)s;
            else
                ((uint16_t *)p->out)[at] = tw_to_bf16((float)s);
        }
    if (w->fused && p->fused != TW_FUSED_BIAS) sum(p);
}

tw_status tw_cuda_product(tw_device *d, const tw_cuda_product_args *p, bool *fused) {
    bool done;
    *fused = false;
    TRY(tw_cuda_product_simple(d, p, &done));
    if (done) return TW_OK;
    *fused = p->fused != TW_FUSED_NOTHING && tw_shim_device_fuses(d);
    work w = {*p, *fused};
    return tw_shim_work(d, run, &w, sizeof w);
}

/* Which device fuses nothing is no library's refusal. */
const char *tw_cuda_product_refusals(tw_device *d) {
    (void)d;
    return NULL;
}
