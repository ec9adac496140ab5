#include "data/shard_writer.h"

#include "data/atomic_file.h"
#include "data/base64.h"
#include "data/files.h"
#include "data/jsonl.h"
#include "data/lmdb_env.h"
#include "data/shard_layout.h"
#include "data/shard_pair.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One put may copy and split each page from root to leaf; a commit may rewrite the list of free pages. */
enum { PAGES_A_PUT = 16, BATCH_BYTES = 64 << 20, PATH_BYTES = 4096 };

typedef struct shard {
    MDB_env *env;
    MDB_dbi dbi;
    MDB_txn *txn;
    char *path;
    size_t map_size, used, pending; /* bytes: of the map, in it, at most used by the open transaction */
    int64_t records;
    uint64_t checksum; /* of all keys and values, in any order */
    int64_t entries;
} shard;

struct tw_shard_writer {
    tw_shard_options options;
    char *final, *parent, *temporary;
    shard *images, *pairs; /* (options.shards) */
    int64_t pair_count;
    char *base64; /* of the last image, in the original's format */
    size_t base64_capacity;
    bool finished;
};

/* ---- one environment ---- */

static uint64_t mix(uint64_t hash, const unsigned char *s, size_t size) {
    for (uint64_t word; size > 0; s += sizeof word) {
        size_t n = size < sizeof word ? size : sizeof word;
        word = n; /* so that trailing zero bytes count */
        memcpy(&word, s, n);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
        size -= n;
    }
    return hash;
}

static uint64_t checksum(const MDB_val *key, const MDB_val *value) {
    uint64_t hash = mix(key->mv_size * 0x100000001b3u ^ value->mv_size, key->mv_data, key->mv_size);
    return mix(hash, value->mv_data, value->mv_size);
}

static tw_status check(const shard *s, int code, const char *what) {
    return tw_lmdb_status(code, s->path, what);
}

static tw_status open_shard(shard *s) {
    if (mkdir(s->path, 0777) != 0) return FAIL(TW_ERR_IO, "%s: %s", s->path, strerror(errno));
    s->map_size = 2 * (size_t)BATCH_BYTES;
    TRY(check(s, mdb_env_create(&s->env), "create"));
    TRY(check(s, mdb_env_set_mapsize(s->env, s->map_size), "set map size"));
    /* NOSYNC: one sync at the end. NOLOCK: nobody else knows the folder. */
    TRY(check(s, mdb_env_open(s->env, s->path, MDB_NOSYNC | MDB_NOLOCK, 0666), "open"));
    TRY(check(s, mdb_txn_begin(s->env, NULL, 0, &s->txn), "begin"));
    return check(s, mdb_dbi_open(s->txn, NULL, 0, &s->dbi), "open the database");
}

static tw_status commit(shard *s) {
    if (!s->txn) return TW_OK;
    int code = mdb_txn_commit(s->txn);
    s->txn = NULL;
    s->pending = 0;
    TRY(check(s, code, "write"));
    MDB_envinfo info;
    MDB_stat stat_;
    TRY(check(s, mdb_env_info(s->env, &info), "info"));
    TRY(check(s, mdb_env_stat(s->env, &stat_), "info"));
    s->used = (info.me_last_pgno + 1) * stat_.ms_psize;
    return TW_OK;
}

/* Begins a transaction, or goes on in the open one, in which `bytes` more surely fit the map. */
static tw_status reserve(shard *s, size_t bytes) {
    size_t cost = bytes + (size_t)(PAGES_A_PUT + 2) * 4096;
    if (s->txn && s->pending > 0 && s->pending + cost > BATCH_BYTES) TRY(commit(s));
    if (s->used + s->pending + cost + BATCH_BYTES / 2 > s->map_size) {
        TRY(commit(s));
        while (s->used + cost + BATCH_BYTES / 2 * 3 > s->map_size) s->map_size *= 2;
        TRY(check(s, mdb_env_set_mapsize(s->env, s->map_size), "grow the map"));
    }
    if (!s->txn) TRY(check(s, mdb_txn_begin(s->env, NULL, 0, &s->txn), "begin"));
    s->pending += cost;
    return TW_OK;
}

