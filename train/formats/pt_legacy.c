/* The form of torch.save before PyTorch 1.6: five pickles (a magic number, 1001, the system, the object, the
 * list of its storages' keys), then for each of those storages its count as int64 and its values. */
#include "data/pickle.h"
#include "data/string_map.h"
#include "train/formats/file_range.h"
#include "train/formats/pt_private.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 1000 * 1000 };
/* The pickles lie at the file's beginning and do not say how long they are: a larger part is read until they
 * are complete. */
static const uint64_t FIRST_PART = 1u << 20, LARGEST_PART = 256u << 20;

static const unsigned char MAGIC[] = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

bool tw_pt_is_legacy(const unsigned char *head, size_t size, size_t *end) {
    size_t at = 0, n = sizeof MAGIC - 1;
    if (size > 2 && head[0] == 0x80) at = 2;        /* PROTO */
    if (size > at + 9 && head[at] == 0x95) at += 9; /* FRAME, from protocol 4 on */
    *end = at + n;
    return size >= at + n && memcmp(head + at, MAGIC, n) == 0;
}

static tw_status read_plain(const tw_pt *pt, tw_pickle *p, const unsigned char *data, size_t size, size_t *at,
                            const tw_pickle_value **root) {
    tw_status status = tw_pickle_read(p, data + *at, size - *at, root);
    if (status) return tw_fail_context(status, "%s: after byte %zu", pt->path, *at);
    *at += tw_pickle_end(p);
    return TW_OK;
}

static tw_status check_system(const tw_pt *pt, tw_pickle *p, const unsigned char *data, size_t size,
                              size_t *at) {
    const tw_pickle_value *v = NULL;
    TRY(read_plain(pt, p, data, size, at, &v));
    if (v->kind != TW_PICKLE_INT || v->integer != 1001)
        return FAIL(TW_ERR_UNSUPPORTED, "%s: its version of the legacy form is unknown", pt->path);
    TRY(read_plain(pt, p, data, size, at, &v));
    for (size_t i = 0; v->kind == TW_PICKLE_DICT && i < v->items.size; i += 2) {
        const tw_pickle_value *key = v->items.data[i], *value = v->items.data[i + 1];
        if (key->kind == TW_PICKLE_STR && key->bytes.size == 13 &&
            memcmp(key->bytes.data, "little_endian", 13) == 0 && value->kind == TW_PICKLE_BOOL) {
            if (value->boolean) return TW_OK;
            return FAIL(TW_ERR_UNSUPPORTED,
                        "%s: its numbers are big-endian, only little-endian ones are read", pt->path);
        }
    }
    return FAIL(TW_ERR_FORMAT, "%s: it does not say its byte order", pt->path);
}

/* The storage numbers in file order, to be freed by the caller. */
static tw_status order_of(const tw_pt *pt, const tw_pickle_value *keys, int64_t **out) {
    const tw_torch_dict *d = pt->dict;
    if (keys->kind != TW_PICKLE_LIST || (int64_t)keys->items.size != d->storage_count)
        return FAIL(TW_ERR_FORMAT, "%s: its list of storages does not match its tensors", pt->path);
    tw_string_map map = {0};
    int64_t *order = malloc((keys->items.size + 1) * sizeof *order), number = 0;
    bool *seen = calloc(keys->items.size + 1, sizeof *seen), is_new;
    tw_status status =
        order && seen ? TW_OK : FAIL(TW_ERR_MEMORY, "%s: no memory for its list of storages", pt->path);
    for (int64_t i = 0; i < d->storage_count && !status; i++)
        status = tw_string_map_add(&map, d->storages[i].key, strlen(d->storages[i].key), &number, &is_new);
    for (size_t i = 0; i < keys->items.size && !status; i++) {
        const tw_pickle_value *key = keys->items.data[i];
        is_new = true;
        if (key->kind == TW_PICKLE_STR)
            status = tw_string_map_add(&map, key->bytes.data, key->bytes.size, &number, &is_new);
        if (!status && (is_new || seen[number]))
            status = FAIL(TW_ERR_FORMAT, "%s: its list of storages does not match its tensors", pt->path);
        if (status) break;
        seen[number] = true;
        order[i] = number;
    }
    tw_string_map_free(&map);
    free(seen);
    if (status)
        free(order);
    else
        *out = order;
    return status;
}

static tw_status find_storages(tw_pt *pt, const int64_t *order, uint64_t at) {
    for (int64_t i = 0; i < pt->dict->storage_count; i++) {
        const tw_torch_storage *s = &pt->dict->storages[order[i]];
        uint64_t bytes = (uint64_t)s->count * tw_weight_type_size(s->type);
        int64_t count;
        if (pt->file_size - at < sizeof count || bytes > pt->file_size - at - sizeof count)
            return FAIL(TW_ERR_FORMAT,
                        "%s: its storage '%s' of %lld x %s reaches beyond the file: it was cut off", pt->path,
                        s->key, (long long)s->count, tw_weight_type_name(s->type));
        TRY(tw_range_read(pt->path, pt->fd, at, sizeof count, &count));
        if (count != s->count)
            return FAIL(TW_ERR_FORMAT, "%s: its storage '%s' has %lld elements, %lld are expected", pt->path,
                        s->key, (long long)count, (long long)s->count);
        pt->where[order[i]] = (int64_t)(at + sizeof count);
        at += sizeof count + bytes;
    }
    return TW_OK;
}

/* Reads the pickles from the file's first `size` bytes. */
static tw_status read_pickles(tw_pt *pt, const unsigned char *data, size_t size) {
    tw_pickle *p = NULL;
    const tw_pickle_value *keys = NULL;
    int64_t *order = NULL;
    size_t at = 0;
    if (!tw_pt_is_legacy(data, size, &at)) return FAIL(TW_ERR_FORMAT, "%s: cut off", pt->path);
    TRY(tw_pickle_new(MAX_KEYS, &p));
    tw_pickle_limit(p, tw_pt_memory(pt->file_size) / 4);
    tw_status status = check_system(pt, p, data, size, &at);
    if (!status)
        status = tw_torch_read(pt->path, data + at, size - at, tw_pt_memory(pt->file_size), TW_TORCH_SAVED,
                               &pt->dict);
    if (!status) {
        at += pt->dict->end;
        status = read_plain(pt, p, data, size, &at, &keys);
    }
    if (!status) status = order_of(pt, keys, &order);
    if (!status) {
        pt->where = malloc(((size_t)pt->dict->storage_count + 1) * sizeof *pt->where);
        status = pt->where ? find_storages(pt, order, at)
                           : FAIL(TW_ERR_MEMORY, "%s: no memory for its list of storages", pt->path);
    }
    free(order);
    tw_pickle_free(p);
    return status;
}

tw_status tw_pt_read_legacy(tw_pt *pt) {
    for (uint64_t size = FIRST_PART;; size *= 4) {
        if (size > pt->file_size) size = pt->file_size;
        if (size > LARGEST_PART) size = LARGEST_PART;
        unsigned char *data = malloc((size_t)size);
        if (!data) return FAIL(TW_ERR_MEMORY, "%s: no memory for its pickles", pt->path);
        tw_status status = tw_range_read(pt->path, pt->fd, 0, size, data);
        if (!status) status = read_pickles(pt, data, (size_t)size);
        free(data);
        if (!status || size == pt->file_size || size == LARGEST_PART) return status;
        tw_torch_free(pt->dict);
        free(pt->where);
        pt->dict = NULL;
        pt->where = NULL;
    }
}
