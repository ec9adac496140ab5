/* What the tests of hostile HDF5 files share: edits of an open file, a seal over the result, and loading it
 * with little memory. */
#ifndef TW_TESTS_HOSTILE_H5_H
#define TW_TESTS_HOSTILE_H5_H

#include "tw_test.h"

#include "train/formats/seal.h"

#include <hdf5.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[128], other[140]; /* the file, and one beside it that must not be opened */

static inline void make_paths(void) {
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, sizeof path, "%s/tw_h5_hostile_%d.h5", folder, (int)getpid());
    snprintf(other, sizeof other, "%s.other", path);
}

/* ---- edits of the open file ---- */

static inline void attribute(hid_t object, const char *name, hid_t type, int ndim, hsize_t side) {
    static const char zeros[16384];
    if (H5Aexists(object, name) > 0) ck_assert_int_ge(H5Adelete(object, name), 0);
    hid_t space = ndim < 0 ? H5Screate(H5S_NULL) : H5Screate_simple(ndim, &side, NULL);
    hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(a >= 0 && side * H5Tget_size(type) <= sizeof zeros);
    if (ndim >= 0 && H5Tis_variable_str(type) <= 0) ck_assert_int_ge(H5Awrite(a, type, zeros), 0);
    H5Aclose(a);
    H5Sclose(space);
}

/* Puts a data set without values in the place of `name`. chunk: NULL for one block. */
static inline void data(hid_t f, const char *name, hid_t type, int ndim, const hsize_t *shape,
                        const hsize_t *chunk) {
    const hsize_t limit[8] = {H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED,
                              H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED, H5S_UNLIMITED};
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = ndim < 0 ? H5Screate(H5S_NULL) : H5Screate_simple(ndim, shape, chunk ? limit : NULL);
    if (chunk) ck_assert_int_ge(H5Pset_chunk(plan, ndim, chunk), 0);
    H5Pset_alloc_time(plan, H5D_ALLOC_TIME_LATE);
    H5Ldelete(f, name, H5P_DEFAULT);
    hid_t d = H5Dcreate2(f, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    ck_assert_int_ge(d, 0);
    H5Dclose(d);
    H5Sclose(space);
    H5Pclose(plan);
}
#define SIDES(...)                                                                                           \
    (const hsize_t[]) {                                                                                      \
        __VA_ARGS__                                                                                          \
    }
#define COUNT(...) (int)(sizeof(SIDES(__VA_ARGS__)) / sizeof(hsize_t))
#define DATA(name, type, ...) data(f, name, type, COUNT(__VA_ARGS__), SIDES(__VA_ARGS__), NULL)

static inline hid_t text_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    ck_assert_int_ge(H5Tset_size(type, size), 0);
    return type;
}

static inline void mark(hid_t f, const char *name, const char *of, hid_t type, hsize_t side, int64_t value) {
    hid_t d = H5Dopen2(f, name, H5P_DEFAULT);
    attribute(d, of, type, 1, side);
    hid_t a = H5Aopen(d, of, H5P_DEFAULT);
    if (side == 1) ck_assert_int_ge(H5Awrite(a, H5T_NATIVE_INT64, &value), 0);
    H5Aclose(a);
    H5Dclose(d);
}

static inline void link_out(hid_t f, const char *name, const char *target) {
    H5Ldelete(f, name, H5P_DEFAULT);
    ck_assert_int_ge(H5Lcreate_external(other, target, f, name, H5P_DEFAULT, H5P_DEFAULT), 0);
}
typedef struct hostile {
    void (*edit)(hid_t f);
    const char *name;
    const char *part; /* of the message */
} hostile;
#define H(edit, part)                                                                                        \
    { edit, #edit, part }

static inline void edit_file(const hostile *h, const char *kind) {
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    ck_assert_int_ge(f, 0);
    H5E_BEGIN_TRY {
        h->edit(f);
    }
    H5E_END_TRY;
    ck_assert_int_ge(H5Fclose(f), 0);
    TW_ASSERT_OK(tw_seal_write(path, kind, 0));
}

/* Loads with memory for 2 x the file and HDF5's own caches only (sanitizers need the address space). */
static inline tw_status load_within(tw_status (*load)(void)) {
#ifndef __SANITIZE_ADDRESS__
    unsigned long pages = 0;
    struct stat info;
    struct rlimit limit;
    FILE *f = fopen("/proc/self/statm", "r");
    ck_assert(f && fscanf(f, "%lu", &pages) == 1 && stat(path, &info) == 0);
    fclose(f);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + 2 * (rlim_t)info.st_size + (8u << 20);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    tw_status status = load();
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    return status;
#else
    return load();
#endif
}

static inline void refuse(const hostile *h, tw_status (*load)(void)) {
    tw_status status = load_within(load);
    ck_assert_msg(status == TW_ERR_FORMAT || status == TW_ERR_NOT_FOUND || status == TW_ERR_LIBRARY,
                  "%s gave '%s' (%s)", h->name, tw_status_name(status), status ? tw_last_error() : "");
    ck_assert_msg(strstr(tw_last_error(), h->part) && strstr(tw_last_error(), path), "%s: '%s' lacks '%s'",
                  h->name, tw_last_error(), h->part);
}

#endif
