/* How shards.c and shard_writer.c name environments and keys. */
#ifndef TW_DATA_SHARD_LAYOUT_H
#define TW_DATA_SHARD_LAYOUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { TW_SHARDS_MAX = 1000, TW_SHARD_NAME = 32, TW_SHARD_FORMAT = 1 };

/* The environments' own keys. */
#define TW_KEY_IMAGES "num_images"
#define TW_KEY_PAIRS "num_samples"
#define TW_KEY_FORMAT "tuwen_format" /* value: TW_SHARD_FORMAT in decimal */

/* "imgs" of one, "imgs-00000-of-00008" of several. */
static inline void tw_shard_name(const char *kind, int shard, int shards, char name[TW_SHARD_NAME]) {
    if (shards == 1)
        (void)snprintf(name, TW_SHARD_NAME, "%s", kind);
    else
        (void)snprintf(name, TW_SHARD_NAME, "%s-%05d-of-%05d", kind, shard, shards);
}

/* 64-bit FNV-1a. */
static inline uint64_t tw_shard_hash(const void *data, size_t size) {
    const unsigned char *s = data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ s[i]) * 0x100000001b3u;
    return hash;
}

/* Where the writer puts them, and the reader looks first. Keys are those of a single environment; any
 * partition of them is read. */
static inline int tw_shard_of_image(const void *id, size_t size, int shards) {
    return shards == 1 ? 0 : (int)(tw_shard_hash(id, size) % (uint64_t)shards);
}
static inline int tw_shard_of_pair(int64_t index, int shards) {
    return (int)(index % shards);
}

#endif
