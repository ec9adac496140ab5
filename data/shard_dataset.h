/* What shards.c (opening, counting, the list of ids) and shard_reader.c share. */
#ifndef TW_DATA_SHARD_DATASET_H
#define TW_DATA_SHARD_DATASET_H

#include "data/lmdb_env.h"
#include "data/shards.h"

#include <pthread.h>
#include <stdbool.h>

typedef struct tw_image_key {
    size_t offset; /* in tw_key_index.text */
    uint16_t size, shard;
} tw_image_key;

/* The image ids in byte order, listed when first asked for. */
typedef struct tw_key_index {
    pthread_mutex_t lock;
    bool built;
    char *text; /* the ids, each followed by a zero */
    size_t text_size, text_capacity;
    tw_image_key *keys; /* (count) */
    int64_t count, capacity;
} tw_key_index;

typedef struct tw_shard_set {
    tw_lmdb **shards; /* (count) */
    int count;
} tw_shard_set;

struct tw_dataset {
    char *path;
    tw_shard_set images, pairs;
    int64_t image_count, pair_count;
    tw_key_index *index;
};

/* Lists the image ids if that was not done before. Thread-safe. */
TW_MUST_CHECK tw_status tw_dataset_list_images(const tw_dataset *dataset);
/* LMDB's order of keys: bytes as unsigned numbers, then length. */
int tw_compare_keys(const char *a, size_t a_size, const char *b, size_t b_size);

#endif
