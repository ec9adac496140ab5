#include "train/formats/h5_private.h"

#include "data/atomic_file.h"
#include "data/files.h"
#include "train/formats/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool ready;
static char kept[512]; /* by tw_h5_keep_error; the lock guards it */

void tw_h5_lock(void) {
    pthread_mutex_lock(&mutex);
    kept[0] = '\0';
    if (ready) return;
    /* Its exit handler would write to files that failed, and crash on them. It must be refused first of all.
     */
    H5dont_atexit();
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    ready = true;
}

void tw_h5_unlock(void) {
    pthread_mutex_unlock(&mutex);
}

const char *tw_h5_library_version(void) {
    static char text[32];
    unsigned a = 0, b = 0, c = 0;
    tw_h5_lock();
    H5get_libversion(&a, &b, &c);
    if (!text[0]) snprintf(text, sizeof text, "%u.%u.%u", a, b, c);
    tw_h5_unlock();
    return text;
}

static herr_t innermost(unsigned n, const H5E_error2_t *error, void *out) {
    if (n == 0 && error->desc) snprintf(out, sizeof kept, "%s", error->desc);
    return 0;
}

void tw_h5_keep_error(void) {
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, kept);
    H5Eclear2(H5E_DEFAULT);
}

tw_status tw_h5_error(const tw_h5 *f, const char *doing, const char *name) {
    char text[sizeof kept];
    tw_h5_keep_error();
    memcpy(text, kept, sizeof text);
    kept[0] = '\0';
    /* For a failed system call the message is a long list with the system's own words in the middle of it. */
    static const char mark[] = "error message = '";
    char *start = strstr(text, mark);
    bool system = start != NULL;
    if (system) {
        memmove(text, start + sizeof mark - 1, strlen(start + sizeof mark - 1) + 1);
        text[strcspn(text, "'")] = '\0';
    }
    return FAIL(system ? TW_ERR_IO : TW_ERR_LIBRARY, "%s: cannot %s%s%s: %s", f->path, doing,
                *name ? " " : "", name, text[0] ? text : "HDF5 gave no reason");
}

/* File locks are off: a file is complete before it gets its name and is never changed after, and some network
 * file systems refuse to lock. */
static hid_t access_list(void) {
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    if (list >= 0 &&
        (H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
         H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) < 0 || H5Pset_file_locking(list, false, true) < 0)) {
        H5Pclose(list);
        return -1;
    }
    return list;
}

/* A file of which not even the first page can be written is refused here: H5Fcreate would leak. */
static tw_status probe_space(const tw_h5 *f) {
    static const char page[4096];
    int fd = open(f->temp, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pwrite(fd, page, sizeof page, 0);
    int error = n < 0 ? errno : n < (ssize_t)sizeof page ? ENOSPC : 0;
    if (n >= 0 && n < (ssize_t)sizeof page && pwrite(fd, page, 1, n) < 0) error = errno;
    if (fd >= 0) close(fd);
    return error ? FAIL(TW_ERR_IO, "cannot write %s: %s", f->path, strerror(error)) : TW_OK;
}

static hid_t create_in(const char *temp) {
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = access_list(), id = -1;
    if (creation >= 0 && access >= 0 && H5Pset_userblock(creation, TW_SEAL_BYTES) >= 0 &&
        H5Pset_obj_track_times(creation, false) >= 0)
        id = H5Fcreate(temp, H5F_ACC_TRUNC, creation, access);
    if (id < 0) tw_h5_keep_error();
    if (creation >= 0) H5Pclose(creation);
    if (access >= 0) H5Pclose(access);
    return id;
}

/* Frees everything but what HDF5 holds. */
static void free_file(tw_h5 *f) {
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f->temp);
    free(f);
}

/* NULL when memory is out. */
static tw_h5 *new_file(const char *path, const char *kind) {
    tw_h5 *f = calloc(1, sizeof *f);
    if (f) f->path = strdup(path);
    if (!f || !f->path) {
        free(f);
        return NULL;
    }
    f->id = -1, f->fd = -1, f->base = -1;
    snprintf(f->kind, sizeof f->kind, "%s", kind);
    return f;
}

