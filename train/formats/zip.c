#include "train/formats/zip.h"

#include "train/formats/file_range.h"
#include "train/formats/zip_private.h"
#include "train/formats/zip_records.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Read at a time: the CRC then finds the bytes in the cache. */
enum { CHUNK = 256 * 1024, LARGE = 1 << 20 }; /* LARGE: what it pays to read ahead for */

void tw_zip_close(tw_zip *z) {
    if (!z) return;
    tw_read_ahead_stop(z->ahead);
    if (z->fd >= 0) close(z->fd);
    free(z->path);
    free(z->entries);
    free(z->by_name);
    free(z->names);
    free(z->scratch);
    free(z);
}

tw_status tw_zip_open(const char *path, tw_zip **out) {
    *out = NULL;
    tw_zip *z = calloc(1, sizeof *z);
    if (!z) return FAIL(TW_ERR_MEMORY, "%s: no memory for a zip directory", path);
    z->fd = -1;
    z->path = strdup(path);
    tw_status status = z->path ? tw_range_open(path, &z->fd, &z->size)
                               : FAIL(TW_ERR_MEMORY, "%s: no memory for a zip directory", path);
    if (!status) status = tw_zip_read_directory(z);
    if (status)
        tw_zip_close(z);
    else
        *out = z;
    return status;
}

int64_t tw_zip_count(const tw_zip *z) {
    return z->count;
}

uint64_t tw_zip_file_size(const tw_zip *z) {
    return z->size;
}

const char *tw_zip_name(const tw_zip *z, int64_t i) {
    return z->entries[i].name;
}

uint64_t tw_zip_size(const tw_zip *z, int64_t i) {
    return z->entries[i].size;
}

int64_t tw_zip_find(const tw_zip *z, const char *name) {
    int64_t low = 0, high = z->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(z->entries[z->by_name[middle]].name, name);
        if (order == 0) return z->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* ---- reading entries ---- */

/* The header before an entry's bytes must say what the directory says. Read only now: going through all of
 * them at opening would touch every part of the file. */
static tw_status find_bytes(tw_zip *z, tw_zip_entry *e) {
    unsigned char h[TW_ZIP_LOCAL_BYTES];
    TRY(tw_range_read(z->path, z->fd, e->local, sizeof h, h));
    size_t name_size = tw_zip_u16(h + 26);
    uint64_t data = e->local + sizeof h + name_size + tw_zip_u16(h + 28);
    bool later = tw_zip_u16(h + 6) & 8; /* CRC and sizes follow the bytes */
    if (tw_zip_u32(h) != TW_ZIP_LOCAL || name_size != strlen(e->name))
        return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' does not begin where the directory says", z->path,
                    e->name);
    if (data > e->limit || e->size > e->limit - data)
        return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' reaches into what follows it", z->path, e->name);
    char *name = malloc(name_size + 1);
    if (!name) return FAIL(TW_ERR_MEMORY, "%s: no memory for a name", z->path);
    tw_status status = tw_range_read(z->path, z->fd, e->local + sizeof h, name_size, name);
    bool same = !status && memcmp(name, e->name, name_size) == 0;
    free(name);
    TRY(status);
    uint32_t packed = tw_zip_u32(h + 18), size = tw_zip_u32(h + 22);
    if (tw_zip_u16(h + 8) != 0 || (tw_zip_u16(h + 6) & 0x2041)) same = false;
    if (!later && tw_zip_u32(h + 14) != e->crc) same = false;
    if (!later && size != UINT32_MAX && (size != e->size || packed != e->size)) same = false;
    if (!same)
        return FAIL(TW_ERR_FORMAT, "%s: zip: the header of entry '%s' contradicts the directory", z->path,
                    e->name);
    e->data = data;
    return TW_OK;
}

/* Reads all of an entry once: what lies in [offset, end) to dst, the rest only for its CRC. */
static tw_status read_checked(tw_zip *z, tw_zip_entry *e, uint64_t offset, uint64_t end, unsigned char *dst) {
    if (!z->scratch && (offset > 0 || end < e->size)) {
        z->scratch = malloc(CHUNK);
        if (!z->scratch) return FAIL(TW_ERR_MEMORY, "%s: no memory for a buffer", z->path);
    }
    uint32_t crc = libdeflate_crc32(0, NULL, 0);
    if (!z->ahead && e->size >= LARGE) z->ahead = tw_read_ahead_start(z->fd, e->data, z->size);
    for (uint64_t at = 0; at < e->size;) {
        tw_read_ahead_at(z->ahead, e->data + at);
        bool wanted = at >= offset && at < end;
        uint64_t stop = wanted ? end : at < offset ? offset : e->size, left = CHUNK - at % CHUNK;
        size_t n = stop - at < left ? (size_t)(stop - at) : (size_t)left;
        unsigned char *to = wanted ? dst + (at - offset) : z->scratch;
        TRY(tw_range_read(z->path, z->fd, e->data + at, n, to));
        crc = libdeflate_crc32(crc, to, n);
        at += n;
    }
    if (crc != e->crc)
        return FAIL(TW_ERR_FORMAT,
                    "%s: zip: entry '%s' is damaged: its CRC-32 is %08x, recorded is %08x; copy or download "
                    "the file again",
                    z->path, e->name, (unsigned)crc, (unsigned)e->crc);
    e->checked = true;
    return TW_OK;
}

tw_status tw_zip_read(tw_zip *z, int64_t i, uint64_t offset, uint64_t size, void *dst) {
    if (i < 0 || i >= z->count) return FAIL(TW_ERR_ARGUMENT, "%s: zip: no such entry", z->path);
    tw_zip_entry *e = &z->entries[i];
    if (e->method != 0)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s: zip: entry '%s' is compressed (method %u); torch.save does not compress: unpack the "
                    "archive and pack it with 'zip -0', or save it again",
                    z->path, e->name, e->method);
    if (offset > e->size || size > e->size - offset)
        return FAIL(TW_ERR_ARGUMENT, "%s: zip: entry '%s' has %llu bytes only", z->path, e->name,
                    (unsigned long long)e->size);
    if (e->data == 0) TRY(find_bytes(z, e));
    if (e->checked) return tw_range_read(z->path, z->fd, e->data + offset, size, dst);
    return read_checked(z, e, offset, offset + size, dst);
}
