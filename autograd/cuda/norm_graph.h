/* Calls of `batch_norm` in training that run as graphs (dnn_norm.h) on the GPU: statistics of this call's
 * rows alone, and gradients that are written, in x's type. */
#ifndef TW_AUTOGRAD_CUDA_NORM_GRAPH_H
#define TW_AUTOGRAD_CUDA_NORM_GRAPH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/op.h"

/* For the shape rule, after its outputs, saved values and scratch are set: asks for what the graphs need too.
 * It makes no plan, so that planning memory for many sizes stays quick. */
void tw_norm_graph_shape(tw_call *c);
/* *done: whether it ran; if not, own kernels do it. */
tw_status tw_norm_graph_forward(const tw_call *c, bool *done) TW_MUST_CHECK;
/* own: backward by own kernels, which is timed against the graph's way (choice.h) on a copy of the call that
 * delivers nothing to gain, bias and running statistics. */
tw_status tw_norm_graph_backward(const tw_call *c, tw_op_run own, bool *done) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