tw_status tw_h5_create(const char *path, const char *kind, int version, tw_h5 **out) {
    *out = NULL;
    tw_h5 *f = new_file(path, kind);
    if (!f) return FAIL(TW_ERR_MEMORY, "%s: no memory to open it", path);
    tw_status status = tw_atomic_begin(path, &f->temp);
    if (status == TW_OK) status = probe_space(f);
    if (status != TW_OK) {
        tw_h5_close(f);
        return status;
    }
    tw_h5_lock();
    f->id = create_in(f->temp);
    if (f->id < 0) status = tw_h5_error(f, "create it", "");
    tw_h5_unlock();
    char format[48];
    snprintf(format, sizeof format, "tuwen %s", kind);
    if (status == TW_OK) status = tw_h5_set_text(f, "format", format);
    if (status == TW_OK) status = tw_h5_set_i64(f, "format_version", version);
    if (status != TW_OK) {
        tw_h5_close(f);
        return status;
    }
    *out = f;
    return TW_OK;
}

/* Closes a file that will be thrown away. What HDF5 still has to write would fail again on a full disk, and a
 * close that fails leaves the file open and its memory lost; so its descriptor is first turned to /dev/null,
 * which takes everything (a file in memory would still stand under RLIMIT_FSIZE). */
static void abandon(tw_h5 *f) {
    tw_h5_lock();
    void *handle = NULL;
    int sink = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (sink >= 0 && H5Fget_vfd_handle(f->id, H5P_DEFAULT, &handle) >= 0 && handle)
        dup2(sink, *(int *)handle);
    if (sink >= 0) close(sink);
    H5Fclose(f->id);
    H5Eclear2(H5E_DEFAULT);
    tw_h5_unlock();
}

void tw_h5_close(tw_h5 *f) {
    if (!f) return;
    if (f->temp) {
        if (f->id >= 0) abandon(f);
        tw_atomic_discard(f->temp);
    } else if (f->id >= 0) {
        tw_h5_lock();
        H5Fclose(f->id);
        tw_h5_unlock();
    }
    free_file(f);
}

void tw_h5_tell_memory(tw_h5 *f, uint64_t bytes) {
    uint64_t mib = (bytes >> 20) + 1;
    f->memory_mib = mib <= UINT32_MAX ? (uint32_t)mib : 0;
}

tw_status tw_h5_commit(tw_h5 *f) {
    tw_status status = TW_OK;
    tw_h5_lock();
    if (H5Fflush(f->id, H5F_SCOPE_GLOBAL) < 0) status = tw_h5_error(f, "write it", "");
    if (status == TW_OK) {
        if (H5Fclose(f->id) < 0)
            status = tw_h5_error(f, "write it", "");
        else
            f->id = -1;
    }
    tw_h5_unlock();
    if (status == TW_OK) status = tw_seal_write(f->temp, f->kind, f->memory_mib);
    if (status == TW_OK) {
        status = tw_atomic_publish(f->temp, f->path);
        free_file(f);
    } else {
        tw_h5_close(f);
    }
    return status;
}

/* Opens by the descriptor whose bytes were checked, so that a file renamed over the path meanwhile does not
 * come in unchecked. Without /proc (a bare chroot) the path must do. */
static tw_status open_checked(tw_h5 *f) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", f->fd);
    bool by_descriptor = access(name, R_OK) == 0;
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t list = access_list();
    if (list >= 0) f->id = H5Fopen(by_descriptor ? name : f->path, H5F_ACC_RDONLY, list);
    if (f->id < 0) status = tw_h5_error(f, "open it", "");
    if (list >= 0) H5Pclose(list);
    tw_h5_unlock();
    return status;
}

static tw_status check_version(tw_h5 *f, int version) {
    int64_t found = 0;
    TRY(tw_h5_get_i64(f, "format_version", &found));
    if (found > version)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s was written by a newer tuwen (%s format %lld, known: %d): update tuwen", f->path,
                    f->kind, (long long)found, version);
    if (found < 1)
        return FAIL(TW_ERR_FORMAT, "%s has the impossible format_version %lld", f->path, (long long)found);
    return TW_OK;
}

tw_status tw_h5_open(const char *path, const char *kind, int version, tw_h5 **out) {
    *out = NULL;
    tw_h5 *f = new_file(path, kind);
    if (!f) return FAIL(TW_ERR_MEMORY, "%s: no memory to open it", path);
    tw_status status = TW_OK;
    if (tw_open_file(path, &f->fd) != TW_OK) status = TW_ERR_IO;
    if (status == TW_OK) status = tw_seal_check(f->fd, path, kind);
    if (status == TW_OK) status = open_checked(f);
    if (status == TW_OK) status = check_version(f, version);
    if (status != TW_OK) {
        tw_h5_close(f);
        return status;
    }
    *out = f;
    return TW_OK;
}

const char *tw_h5_path(const tw_h5 *f) {
    return f->path;
}

int64_t tw_h5_file_bytes(const tw_h5 *f) {
    struct stat info;
    return f->fd >= 0 && fstat(f->fd, &info) == 0 ? (int64_t)info.st_size : -1;
}
