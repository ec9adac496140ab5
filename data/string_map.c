#include "data/string_map.h"

#include "data/shard_layout.h"

#include <stdlib.h>
#include <string.h>

static tw_status no_memory(const tw_string_map *map) {
    return FAIL(TW_ERR_MEMORY, "no memory for %lld names", (long long)map->count);
}

/* The slot that holds `key`, or the free one where it belongs. */
static size_t find(const tw_string_map *map, const char *key, size_t size) {
    size_t at = (size_t)tw_shard_hash(key, size) & (map->slot_count - 1);
    for (; map->slots[at]; at = (at + 1) & (map->slot_count - 1)) {
        size_t length;
        const char *other = tw_string_map_key(map, map->slots[at] - 1, &length);
        if (length == size && memcmp(other, key, size) == 0) break;
    }
    return at;
}

static tw_status grow_slots(tw_string_map *map) {
    size_t count = map->slot_count ? map->slot_count * 2 : 256;
    int64_t *slots = calloc(count, sizeof *slots);
    if (!slots) return no_memory(map);
    free(map->slots);
    map->slots = slots;
    map->slot_count = count;
    for (int64_t i = 0; i < map->count; i++) {
        size_t size;
        const char *key = tw_string_map_key(map, i, &size);
        map->slots[find(map, key, size)] = i + 1;
    }
    return TW_OK;
}

static tw_status append(tw_string_map *map, const char *key, size_t size) {
    if (map->count + 2 > map->start_capacity) {
        int64_t capacity = map->start_capacity * 2 + 256;
        size_t *start = realloc(map->start, (size_t)capacity * sizeof *start);
        if (!start) return no_memory(map);
        map->start = start;
        map->start_capacity = capacity;
    }
    if (map->capacity - map->size < size + 1) {
        size_t capacity = (map->size + size + 1) * 2;
        char *bytes = realloc(map->bytes, capacity);
        if (!bytes) return no_memory(map);
        map->bytes = bytes;
        map->capacity = capacity;
    }
    map->start[map->count] = map->size;
    if (size) memcpy(map->bytes + map->size, key, size);
    map->bytes[map->size + size] = '\0';
    map->size += size + 1;
    map->start[++map->count] = map->size;
    return TW_OK;
}

tw_status tw_string_map_add(tw_string_map *map, const char *key, size_t size, int64_t *index, bool *is_new) {
    if ((size_t)map->count * 2 >= map->slot_count) TRY(grow_slots(map));
    size_t at = find(map, key, size);
    bool fresh = map->slots[at] == 0;
    if (fresh) {
        TRY(append(map, key, size));
        map->slots[at] = map->count;
    }
    *index = map->slots[at] - 1;
    if (is_new) *is_new = fresh;
    return TW_OK;
}

const char *tw_string_map_key(const tw_string_map *map, int64_t index, size_t *size) {
    *size = map->start[index + 1] - map->start[index] - 1;
    return map->bytes + map->start[index];
}

void tw_string_map_free(tw_string_map *map) {
    free(map->bytes);
    free(map->start);
    free(map->slots);
    *map = (tw_string_map){0};
}
