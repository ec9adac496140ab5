/* The page at the end of a run: one self-contained report.html (no script, no external resource) with the
 * key numbers, the curves as inline SVG and a contact sheet of texts with the images found for them. */
#ifndef TW_TRAIN_REPORT_H
#define TW_TRAIN_REPORT_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Any double may be NaN or infinite, meaning "not known": it is left out of curves and shown as a dash. All
 * strings are UTF-8, escaped by the writer (broken bytes and control characters become U+FFFD); NULL counts
 * as "". Everything belongs to the caller. */

/* One logged training step. */
typedef struct tw_report_point {
    int64_t step; /* rising; 1 is the first optimizer step */
    double epoch, loss, lr, logit_scale, grad_norm, pairs_per_s;
} tw_report_point;

/* Percentages, 0 to 100; mean = (r1 + r5 + r10) / 3. */
typedef struct tw_report_recall {
    double r1, r5, r10, mean;
} tw_report_recall;

/* A validation over a whole pool. */
typedef struct tw_report_validation {
    int64_t step; /* 0: before the first step; rising */
    tw_report_recall t2i, i2t;
    int64_t n_text, n_image; /* size of the pool, for the chance level */
} tw_report_validation;

typedef struct tw_report_row {
    const char *key, *value;
} tw_report_row;

/* One image found for a text, in order of falling score. */
typedef struct tw_report_hit {
    const void *image; /* an encoded file; NULL or size 0: shown as missing */
    size_t size;
    const char *mime; /* "image/jpeg", "image/png", "image/webp"; anything else: shown as missing */
    double score;     /* cosine */
    bool is_right;
} tw_report_hit;

typedef struct tw_report_query {
    const char *text;
    const tw_report_hit *hits; /* [n_hits], usually 5 */
    size_t n_hits;
    int64_t right_rank; /* of the best right image in the whole pool, from 1; 0: not known */
} tw_report_query;

typedef struct tw_report {
    const char *title;    /* "tuwen: shapes_tiny_cpu" */
    const char *subtitle; /* one line on model and data; may be NULL */
    const tw_report_point *points;
    size_t n_points;
    const tw_report_validation *validations; /* "before" is the first if its step is 0; "after" the last */
    size_t n_validations;
    const tw_report_row *config;
    size_t n_config;
    const tw_report_row *profile; /* where the time went; none: the section is left out */
    size_t n_profile;
    const tw_report_query *queries;
    size_t n_queries;
    int64_t
        global_batch;   /* pairs; the loss of a model that knows nothing is ln(global_batch); <= 0: unknown */
    int64_t best_step;  /* of the checkpoint named best; < 0: none */
    int64_t parameters; /* <= 0: unknown */
    double train_seconds;  /* without validation; NaN: unknown */
    double pairs_per_s;    /* mean over the training */
    int64_t skipped_steps; /* gradient not finite */
    int64_t bad_records;   /* left out of the data */
} tw_report;

/* Writes the page to `path`, whole or not at all. TW_ERR_IO, TW_ERR_MEMORY. */
tw_status tw_report_write(const char *path, const tw_report *report) TW_MUST_CHECK;

#endif
