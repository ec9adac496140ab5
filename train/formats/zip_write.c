#include "train/formats/zip_write.h"

#include "train/formats/zip_records.h"

#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 64, MAX_NAME = 1024, UTF8_NAMES = 1 << 11, VERSION = 20, VERSION_64 = 45 };

struct tw_zip_writer {
    int fd;
    char *label;
    uint64_t at, count;
    unsigned char *directory;
    size_t directory_size, directory_capacity;
};

/* A record being put together. */
typedef struct record {
    unsigned char bytes[TW_ZIP_CENTRAL_BYTES + MAX_NAME + 2 * ALIGNMENT];
    size_t size;
} record;

static void put(record *r, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++, value >>= 8) r->bytes[r->size++] = (unsigned char)value;
}

static void put_bytes(record *r, const void *bytes, size_t size) {
    memcpy(r->bytes + r->size, bytes, size);
    r->size += size;
}

/* What 32 bits cannot hold is all ones, and stands in the 64-bit extra field. */
static uint64_t cut32(uint64_t value) {
    return value < UINT32_MAX ? value : UINT32_MAX;
}

static tw_status write_all(tw_zip_writer *w, const void *data, size_t size) {
    const unsigned char *from = data;
    while (size > 0) {
        ssize_t n = write(w->fd, from, size < (1u << 30) ? size : 1u << 30);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return FAIL(TW_ERR_IO, "cannot write %s: %s", w->label, strerror(errno));
        from += n;
        size -= (size_t)n;
        w->at += (uint64_t)n;
    }
    return TW_OK;
}

tw_status tw_zip_writer_open(const char *path, const char *label, tw_zip_writer **out) {
    *out = NULL;
    tw_zip_writer *w = calloc(1, sizeof *w);
    if (w) w->label = strdup(label);
    if (!w || !w->label) {
        free(w);
        return FAIL(TW_ERR_MEMORY, "%s: no memory to write it", label);
    }
    w->fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (w->fd < 0) {
        int error = errno;
        tw_zip_writer_free(w);
        return FAIL(TW_ERR_IO, "cannot write %s: %s", label, strerror(error));
    }
    *out = w;
    return TW_OK;
}

void tw_zip_writer_free(tw_zip_writer *w) {
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    free(w->label);
    free(w->directory);
    free(w);
}

/* The part that local and central records share. */
static void put_entry(record *r, bool large, uint32_t crc, uint64_t size, size_t name_size, size_t extra) {
    put(r, large ? VERSION_64 : VERSION, 2);
    put(r, UTF8_NAMES, 2);
    put(r, 0, 2);          /* stored */
    put(r, 0, 2);          /* no time, so that equal content gives equal files */
    put(r, 1 << 5 | 1, 2); /* 1 January 1980, the earliest date */
    put(r, crc, 4);
    put(r, large ? UINT32_MAX : size, 4);
    put(r, large ? UINT32_MAX : size, 4);
    put(r, name_size, 2);
    put(r, extra, 2);
}

/* The header before an entry's bytes, with an extra field that fills up to the alignment. */
static void make_local(record *r, uint64_t at, const char *name, uint32_t crc, uint64_t size) {
    bool large = size >= UINT32_MAX;
    size_t name_size = strlen(name), sizes = large ? 20 : 0,
           bare = TW_ZIP_LOCAL_BYTES + name_size + sizes + 4,
           padding = (ALIGNMENT - (size_t)((at + bare) % ALIGNMENT)) % ALIGNMENT;
    put(r, TW_ZIP_LOCAL, 4);
    put_entry(r, large, crc, size, name_size, sizes + 4 + padding);
    put_bytes(r, name, name_size);
    if (large) {
        put(r, TW_ZIP_EXTRA64, 2);
        put(r, 16, 2);
        put(r, size, 8);
        put(r, size, 8);
    }
    put(r, TW_ZIP_EXTRA_PADDING, 2);
    put(r, padding, 2);
    memset(r->bytes + r->size, 'Z', padding);
    r->size += padding;
}

static void make_central(record *r, uint64_t at, const char *name, uint32_t crc, uint64_t size) {
    bool large = size >= UINT32_MAX, far = at >= UINT32_MAX;
    size_t values = (large ? 16u : 0u) + (far ? 8u : 0u);
    put(r, TW_ZIP_CENTRAL, 4);
    put(r, large || far ? VERSION_64 : VERSION, 2); /* made by */
    put_entry(r, large, crc, size, strlen(name), values ? values + 4 : 0);
    put(r, 0, 10); /* no comment, disk 0, no attributes */
    put(r, cut32(at), 4);
    put_bytes(r, name, strlen(name));
    if (values == 0) return;
    put(r, TW_ZIP_EXTRA64, 2);
    put(r, values, 2);
    if (large) {
        put(r, size, 8);
        put(r, size, 8);
    }
    if (far) put(r, at, 8);
}

static tw_status remember(tw_zip_writer *w, const record *r) {
    if (w->directory_capacity - w->directory_size < r->size) {
        size_t capacity = (w->directory_size + r->size) * 2;
        unsigned char *moved = realloc(w->directory, capacity);
        if (!moved) return FAIL(TW_ERR_MEMORY, "%s: no memory for a zip directory", w->label);
        w->directory = moved;
        w->directory_capacity = capacity;
    }
    memcpy(w->directory + w->directory_size, r->bytes, r->size);
    w->directory_size += r->size;
    w->count++;
    return TW_OK;
}

tw_status tw_zip_writer_add(tw_zip_writer *w, const char *name, const void *data, size_t size) {
    if (strlen(name) > MAX_NAME) return FAIL(TW_ERR_ARGUMENT, "%s: an entry's name is too long", w->label);
    uint32_t crc = libdeflate_crc32(0, NULL, 0);
    if (size) crc = libdeflate_crc32(crc, data, size);
    record local = {.size = 0}, central = {.size = 0};
    make_local(&local, w->at, name, crc, size);
    make_central(&central, w->at, name, crc, size);
    TRY(remember(w, &central));
    TRY(write_all(w, local.bytes, local.size));
    return write_all(w, data, size);
}

tw_status tw_zip_writer_finish(tw_zip_writer *w) {
    uint64_t start = w->at, size = w->directory_size, end = start + size;
    record r = {.size = 0};
    TRY(write_all(w, w->directory, w->directory_size));
    if (w->count >= UINT16_MAX || end >= UINT32_MAX) {
        put(&r, TW_ZIP_END64, 4);
        put(&r, TW_ZIP_END64_BYTES - 12, 8);
        put(&r, VERSION_64, 2);
        put(&r, VERSION_64, 2);
        put(&r, 0, 8); /* disk numbers */
        put(&r, w->count, 8);
        put(&r, w->count, 8);
        put(&r, size, 8);
        put(&r, start, 8);
        put(&r, TW_ZIP_LOCATOR64, 4);
        put(&r, 0, 4);
        put(&r, end, 8);
        put(&r, 1, 4); /* disks */
    }
    uint64_t count = w->count < UINT16_MAX ? w->count : UINT16_MAX;
    put(&r, TW_ZIP_END, 4);
    put(&r, 0, 4);
    put(&r, count, 2);
    put(&r, count, 2);
    put(&r, cut32(size), 4);
    put(&r, cut32(start), 4);
    put(&r, 0, 2); /* no comment */
    TRY(write_all(w, r.bytes, r.size));
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) return FAIL(TW_ERR_IO, "cannot write %s: %s", w->label, strerror(errno));
    return TW_OK;
}
