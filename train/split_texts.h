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
} tw_split_texts;

/* From `path` if it is given; else from the texts file that belongs to the split; else from its pairs, where
 * one text_id is one text. dataset may be NULL if there is a path, and must outlive *out. TW_ERR_NOT_FOUND:
 * the split has no texts. */
tw_status tw_split_texts_load(const tw_dataset *dataset, const char *path, tw_log *log,
                              tw_split_texts *out) TW_MUST_CHECK;
void tw_split_texts_free(tw_split_texts *texts); /* accepts one that is all zero */

/* Keys of an LMDB have no type: whether the ids of the split's images were strings where they came from, as
 * its first pair tells (false if it has no pairs). */
tw_status tw_split_image_ids_are_strings(const tw_dataset *dataset, bool *out) TW_MUST_CHECK;

#endif
