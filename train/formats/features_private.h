/* What the feature files' formats share. */
#ifndef TW_TRAIN_FORMATS_FEATURES_PRIVATE_H
#define TW_TRAIN_FORMATS_FEATURES_PRIVATE_H

#include "data/atomic_file.h"
#include "train/formats/features.h"
#include "train/formats/h5.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Ids as they come: their texts one after another, each followed by a zero. */
typedef struct tw_id_list {
    char *text;
    size_t bytes, room, longest;
    size_t *at;    /* (n) offsets into text */
    bool *integer; /* (n) */
    int64_t n, capacity, integers;
} tw_id_list;

tw_status tw_id_list_add(tw_id_list *list, const tw_id *id) TW_MUST_CHECK;
void tw_id_list_free(tw_id_list *list);
/* Moves the texts into f->id_text and makes f->ids of them. */
tw_status tw_id_list_move(tw_id_list *list, tw_features *f) TW_MUST_CHECK;
/* Writes an id as JSON value. */
tw_status tw_id_print(FILE *out, const char *text, bool is_integer) TW_MUST_CHECK;

typedef struct tw_features_format {
    const char *endings[2];
    tw_status (*begin)(tw_features_writer *w);
    tw_status (*append)(tw_features_writer *w, const tw_id *ids, const float *values, int64_t n);
    tw_status (*commit)(tw_features_writer *w); /* w is freed by the caller */
    tw_status (*load)(const char *path, tw_features *out);
} tw_features_format;

extern const tw_features_format tw_features_h5, tw_features_npy, tw_features_jsonl;

struct tw_features_writer {
    const tw_features_format *format;
    char *path, *model;
    tw_features_kind kind;
    int64_t dim, n; /* rows appended */
    tw_id_list ids;
    tw_h5 *h5;    /* .h5 */
    float *block; /* .h5: (block_rows, dim), not yet written */
    int64_t block_rows, filled;
    tw_atomic_file file; /* .npy, .jsonl */
};

#endif
