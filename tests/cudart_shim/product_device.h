/* A device for products, and what they ran. */
#ifndef TW_TESTS_CUDART_SHIM_PRODUCT_DEVICE_H
#define TW_TESTS_CUDART_SHIM_PRODUCT_DEVICE_H

#include "autograd/cuda/device_cuda.h"
#include "autograd/cuda/product.h"
#include "cublaslt_shim.h"
#include "tw_test.h"

static inline tw_device *open_device(void) {
    tw_device *d;
    cublaslt_reset();
    TW_ASSERT_OK(tw_device_cuda(0, &d));
    return d;
}

static inline void close_device(tw_device *d) {
    d->destroy(d);
    ck_assert_int_eq(cudart_alive(), 0);
    ck_assert_int_eq(library.alive, 0);
}

/* Runs that the library was asked for, of all algorithms. */
static inline int all_runs(void) {
    int sum = 0;
    for (int i = 0; i < SHIM_ALGORITHMS; i++) sum += library.algorithm[i].runs;
    return sum;
}

#endif
