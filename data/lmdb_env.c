#include "data/lmdb_env.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* LMDB forbids opening a file twice in one process, so this list is the process's, under its lock. */
typedef struct entry {
    tw_lmdb lmdb; /* first: what callers hold */
    dev_t device;
    ino_t inode;
    int users;
    struct entry *next;
} entry;

static entry *entries;
static pthread_mutex_t entries_lock = PTHREAD_MUTEX_INITIALIZER;

tw_status tw_lmdb_status(int code, const char *path, const char *what) {
    switch (code) {
    case MDB_SUCCESS:
        return TW_OK;
    case MDB_NOTFOUND:
        return FAIL(TW_ERR_NOT_FOUND, "%s: %s: no such key", path, what);
    case ENOMEM:
        return FAIL(TW_ERR_MEMORY, "%s: %s: no memory, or no address space", path, what);
    case ENOSPC:
        return FAIL(TW_ERR_IO, "%s: %s: no space left on the disk: free some, or write elsewhere", path,
                    what);
    case EFBIG:
        return FAIL(TW_ERR_IO, "%s: %s: the file would exceed this process's limit of file size", path, what);
    case EIO: /* LMDB's word for a write that was cut short, too */
        return FAIL(TW_ERR_IO, "%s: %s: input/output error: the disk is full, or failing", path, what);
    case EDQUOT:
        return FAIL(TW_ERR_IO, "%s: %s: the disk quota is used up", path, what);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return FAIL(TW_ERR_FORMAT, "%s: %s: damaged LMDB file (%s)", path, what, mdb_strerror(code));
    default:
        return FAIL(code > 0 ? TW_ERR_IO : TW_ERR_LIBRARY, "%s: %s: %s", path, what, mdb_strerror(code));
    }
}

/* Reading ahead helps while everything fits in memory and wastes it when it does not. */
static unsigned read_flags(off_t file_size) {
    int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    unsigned flags = MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS;
    return file_size > memory / 2 ? flags | MDB_NORDAHEAD : flags;
}

static tw_status open_env(entry *e, off_t file_size) {
    const char *path = e->lmdb.path;
    MDB_txn *txn = NULL;
    TRY(tw_lmdb_status(mdb_env_create(&e->lmdb.env), path, "create"));
    /* As small as the file allows, whatever size it was written with: the original's maps are 1 TB. */
    TRY(tw_lmdb_status(mdb_env_set_mapsize(e->lmdb.env, 1), path, "set map size"));
    TRY(tw_lmdb_status(mdb_env_open(e->lmdb.env, path, read_flags(file_size), 0), path, "open"));
    TRY(tw_lmdb_status(mdb_txn_begin(e->lmdb.env, NULL, MDB_RDONLY, &txn), path, "begin"));
    int code = mdb_dbi_open(txn, NULL, 0, &e->lmdb.dbi);
    if (code) {
        mdb_txn_abort(txn);
        return tw_lmdb_status(code, path, "open the database");
    }
    return tw_lmdb_status(mdb_txn_commit(txn), path, "commit");
}

static void free_entry(entry *e) {
    if (e->lmdb.env) mdb_env_close(e->lmdb.env);
    free(e->lmdb.path);
    free(e);
}

/* Under the lock. */
static tw_status open_new(const char *path, const char *file, const struct stat *info, entry **out) {
    TRY(tw_lmdb_check(file));
    entry *e = calloc(1, sizeof *e);
    if (e) e->lmdb.path = strdup(path);
    if (!e || !e->lmdb.path) {
        free(e);
        return FAIL(TW_ERR_MEMORY, "%s: no memory to open it", path);
    }
    tw_status status = open_env(e, info->st_size);
    if (status) {
        free_entry(e);
        return status;
    }
    e->device = info->st_dev;
    e->inode = info->st_ino;
    e->next = entries;
    entries = e;
    *out = e;
    return TW_OK;
}

tw_status tw_lmdb_open(const char *path, tw_lmdb **out) {
    *out = NULL;
    char file[4096];
    struct stat info;
    if ((size_t)snprintf(file, sizeof file, "%s/data.mdb", path) >= sizeof file)
        return FAIL(TW_ERR_ARGUMENT, "path too long: %s", path);
    if (stat(file, &info) != 0)
        return FAIL(errno == ENOENT || errno == ENOTDIR ? TW_ERR_NOT_FOUND : TW_ERR_IO, "%s: %s", file,
                    strerror(errno));
    pthread_mutex_lock(&entries_lock);
    entry *e = entries;
    while (e && (e->device != info.st_dev || e->inode != info.st_ino)) e = e->next;
    tw_status status = e ? TW_OK : open_new(path, file, &info, &e);
    if (status == TW_OK) {
        e->users++;
        *out = &e->lmdb;
    }
    pthread_mutex_unlock(&entries_lock);
    return status;
}

void tw_lmdb_close(tw_lmdb *lmdb) {
    if (!lmdb) return;
    pthread_mutex_lock(&entries_lock);
    entry *e = (entry *)lmdb;
    if (--e->users == 0) {
        entry **link = &entries;
        while (*link != e) link = &(*link)->next;
        *link = e->next;
        free_entry(e);
    }
    pthread_mutex_unlock(&entries_lock);
}

tw_status tw_lmdb_entries(const tw_lmdb *lmdb, int64_t *out) {
    MDB_stat stat_;
    TRY(tw_lmdb_status(mdb_env_stat(lmdb->env, &stat_), lmdb->path, "count the keys"));
    *out = (int64_t)stat_.ms_entries;
    return TW_OK;
}
