/* A checkpoint opened for encoding, and the features it gives with their ids: what `tuwen extract` writes and
 * `tuwen evaluate` searches. */
#ifndef TW_TRAIN_ENCODER_H
#define TW_TRAIN_ENCODER_H

#include "train/log.h"
#include "train/model_io.h"
#include "train/split_texts.h"
#include "train/towers.h"

typedef struct tw_encoder_options {
    const char *checkpoint; /* anything that model_source.h opens */
    const char *vocab;      /* NULL: the checkpoint's */
    const char *model;      /* description, for files whose shapes do not say all; NULL: none */
    int precision;          /* 0: f32, 1: bf16 */
    int device;             /* an enum tw_config_device */
    int64_t batch, num_workers, threads;
    int64_t resolution, context_length; /* 0: the model's */
    bool ranks; /* works with the other ranks that a launcher started; only rank 0 gets results */
} tw_encoder_options;

/* f32, batches of 64, two loader threads, all cores; a GPU where there is one. */
tw_encoder_options tw_encoder_defaults(void);

typedef struct tw_encoder {
    tw_device *device;
    tw_comm *comm; /* NULL unless options.ranks */
    tw_loaded_model loaded;
    tw_towers *towers;
    tw_encode_options encode;
    tw_log *log;
    const char *unit;  /* for the progress bar: "images", "texts" */
    int64_t dim;       /* of the features */
    char source[4096]; /* "tiny, runs/one/epoch_1_step_20.h5" */
} tw_encoder;

/* The log, which may be NULL, gets progress and warnings, and must outlive the encoder. Two steps, so that
 * what may be wrong with a command's input is found among all ranks, but before the model is loaded: joins
 * the other ranks and opens the device, */
tw_status tw_encoder_join(const tw_encoder_options *options, tw_log *log, tw_encoder *out) TW_MUST_CHECK;
/* and loads the model. Over several ranks it is collective; `status` is what this rank has come to before,
 * see tw_comm_agree. After an error the encoder is still to be closed. */
tw_status tw_encoder_load(const tw_encoder_options *options, tw_status status, tw_encoder *e) TW_MUST_CHECK;
/* Both. After an error there is nothing to close. */
tw_status tw_encoder_open(const tw_encoder_options *options, tw_log *log, tw_encoder *out) TW_MUST_CHECK;
/* Whether results come to this rank: it is the only one or rank 0. */
bool tw_encoder_leads(const tw_encoder *encoder);
/* A rank's status at the end: an error ends the other ranks, and is told by one. */
tw_status tw_encoder_end(const tw_encoder *encoder, tw_status status) TW_MUST_CHECK;
void tw_encoder_close(tw_encoder *encoder); /* accepts one that is all zero, or was closed */

typedef struct tw_rows {
    int64_t n, dim;
    tw_id *ids;        /* (n); the texts of ids belong to the data set, or to the tw_split_texts */
    float *values;     /* (n, dim), each of length 1 */
    int64_t left_out;  /* bad images: not among the rows; each was logged as a warning */
    int64_t truncated; /* texts longer than the context */
    double seconds;
} tw_rows;

/* Over several ranks both are collective; on other ranks than 0 the rows are none.
 * All images of the split that can be decoded, in the byte order of their keys. */
tw_status tw_encoder_images(tw_encoder *encoder, const tw_dataset *dataset, tw_rows *out) TW_MUST_CHECK;
/* All texts, in their order, those without images included. */
tw_status tw_encoder_texts(tw_encoder *encoder, const tw_split_texts *texts, tw_rows *out) TW_MUST_CHECK;
void tw_rows_free(tw_rows *rows);

#endif
