/* Calls of `avg_pool` on the GPU that may run as graphs (dnn_pool.h): squares that cover the image, and
 * gradients that are written, in x's type. Whether they do is measured (choice.h). */
#ifndef TW_AUTOGRAD_CUDA_POOL_GRAPH_H
#define TW_AUTOGRAD_CUDA_POOL_GRAPH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/op.h"

/* For the shape rule, after its output and scratch are set: asks for the graphs' scratch too. It makes no
 * plan. */
void tw_pool_graph_shape(tw_call *c);
/* own: the same by own kernels. *done: whether a graph ran; if not, they are to. */
tw_status tw_pool_graph_forward(const tw_call *c, tw_op_run own, bool *done) TW_MUST_CHECK;
tw_status tw_pool_graph_backward(const tw_call *c, tw_op_run own, bool *done) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
