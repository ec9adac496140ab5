#include "autograd/cuda/product.h"

static bool fits(tw_cuda_matrix m, int64_t rows, int64_t cols) {
    return m.stride >= (m.transposed ? rows : cols) || rows == 0 || cols == 0;
}

static tw_status check(const tw_cuda_product_args *p) {
    bool types = p->type == TW_F32 ? p->out_type == TW_F32
                                   : p->type == TW_BF16 && (p->out_type == TW_F32 || p->out_type == TW_BF16);
    bool sums = p->fused == TW_FUSED_SUM_A || p->fused == TW_FUSED_SUM_B;
    if (!types || (sums && p->out_type != TW_F32))
        return FAIL(TW_ERR_UNSUPPORTED, "no product of %s with a %s result on the GPU",
                    tw_dtype_name(p->type), tw_dtype_name(p->out_type));
    if (p->m < 0 || p->n < 0 || p->k < 0 || !fits(p->a, p->m, p->k) || !fits(p->b, p->k, p->n) ||
        p->out_stride < p->n || (p->c && p->c_stride < p->n))
        return FAIL(TW_ERR_SHAPE, "a product of (%lld,%lld) and (%lld,%lld) with rows %lld and %lld apart",
                    (long long)p->m, (long long)p->k, (long long)p->k, (long long)p->n,
                    (long long)p->a.stride, (long long)p->b.stride);
    return TW_OK;
}

tw_status tw_cuda_product_simple(tw_device *d, const tw_cuda_product_args *p, bool *done) {
    *done = true;
    TRY(check(p));
    if (p->m == 0 || p->n == 0 || (p->k == 0 && p->c == p->out && p->c)) return TW_OK;
    *done = p->k == 0;
    if (p->k > 0) return TW_OK;
    if (p->c || p->out_stride != p->n)
        return FAIL(TW_ERR_ARGUMENT, "a product over nothing cannot add another matrix");
    return d->zero(d, TW_QUEUE_COMPUTE, p->out, (size_t)(p->m * p->n) * tw_dtype_size(p->out_type));
}
