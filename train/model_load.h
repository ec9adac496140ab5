/* Weights into a model, from any file, at any resolution. */
#ifndef TW_TRAIN_MODEL_LOAD_H
#define TW_TRAIN_MODEL_LOAD_H

#include "layers/dual_encoder.h"
#include "train/formats/weights.h"

/* Which of the model's parameters are to be filled. */
typedef enum tw_model_part {
    TW_PART_ALL,
    TW_PART_IMAGE, /* visual.*; everything else in the file is of no interest; visual.proj may be missing */
    TW_PART_TEXT,  /* bert.*; likewise */
} tw_model_part;

typedef struct tw_load_report {
    int64_t tensors;    /* filled */
    int64_t ignored;    /* known not to be part of a model (tw_name_is_ignored), or of another part */
    bool no_projection; /* of the image tower: the parameter was left as it was */
    int64_t resized_from, resized_to; /* the positional grid's sides; 0: it was not resized */
    char text[256];                   /* "positional grid resized from 14 x 14 to 24 x 24 ..."; "" */
} tw_load_report;

/* Fills the allocated model's parameters from `w`, which has original names (original_names.h). f16, bf16 and
 * other types become f32. The image tower's positional embedding may be of another resolution: its grid is
 * resized (position_grid.h), which *report says, to be shown to the user. On the CPU in f32 tensors are read
 * straight to their place; elsewhere one tensor at a time passes through memory.
 *
 * TW_ERR_SHAPE, before anything is read: tensors are missing, of another shape or unknown; the message counts
 * them and names the first ones. report may be NULL. */
tw_status tw_model_load(tw_dual_encoder *model, tw_weights *w, tw_model_part part,
                        tw_load_report *report) TW_MUST_CHECK;

/* The same checks alone, on a model that need not be allocated; *ignored counts as in the report. */
tw_status tw_model_fits(const tw_dual_encoder *model, const tw_weights *w, tw_model_part part,
                        int64_t *ignored) TW_MUST_CHECK;

#endif
