/* What an imported file was like, kept in checkpoints so that an export gives every tensor back as it was:
 * its type, its place in the file's order, and those that no model needs. As JSON in /meta/origin:
 *
 *   {"kind": "PyTorch zip", "name": "...", "module": true, "hugging_face": false,
 *    "tensors": [{"name": "visual.proj", "type": "f16"}, {"name": "bert.pooler.dense.weight", "type": "f16",
 *                 "shape": [768, 768]}, ...],
 *    "optimizer": {"step": "f32", "groups": [{"lr": 5e-5, "beta1": 0.9, ...}, ...]}}
 *
 * A tensor with a shape lies in /extra. "m" beside "type": the moments' type where it is not f32. */
#ifndef TW_TRAIN_WEIGHT_ORIGIN_H
#define TW_TRAIN_WEIGHT_ORIGIN_H

#include "train/formats/weights.h"

typedef struct tw_origin_tensor {
    char *name; /* the original's, without "module." */
    tw_weight_type type, moment_type;
    bool extra; /* not the model's: ndim and shape say how it lies in /extra */
    int ndim;
    int64_t shape[TW_WEIGHT_MAX_DIMS];
} tw_origin_tensor;

typedef struct tw_weight_origin {
    char *kind, *name; /* of the file and of its run; NULL: not said */
    bool module, hugging_face;
    tw_origin_tensor *tensors;
    int64_t count;
    tw_weight_type step_type;   /* of the optimizer's step counters */
    tw_weights_group groups[2]; /* .params are NULL */
    int64_t group_count;        /* 0: no optimizer state */
} tw_weight_origin;

void tw_weight_origin_free(tw_weight_origin *o); /* accepts one that is all zero */
/* *text is freed by the caller. */
tw_status tw_weight_origin_to_json(const tw_weight_origin *o, char **text) TW_MUST_CHECK;
/* `where` is for messages. TW_ERR_FORMAT for anything that is not as above. */
tw_status tw_weight_origin_from_json(const char *text, const char *where,
                                     tw_weight_origin *out) TW_MUST_CHECK;

#endif
