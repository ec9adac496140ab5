/* Where a model's weights can come from, opened by content:
 *
 *   a tuwen checkpoint (.h5) or run folder        original .pt files, zip or legacy, and pytorch_model.bin
 *   a safetensors file                            a Hugging Face folder
 *
 * Whatever it is, its tensors have the original's names and its architecture is known. */
#ifndef TW_TRAIN_MODEL_SOURCE_H
#define TW_TRAIN_MODEL_SOURCE_H

#include "layers/dual_encoder.h"
#include "train/formats/checkpoint.h"
#include "train/formats/hf_folder.h"
#include "train/original_names.h"

typedef enum tw_source_kind {
    TW_SOURCE_TUWEN,
    TW_SOURCE_PYTORCH,
    TW_SOURCE_SAFETENSORS,
    TW_SOURCE_HF_FOLDER,
} tw_source_kind;

/* TW_ERR_IO: no such file or folder; TW_ERR_FORMAT: it is none of these (the message says what is known). */
tw_status tw_source_kind_of(const char *path, tw_source_kind *out) TW_MUST_CHECK;

typedef struct tw_model_source {
    const char *path; /* as given to open; borrowed */
    tw_source_kind kind;
    tw_checkpoint *checkpoint; /* TUWEN; else NULL. Owned */
    tw_original original;      /* the tensors; for TUWEN the parameters in f32. Owned */
    bool has_hf_config;        /* config.json lies in the folder, or beside the file */
    tw_hf_config hf_config;
    char folder[4096]; /* where vocab.txt and config.json would be: the folder, or the file's */
} tw_model_source;

/* Opens `path`, which must outlive *out; tensors are not read yet. The errors of tw_source_kind_of and of the
 * reader of its kind. */
tw_status tw_model_source_open(const char *path, tw_model_source *out) TW_MUST_CHECK;
/* Takes an open checkpoint over, also on failure. */
tw_status tw_model_source_of_checkpoint(tw_checkpoint *c, tw_model_source *out) TW_MUST_CHECK;
void tw_model_source_close(tw_model_source *s); /* accepts one that is all zero */

/* The whole model's description: the one that a tuwen checkpoint carries, else recognised (recognise.h), with
 * what config.json says. `model` (NULL or "": none), a file or a name in configs/models, gives a recognised
 * model its name, heads and context; TW_ERR_CONFIG if its sizes are others, resolution excepted. */
tw_status tw_model_source_config(const tw_model_source *s, const char *model,
                                 tw_model_config *out) TW_MUST_CHECK;

#endif
