/* The texts of a split with the images each belongs to, as evaluation needs them: `<split>_texts.jsonl`,
 * one {"text_id": 8428, "text": "…", "image_ids": [1076345, 517602]} a line (FACTS.md §5). Texts without
 * images are kept: in retrieval they are part of the pool. */
#ifndef TW_DATA_CAPTIONS_H
#define TW_DATA_CAPTIONS_H

#include "autograd/status.h"
#include "data/jsonl.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tw_captions {
    int64_t texts;               /* n */
    const tw_id *text_ids;       /* (n), in file order */
    const char *const *text;     /* (n), valid UTF-8, zero-terminated; blank ones only with any_text */
    const size_t *text_bytes;    /* (n), without the zero */
    const int64_t *images_start; /* (n + 1): the images of text i are image_ids[images_start[i] …
                                    images_start[i + 1]) */
    const tw_id *image_ids;      /* (images_start[n]), in file order */
    int64_t bad;                 /* records left out because they were bad */
} tw_captions;

typedef struct tw_captions_options {
    bool strict;          /* fail at the first bad record instead of leaving it out */
    bool images_optional; /* a record without image_ids has no images, instead of being bad */
    bool any_text;        /* tw_jsonl_allow_any_text: for encoding, where every text needs its feature */
    tw_lines *lines;      /* read these, open at their beginning, instead of opening path; taken over */
    /* Called with a sentence ("file:12: …") for each record that is left out. May be NULL. */
    void (*on_bad)(void *context, const char *message);
    void *context;
} tw_captions_options;

/* Reads `path`; options may be NULL. A file without a single good record is TW_ERR_FORMAT. A text id may
 * come more than once. Everything in *out lives until tw_captions_free. */
TW_MUST_CHECK tw_status tw_captions_load(const char *path, const tw_captions_options *options,
                                         tw_captions **out);
void tw_captions_free(tw_captions *captions); /* accepts NULL */

/* The texts file that belongs to the split in `split_dir` ("DIR/lmdb/valid"): "DIR/lmdb/valid/texts.jsonl",
 * which prepare writes, else "DIR/valid_texts.jsonl", where the original's layout has it. Writes the path to
 * `path`; TW_ERR_NOT_FOUND names both places. */
TW_MUST_CHECK tw_status tw_captions_find(const char *split_dir, char *path, size_t path_bytes);

#endif
