/* What the parts of tw_convert share. */
#ifndef TW_TRAIN_CONVERT_PRIVATE_H
#define TW_TRAIN_CONVERT_PRIVATE_H

#include "data/tokenizer.h"
#include "train/convert.h"

/* The input, under original names and in its own types, with optimizer state behind. */
typedef struct tw_convert_input {
    tw_model_source source;
    tw_weights *weights;     /* source's, or `originals` */
    tw_weights *originals;   /* of a tuwen checkpoint; owned */
    tw_weight_origin origin; /* of a tuwen checkpoint; else what the file is like, without its tensors */
    tw_model_config config;
    tw_dual_encoder *model; /* names and shapes only */
    tw_vocab *vocab;        /* NULL: none was found */
    int64_t *numbers;       /* (count) of the optimizer, -1: none; NULL without optimizer */
} tw_convert_input;

/* A tensor to be written. */
typedef struct tw_convert_item {
    int64_t source; /* of input->weights; -1: a batch counter that the file does not have */
    bool extra;     /* no part of the model */
    bool optimizer;
} tw_convert_item;

typedef struct tw_convert_plan {
    const tw_convert_options *options;
    tw_convert_input *in;
    tw_weight *items; /* (n); names owned */
    tw_convert_item *from;
    int64_t n;
    int64_t done, total, shown; /* bytes, and MB, for progress */
} tw_convert_plan;

/* Writes item i in items[i].type to dst, and shows progress; self is the plan. */
tw_status tw_convert_fill(void *self, int64_t i, void *dst) TW_MUST_CHECK;
/* `bytes` more of the input are done. */
void tw_convert_progress(tw_convert_plan *plan, int64_t bytes);
/* convert_h5.c: the plan's items are the input's, in its order. */
tw_status tw_convert_write_h5(tw_convert_plan *plan) TW_MUST_CHECK;

#endif
