/* Changes in an LMDB environment past all checks of the writer. */
#ifndef TW_TESTS_RAW_LMDB_H
#define TW_TESTS_RAW_LMDB_H

#include "tw_test.h"

#include <lmdb.h>

/* Puts a value of `size` bytes under the key, or removes the key (value NULL). */
static inline void change_raw(const char *environment, const char *key, const void *value, size_t size) {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {strlen(key), (void *)key}, v = {size, (void *)value};
    ck_assert_int_eq(mdb_env_create(&env), 0);
    ck_assert_int_eq(mdb_env_set_mapsize(env, 1 << 24), 0);
    ck_assert_int_eq(mdb_env_open(env, environment, MDB_NOLOCK, 0644), 0);
    ck_assert_int_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    ck_assert_int_eq(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    ck_assert_int_eq(value ? mdb_put(txn, dbi, &k, &v, 0) : mdb_del(txn, dbi, &k, NULL), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

#endif
