/* A map from byte strings to numbers, in insertion order. */
#ifndef TW_DATA_STRING_MAP_H
#define TW_DATA_STRING_MAP_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tw_string_map {
    int64_t count;
    /* The rest is string_map.c's. Start with {0}. */
    char *bytes;
    size_t size, capacity;
    size_t *start; /* (count + 1) of string i in bytes; each is followed by a zero */
    int64_t start_capacity;
    int64_t *slots; /* index + 1, or 0; a power of two of them */
    size_t slot_count;
} tw_string_map;

/* Number of `key`, which is count before the call if it is new; *is_new may be NULL. */
TW_MUST_CHECK tw_status tw_string_map_add(tw_string_map *map, const char *key, size_t size, int64_t *index,
                                          bool *is_new);
/* String number `index`, zero-terminated; valid until the next add. */
const char *tw_string_map_key(const tw_string_map *map, int64_t index, size_t *size);
/* Empties it. */
void tw_string_map_free(tw_string_map *map);

#endif
