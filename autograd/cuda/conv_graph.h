/* Calls of `conv2d` on the GPU that run on a library's kernels: a 1x1 convolution of stride 1 as a plain
 * product (product.h), others as graphs (dnn_conv.h). Their weights go there with the channels last, by a
 * pass over them. */
#ifndef TW_AUTOGRAD_CUDA_CONV_GRAPH_H
#define TW_AUTOGRAD_CUDA_CONV_GRAPH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/op.h"

/* For the shape rule, after its output and scratch are set: asks for the graphs' scratch too. */
tw_status tw_conv_graph_shape(tw_call *c) TW_MUST_CHECK;
/* *done: whether it ran; if not, own kernels do it. */
tw_status tw_conv_graph_forward(const tw_call *c, bool *done) TW_MUST_CHECK;
tw_status tw_conv_graph_backward_x(const tw_call *c, bool *done) TW_MUST_CHECK;
tw_status tw_conv_graph_backward_w(const tw_call *c, bool *done) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
