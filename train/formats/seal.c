#include "train/formats/seal.h"

#include "data/files.h"
#include "train/formats/read_ahead.h"
#include "train/formats/xxhash64.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const unsigned char MAGIC[8] = {0x89, 'T', 'W', 'H', '5', '\r', '\n', 0x1A};
static const unsigned char HDF5_MAGIC[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1A, '\n'};

enum {
    AT_VERSION = 8,
    AT_MEMORY = 12,
    AT_LENGTH = 16,
    AT_DIGEST = 24,
    AT_KIND = 32,
    AT_NOTE = 64,
    AT_CHECK = 504,
    BLOCK = 256 << 10, /* of the digest */
    MAX_THREADS = 4    /* more do not read faster */
};

static void put64(unsigned char *p, uint64_t x) {
    x = htole64(x);
    memcpy(p, &x, sizeof x);
}

static uint64_t get64(const unsigned char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return le64toh(x);
}

/* One digest, shared by its threads. */
typedef struct digest_work {
    int fd;
    int64_t blocks, end; /* end: the file's length */
    uint64_t *hashes;    /* (blocks), little-endian */
    _Atomic int64_t next;
    _Atomic int error; /* as tw_read_at gives it */
    tw_read_ahead *ahead;
} digest_work;

static void *digest_thread(void *argument) {
    digest_work *w = argument;
    unsigned char *buffer = malloc(w->end < BLOCK ? (size_t)w->end : BLOCK);
    if (!buffer) {
        w->error = ENOMEM;
        return NULL;
    }
    for (;;) {
        int64_t i = atomic_fetch_add(&w->next, 1);
        if (i >= w->blocks || w->error) break;
        int64_t from = TW_SEAL_BYTES + i * BLOCK;
        size_t size = (size_t)(w->end - from < BLOCK ? w->end - from : BLOCK);
        tw_read_ahead_at(w->ahead, (uint64_t)from);
        int error = tw_read_at(w->fd, (uint64_t)from, buffer, size);
        if (error) {
            w->error = error;
            break;
        }
        put64((unsigned char *)&w->hashes[i], tw_xxh64(buffer, size, 0));
    }
    free(buffer);
    return NULL;
}

static tw_status digest_of(int fd, const char *path, int64_t length, uint64_t *out) {
    int64_t bytes = length - TW_SEAL_BYTES, blocks = (bytes + BLOCK - 1) / BLOCK;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    digest_work w = {.fd = fd, .blocks = blocks, .end = length};
    w.hashes = malloc((size_t)(blocks ? blocks : 1) * sizeof *w.hashes);
    if (!w.hashes) return FAIL(TW_ERR_MEMORY, "%s: no memory to check it", path);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t wanted = blocks < MAX_THREADS ? blocks : MAX_THREADS;
    if (wanted > cpus) wanted = cpus;
    w.ahead = tw_read_ahead_start(fd, 0, (uint64_t)length);
    pthread_t threads[MAX_THREADS];
    int started = 0;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, digest_thread, &w) == 0) started++;
    digest_thread(&w);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    tw_read_ahead_stop(w.ahead);
    int error = w.error;
    if (!error) *out = tw_xxh64(w.hashes, (size_t)blocks * sizeof *w.hashes, (uint64_t)bytes);
    free(w.hashes);
    if (error == TW_READ_SHORT) return FAIL(TW_ERR_FORMAT, "%s became shorter while it was read", path);
    if (error) return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(error));
    return TW_OK;
}

static tw_status seal_open_file(int fd, const char *path, const char *kind, uint32_t memory_mib) {
    struct stat info;
    uint64_t digest;
    unsigned char seal[TW_SEAL_BYTES] = {0};
    if (fstat(fd, &info) != 0) return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (info.st_size <= TW_SEAL_BYTES) return FAIL(TW_ERR_LIBRARY, "%s: HDF5 left no content", path);
    TRY(digest_of(fd, path, info.st_size, &digest));
    memcpy(seal, MAGIC, sizeof MAGIC);
    seal[AT_VERSION] = TW_SEAL_VERSION;
    memory_mib = htole32(memory_mib);
    memcpy(seal + AT_MEMORY, &memory_mib, sizeof memory_mib);
    put64(seal + AT_LENGTH, (uint64_t)info.st_size);
    put64(seal + AT_DIGEST, digest);
    snprintf((char *)seal + AT_KIND, TW_SEAL_KIND_BYTES, "%s", kind);
    snprintf((char *)seal + AT_NOTE, AT_CHECK - AT_NOTE,
             "tuwen %s: an HDF5 file behind these 512 bytes (a user block, which HDF5 skips). "
             "They hold a hash of the rest; after a change by another program tuwen refuses the file.\n",
             kind);
    put64(seal + AT_CHECK, tw_xxh64(seal, AT_CHECK, 0));
    int error = tw_write_at(fd, 0, seal, sizeof seal);
    return error ? FAIL(TW_ERR_IO, "cannot write %s: %s", path, strerror(error)) : TW_OK;
}

