/* Matrix products on the CPU: the one place that calls oneDNN's products. All matrices are row-major. */
#ifndef TW_AUTOGRAD_GEMM_CPU_H
#define TW_AUTOGRAD_GEMM_CPU_H

#include "autograd/status.h"
#include "autograd/tensor.h"

/* A matrix in memory: `stride` elements between rows. `transposed`: the product uses its transpose. */
typedef struct tw_matrix {
    const void *data;
    tw_dtype dtype; /* f32 or bf16 */
    int64_t stride;
    bool transposed;
} tw_matrix;

/* c (m,n) = alpha op(a) op(b) + beta c with op(a) (m,k) and op(b) (k,n), all f32. With beta 0, c is not read.
 * Sizes may be 0. Uses the OpenMP team; called inside a parallel region, it runs in the calling thread alone,
 * so that threads can do many small products side by side. */
tw_status tw_gemm_f32(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t a_stride,
                      bool a_transposed, const float *b, int64_t b_stride, bool b_transposed, float beta,
                      float *c, int64_t c_stride) TW_MUST_CHECK;

/* c (m,n) = op(a) op(b), plus c if `add`; f32 sums whatever the types, c f32 or bf16. Two bf16 matrices go to
 * the processor's bf16 arithmetic where it has some; elsewhere, and for mixed types, panels are converted to
 * f32 first (same result to rounding, at f32 speed). Not for use inside a parallel region unless all are f32.
 */
tw_status tw_gemm(int64_t m, int64_t n, int64_t k, tw_matrix a, tw_matrix b, bool add, void *c,
                  tw_dtype c_dtype, int64_t c_stride) TW_MUST_CHECK;

/* True where the processor and this oneDNN multiply bf16 themselves. */
bool tw_gemm_has_bf16(void);

/* Frees the calling thread's cached primitives and work space; later products make new ones. */
void tw_gemm_release(void);

#endif
