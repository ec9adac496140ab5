/* A convolution's directions as graphs of dnn.h: images (B,H,W,C), weights (O,K,K,C), all of one type, no
 * bias, zero padding. */
#ifndef TW_AUTOGRAD_CUDA_DNN_CONV_H
#define TW_AUTOGRAD_CUDA_DNN_CONV_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

typedef struct tw_dnn_conv {
    tw_dnn_op direction; /* TW_DNN_CONV, TW_DNN_CONV_X or TW_DNN_CONV_W */
    int64_t batch, height, width, in, out, kernel, stride, padding;
    tw_dnn_type type; /* TW_DNN_F32 or TW_DNN_BF16 */
    bool true_f32;
    bool deterministic;
} tw_dnn_conv;

/* Slots: image, weight, result of forward, or the gradient of what has the name. */
enum tw_dnn_conv_slot { TW_DNN_CONV_IMAGE, TW_DNN_CONV_WEIGHT, TW_DNN_CONV_RESULT };

tw_dnn_key tw_dnn_conv_key(const tw_dnn_conv *v);
void tw_dnn_conv_describe(const tw_dnn_key *key, tw_dnn_graph *g);

#ifdef __cplusplus
}
#endif

#endif
