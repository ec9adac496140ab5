/* Models in and out of checkpoints. */
#ifndef TW_TRAIN_MODEL_IO_H
#define TW_TRAIN_MODEL_IO_H

#include "data/tokenizer.h"
#include "layers/dual_encoder.h"
#include "optim/adamw.h"
#include "train/formats/checkpoint.h"
#include "train/model_load.h"
#include "train/model_source.h"

/* The model description that a checkpoint carries. */
tw_status tw_checkpoint_model_config(const tw_checkpoint *c, tw_model_config *out) TW_MUST_CHECK;

/* Adam's moments of all parameters that are trained, which the checkpoint must have, in the model's shapes:
 * of each what this rank keeps. */
tw_status tw_moments_read(tw_dual_encoder *model, tw_checkpoint *c, tw_adamw *moments) TW_MUST_CHECK;

/* The parameters (and the moments, unless adamw is NULL) in host memory, ready for tw_checkpoint_write or
 * tw_run_folder_save. The model must outlive it: names are the model's. With moments it is collective, and
 * rank 0 keeps it; the others pass keep false and get an empty one. A model with masters in shares needs its
 * adamw. */
typedef struct tw_snapshot {
    tw_checkpoint_tensor *tensors;
    int64_t n;
    float *copies;
} tw_snapshot;

/* room NULL: values stay where they lie on a CPU, of what lies elsewhere there is a copy; model and moments
 * must not change before it is freed. Otherwise all values are copied to `room`, tw_snapshot_values(model,
 * adamw != NULL) floats, which must outlive the snapshot: the model may change. */
tw_status tw_model_snapshot(const tw_dual_encoder *model, const tw_adamw *adamw, bool keep, float *room,
                            tw_snapshot *out) TW_MUST_CHECK;
int64_t tw_snapshot_values(const tw_dual_encoder *model, bool moments);
void tw_snapshot_free(tw_snapshot *s);

/* The vocabulary to use: `path` if given; else the checkpoint's, if there is one that has one; else vocab.txt
 * in or beside the first of the files and folders `beside` (up to NULL) where it is. TW_ERR_NOT_FOUND lists
 * where it was looked for. */
tw_status tw_find_vocab(const char *path, const tw_checkpoint *c, const char *const *beside,
                        tw_vocab **out) TW_MUST_CHECK;

/* What is to be opened, and how; what is NULL or 0 is as the file says. */
typedef struct tw_model_choice {
    const char *path;        /* anything that model_source.h opens */
    const char *vocab;       /* file */
    const char *model;       /* description, for files whose shapes do not say all */
    int resolution, context; /* another one than the model's: the positional grid is resized */
} tw_model_choice;

/* A model opened for inference, on a device, without gradients, and its vocabulary. */
typedef struct tw_loaded_model {
    tw_dual_encoder *model;
    tw_vocab *vocab;
    tw_load_report report; /* what was resized */
} tw_loaded_model;

tw_status tw_model_open(const tw_model_choice *choice, tw_device *device, tw_dtype compute_type,
                        tw_loaded_model *out) TW_MUST_CHECK;
void tw_loaded_model_free(tw_loaded_model *m);

#endif
