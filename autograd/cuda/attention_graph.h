/* Calls of `attention` on the GPU that run as graphs (dnn_attention.h): bf16, heads of up to 128 columns, a
 * multiple of 8; packed samples as padded copies in scratch (padded.h), with their lengths. Their dropout is
 * the library's: drawn from the step, the layer and the micro-batch's first sample, the same for backward as
 * for forward, but not the draws of other devices. */
#ifndef TW_AUTOGRAD_CUDA_ATTENTION_GRAPH_H
#define TW_AUTOGRAD_CUDA_ATTENTION_GRAPH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/op.h"

/* For the shape rule, after its outputs and scratch are set: where graphs serve the call, asks for their
 * scratch too and keeps the result, which their backward needs. */
tw_status tw_attention_graph_shape(tw_call *c) TW_MUST_CHECK;
/* *done: whether the graph ran; if not, own kernels do it. */
tw_status tw_attention_graph_forward(const tw_call *c, bool *done) TW_MUST_CHECK;
tw_status tw_attention_graph_backward(const tw_call *c, bool *done) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
