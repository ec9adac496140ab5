#include "data/shards.h"

#include "autograd/progress.h"
#include "data/shard_dataset.h"
#include "data/shard_layout.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

/* Finds how many environments of `kind` there are: 1 for a folder of that name, else what the names
 * "kind-00000-of-00008" say; 0 if there is none. */
static tw_status count_shards(const char *split_dir, const char *kind, int *count) {
    DIR *folder = opendir(split_dir);
    if (!folder)
        return FAIL(errno == ENOENT || errno == ENOTDIR ? TW_ERR_NOT_FOUND : TW_ERR_IO, "%s: %s", split_dir,
                    strerror(errno));
    int single = 0, shards = 0, found = 0, other = 0;
    size_t length = strlen(kind);
    for (const struct dirent *e; (e = readdir(folder));) {
        int k, n;
        char name[TW_SHARD_NAME];
        if (strcmp(e->d_name, kind) == 0) single = 1;
        if (strncmp(e->d_name, kind, length) != 0 || e->d_name[length] != '-' ||
            sscanf(e->d_name + length, "-%5d-of-%5d", &k, &n) != 2 || k < 0 || n < 1 || n > TW_SHARDS_MAX ||
            k >= n)
            continue;
        (void)snprintf(name, sizeof name, "%s-%05d-of-%05d", kind, k, n);
        if (strcmp(e->d_name, name) != 0) continue;
        if (shards && n != shards) other = n;
        shards = n;
        found++;
    }
    closedir(folder);
    if (single && shards)
        return FAIL(TW_ERR_FORMAT, "%s: holds both '%s' and '%s-…-of-%05d': remove one of them", split_dir,
                    kind, kind, shards);
    if (other || found != shards)
        return FAIL(TW_ERR_FORMAT, "%s: %d of %d environments '%s-…' are there%s", split_dir, found, shards,
                    kind, other ? ", of different numbers" : "");
    *count = single ? 1 : shards;
    return TW_OK;
}

static tw_status open_set(const char *split_dir, const char *kind, tw_shard_set *set) {
    int count = 0;
    TRY(count_shards(split_dir, kind, &count));
    if (count == 0) return TW_OK;
    set->shards = calloc((size_t)count, sizeof(tw_lmdb *));
    if (!set->shards) return FAIL(TW_ERR_MEMORY, "%s: no memory to open it", split_dir);
    set->count = count;
    for (int i = 0; i < count; i++) {
        char name[TW_SHARD_NAME], path[4096];
        tw_shard_name(kind, i, count, name);
        /* "kind-00000-of-00001" is one environment under the long name. */
        (void)snprintf(path, sizeof path, "%s/%s", split_dir, name);
        tw_status status = tw_lmdb_open(path, &set->shards[i]);
        if (status == TW_ERR_NOT_FOUND && count == 1) {
            (void)snprintf(path, sizeof path, "%s/%s-00000-of-00001", split_dir, kind);
            status = tw_lmdb_open(path, &set->shards[i]);
        }
        if (status) return status;
    }
    return TW_OK;
}

/* Looks one key up in a transaction of its own. */
static tw_status get_once(const tw_lmdb *lmdb, const char *key, char *out, size_t out_size, bool *found) {
    MDB_txn *txn = NULL;
    TRY(tw_lmdb_status(mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn), lmdb->path, "begin"));
    MDB_val k = {strlen(key), (void *)key}, v = {0, NULL};
    int code = mdb_get(txn, lmdb->dbi, &k, &v);
    *found = code == 0;
    if (code == 0) {
        size_t n = v.mv_size < out_size ? v.mv_size : out_size - 1;
        memcpy(out, v.mv_data, n);
        out[n] = '\0';
    }
    mdb_txn_abort(txn);
    return code == MDB_NOTFOUND ? TW_OK : tw_lmdb_status(code, lmdb->path, key);
}

