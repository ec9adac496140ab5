/* Whether two data sets hold the same, by what lies in them here and there: places, names and the way images
 * are written (base64 or not) do not matter. */
#ifndef TW_TRAIN_DATA_HASH_H
#define TW_TRAIN_DATA_HASH_H

#include "data/shards.h"
#include "train/pool.h"

/* Of the number of pairs, and of texts, ids and images of 64 of them spread over the set. */
tw_status tw_data_hash_pairs(const tw_dataset *data, uint64_t *h) TW_MUST_CHECK;
/* Of 64 texts of the pool, in its order, and 64 images of the split. */
tw_status tw_data_hash_pool(const tw_dataset *data, const tw_pool *pool, uint64_t *h) TW_MUST_CHECK;

#endif
