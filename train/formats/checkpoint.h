/* Checkpoints: one self-describing HDF5 file with everything that is needed to go on or to use the model.
 *
 *   /params/<name>  /optim/m/<name>  /optim/v/<name>   f32, in the caller's order
 *   /meta/model_yaml  /meta/config_yaml  /meta/vocab  /meta/extra  /meta/origin   bytes
 *   /extra/<name>   bytes: tensors of an imported file that no model needs, to be given back on export
 *   attributes of /: format, format_version and the numbers and short texts of tw_checkpoint_meta
 *
 * The file is written atomically and sealed (h5.h, seal.h): a file that opens is complete and unchanged.
 * Plain arrays in and out: nothing here knows layers or optimizers. Functions may be called from any thread,
 * but one tw_checkpoint from one thread at a time. */
#ifndef TW_TRAIN_FORMATS_CHECKPOINT_H
#define TW_TRAIN_FORMATS_CHECKPOINT_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TW_CHECKPOINT_VERSION = 1 };

/* One parameter to be written. Everything is borrowed for the call. */
typedef struct tw_checkpoint_tensor {
    const char *name;   /* unique, not empty, no '/', at most 255 bytes */
    int ndim;           /* 0 .. 4; 0 is one value, as logit_scale */
    int64_t shape[4];   /* each side >= 1 */
    const float *param; /* row-major, the product of shape values */
    const float *m, *v; /* Adam's moments, of the same shape; NULL if none (frozen, statistics) */
} tw_checkpoint_tensor;

/* Everything beside the tensors. Strings are malloc'd and owned by the struct, NULL if none; for
 * tw_checkpoint_write they may point anywhere (they are only read). */
typedef struct tw_checkpoint_meta {
    char *model_yaml;   /* the model's configuration, whole */
    char *config_yaml;  /* the run's configuration, whole */
    char *vocab;        /* vocab.txt as it was read; any bytes */
    size_t vocab_bytes; /* its length */
    char *extra;        /* whatever the trainer wants to keep (for example its history as JSON) */
    char *origin;       /* what an imported file was like (JSON, see train/weight_origin.h) */
    char *precision;    /* compute type: "f32", "bf16" */
    char *cpu, *build;  /* for bit-equality: CPU features and build; a difference warns */
    char *train_data;   /* what the training data hold; a difference warns */
    int context_length; /* tokens, [CLS] and [SEP] included */
    int64_t step;       /* optimizer steps of the run, skipped ones included */
    int64_t epoch;      /* the epoch that the next sample belongs to, from 0 */
    int64_t position;   /* samples of this epoch already consumed, over all ranks */
    int64_t adam_steps; /* Adam's own counter: steps that changed weights */
    uint64_t seed;
    int64_t skipped; /* steps skipped in a row for a gradient that was not finite */
    int64_t skipped_total;
    double best_r1;                  /* in %, of the checkpoint that `best` points to; -1: none yet */
    int64_t best_step;               /* its step; -1: none yet */
    int threads, ranks, micro_batch; /* with which the run was made */
} tw_checkpoint_meta;

/* All zero, best_r1 and best_step -1. */
void tw_checkpoint_meta_init(tw_checkpoint_meta *meta);
/* Frees the strings and initialises again. */
void tw_checkpoint_meta_free(tw_checkpoint_meta *meta);

/* Writes n tensors to `path`: under a temporary name in the same folder, flushed, sealed, synced, renamed,
 * the folder synced. On any error (TW_ERR_IO with the system's reason for no space or no permission) the
 * temporary is removed and an earlier file at `path` is intact. */
tw_status tw_checkpoint_write(const char *path, const tw_checkpoint_meta *meta,
                              const tw_checkpoint_tensor *tensors, int64_t n) TW_MUST_CHECK;

typedef enum tw_checkpoint_part {
    TW_CHECKPOINT_PARAM,
    TW_CHECKPOINT_M,
    TW_CHECKPOINT_V,
} tw_checkpoint_part;