static tw_status put(shard *s, const char *key, size_t key_size, const void *value, size_t value_size) {
    MDB_val k = {key_size, (void *)key}, v = {value_size, (void *)value};
    TRY(reserve(s, value_size));
    int code = mdb_put(s->txn, s->dbi, &k, &v, MDB_NOOVERWRITE);
    if (code == MDB_KEYEXIST)
        return FAIL(TW_ERR_ARGUMENT, "%s: the key '%.*s' is there already", s->path, (int)key_size, key);
    TRY(check(s, code, "write"));
    v = (MDB_val){value_size, (void *)value}; /* mdb_put may have changed it */
    s->checksum += checksum(&k, &v);
    s->entries++;
    return TW_OK;
}

/* The environment's own keys, then to the disk. */
static tw_status end_shard(shard *s, const char *count_key, tw_shard_format format) {
    char value[24];
    int n = snprintf(value, sizeof value, "%lld", (long long)s->records);
    TRY(put(s, count_key, strlen(count_key), value, (size_t)n));
    n = snprintf(value, sizeof value, "%d", TW_SHARD_FORMAT);
    if (format == TW_SHARDS_RAW) TRY(put(s, TW_KEY_FORMAT, strlen(TW_KEY_FORMAT), value, (size_t)n));
    TRY(commit(s));
    TRY(check(s, mdb_env_sync(s->env, 1), "write to the disk"));
    int fd;
    /* So that verification reads what the disk has, not what memory still holds. */
    if (mdb_env_get_fd(s->env, &fd) == 0) (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    mdb_env_close(s->env);
    s->env = NULL;
    return TW_OK;
}

static tw_status verify_open(const shard *s, const tw_lmdb *lmdb) {
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    uint64_t sum = 0;
    int64_t entries = 0;
    TRY(check(s, mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn), "verify"));
    int code = mdb_cursor_open(txn, lmdb->dbi, &cursor);
    MDB_val key, value;
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        sum += checksum(&key, &value);
        entries++;
    }
    if (cursor) mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    if (code != MDB_NOTFOUND) return check(s, code, "verify");
    if (entries != s->entries || sum != s->checksum)
        return FAIL(TW_ERR_IO,
                    "%s: verification failed: %lld of %lld keys, checksum %016llx instead of %016llx: "
                    "the disk did not keep what was written",
                    s->path, (long long)entries, (long long)s->entries, (unsigned long long)sum,
                    (unsigned long long)s->checksum);
    return TW_OK;
}

static tw_status verify(const shard *s) {
    tw_lmdb *lmdb;
    TRY(tw_lmdb_open(s->path, &lmdb));
    tw_status status = verify_open(s, lmdb);
    tw_lmdb_close(lmdb);
    return status;
}

static void close_shards(shard *shards, int count) {
    for (int i = 0; shards && i < count; i++) {
        if (shards[i].txn) mdb_txn_abort(shards[i].txn);
        if (shards[i].env) mdb_env_close(shards[i].env);
        free(shards[i].path);
    }
    free(shards);
}

/* ---- the folder ---- */

/* True for the names of environments, "imgs", "pairs-00000-of-00008", …: what replacing may remove. */
static bool is_environment(const char *name) {
    size_t n = strncmp(name, "imgs", 4) == 0 ? 4 : strncmp(name, "pairs", 5) == 0 ? 5 : 0;
    int k, of, end = 0;
    if (n == 0) return false;
    if (name[n] == '\0') return true;
    return sscanf(name + n, "-%5d-of-%5d%n", &k, &of, &end) == 2 && name[n + (size_t)end] == '\0';
}

/* What a killed run left beside the target: ".<name>.tmp-<writer>" of a process that is no more. */
static void remove_stale(const char *parent, const char *name) {
    DIR *folder = opendir(parent);
    char prefix[300], path[PATH_BYTES + 300];
    int n = snprintf(prefix, sizeof prefix, ".%s.tmp-", name);
    for (const struct dirent *e; folder && (e = readdir(folder));) {
        if (strncmp(e->d_name, prefix, (size_t)n) != 0) continue;
        if (!tw_writer_is_gone(e->d_name + n)) continue;
        (void)snprintf(path, sizeof path, "%s/%s", parent, e->d_name);
        tw_remove_folder(path);
    }
    if (folder) closedir(folder);
}

