/* Batch norm in training as graphs of dnn.h. Forward: statistics, normalisation, residual and ReLU in one
 * kernel. Backward: the gradients of x, gain and bias, through the ReLU too, whose input it makes again from
 * x; a residual is not part of it, as cuDNN 9.19 then has no engine (nor where ReLU's slope is taken at a y
 * in memory): what comes through the residual's ReLU has to be there as the gradient that it reads. */
#ifndef TW_AUTOGRAD_CUDA_DNN_NORM_H
#define TW_AUTOGRAD_CUDA_DNN_NORM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

/* Bytes that a plan may need, so that memory can be planned without one; engines ask for up to 4.4 MB. */
enum { TW_DNN_NORM_SCRATCH = 8 << 20 };

typedef struct tw_dnn_norm {
    int64_t batch, height, width, channels; /* images (B,H,W,C) */
    tw_dnn_type type;                       /* TW_DNN_F32 or TW_DNN_BF16 */
    bool backward;
    bool residual; /* forward only */
    bool relu;
    float eps; /* forward only */
    bool deterministic;
} tw_dnn_norm;

/* Slots. Images: X, RESIDUAL, Y, DY, DX; f32 (C): the rest. INVERSE: 1 / sqrt(variance + eps). BIAS is
 * backward's only with ReLU. */
enum tw_dnn_norm_slot {
    TW_DNN_NORM_X,
    TW_DNN_NORM_GAIN,
    TW_DNN_NORM_BIAS,
    TW_DNN_NORM_RESIDUAL,
    TW_DNN_NORM_Y,
    TW_DNN_NORM_MEAN,
    TW_DNN_NORM_INVERSE,
    TW_DNN_NORM_DY,
    TW_DNN_NORM_DX,
    TW_DNN_NORM_DGAIN,
    TW_DNN_NORM_DBIAS
};

tw_dnn_key tw_dnn_norm_key(const tw_dnn_norm *v);
void tw_dnn_norm_describe(const tw_dnn_key *key, tw_dnn_graph *g);
/* Backward in words, for choice.h. */
void tw_dnn_norm_tell(const tw_dnn_key *key, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