/* One parameter of a checkpoint. Of an open one: valid until tw_checkpoint_close. */
typedef struct tw_checkpoint_entry {
    const char *name;
    int ndim;
    int64_t shape[4];
    int64_t count; /* product of shape */
    bool has_m, has_v;
} tw_checkpoint_entry;

/* Bytes that are kept as they are. */
typedef struct tw_checkpoint_raw {
    const char *name; /* as a tensor's */
    size_t bytes;
} tw_checkpoint_raw;

/* A checkpoint's content, produced one tensor at a time so that a model of any size needs no second copy. */
typedef struct tw_checkpoint_output {
    const tw_checkpoint_entry *entries; /* n; name, ndim and shape as tw_checkpoint_tensor's, has_m, has_v */
    int64_t n;
    const tw_checkpoint_raw *raw;
    int64_t raw_count;
    tw_status (*fill)(void *self, int64_t i, tw_checkpoint_part part,
                      float *dst); /* all of entry i's values */
    tw_status (*fill_raw)(void *self, int64_t i, void *dst);
    void *self;
} tw_checkpoint_output;

/* As tw_checkpoint_write; and whatever fill and fill_raw return. */
tw_status tw_checkpoint_write_output(const char *path, const tw_checkpoint_meta *meta,
                                     const tw_checkpoint_output *output) TW_MUST_CHECK;

typedef struct tw_checkpoint tw_checkpoint;

/* Opens a checkpoint file, or the one that `latest` in a run folder points to, and checks every byte of it
 * (as fast as reading the file). Errors name the file: TW_ERR_IO (no such file), TW_ERR_FORMAT (not a
 * checkpoint, truncated, damaged), TW_ERR_UNSUPPORTED (written by a newer format). For a run folder whose
 * latest checkpoint may be damaged see tw_run_folder_open. */
tw_status tw_checkpoint_open(const char *path, tw_checkpoint **out) TW_MUST_CHECK;
/* c may be NULL. */
void tw_checkpoint_close(tw_checkpoint *c);

/* The file that was opened, and its size in bytes. */
const char *tw_checkpoint_path(const tw_checkpoint *c);
int64_t tw_checkpoint_bytes(const tw_checkpoint *c);
/* Owned by c; never NULL. */
const tw_checkpoint_meta *tw_checkpoint_get_meta(const tw_checkpoint *c);

/* The parameters, in the order in which they were written. */
int64_t tw_checkpoint_count(const tw_checkpoint *c);
const tw_checkpoint_entry *tw_checkpoint_at(const tw_checkpoint *c, int64_t i); /* 0 <= i < count */
/* NULL if there is no such parameter. */
const tw_checkpoint_entry *tw_checkpoint_find(const tw_checkpoint *c, const char *name);

/* TW_ERR_NOT_FOUND if `name` is not there, TW_ERR_SHAPE (with both shapes) if its shape is another. For
 * loaders that want a clear error about another architecture before they read. */
tw_status tw_checkpoint_expect(const tw_checkpoint *c, const char *name, int ndim,
                               const int64_t *shape) TW_MUST_CHECK;

/* Copies one tensor into dst[0..count), bit for bit. TW_ERR_NOT_FOUND: no such tensor, or it has no moments;
 * TW_ERR_SHAPE: it has not `count` values. */
tw_status tw_checkpoint_read(tw_checkpoint *c, const char *name, tw_checkpoint_part part, float *dst,
                             int64_t count) TW_MUST_CHECK;

/* The same of values [first, first + count) alone, for a rank that keeps a share: the rest of a large tensor
 * is not read. TW_ERR_SHAPE: they are not all there. */
tw_status tw_checkpoint_read_range(tw_checkpoint *c, const char *name, tw_checkpoint_part part, int64_t first,
                                   float *dst, int64_t count) TW_MUST_CHECK;

/* The bytes of /extra/<name>: exactly `bytes` of them into dst. TW_ERR_NOT_FOUND, TW_ERR_FORMAT (another
 * size).
 */
tw_status tw_checkpoint_read_raw(tw_checkpoint *c, const char *name, void *dst, size_t bytes) TW_MUST_CHECK;

#endif
