#include "autograd/progress.h"
#include "data/base64.h"
#include "data/image_kind.h"
#include "data/shard_dataset.h"
#include "data/shard_layout.h"
#include "data/shard_pair.h"

#include <stdlib.h>
#include <string.h>

struct tw_reader {
    const tw_dataset *dataset;
    MDB_txn **image_txns, **pair_txns; /* one a shard, begun when first needed */
    tw_pair_reader *pair_reader;
    uint8_t *bytes;
    size_t capacity;
};

tw_status tw_reader_open(const tw_dataset *d, tw_reader **out) {
    *out = NULL;
    tw_reader *r = calloc(1, sizeof *r);
    if (r) {
        r->dataset = d;
        r->image_txns = calloc((size_t)d->images.count + 1, sizeof(MDB_txn *));
        r->pair_txns = calloc((size_t)d->pairs.count + 1, sizeof(MDB_txn *));
    }
    if (!r || !r->image_txns || !r->pair_txns || tw_pair_reader_new(&r->pair_reader)) {
        tw_reader_close(r);
        return FAIL(TW_ERR_MEMORY, "%s: no memory for a reader", d->path);
    }
    *out = r;
    return TW_OK;
}

void tw_reader_close(tw_reader *r) {
    if (!r) return;
    for (int i = 0; r->image_txns && i < r->dataset->images.count; i++)
        if (r->image_txns[i]) mdb_txn_abort(r->image_txns[i]);
    for (int i = 0; r->pair_txns && i < r->dataset->pairs.count; i++)
        if (r->pair_txns[i]) mdb_txn_abort(r->pair_txns[i]);
    free(r->image_txns);
    free(r->pair_txns);
    tw_pair_reader_free(r->pair_reader);
    free(r->bytes);
    free(r);
}

static tw_status get(const tw_lmdb *lmdb, MDB_txn **txn, const char *key, size_t size, MDB_val *value,
                     bool *found) {
    *found = false;
    tw_progress_aside();
    if (!*txn) TRY(tw_lmdb_status(mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, txn), lmdb->path, "begin"));
    MDB_val k = {size, (void *)key};
    int code = mdb_get(*txn, lmdb->dbi, &k, value);
    if (code == MDB_NOTFOUND || code == MDB_BAD_VALSIZE) return TW_OK;
    *found = code == 0;
    return tw_lmdb_status(code, lmdb->path, key);
}

tw_status tw_dataset_pair(tw_reader *r, int64_t index, tw_pair *out) {
    const tw_dataset *d = r->dataset;
    if (index < 0 || index >= d->pair_count)
        return FAIL(TW_ERR_ARGUMENT, "%s: no pair %lld, there are %lld", d->path, (long long)index,
                    (long long)d->pair_count);
    char key[24];
    int size = snprintf(key, sizeof key, "%lld", (long long)index);
    bool found = false;
    MDB_val value = {0, NULL};
    for (int i = 0; i < d->pairs.count && !found; i++) {
        int shard = (tw_shard_of_pair(index, d->pairs.count) + i) % d->pairs.count;
        TRY(get(d->pairs.shards[shard], &r->pair_txns[shard], key, (size_t)size, &value, &found));
    }
    if (!found) return FAIL(TW_ERR_FORMAT, "%s: pair %s is missing", d->path, key);
    tw_status status = tw_pair_parse(r->pair_reader, value.mv_data, value.mv_size, out);
    return status ? tw_fail_context(status, "%s: pair %s", d->path, key) : TW_OK;
}

/* The image file in a value: itself, or base64 undone into the reader's buffer. */
static tw_status image_bytes(tw_reader *r, const MDB_val *value, const char *id, tw_bytes *out) {
    *out = (tw_bytes){value->mv_data, value->mv_size};
    if (tw_image_kind_of(out->data, out->size) != TW_IMAGE_UNKNOWN) return TW_OK;
    size_t bound = tw_base64_decoded_bound(value->mv_size);
    if (bound > r->capacity) {
        free(r->bytes);
        r->capacity = 0;
        r->bytes = malloc(bound + bound / 2);
        if (!r->bytes) return FAIL(TW_ERR_MEMORY, "no memory for an image of %zu bytes", bound);
        r->capacity = bound + bound / 2;
    }
    size_t size;
    tw_status status = tw_base64_decode(value->mv_data, value->mv_size, r->bytes, &size);
    if (status == TW_OK && tw_image_kind_of(r->bytes, size) == TW_IMAGE_UNKNOWN)
        status = FAIL(TW_ERR_FORMAT, "its base64 holds no JPEG, PNG or WebP file");
    if (status) return tw_fail_context(status, "%s: image %s", r->dataset->path, id);
    *out = (tw_bytes){r->bytes, size};
    return TW_OK;
}

tw_status tw_dataset_image(tw_reader *r, const char *image_id, size_t id_bytes, tw_bytes *out) {
    const tw_dataset *d = r->dataset;
    *out = (tw_bytes){NULL, 0};
    MDB_val value = {0, NULL};
    bool found = false;
    bool searchable = id_bytes > 0 && id_bytes <= TW_ID_MAX_BYTES && !tw_id_is_reserved(image_id, id_bytes);
    for (int i = 0; searchable && i < d->images.count && !found; i++) {
        int shard = (tw_shard_of_image(image_id, id_bytes, d->images.count) + i) % d->images.count;
        TRY(get(d->images.shards[shard], &r->image_txns[shard], image_id, id_bytes, &value, &found));
    }
    if (!found) return FAIL(TW_ERR_NOT_FOUND, "%s: no image '%.*s'", d->path, (int)id_bytes, image_id);
    char id[TW_ID_MAX_BYTES + 1];
    memcpy(id, image_id, id_bytes);
    id[id_bytes] = '\0';
    return image_bytes(r, &value, id, out);
}

tw_status tw_dataset_image_at(tw_reader *r, int64_t index, tw_id *id, tw_bytes *out) {
    const tw_dataset *d = r->dataset;
    if (index < 0 || index >= d->image_count)
        return FAIL(TW_ERR_ARGUMENT, "%s: no image number %lld, there are %lld", d->path, (long long)index,
                    (long long)d->image_count);
    TRY(tw_dataset_list_images(d));
    const tw_image_key *key = &d->index->keys[index];
    const char *text = d->index->text + key->offset;
    if (id) {
        tw_status status = tw_id_from_text(text, key->size, id);
        if (status) return tw_fail_context(status, "%s: image number %lld", d->path, (long long)index);
    }
    if (!out) return TW_OK;
    MDB_val value = {0, NULL};
    bool found;
    TRY(get(d->images.shards[key->shard], &r->image_txns[key->shard], text, key->size, &value, &found));
    if (!found) return FAIL(TW_ERR_FORMAT, "%s: image '%s' is gone: the files changed", d->path, text);
    return image_bytes(r, &value, text, out);
}

tw_status tw_dataset_image_index(tw_reader *r, const char *image_id, size_t id_bytes, int64_t *index) {
    const tw_dataset *d = r->dataset;
    TRY(tw_dataset_list_images(d));
    int64_t low = 0, high = d->index->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const tw_image_key *key = &d->index->keys[middle];
        int order = tw_compare_keys(d->index->text + key->offset, key->size, image_id, id_bytes);
        if (order == 0) {
            *index = middle;
            return TW_OK;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return FAIL(TW_ERR_NOT_FOUND, "%s: no image '%.*s'", d->path, (int)id_bytes, image_id);
}
