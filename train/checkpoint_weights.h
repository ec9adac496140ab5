/* A tuwen checkpoint seen as a weight file, under the original's names. */
#ifndef TW_TRAIN_CHECKPOINT_WEIGHTS_H
#define TW_TRAIN_CHECKPOINT_WEIGHTS_H

#include "train/formats/checkpoint.h"
#include "train/formats/weights.h"
#include "train/weight_origin.h"

/* The parameters alone, in f32, in the checkpoint's order: what a model is loaded from. `c` is borrowed and
 * must outlive *out. */
tw_status tw_checkpoint_params(tw_checkpoint *c, tw_weights **out) TW_MUST_CHECK;

/* Everything as in the file that was imported, if the checkpoint says so: types, order, tensors that no model
 * needs; else f32 in the original's order. With `optimizer` moments follow as weights.h says, numbered as the
 * original's optimizer does, with its two groups in the note; only then must the run's settings be such as
 * this build knows (else TW_ERR_CONFIG). *origin, if not NULL, is all zero for a checkpoint that was not
 * imported; freed with tw_weight_origin_free. */
tw_status tw_checkpoint_originals(tw_checkpoint *c, bool optimizer, tw_weights **out,
                                  tw_weight_origin *origin) TW_MUST_CHECK;

#endif
