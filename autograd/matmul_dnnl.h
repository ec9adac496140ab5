/* oneDNN's matmul primitive, of 2.6 and of 3.x, cached by shape. Only gemm_cpu.c and the tests use it. */
#ifndef TW_AUTOGRAD_MATMUL_DNNL_H
#define TW_AUTOGRAD_MATMUL_DNNL_H

#include "autograd/gemm_cpu.h"

/* As tw_gemm, for the types that oneDNN supports on this processor; sizes must be greater than 0. */
tw_status tw_matmul_dnnl(int64_t m, int64_t n, int64_t k, tw_matrix a, tw_matrix b, bool add, void *c,
                         tw_dtype c_dtype, int64_t c_stride) TW_MUST_CHECK;
void tw_matmul_dnnl_release(void);

#endif
