/* Feature files: one row of `dim` values an image or text, with its id.
 *
 * The format follows the name's end:
 *   .h5, .hdf5   sealed HDF5 (h5.h): /ids (n) int64 or fixed-length UTF-8, /features (n, dim) f32, attributes
 *                "kind" ("image", "text"), "model", "dim"
 *   .npy         NumPy 1.0, float32, C order, (n, dim); the ids, one JSON value a line, in <name>.ids.jsonl
 *   .jsonl       the original code's {"image_id": 1, "feature": [0.1, ...]} or {"text_id": ...}; values are
 *                the f32 as doubles in Python's repr, so equal features give equal bytes
 * All are written under a temporary name and appear whole or not at all. */
#ifndef TW_TRAIN_FORMATS_FEATURES_H
#define TW_TRAIN_FORMATS_FEATURES_H

#include "autograd/status.h"
#include "data/record_id.h"

#include <stdint.h>

typedef enum tw_features_kind { TW_FEATURES_IMAGE, TW_FEATURES_TEXT, TW_FEATURES_UNKNOWN } tw_features_kind;

/* ---- writing ---- */

typedef struct tw_features_writer tw_features_writer;

/* Begins a file of rows of dim >= 1 values. `model` says where they come from (a checkpoint's name and step);
 * kept by HDF5 only, may be NULL. TW_ERR_CONFIG: the name ends in none of the above; TW_ERR_IO. */
tw_status tw_features_create(const char *path, tw_features_kind kind, int64_t dim, const char *model,
                             tw_features_writer **out) TW_MUST_CHECK;
/* Appends n rows, values (n, dim), ids (n); both are copied. TW_ERR_NUMERIC names the id of a row that is not
 * finite; TW_ERR_IO. After an error only tw_features_discard is allowed. */
tw_status tw_features_append(tw_features_writer *w, const tw_id *ids, const float *values,
                             int64_t n) TW_MUST_CHECK;
/* Finishes, syncs and names the file; frees w in every case. */
tw_status tw_features_commit(tw_features_writer *w) TW_MUST_CHECK;
/* Removes the unfinished file and frees w, which may be NULL. */
void tw_features_discard(tw_features_writer *w);

/* ---- reading ---- */

typedef struct tw_features {
    tw_features_kind kind; /* UNKNOWN for .npy */
    int64_t n, dim;
    float *values; /* (n, dim) */
    tw_id *ids;    /* (n); NULL for an .npy without its .ids.jsonl */
    char *model;   /* NULL if not known */
    char *id_text; /* the ids' memory */
} tw_features;

/* Reads a whole file into memory. TW_ERR_FORMAT, with file and line or id, for anything wrong in it. *out is
 * freed with tw_features_free. */
tw_status tw_features_load(const char *path, tw_features **out) TW_MUST_CHECK;
void tw_features_free(tw_features *f); /* accepts NULL */

/* ---- .npy alone ---- */

/* Writes values (n, dim) as NumPy format 1.0, "<f4", C order; atomically. */
tw_status tw_npy_write(const char *path, const float *values, int64_t n, int64_t dim) TW_MUST_CHECK;
/* Reads a 2-D little-endian float32 array in C order; *values (n, dim) is freed by the caller. TW_ERR_FORMAT
 * says what it is instead. */
tw_status tw_npy_read(const char *path, float **values, int64_t *n, int64_t *dim) TW_MUST_CHECK;

#endif