tw_status tw_seal_write(const char *path, const char *kind, uint32_t memory_mib) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return FAIL(TW_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    tw_status status = seal_open_file(fd, path, kind, memory_mib);
    if (close(fd) != 0 && status == TW_OK)
        status = FAIL(TW_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    return status;
}

/* Says as well as can be said what a file without our magic is. */
static tw_status not_ours(const unsigned char *start, size_t size, const char *path, const char *kind) {
    if (size >= sizeof HDF5_MAGIC && memcmp(start, HDF5_MAGIC, sizeof HDF5_MAGIC) == 0)
        return FAIL(TW_ERR_FORMAT, "%s is not a tuwen %s: it is an HDF5 file of another program", path, kind);
    if (size >= 4 && memcmp(start, "PK\3\4", 4) == 0)
        return FAIL(TW_ERR_FORMAT, "%s is not a tuwen %s: it is a zip or PyTorch file; see tuwen convert",
                    path, kind);
    return FAIL(TW_ERR_FORMAT, "%s is not a tuwen %s, or its first bytes are damaged", path, kind);
}

tw_status tw_seal_check(int fd, const char *path, const char *kind) {
    struct stat info;
    unsigned char seal[TW_SEAL_BYTES];
    if (fstat(fd, &info) != 0) return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return FAIL(TW_ERR_IO, "%s is not a regular file", path);
    if (info.st_size == 0) return FAIL(TW_ERR_FORMAT, "%s is empty", path);
    size_t size = info.st_size < TW_SEAL_BYTES ? (size_t)info.st_size : TW_SEAL_BYTES;
    int error = tw_read_at(fd, 0, seal, size);
    if (error)
        return FAIL(TW_ERR_IO, "cannot read %s: %s", path,
                    error == TW_READ_SHORT ? "end of file" : strerror(error));
    if (size < sizeof MAGIC || memcmp(seal, MAGIC, sizeof MAGIC) != 0)
        return not_ours(seal, size, path, kind);
    if (size < TW_SEAL_BYTES)
        return FAIL(TW_ERR_FORMAT, "%s is truncated: only %zu bytes are left", path, size);
    if (get64(seal + AT_CHECK) != tw_xxh64(seal, AT_CHECK, 0))
        return FAIL(TW_ERR_FORMAT, "%s is damaged: its first 512 bytes do not match their checksum", path);
    if (seal[AT_VERSION] > TW_SEAL_VERSION)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s was written by a newer tuwen (seal version %d, known: %d): update", path,
                    seal[AT_VERSION], TW_SEAL_VERSION);
    if (strncmp((const char *)seal + AT_KIND, kind, TW_SEAL_KIND_BYTES) != 0)
        return FAIL(TW_ERR_FORMAT, "%s is not a tuwen %s: it is a tuwen %.31s file", path, kind,
                    (const char *)seal + AT_KIND);
    uint64_t length = get64(seal + AT_LENGTH), digest = 0;
    if ((uint64_t)info.st_size != length)
        return FAIL(TW_ERR_FORMAT, "%s is %s: it has %lld bytes and should have %llu", path,
                    (uint64_t)info.st_size < length ? "truncated" : "damaged", (long long)info.st_size,
                    (unsigned long long)length);
    TRY(digest_of(fd, path, info.st_size, &digest));
    if (digest != get64(seal + AT_DIGEST))
        return FAIL(TW_ERR_FORMAT, "%s is damaged: its content does not match its checksum", path);
    return TW_OK;
}

tw_status tw_seal_kind(const char *path, char kind[TW_SEAL_KIND_BYTES]) {
    unsigned char seal[TW_SEAL_BYTES];
    memset(kind, 0, TW_SEAL_KIND_BYTES);
    int fd;
    if (tw_open_file(path, &fd) != TW_OK) return TW_ERR_IO;
    int error = tw_read_at(fd, 0, seal, sizeof seal);
    close(fd);
    if (error && error != TW_READ_SHORT) return FAIL(TW_ERR_IO, "cannot read %s: %s", path, strerror(error));
    if (error == 0 && memcmp(seal, MAGIC, sizeof MAGIC) == 0)
        snprintf(kind, TW_SEAL_KIND_BYTES, "%.31s", (const char *)seal + AT_KIND);
    return TW_OK;
}

/* Whether the file's seal is there and whole. */
static bool read_seal(const char *path, unsigned char seal[TW_SEAL_BYTES]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold us up */
    if (fd < 0) return false;
    bool whole = tw_read_at(fd, 0, seal, TW_SEAL_BYTES) == 0 && memcmp(seal, MAGIC, sizeof MAGIC) == 0 &&
                 get64(seal + AT_CHECK) == tw_xxh64(seal, AT_CHECK, 0);
    close(fd);
    return whole;
}

size_t tw_seal_memory(const char *path) {
    unsigned char seal[TW_SEAL_BYTES];
    uint32_t mib = 0;
    if (read_seal(path, seal)) memcpy(&mib, seal + AT_MEMORY, sizeof mib);
    return (size_t)le32toh(mib) << 20;
}

uint64_t tw_seal_digest(const char *path) {
    unsigned char seal[TW_SEAL_BYTES];
    return read_seal(path, seal) ? get64(seal + AT_DIGEST) : 0;
}
