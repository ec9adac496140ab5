/* Where the parts of a checkpoint lie in its file: what reading (checkpoint.c) and writing
 * (checkpoint_write.c) share. */
#ifndef TW_TRAIN_FORMATS_CHECKPOINT_PRIVATE_H
#define TW_TRAIN_FORMATS_CHECKPOINT_PRIVATE_H

#include "train/formats/checkpoint.h"
#include "train/formats/h5.h"

#define TW_CHECKPOINT_KIND "checkpoint"
#define TW_CHECKPOINT_EXTRA "extra" /* the group of raw tensors */

enum { TW_CHECKPOINT_NAME = 255, TW_CHECKPOINT_PARTS = 3 };

/* The group of each part of a parameter, by tw_checkpoint_part. */
extern const char *const tw_checkpoint_groups[TW_CHECKPOINT_PARTS];

#endif
