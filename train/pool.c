#include "train/pool.h"

#include "data/captions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* (text, image) links while they are collected. */
typedef struct links {
    int64_t *text, *image;
    int64_t count, capacity;
} links;

static tw_status add_link(links *l, int64_t text, int64_t image) {
    if (l->count == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 1024;
        int64_t *a = realloc(l->text, (size_t)capacity * sizeof *a);
        if (a) l->text = a;
        int64_t *b = realloc(l->image, (size_t)capacity * sizeof *b);
        if (b) l->image = b;
        if (!a || !b) return FAIL(TW_ERR_MEMORY, "out of memory");
        l->capacity = capacity;
    }
    l->text[l->count] = text;
    l->image[l->count++] = image;
    return TW_OK;
}

/* Lists, for each of n keys, the values linked to it, in link order (a counting sort). */
static tw_status group(const int64_t *key, const int64_t *value, int64_t count, int64_t n, int64_t **start,
                       int64_t **of) {
    *start = calloc((size_t)n + 2, sizeof **start);
    *of = calloc((size_t)count + 1, sizeof **of);
    if (!*start || !*of) return FAIL(TW_ERR_MEMORY, "out of memory");
    int64_t *at = *start + 1; /* shifted by one: after filling, start[i] is where i begins */
    for (int64_t k = 0; k < count; k++) at[key[k] + 1]++;
    for (int64_t i = 0; i < n; i++) at[i + 1] += at[i];
    for (int64_t k = 0; k < count; k++) (*of)[at[key[k]]++] = value[k];
    return TW_OK;
}

static tw_status link_image(tw_pool *pool, tw_reader *reader, links *l, int64_t text, const tw_id *image) {
    int64_t index;
    tw_status status = tw_dataset_image_index(reader, image->text, image->size, &index);
    if (status == TW_ERR_NOT_FOUND) {
        if (pool->unknown_images++ == 0)
            snprintf(pool->first_unknown, sizeof pool->first_unknown, "text %.40s names image %.40s",
                     pool->texts[text].id, image->text);
        return TW_OK;
    }
    TRY(status);
    return add_link(l, text, index);
}

static tw_status set_text(tw_pool_text *t, const tw_id *id, const char *text, size_t bytes) {
    t->id = strndup(id->text, id->size);
    t->id_is_integer = id->is_integer;
    t->text = malloc(bytes + 1);
    if (!t->id || !t->text) return FAIL(TW_ERR_MEMORY, "out of memory");
    memcpy(t->text, text, bytes);
    t->text[bytes] = '\0';
    t->bytes = bytes;
    return TW_OK;
}

static tw_status from_captions(tw_pool *pool, tw_reader *reader, const tw_captions *c, links *l) {
    pool->texts = calloc((size_t)c->texts + 1, sizeof *pool->texts);
    if (!pool->texts) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; i < c->texts; i++) {
        pool->n_texts = i + 1;
        TRY(set_text(&pool->texts[i], &c->text_ids[i], c->text[i], c->text_bytes[i]));
        for (int64_t k = c->images_start[i]; k < c->images_start[i + 1]; k++)
            TRY(link_image(pool, reader, l, i, &c->image_ids[k]));
    }
    return TW_OK;
}

/* Open addressing from text id to text index; slots hold index + 1. */
typedef struct id_map {
    int64_t *slots;
    uint64_t mask;
} id_map;

static int64_t *find_slot(const id_map *map, const tw_pool *pool, const char *id, size_t size) {
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)id[i]) * 1099511628211u;
    for (uint64_t at = h & map->mask;; at = (at + 1) & map->mask) {
        int64_t slot = map->slots[at];
        if (slot == 0) return &map->slots[at];
        const char *other = pool->texts[slot - 1].id;
        if (other && strlen(other) == size && memcmp(other, id, size) == 0) return &map->slots[at];
    }
}

static tw_status collect_pairs(tw_pool *pool, tw_reader *reader, int64_t n, const id_map *map, links *l) {
    for (int64_t i = 0; i < n; i++) {
        tw_pair pair;
        TRY(tw_dataset_pair(reader, i, &pair));
        int64_t *slot = find_slot(map, pool, pair.text_id.text, pair.text_id.size);
        if (*slot == 0) {
            TRY(set_text(&pool->texts[pool->n_texts], &pair.text_id, pair.text, pair.text_bytes));
            *slot = ++pool->n_texts;
        }
        TRY(link_image(pool, reader, l, *slot - 1, &pair.image_id));
    }
    return TW_OK;
}

static tw_status from_pairs(tw_pool *pool, tw_reader *reader, int64_t n, links *l) {
    id_map map = {.mask = 1024};
    while (map.mask < (uint64_t)n * 2) map.mask *= 2;
    map.slots = calloc(map.mask, sizeof *map.slots);
    map.mask--;
    pool->texts = calloc((size_t)n + 1, sizeof *pool->texts);
    tw_status status = map.slots && pool->texts ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) status = collect_pairs(pool, reader, n, &map, l);
    free(map.slots);
    return status;
}

static tw_status fill(tw_pool *pool, tw_reader *reader, const tw_dataset *dataset, const char *texts_path,
                      links *l) {
    pool->n_images = tw_dataset_images(dataset);
    if (texts_path && *texts_path) {
        tw_captions *captions;
        TRY(tw_captions_load(texts_path, &(tw_captions_options){.any_text = true}, &captions));
        tw_status status = from_captions(pool, reader, captions, l);
        tw_captions_free(captions);
        TRY(status);
    } else {
        TRY(from_pairs(pool, reader, tw_dataset_pairs(dataset), l));
    }
    if (pool->n_texts == 0 || pool->n_images == 0)
        return FAIL(TW_ERR_FORMAT, "%s: nothing to retrieve: %lld texts, %lld images",
                    tw_dataset_path(dataset), (long long)pool->n_texts, (long long)pool->n_images);
    TRY(group(l->text, l->image, l->count, pool->n_texts, &pool->image_start, &pool->image_of));
    return group(l->image, l->text, l->count, pool->n_images, &pool->text_start, &pool->text_of);
}

tw_status tw_pool_load(const tw_dataset *dataset, const char *texts_path, tw_pool **out) {
    *out = NULL;
    tw_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_reader *reader = NULL;
    links l = {0};
    tw_status status = tw_reader_open(dataset, &reader);
    if (status == TW_OK) status = fill(pool, reader, dataset, texts_path, &l);
    tw_reader_close(reader);
    free(l.text);
    free(l.image);
    if (status != TW_OK) {
        tw_pool_free(pool);
        return status;
    }
    *out = pool;
    return TW_OK;
}

void tw_pool_free(tw_pool *pool) {
    if (!pool) return;
    for (int64_t i = 0; i < pool->n_texts; i++) {
        free(pool->texts[i].id);
        free(pool->texts[i].text);
    }
    free(pool->texts);
    free(pool->image_start);
    free(pool->image_of);
    free(pool->text_start);
    free(pool->text_of);
    free(pool);
}
