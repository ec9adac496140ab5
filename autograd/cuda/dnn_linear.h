/* A linear layer with its activation as a graph of dnn.h: y = act(x W^T + b), with or without keeping
 * z = x W^T + b for backward. QuickGELU and GELU by erf are exact in it; cuBLASLt knows the tanh form only.
 */
#ifndef TW_AUTOGRAD_CUDA_DNN_LINEAR_H
#define TW_AUTOGRAD_CUDA_DNN_LINEAR_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"
#include "autograd/ops/attributes.h"

/* Bytes that a plan may need, so that memory can be planned without one. */
enum { TW_DNN_LINEAR_SCRATCH = 8 << 20 };

typedef struct tw_dnn_linear {
    int64_t rows, in, out, x_stride; /* x_stride: elements between x's rows */
    tw_activation activation;        /* not TW_IDENTITY */
    bool in_out;                     /* the weight is (in,out), not (out,in) */
    bool bias, keeps;                /* keeps: z is written too */
    bool deterministic;
} tw_dnn_linear;

/* Slots. bf16: X (rows,in), W, Z and Y (rows,out); f32: BIAS (out). */
enum tw_dnn_linear_slot {
    TW_DNN_LINEAR_X,
    TW_DNN_LINEAR_W,
    TW_DNN_LINEAR_BIAS,
    TW_DNN_LINEAR_Z,
    TW_DNN_LINEAR_Y
};

tw_dnn_key tw_dnn_linear_key(const tw_dnn_linear *l);
/* In words, for choice.h. */
void tw_dnn_linear_tell(const tw_dnn_key *key, char *text, size_t size);
void tw_dnn_linear_describe(const tw_dnn_key *key, tw_dnn_graph *g);

#ifdef __cplusplus
}
#endif

#endif
