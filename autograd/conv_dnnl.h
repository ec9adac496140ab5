/* oneDNN's convolution primitives, of 2.6 and of 3.x, cached by shape. Only ops/conv2d.c and the tests use
 * it.
 *
 * Activations are (B,H,W,C), contiguous: 1x1 convolutions are then plain products, statistics and pooling run
 * over contiguous channels, and oneDNN's kernels are within a tenth of their speed on its own blocked order.
 * Weights are (O,C,K,K) as in checkpoints and are brought into the primitive's order at each call, which
 * costs a percent of the convolution. Sizes must be greater than 0. Not for use inside a parallel region. */
#ifndef TW_AUTOGRAD_CONV_DNNL_H
#define TW_AUTOGRAD_CONV_DNNL_H

#include "autograd/status.h"
#include "autograd/tensor.h"

/* Square kernel, the same stride and zero padding on all sides: y is (B, (H + 2 padding - kernel) / stride +
 * 1,
 * .., O). dtype: of x, the weights and y; bf16 only where tw_gemm_has_bf16. */
typedef struct tw_conv {
    int64_t batch, height, width, in, out;
    int64_t kernel, stride, padding;
    tw_dtype dtype;
} tw_conv;

static inline int64_t tw_conv_side(const tw_conv *c, int64_t side) {
    return (side + 2 * c->padding - c->kernel) / c->stride + 1;
}

/* y = x * w */
tw_status tw_conv_forward(const tw_conv *c, const void *x, const void *w, void *y) TW_MUST_CHECK;
/* dx: the gradient of x, written, in f32 or in c's type */
tw_status tw_conv_backward_x(const tw_conv *c, const void *dy, const void *w, tw_dtype type,
                             void *dx) TW_MUST_CHECK;
/* dw (O,C,K,K) f32: the gradient of w, written or added. Works on a few images at a time, brought into the
 * order that the primitive likes (on AVX2 that is 1.3 to 2.5 times as fast as (B,H,W,C)), in 16 MB of the
 * thread's own.
 */
tw_status tw_conv_backward_w(const tw_conv *c, const void *x, const void *dy, bool add,
                             float *dw) TW_MUST_CHECK;
/* The name of the implementation that oneDNN chose for a direction (0 forward, 1 x's gradient, 2 w's), for
 * benchmarks; "" on failure. Valid until the thread's next call of this header. */
const char *tw_conv_implementation(const tw_conv *c, int direction);

/* Frees the calling thread's cached primitives and work space. */
void tw_conv_release(void);

#endif
