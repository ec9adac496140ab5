/* LMDB environments: opened for reading once a process and shared, their errors as tw_status, and a check of
 * the file's structure, since LMDB trusts what it maps. */
#ifndef TW_DATA_LMDB_ENV_H
#define TW_DATA_LMDB_ENV_H

#include "autograd/status.h"

#include <lmdb.h>
#include <stdint.h>

typedef struct tw_lmdb {
    MDB_env *env;
    MDB_dbi dbi; /* the unnamed database */
    char *path;  /* the environment's folder */
} tw_lmdb;

/* LMDB's code as tw_status, "path: what: LMDB's words"; TW_OK for 0. A full disk is TW_ERR_IO and says so. */
TW_MUST_CHECK tw_status tw_lmdb_status(int code, const char *path, const char *what);

/* Opens the environment in the folder `path` for reading, without lock file: NOLOCK, RDONLY, NOTLS. The same
 * file opened again is the same *out. The file is checked first, see tw_lmdb_check. Thread-safe. */
TW_MUST_CHECK tw_status tw_lmdb_open(const char *path, tw_lmdb **out);
void tw_lmdb_close(tw_lmdb *lmdb); /* accepts NULL */

/* Number of keys. */
TW_MUST_CHECK tw_status tw_lmdb_entries(const tw_lmdb *lmdb, int64_t *out);

/* Reads the file's meta pages and refuses with TW_ERR_FORMAT one that is no LMDB file, is shorter than its
 * last page (truncated), or whose pages do not form a sorted tree within the file. The tree is walked where
 * it is small (up to 256 MiB of keys and short values; images are not read) or the file is short. */
TW_MUST_CHECK tw_status tw_lmdb_check(const char *file);

#endif
