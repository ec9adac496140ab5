/* A retrieval pool: the texts and images of a split, and which belong together. Texts keep the file's order,
 * images the order of their keys; both orders decide ties. */
#ifndef TW_TRAIN_POOL_H
#define TW_TRAIN_POOL_H

#include "data/shards.h"

typedef struct tw_pool_text {
    char *id; /* text form */
    bool id_is_integer;
    char *text;
    size_t bytes;
} tw_pool_text;

typedef struct tw_pool {
    int64_t n_texts, n_images;
    tw_pool_text *texts;
    int64_t *image_start,
        *image_of; /* images of text i: image_of[image_start[i] .. image_start[i+1]), indexes */
    int64_t *text_start, *text_of; /* texts of image j, likewise */
    int64_t unknown_images;        /* image ids that the texts name and the split does not have */
    char first_unknown[128];       /* "text 12 names image 34", or "" */
} tw_pool;

/* From a captions file (texts_path not NULL or empty), or from the split's pairs: then pairs with one text_id
 * are one text. The pool owns all it points to. */
tw_status tw_pool_load(const tw_dataset *dataset, const char *texts_path, tw_pool **out) TW_MUST_CHECK;
void tw_pool_free(tw_pool *pool);

#endif
