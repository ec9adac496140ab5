/* Importing data sets: reading what people have, checking every record, writing shards (shard_writer.h).
 *
 * A bad record is counted, reported by name (file:line, or id) and left out; with `strict` the first one ends
 * the import. The split folder also gets `texts.jsonl`, every good text with its image ids, those without
 * images included: retrieval needs them all, and LMDB has pairs only. */
#ifndef TW_DATA_PREPARE_H
#define TW_DATA_PREPARE_H

#include "autograd/status.h"
#include "data/bad_record.h"
#include "data/shard_writer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tw_image_check {
    TW_CHECK_NONE,
    TW_CHECK_HEADERS, /* kind, size and end of the file (image_kind.h) */
    TW_CHECK_DECODE,  /* the pixels, as training will */
} tw_image_check;

enum { TW_BAD_NAMED = 5 }; /* bad records of each kind that a report names */

typedef struct tw_prepare_options {
    tw_shard_options shards;
    tw_image_check check;
    bool strict;
    /* Callbacks, each may be NULL. All get `context` first. */
    void *context;
    void (*on_bad)(void *context, tw_bad_kind kind, const char *message); /* each bad record */
    void (*on_progress)(void *context, const char *file, int64_t bytes, int64_t size, int64_t records);
    tw_status (*on_text)(void *context, const char *text,
                         size_t bytes); /* each good text; an error ends it */
    bool (*should_stop)(void *context); /* true: end with TW_ERR_INTERRUPTED */
} tw_prepare_options;

typedef struct tw_prepare_report {
    int64_t images, texts, pairs;
    int64_t image_bytes;          /* of image files, as they are on a disk */
    int64_t texts_without_images; /* kept in texts.jsonl */
    int64_t unused_images;        /* images that no text names */
    int64_t bad[TW_BAD_KINDS];
    int64_t bad_total;
    char *named[TW_BAD_KINDS][TW_BAD_NAMED]; /* messages of the first ones, or NULL */
} tw_prepare_report;

void tw_prepare_report_free(tw_prepare_report *report); /* empties it */

/* Each writes the split `output` ("data/lmdb/train") or nothing. *report is filled as far as it came, also
 * after an error, and is to be freed. TW_ERR_FORMAT: no good image or text at all, or a bad record with
 * `strict`; errors of tw_shard_writer_open and of reading. */

/* From `<split>_imgs.tsv` and `<split>_texts.jsonl`. One pair per (text, image). `jsonl` may be
 * NULL: images alone, a pool to extract features from. */
TW_MUST_CHECK tw_status tw_prepare_tsv(const char *tsv, const char *jsonl, const char *output,
                                       const tw_prepare_options *options, tw_prepare_report *report);

/* From a table (table.h) of image files, paths relative to `images`, and texts. Image ids are the paths as
 * they stand in the table, or with `number_images` integers from 1 in order of first appearance; text ids are
 * integers from 1. A row with the same image and text as an earlier one is one more pair. */
TW_MUST_CHECK tw_status tw_prepare_table(const char *table, const char *images, bool number_images,
                                         const char *output, const tw_prepare_options *options,
                                         tw_prepare_report *report);

/* From a prepared split (shards.h), the original tool's or this one's. Pairs keep their order; texts are
 * those of its texts.jsonl or `<split>_texts.jsonl` if there is one (tw_captions_find), else those of the
 * pairs. */
TW_MUST_CHECK tw_status tw_prepare_lmdb(const char *split_dir, const char *output,
                                        const tw_prepare_options *options, tw_prepare_report *report);

#endif
