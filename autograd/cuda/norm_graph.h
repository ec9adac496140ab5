/* Calls of `batch_norm` in training whose forward runs as a graph (dnn_norm.h) on the GPU. */
#ifndef TW_AUTOGRAD_CUDA_NORM_GRAPH_H
#define TW_AUTOGRAD_CUDA_NORM_GRAPH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/op.h"

/* For the shape rule, after its outputs and scratch are set: asks for the graph's scratch too. */
tw_status tw_norm_graph_shape(tw_call *c) TW_MUST_CHECK;
/* *done: whether it ran; if not, own kernels do it. */
tw_status tw_norm_graph_forward(const tw_call *c, bool *done) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
