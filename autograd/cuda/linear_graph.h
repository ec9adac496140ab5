/* Calls of `linear` on the GPU that may run as a graph (dnn_linear.h): bf16 with QuickGELU or GELU, no
 * residual, sizes in multiples of 8. Whether they do is measured (choice.h). */
#ifndef TW_AUTOGRAD_CUDA_LINEAR_GRAPH_H
#define TW_AUTOGRAD_CUDA_LINEAR_GRAPH_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"
#include "autograd/op.h"

/* For the shape rule, after its scratch is set: asks for the graph's too. It makes no plan, so that planning
 * memory for many sizes stays quick. */
void tw_linear_graph_shape(tw_call *c);
/* *found: whether there is a graph for this call in its memory; if so, *key is the graph's. */
tw_status tw_linear_graph_find(const tw_call *c, tw_dnn_key *key, bool *found) TW_MUST_CHECK;
/* Queues it; after it was found. */
tw_status tw_linear_graph_run(const tw_call *c) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
