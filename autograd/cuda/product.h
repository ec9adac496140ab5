/* Matrix products on the GPU: cublas.c and cublas_choose.c, which alone call cuBLASLt (tests/cuda_shim has
 * its own). All matrices are row-major and in device memory. */
#ifndef TW_AUTOGRAD_CUDA_PRODUCT_H
#define TW_AUTOGRAD_CUDA_PRODUCT_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/device.h"
#include "autograd/tensor.h"

/* A matrix in memory: `stride` elements between rows. `transposed`: the product uses its transpose. */
typedef struct tw_cuda_matrix {
    const void *data;
    int64_t stride;
    bool transposed;
} tw_cuda_matrix;

/* What is done in the same pass, where the library can. */
typedef enum tw_fused {
    TW_FUSED_NOTHING,
    TW_FUSED_BIAS,  /* out += vector (n values of out's type) to each row */
    TW_FUSED_SUM_A, /* vector (m f32) = the sums of op(a)'s rows, that is over k; out is f32 */
    TW_FUSED_SUM_B  /* vector (n f32) = the sums of op(b)'s columns, that is over k; out is f32 */
} tw_fused;

/* out (m,n) = op(a) op(b) + c with op(a) (m,k) and op(b) (k,n), f32 sums whatever the types. */
typedef struct tw_cuda_product_args {
    int64_t m, n, k; /* any may be 0 */
    tw_cuda_matrix a, b;
    tw_dtype type; /* of a and b: f32 or bf16 */
    const void *c; /* of out's type; NULL: nothing is added. May be out itself; needs k > 0 if it is not */
    int64_t c_stride;
    void *out;
    int64_t out_stride;
    tw_dtype out_type; /* f32, or bf16 where a and b are */
    tw_fused fused;
    void *vector;
} tw_cuda_product_args;

/* Queues the product behind the compute queue. *fused says whether what args->fused asks for was done with it
 * (not where the library has no such kernel, or only slow ones, nor where a size is 0): otherwise the caller
 * does it. TF32 as tw_cuda_tf32 says. Of large products the library's algorithms are timed when the shape
 * first comes, outside of captures, and the fastest one is kept (its line is in tw_cuda_choice_text); of
 * small ones, and on a deterministic device, its first choice runs. */
tw_status tw_cuda_product(tw_device *d, const tw_cuda_product_args *args, bool *fused) TW_MUST_CHECK;

/* ---- for implementations ---- */

/* Checks and what needs no library: *done is true if nothing is left to do. */
tw_status tw_cuda_product_simple(tw_device *d, const tw_cuda_product_args *args, bool *done) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