/* Counts the environments in the final folder, and removes them if asked; a missing folder has none. */
static int each_environment(const char *final, bool remove) {
    DIR *folder = opendir(final);
    int count = 0;
    for (const struct dirent *e; folder && (e = readdir(folder));) {
        char path[PATH_BYTES + 300];
        if (!is_environment(e->d_name)) continue;
        count++;
        (void)snprintf(path, sizeof path, "%s/%s", final, e->d_name);
        if (remove) tw_remove_folder(path);
    }
    if (folder) closedir(folder);
    return count;
}

static tw_status make_shards(tw_shard_writer *w, const char *kind, shard **out) {
    int count = w->options.shards;
    shard *shards = *out = calloc((size_t)count, sizeof *shards);
    if (!shards) return FAIL(TW_ERR_MEMORY, "no memory for %d environments", count);
    for (int i = 0; i < count; i++) {
        char name[TW_SHARD_NAME];
        tw_shard_name(kind, i, count, name);
        if (asprintf(&shards[i].path, "%s/%s", w->temporary, name) < 0) {
            shards[i].path = NULL;
            return FAIL(TW_ERR_MEMORY, "no memory for a path");
        }
        TRY(open_shard(&shards[i]));
    }
    return TW_OK;
}

static tw_status begin(tw_shard_writer *w, const char *split_dir) {
    char parent[PATH_BYTES], name[PATH_BYTES], writer[TW_WRITER_LABEL];
    TRY(tw_split_path(split_dir, parent, name, sizeof name));
    if (strlen(split_dir) > PATH_BYTES - 100 || strlen(name) > 200)
        return FAIL(TW_ERR_ARGUMENT, "path too long: %.100s…", split_dir);
    if (w->options.shards < 1 || w->options.shards > TW_SHARDS_MAX)
        return FAIL(TW_ERR_CONFIG, "%d environments: 1 to %d are possible", w->options.shards, TW_SHARDS_MAX);
    if (w->options.format == TW_SHARDS_ORIGINAL && w->options.shards != 1)
        return FAIL(TW_ERR_CONFIG, "the original's format has one environment, not %d", w->options.shards);
    TRY(tw_make_folders(parent));
    remove_stale(parent, name);
    w->parent = strdup(parent);
    if (asprintf(&w->final, "%s/%s", parent, name) < 0) w->final = NULL;
    tw_writer_label(writer);
    if (asprintf(&w->temporary, "%s/.%s.tmp-%s", parent, name, writer) < 0) w->temporary = NULL;
    if (!w->final || !w->parent || !w->temporary) return FAIL(TW_ERR_MEMORY, "no memory for a path");
    if (!w->options.replace && each_environment(w->final, false) > 0)
        return FAIL(TW_ERR_CONFIG, "%s: holds a prepared split already: remove it, or ask to replace it",
                    w->final);
    if (mkdir(w->temporary, 0777) != 0)
        return FAIL(TW_ERR_IO, "%s: cannot make this folder: %s", w->temporary, strerror(errno));
    TRY(make_shards(w, "imgs", &w->images));
    return make_shards(w, "pairs", &w->pairs);
}

tw_status tw_shard_writer_open(const char *split_dir, const tw_shard_options *options,
                               tw_shard_writer **out) {
    *out = NULL;
    tw_shard_writer *w = calloc(1, sizeof *w);
    if (!w) return FAIL(TW_ERR_MEMORY, "no memory for a writer");
    w->options = *options;
    if (w->options.shards == 0) w->options.shards = 1;
    tw_status status = begin(w, split_dir);
    if (status) {
        tw_shard_writer_close(w);
        return status;
    }
    *out = w;
    return TW_OK;
}

void tw_shard_writer_close(tw_shard_writer *w) {
    if (!w) return;
    close_shards(w->images, w->options.shards);
    close_shards(w->pairs, w->options.shards);
    if (w->temporary && !w->finished) tw_remove_folder(w->temporary);
    free(w->temporary);
    free(w->final);
    free(w->parent);
    free(w->base64);
    free(w);
}

const char *tw_shard_writer_folder(const tw_shard_writer *w) {
    return w->temporary;
}

/* ---- records ---- */

