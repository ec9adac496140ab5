/* Batch norm's forward in training as a graph of dnn.h: statistics, normalisation, residual and ReLU in one
 * kernel. Backward is our own kernels': asked without a GPU, cuDNN 9.19 proposed no engine for batch norm's
 * backward joined with ReLU's. */
#ifndef TW_AUTOGRAD_CUDA_DNN_NORM_H
#define TW_AUTOGRAD_CUDA_DNN_NORM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

typedef struct tw_dnn_norm {
    int64_t batch, height, width, channels; /* images (B,H,W,C) */
    tw_dnn_type type;                       /* TW_DNN_F32 or TW_DNN_BF16 */
    bool residual, relu;
    float eps;
    bool deterministic;
} tw_dnn_norm;

/* Slots. Images: X, RESIDUAL, Y; f32 (C): the rest. INVERSE: 1 / sqrt(variance + eps). */
enum tw_dnn_norm_slot {
    TW_DNN_NORM_X,
    TW_DNN_NORM_GAIN,
    TW_DNN_NORM_BIAS,
    TW_DNN_NORM_RESIDUAL,
    TW_DNN_NORM_Y,
    TW_DNN_NORM_MEAN,
    TW_DNN_NORM_INVERSE
};

tw_dnn_key tw_dnn_norm_key(const tw_dnn_norm *v);
void tw_dnn_norm_describe(const tw_dnn_key *key, tw_dnn_graph *g);

#ifdef __cplusplus
}
#endif

#endif