/* Keys that are records, and what the shard's own count says (-1: no such key). */
static tw_status count_records(const tw_lmdb *lmdb, const char *count_key, int64_t *records,
                               int64_t *declared) {
    static const char *const own[] = {TW_KEY_IMAGES, TW_KEY_PAIRS, TW_KEY_FORMAT};
    TRY(tw_lmdb_entries(lmdb, records));
    *declared = -1;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        char value[32];
        bool found;
        TRY(get_once(lmdb, own[i], value, sizeof value, &found));
        if (!found) continue;
        --*records;
        if (own[i][0] == 't' && strtol(value, NULL, 10) > TW_SHARD_FORMAT)
            return FAIL(TW_ERR_UNSUPPORTED, "%s: written in format %s, this program knows up to %d",
                        lmdb->path, value, TW_SHARD_FORMAT);
        if (strcmp(own[i], count_key) == 0) *declared = strtoll(value, NULL, 10);
    }
    return TW_OK;
}

static tw_status has_pair(const tw_dataset *d, int64_t index, bool *found) {
    char key[24], value[1];
    (void)snprintf(key, sizeof key, "%lld", (long long)index);
    *found = false;
    for (int i = 0; i < d->pairs.count && !*found; i++)
        TRY(get_once(d->pairs.shards[i], key, value, sizeof value, found));
    return TW_OK;
}

/* num_samples is what the original tool writes last: without it, or with another number of keys, the set is
 * half of one. */
static tw_status count_pairs(tw_dataset *d) {
    for (int i = 0; i < d->pairs.count; i++) {
        const char *path = d->pairs.shards[i]->path;
        int64_t records, declared;
        TRY(count_records(d->pairs.shards[i], TW_KEY_PAIRS, &records, &declared));
        if (declared < 0)
            return FAIL(TW_ERR_FORMAT, "%s: has no '%s': its preparation did not end; prepare it again", path,
                        TW_KEY_PAIRS);
        if (declared != records)
            return FAIL(TW_ERR_FORMAT, "%s: holds %lld pairs, its '%s' says %lld; prepare it again", path,
                        (long long)records, TW_KEY_PAIRS, (long long)declared);
        d->pair_count += records;
    }
    bool first = true, last = true;
    if (d->pair_count > 0) {
        TRY(has_pair(d, 0, &first));
        TRY(has_pair(d, d->pair_count - 1, &last));
    }
    if (!first || !last)
        return FAIL(TW_ERR_FORMAT, "%s: the keys of its %lld pairs are not '0' to '%lld'", d->path,
                    (long long)d->pair_count, (long long)d->pair_count - 1);
    return TW_OK;
}

static tw_status count_images(tw_dataset *d) {
    for (int i = 0; i < d->images.count; i++) {
        int64_t records, declared;
        TRY(count_records(d->images.shards[i], TW_KEY_IMAGES, &records, &declared));
        d->image_count += records;
    }
    if (d->images.count > 1) { /* an id may be in two of them */
        TRY(tw_dataset_list_images(d));
        d->image_count = d->index->count;
    }
    return TW_OK;
}

static tw_status open_parts(tw_dataset *d, bool pairs) {
    TRY(open_set(d->path, "imgs", &d->images));
    if (d->images.count == 0)
        return FAIL(TW_ERR_NOT_FOUND,
                    "%s: holds no 'imgs': give the folder of a prepared split, for example "
                    "DATA/lmdb/train (tuwen prepare makes it)",
                    d->path);
    if (pairs) TRY(open_set(d->path, "pairs", &d->pairs));
    TRY(count_images(d));
    return count_pairs(d);
}

static tw_status open_dataset(const char *split_dir, bool pairs, tw_dataset **out) {
    *out = NULL;
    if (strlen(split_dir) > 3900) return FAIL(TW_ERR_ARGUMENT, "path too long: %.100s…", split_dir);
    tw_dataset *d = calloc(1, sizeof *d);
    if (d) d->path = strdup(split_dir);
    if (d) d->index = calloc(1, sizeof *d->index);
    if (!d || !d->path || !d->index) {
        if (d) free(d->path);
        if (d) free(d->index);
        free(d);
        return FAIL(TW_ERR_MEMORY, "%s: no memory to open it", split_dir);
    }
    pthread_mutex_init(&d->index->lock, NULL);
    tw_status status = open_parts(d, pairs);
    if (status) {
        tw_dataset_close(d);
        return status;
    }
    *out = d;
    return TW_OK;
}

tw_status tw_dataset_open(const char *split_dir, tw_dataset **out) {
    return open_dataset(split_dir, true, out);
}

