/* What the ways of importing share: the open import with its writer, report and list of texts. */
#ifndef TW_DATA_PREPARE_INTERNAL_H
#define TW_DATA_PREPARE_INTERNAL_H

#include "data/lines.h"
#include "data/prepare.h"
#include "data/string_map.h"

#include <stdio.h>

typedef struct tw_import {
    const tw_prepare_options *options;
    tw_prepare_report *report;
    tw_shard_writer *writer;
    FILE *texts; /* texts.jsonl */
    char texts_path[4352];
    tw_string_map used;  /* ids of images that a text names */
    bool texts_optional; /* a pool of images is fine */
} tw_import;

/* After `begin`, whatever happened, comes `end` with the status so far: it finishes and publishes, or removes
 * what was written, and returns the first error. */
TW_MUST_CHECK tw_status tw_import_begin(tw_import *import, const char *output,
                                        const tw_prepare_options *options, tw_prepare_report *report);
TW_MUST_CHECK tw_status tw_import_end(tw_import *import, tw_status status);

/* Counts the bad record whose message is tw_last_error(); returns TW_OK to go on without it, or `status`. */
TW_MUST_CHECK tw_status tw_import_bad(tw_import *import, tw_bad_kind kind, tw_status status);
/* Progress, and TW_ERR_INTERRUPTED when asked to stop. Call it for each record. */
TW_MUST_CHECK tw_status tw_import_tick(tw_import *import, const char *file, int64_t bytes, int64_t size,
                                       int64_t records);

/* Checks and writes an image; `place` is put before messages. *written tells whether it went in. */
TW_MUST_CHECK tw_status tw_import_image(tw_import *import, const char *place, const tw_id *id,
                                        const void *data, size_t size, bool *written);
/* Writes a good text's line to texts.jsonl and counts it. */
TW_MUST_CHECK tw_status tw_import_text_line(tw_import *import, const char *line, size_t size,
                                            const char *text, size_t text_bytes, bool has_images);
/* Writes one pair and notes the image as used. */
TW_MUST_CHECK tw_status tw_import_pair(tw_import *import, const tw_id *image_id, const tw_id *text_id,
                                       const char *text, size_t text_bytes);

/* Reads captions from `jsonl` into texts.jsonl, and their pairs into the shards unless `texts_only`. */
TW_MUST_CHECK tw_status tw_import_captions(tw_import *import, const char *jsonl, bool texts_only);

#endif
