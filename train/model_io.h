/* Models in and out of checkpoints. */
#ifndef TW_TRAIN_MODEL_IO_H
#define TW_TRAIN_MODEL_IO_H

#include "data/tokenizer.h"
#include "layers/dual_encoder.h"
#include "optim/adamw.h"
#include "train/formats/checkpoint.h"

/* The model description that a checkpoint carries. */
tw_status tw_checkpoint_model_config(const tw_checkpoint *c, tw_model_config *out) TW_MUST_CHECK;

/* Copies every parameter of the (allocated) model from the checkpoint. Missing, extra and differently shaped
 * tensors are TW_ERR_SHAPE and named. moments may be NULL; with it Adam's moments are read too and must be
 * there. */
tw_status tw_model_read(tw_dual_encoder *model, tw_checkpoint *c, tw_adamw *moments) TW_MUST_CHECK;

/* A copy of the parameters (and of the moments, unless adamw is NULL) in host memory, ready for
 * tw_checkpoint_write or tw_run_folder_save. Names are the model's, which must outlive the snapshot. */
typedef struct tw_snapshot {
    tw_checkpoint_tensor *tensors;
    int64_t n;
    float *values;
} tw_snapshot;

tw_status tw_model_snapshot(const tw_dual_encoder *model, const tw_adamw *adamw,
                            tw_snapshot *out) TW_MUST_CHECK;
void tw_snapshot_free(tw_snapshot *s);

/* The vocabulary to use: `path` if given; else the checkpoint's, if it has one; else vocab.txt beside
 * `beside` (a file or folder; may be NULL). TW_ERR_NOT_FOUND lists where it was looked for. */
tw_status tw_find_vocab(const char *path, const tw_checkpoint *c, const char *beside,
                        tw_vocab **out) TW_MUST_CHECK;

/* A checkpoint opened for inference: model on `device` without gradients, and its vocabulary (vocab_path or
 * NULL). */
typedef struct tw_loaded_model {
    tw_dual_encoder *model;
    tw_vocab *vocab;
} tw_loaded_model;

tw_status tw_model_open(const char *checkpoint, const char *vocab_path, tw_device *device,
                        tw_dtype compute_type, tw_loaded_model *out) TW_MUST_CHECK;
void tw_loaded_model_free(tw_loaded_model *m);

#endif
