/* Average pooling's directions as graphs of dnn.h: images (B,H,W,C), squares that cover them. */
#ifndef TW_AUTOGRAD_CUDA_DNN_POOL_H
#define TW_AUTOGRAD_CUDA_DNN_POOL_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

/* Bytes that a plan may need, so that memory can be planned without one; engines ask for none. */
enum { TW_DNN_POOL_SCRATCH = 1 << 20 };

typedef struct tw_dnn_pool {
    tw_dnn_op direction;                          /* TW_DNN_POOL or TW_DNN_POOL_X */
    int64_t batch, height, width, channels, side; /* of x; side: of a square, a divisor of height and width */
    tw_dnn_type type;                             /* TW_DNN_F32 or TW_DNN_BF16 */
    bool deterministic;
} tw_dnn_pool;

/* Slots: x and y, or their gradients. */
enum tw_dnn_pool_slot { TW_DNN_POOL_IMAGE, TW_DNN_POOL_MEANS };

tw_dnn_key tw_dnn_pool_key(const tw_dnn_pool *v);
void tw_dnn_pool_describe(const tw_dnn_key *key, tw_dnn_graph *g);
/* In words, for choice.h. */
void tw_dnn_pool_tell(const tw_dnn_key *key, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
