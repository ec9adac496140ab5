/* Models from any file to any other (`tuwen convert`). */
#ifndef TW_TRAIN_CONVERT_H
#define TW_TRAIN_CONVERT_H

#include "train/log.h"
#include "train/model_source.h"
#include "train/weight_origin.h"

typedef enum tw_convert_target { TW_TO_H5, TW_TO_PT, TW_TO_HF } tw_convert_target;
typedef enum tw_convert_precision { TW_KEEP, TW_AS_F32, TW_AS_F16, TW_AS_BF16 } tw_convert_precision;

typedef struct tw_convert_options {
    const char *in, *out;
    tw_convert_target target;
    /* KEEP: every tensor has the type it came with, through checkpoints too. AS_F16, AS_BF16: as the
     * published files, where the image tower's embeddings, norms and statistics and logit_scale stay f32. */
    tw_convert_precision precision;
    bool optimizer;    /* moments and step counter too, where there are any */
    const char *vocab; /* file; NULL: the checkpoint's, or vocab.txt beside it */
    const char *model; /* description, for files whose shapes do not say all; NULL: none */
    bool force;        /* replace what is at `out` */
    tw_log *log;       /* progress and warnings; may be NULL */
} tw_convert_options;

typedef struct tw_convert_result {
    tw_model_config config;
    int64_t tensors;  /* written, without the optimizer's */
    int64_t left_out; /* that the target has no place for (BERT's pooler in a Hugging Face folder, ...) */
    int64_t bytes;    /* of the tensors' values */
    bool has_vocab, has_optimizer;
} tw_convert_result;

/* TW_ERR_CONFIG: options that do not go together, `out` exists. TW_ERR_SHAPE: tensors are missing or unknown.
 * TW_ERR_NUMERIC names a tensor with a value that f16 cannot hold. And the errors of readers and writers. */
tw_status tw_convert(const tw_convert_options *options, tw_convert_result *result) TW_MUST_CHECK;

#endif