tw_status tw_shard_writer_image(tw_shard_writer *w, const tw_id *id, const void *data, size_t size) {
    if (tw_id_is_reserved(id->text, id->size))
        return FAIL(TW_ERR_ARGUMENT, "'%s' cannot be an image id: the LMDB keeps that key for itself",
                    id->text);
    shard *s = &w->images[tw_shard_of_image(id->text, id->size, w->options.shards)];
    if (w->options.format == TW_SHARDS_ORIGINAL) {
        size_t encoded = tw_base64_encoded_size(size);
        if (encoded > w->base64_capacity) {
            free(w->base64);
            w->base64_capacity = 0;
            w->base64 = malloc(encoded + encoded / 2);
            if (!w->base64) return FAIL(TW_ERR_MEMORY, "no memory for an image of %zu bytes", size);
            w->base64_capacity = encoded + encoded / 2;
        }
        tw_base64_encode(data, size, w->base64);
        data = w->base64;
        size = encoded;
    }
    TRY(put(s, id->text, id->size, data, size));
    s->records++;
    return TW_OK;
}

tw_status tw_shard_writer_has_image(tw_shard_writer *w, const tw_id *id, bool *found) {
    shard *s = &w->images[tw_shard_of_image(id->text, id->size, w->options.shards)];
    if (!s->txn) TRY(reserve(s, 0));
    MDB_val key = {id->size, (void *)id->text}, value;
    int code = mdb_get(s->txn, s->dbi, &key, &value);
    *found = code == 0 && !tw_id_is_reserved(id->text, id->size);
    return code == MDB_NOTFOUND ? TW_OK : check(s, code, "look an image up");
}

tw_status tw_shard_writer_pair(tw_shard_writer *w, const tw_id *image_id, const tw_id *text_id,
                               const char *text, size_t text_bytes) {
    shard *s = &w->pairs[tw_shard_of_pair(w->pair_count, w->options.shards)];
    char key[24], *value;
    size_t size;
    int n = snprintf(key, sizeof key, "%lld", (long long)w->pair_count);
    if (w->options.format == TW_SHARDS_ORIGINAL)
        TRY(tw_pair_to_pickle(image_id, text_id, text, text_bytes, &value, &size));
    else
        TRY(tw_pair_to_json(image_id, text_id, text, text_bytes, &value, &size));
    tw_status status = put(s, key, (size_t)n, value, size);
    free(value);
    if (status) return status;
    s->records++;
    w->pair_count++;
    return TW_OK;
}

/* ---- the end ---- */

/* Renames each entry of the temporary folder into the final one, which exists. */
static tw_status move_entries(const tw_shard_writer *w) {
    DIR *folder = opendir(w->temporary);
    if (!folder) return FAIL(TW_ERR_IO, "%s: %s", w->temporary, strerror(errno));
    tw_status status = TW_OK;
    for (const struct dirent *e; status == TW_OK && (e = readdir(folder));) {
        char from[PATH_BYTES + 300], to[PATH_BYTES + 300];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        (void)snprintf(from, sizeof from, "%s/%s", w->temporary, e->d_name);
        (void)snprintf(to, sizeof to, "%s/%s", w->final, e->d_name);
        if (rename(from, to) != 0)
            status = FAIL(TW_ERR_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
    }
    closedir(folder);
    return status ? status : tw_sync_folder(w->final);
}

static tw_status publish(tw_shard_writer *w) {
    TRY(tw_sync_folder(w->temporary));
    /* The usual case, and one step: nothing of that name, or an empty folder. */
    if (rename(w->temporary, w->final) != 0) {
        if (errno != ENOTEMPTY && errno != EEXIST)
            return FAIL(TW_ERR_IO, "%s: cannot rename to %s: %s", w->temporary, w->final, strerror(errno));
        (void)each_environment(w->final, true);
        TRY(move_entries(w));
        (void)rmdir(w->temporary);
    }
    w->finished = true;
    return tw_sync_folder(w->parent);
}

tw_status tw_shard_writer_finish(tw_shard_writer *w) {
    for (int i = 0; i < w->options.shards; i++)
        TRY(end_shard(&w->images[i], TW_KEY_IMAGES, w->options.format));
    for (int i = 0; i < w->options.shards; i++) TRY(end_shard(&w->pairs[i], TW_KEY_PAIRS, w->options.format));
    for (int i = 0; i < w->options.shards; i++) TRY(verify(&w->images[i]));
    for (int i = 0; i < w->options.shards; i++) TRY(verify(&w->pairs[i]));
    return publish(w);
}
