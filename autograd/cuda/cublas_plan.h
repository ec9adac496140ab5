/* What the files that call cuBLASLt share: its plans. Only cublas.c and cublas_choose.c include it. */
#ifndef TW_AUTOGRAD_CUDA_CUBLAS_PLAN_H
#define TW_AUTOGRAD_CUDA_CUBLAS_PLAN_H

#include "autograd/cuda/device_cuda.h"
#include "autograd/cuda/product.h"

#include <cublasLt.h>

enum {
    TW_CUBLAS_BUCKETS = 256,
    TW_CUBLAS_WORKSPACE = 32 << 20, /* bytes */
    TW_CUBLAS_ALGORITHMS = 8        /* asked for; the fastest one is kept */
};

/* All that the choice of an algorithm depends on. Compared as bytes: no padding left unset. */
typedef struct tw_cublas_key {
    int64_t m, n, k, a_stride, b_stride, c_stride, out_stride;
    int a_transposed, b_transposed, type, out_type, fused, adds, tf32;
    int alignment[5]; /* bytes, of a, b, c, out, and of the vector where one is fused */
} tw_cublas_key;

typedef struct tw_cublas_plan {
    struct tw_cublas_plan *next;
    tw_cublas_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c, out;
    cublasLtMatmulAlgo_t algorithm[TW_CUBLAS_ALGORITHMS]; /* the library's first choice first */
    int count;                                            /* 0: it has no such product */
    int fastest;                                          /* as measured */
    double seconds;                                       /* that it took; 0: not measured */
    bool settled;                                         /* nothing is left to be measured */
    bool weighed;                                         /* against the product without its sums */
    bool noted;                                           /* that it was refused */
} tw_cublas_plan;

typedef struct tw_cublas {
    cublasLtHandle_t handle;
    void *workspace;
    tw_cublas_plan *buckets[TW_CUBLAS_BUCKETS];
    double spent;      /* seconds of measuring on the device */
    int refused, told; /* large products with something fused; tw_cuda_product_refusals has spoken of them */
    char reason[192], text[320];
} tw_cublas;

tw_status tw_cublas_status(cublasStatus_t s, const char *what) TW_MUST_CHECK;

/* Whether the library will not run what it was asked to; nothing was queued then. */
static inline bool tw_cublas_refuses(cublasStatus_t s) {
    return s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE;
}

/* Queues the product by the plan's algorithm `i`, into `out`, which args->out may be or not. */
cublasStatus_t tw_cublas_multiply(tw_device *d, const tw_cublas *l, const tw_cublas_plan *p,
                                  const tw_cuda_product_args *args, int i, void *out);
/* "(25216,768) by (768,3072) of bf16 to bf16, bias", for messages. */
void tw_cublas_tell(const tw_cublas_key *key, char *text, size_t size);

/* The library's proposals for the plan's product, which is described: none is no error. */
tw_status tw_cublas_propose(const tw_cublas *l, tw_cublas_plan *p) TW_MUST_CHECK;
/* Whether the product takes long enough for its algorithm, or a pass more, to matter. */
bool tw_cublas_is_large(const tw_cublas_key *key);
/* Times the plan's algorithms on the call's data and notes the fastest one; what the call adds to keeps its
 * values. Waits for the device; not to be called in a capture. Does nothing where nothing is to be measured:
 * of small products, of deterministic devices, or once measuring has taken long enough. */
tw_status tw_cublas_measure(tw_device *d, tw_cublas *l, tw_cublas_plan *p,
                            const tw_cuda_product_args *args) TW_MUST_CHECK;
/* Whether a product with sums takes longer, as measured, than `plain`, the same one without them, and a pass
 * of our own; says so in tw_cuda_choice_text. */
tw_status tw_cublas_weigh(tw_device *d, const tw_cublas_plan *sums, const tw_cublas_plan *plain,
                          bool *longer) TW_MUST_CHECK;

#endif
