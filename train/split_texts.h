/* The texts of a split with the images that belong to each, wherever the split keeps them: for extraction
 * and for evaluation. */
#ifndef TW_TRAIN_SPLIT_TEXTS_H
#define TW_TRAIN_SPLIT_TEXTS_H

#include "data/captions.h"
#include "train/encode.h"
#include "train/log.h"
#include "train/pool.h"

typedef struct tw_split_texts {
    int64_t n;
    const tw_id *ids;            /* (n), in file order */
    const tw_text *texts;        /* (n) */
    const int64_t *images_start; /* (n + 1): the images of text i are image_ids[images_start[i] ..
                                    images_start[i + 1]) */
    const tw_id *image_ids;
    int64_t bad; /* records left out because they were bad; each was logged as a warning */
    char source[4096];
    /* What holds all that. */
    tw_captions *captions;
    tw_pool *pool;
    tw_id *owned_ids, *owned_images;
    tw_text *owned_texts;
    char *owned_bytes;
} tw_split_texts;

/* From `path` if it is given; else from the texts file that belongs to the split; else from its pairs, where
 * one text_id is one text. dataset may be NULL if there is a path, and must outlive *out. TW_ERR_NOT_FOUND:
 * the split has no texts. */
tw_status tw_split_texts_load(const tw_dataset *dataset, const char *path, tw_log *log,
                              tw_split_texts *out) TW_MUST_CHECK;

/* Whether the texts of this split, without a path, come from its pairs: otherwise those need not be open. */
bool tw_split_texts_are_pairs(const char *split_dir);

typedef enum tw_texts_format { TW_TEXTS_AUTO, TW_TEXTS_JSONL, TW_TEXTS_LINES } tw_texts_format;

/* Texts to encode, whose images do not matter: from a file, or from standard input if path is "-". JSON lines
 * {"text_id": 1, "text": "..."} with or without image_ids, where a text may be empty or a number; or one text
 * a line, whose id is the number of its line, blank lines left out and counted as bad. AUTO: JSON lines if
 * the name ends in .jsonl, or if the first line begins with "{". */
tw_status tw_split_texts_read(const char *path, tw_texts_format format, tw_log *log,
                              tw_split_texts *out) TW_MUST_CHECK;
void tw_split_texts_free(tw_split_texts *texts); /* accepts one that is all zero */

/* Keys of an LMDB have no type: whether the ids of the split's images were strings where they came from, as
 * its first pair tells (false if it has no pairs). */
tw_status tw_split_image_ids_are_strings(const tw_dataset *dataset, bool *out) TW_MUST_CHECK;

#endif