tw_status tw_dataset_open_images(const char *split_dir, tw_dataset **out) {
    return open_dataset(split_dir, false, out);
}

static void close_set(tw_shard_set *set) {
    for (int i = 0; i < set->count; i++) tw_lmdb_close(set->shards[i]);
    free(set->shards);
}

void tw_dataset_close(tw_dataset *d) {
    if (!d) return;
    close_set(&d->images);
    close_set(&d->pairs);
    pthread_mutex_destroy(&d->index->lock);
    free(d->index->text);
    free(d->index->keys);
    free(d->index);
    free(d->path);
    free(d);
}

int64_t tw_dataset_pairs(const tw_dataset *d) {
    return d->pair_count;
}

int64_t tw_dataset_images(const tw_dataset *d) {
    return d->image_count;
}

const char *tw_dataset_path(const tw_dataset *d) {
    return d->path;
}

/* ---- the images in order ---- */

static tw_status add_key(tw_key_index *x, const MDB_val *key, int shard) {
    tw_progress_tick();
    if (x->count == x->capacity) {
        int64_t larger = x->capacity ? x->capacity * 2 : 1024;
        tw_image_key *keys = realloc(x->keys, (size_t)larger * sizeof *keys);
        if (!keys) return FAIL(TW_ERR_MEMORY, "no memory for a list of %lld image ids", (long long)larger);
        x->keys = keys;
        x->capacity = larger;
    }
    if (x->text_capacity - x->text_size < key->mv_size + 1) {
        size_t larger = (x->text_size + key->mv_size + 1) * 2;
        char *text = realloc(x->text, larger);
        if (!text) return FAIL(TW_ERR_MEMORY, "no memory for a list of image ids");
        x->text = text;
        x->text_capacity = larger;
    }
    x->keys[x->count++] = (tw_image_key){x->text_size, (uint16_t)key->mv_size, (uint16_t)shard};
    memcpy(x->text + x->text_size, key->mv_data, key->mv_size);
    x->text_size += key->mv_size;
    x->text[x->text_size++] = '\0';
    return TW_OK;
}

static tw_status add_keys(tw_key_index *x, const tw_lmdb *lmdb, int shard) {
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    tw_status status = TW_OK;
    TRY(tw_lmdb_status(mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn), lmdb->path, "begin"));
    int code = mdb_cursor_open(txn, lmdb->dbi, &cursor);
    MDB_val key, value;
    while (code == 0 && status == TW_OK && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        if (!tw_id_is_reserved(key.mv_data, key.mv_size)) status = add_key(x, &key, shard);
    if (status == TW_OK && code != MDB_NOTFOUND) status = tw_lmdb_status(code, lmdb->path, "list the ids");
    if (cursor) mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return status;
}

int tw_compare_keys(const char *a, size_t a_size, const char *b, size_t b_size) {
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_keys(const void *a, const void *b, void *text) {
    const tw_image_key *x = a, *y = b;
    int order =
        tw_compare_keys((const char *)text + x->offset, x->size, (const char *)text + y->offset, y->size);
    return order ? order : (x->shard > y->shard) - (x->shard < y->shard);
}

static tw_status build_locked(const tw_dataset *d) {
    tw_key_index *x = d->index;
    x->count = 0;
    x->text_size = 0;
    for (int i = 0; i < d->images.count; i++) TRY(add_keys(x, d->images.shards[i], i));
    if (d->images.count > 1 && x->count > 1) {
        qsort_r(x->keys, (size_t)x->count, sizeof *x->keys, compare_keys, x->text);
        int64_t n = 1;
        for (int64_t i = 1; i < x->count; i++) {
            const tw_image_key *last = &x->keys[n - 1], *key = &x->keys[i];
            if (tw_compare_keys(x->text + last->offset, last->size, x->text + key->offset, key->size) != 0)
                x->keys[n++] = *key;
        }
        x->count = n;
    }
    x->built = true;
    return TW_OK;
}

tw_status tw_dataset_list_images(const tw_dataset *d) {
    pthread_mutex_lock(&d->index->lock);
    tw_status status = d->index->built ? TW_OK : build_locked(d);
    pthread_mutex_unlock(&d->index->lock);
    return status;
}
