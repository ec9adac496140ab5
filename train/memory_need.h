/* How much memory a model takes, found without taking it: the tapes are recorded and planned as they would
 * be, on a device that only hands out addresses. */
#ifndef TW_TRAIN_MEMORY_NEED_H
#define TW_TRAIN_MEMORY_NEED_H

#include "autograd/tape.h"
#include "layers/dual_encoder.h"

typedef struct tw_memory_need { /* bytes */
    size_t weights;             /* for inference */
    size_t image, text;         /* activations of one batch of images, of texts, in inference */
    size_t training_weights;    /* with gradients */
    size_t moments;             /* Adam's two */
    size_t checkpoint;          /* the copy that a checkpoint is written from, in the host's memory */
    size_t training;            /* activations of a step of one batch, of kept patches with a mask_ratio */
    size_t training_recomputed; /* the same with recompute: block */
} tw_memory_need;

/* For batches of `batch` images, texts or pairs; compute_type is TW_F32 or TW_BF16. */
tw_status tw_memory_needed(const tw_model_config *config, tw_dtype compute_type, int64_t batch,
                           tw_memory_need *out) TW_MUST_CHECK;

/* Of a model allocated for training on `device`: the bytes of activations that a step of `batch` pairs takes.
 */
tw_status tw_memory_of_step(const tw_dual_encoder *model, const tw_device *device, tw_recompute recompute,
                            int64_t batch, size_t *bytes) TW_MUST_CHECK;

#endif
