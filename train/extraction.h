/* Features of many images or texts into a file, without holding them all, and resumable: the rows of finished
 * batches lie in "<folder>/.<name>.part" (feature_part.h) until the file is written. */
#ifndef TW_TRAIN_EXTRACTION_H
#define TW_TRAIN_EXTRACTION_H

#include "data/image_files.h"
#include "train/encoder.h"
#include "train/formats/features.h"

typedef struct tw_extraction {
    tw_encoder *encoder;
    const tw_encoder_options *options; /* the encoder's */
    const char *path;                  /* of the feature file; its ending says which format */
    /* What is encoded, one of them: */
    const tw_dataset *dataset;
    const tw_image_files *files;
    const tw_split_texts *texts;
} tw_extraction;

typedef struct tw_extracted {
    int64_t rows;      /* in the file */
    int64_t left_out;  /* bad images */
    int64_t truncated; /* texts longer than the context */
    int64_t resumed;   /* items, bad ones included, that an interrupted run had done */
    int64_t encoded;   /* items of this run */
    double seconds;    /* of this run's encoding */
} tw_extracted;

/* Collective where the encoder works over ranks; rank 0 writes, and only its *out is filled.
 * Encodes what is not there yet and writes the file: bit for bit the same whether the run was interrupted or
 * not, for the same build, processor, options and number of compute threads a rank,
 * whatever the number of ranks. If the model, the items or an
 * option that changes bits are others than the interrupted run's, its work is dropped with a warning. The
 * .part file stays, so that a run of several files that is interrupted later need not do this one again. */
tw_status tw_extract(const tw_extraction *e, tw_extracted *out) TW_MUST_CHECK;
/* Removes the .part file that belongs to `path`, if there is one. */
void tw_extract_forget(const char *path);

#endif
