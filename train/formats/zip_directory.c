#include "train/formats/file_range.h"
#include "train/formats/zip_private.h"
#include "train/formats/zip_records.h"

#include <stdlib.h>
#include <string.h>

/* Where the directory lies: all of [start, end), `count` entries. */
typedef struct extent {
    uint64_t start, end, count;
} extent;

static tw_status damaged(const tw_zip *z, const char *what) {
    return FAIL(TW_ERR_FORMAT, "%s: zip: %s; the file is damaged or was cut off", z->path, what);
}

/* END64, whose place the 20 bytes before END give. Both records must agree where END has room for it. */
static tw_status read_end64(tw_zip *z, const unsigned char *end, uint64_t end_at, extent *x) {
    unsigned char locator[TW_ZIP_LOCATOR64_BYTES], e[TW_ZIP_END64_BYTES];
    if (end_at < sizeof locator + sizeof e) return TW_OK;
    TRY(tw_range_read(z->path, z->fd, end_at - sizeof locator, sizeof locator, locator));
    if (tw_zip_u32(locator) != TW_ZIP_LOCATOR64) return TW_OK;
    uint64_t at = tw_zip_u64(locator + 8);
    if (at > end_at - sizeof locator - sizeof e)
        return damaged(z, "its 64-bit directory record lies outside the file");
    TRY(tw_range_read(z->path, z->fd, at, sizeof e, e));
    uint64_t record = tw_zip_u64(e + 4);
    if (tw_zip_u32(e) != TW_ZIP_END64 || record != end_at - sizeof locator - at - 12)
        return damaged(z, "its 64-bit directory record is not where it should be");
    if (tw_zip_u32(e + 16) != 0 || tw_zip_u32(e + 20) != 0 || tw_zip_u32(locator + 4) != 0 ||
        tw_zip_u64(e + 24) != tw_zip_u64(e + 32))
        return FAIL(TW_ERR_UNSUPPORTED, "%s: zip: archives of several parts are not read", z->path);
    uint64_t count = tw_zip_u64(e + 32), size = tw_zip_u64(e + 40), start = tw_zip_u64(e + 48);
    uint32_t count16 = tw_zip_u16(end + 10), size32 = tw_zip_u32(end + 12), start32 = tw_zip_u32(end + 16);
    if ((count16 != UINT16_MAX && count16 != count) || (size32 != UINT32_MAX && size32 != size) ||
        (start32 != UINT32_MAX && start32 != start))
        return damaged(z, "its two directory records contradict each other");
    if (start > at || size != at - start) return damaged(z, "its directory is not where its record says");
    *x = (extent){.start = start, .end = at, .count = count};
    return TW_OK;
}

static tw_status read_end_at(tw_zip *z, const unsigned char *end, uint64_t end_at, extent *x) {
    if (tw_zip_u16(end + 4) != 0 || tw_zip_u16(end + 6) != 0 || tw_zip_u16(end + 8) != tw_zip_u16(end + 10))
        return FAIL(TW_ERR_UNSUPPORTED, "%s: zip: archives of several parts are not read", z->path);
    *x = (extent){0};
    TRY(read_end64(z, end, end_at, x));
    if (x->end) return TW_OK;
    uint64_t size = tw_zip_u32(end + 12);
    *x = (extent){.start = tw_zip_u32(end + 16), .end = end_at, .count = tw_zip_u16(end + 10)};
    if (x->start > end_at || size != end_at - x->start)
        return damaged(z, "its directory is not where its record says");
    return TW_OK;
}

/* END is the last record; a comment of up to 65,535 bytes may follow it. */
static tw_status find_end(tw_zip *z, extent *x) {
    uint64_t most = TW_ZIP_END_BYTES + 65535, size = z->size < most ? z->size : most;
    if (size < TW_ZIP_END_BYTES) return damaged(z, "there is no directory");
    unsigned char *tail = malloc((size_t)size);
    if (!tail) return FAIL(TW_ERR_MEMORY, "%s: no memory for a buffer", z->path);
    tw_status status = tw_range_read(z->path, z->fd, z->size - size, size, tail);
    uint64_t at = size - TW_ZIP_END_BYTES;
    while (!status) {
        const unsigned char *end = tail + at;
        if (tw_zip_u32(end) == TW_ZIP_END && at + TW_ZIP_END_BYTES + tw_zip_u16(end + 20) == size) {
            status = read_end_at(z, end, z->size - size + at, x);
            break;
        }
        if (at-- == 0) status = damaged(z, "there is no directory");
    }
    free(tail);
    return status;
}

/* A name that could lead out of a folder if somebody unpacked the archive is nothing torch.save writes. */
static bool is_safe(const char *name, size_t size) {
    if (size == 0 || name[0] == '/' || memchr(name, '\\', size) || memchr(name, '\0', size)) return false;
    if (size > 1 && name[1] == ':') return false;
    for (size_t from = 0; from <= size;) {
        const char *slash = memchr(name + from, '/', size - from);
        size_t n = slash ? (size_t)(slash - name) - from : size - from;
        if ((n == 1 && name[from] == '.') || (n == 2 && name[from] == '.' && name[from + 1] == '.'))
            return false;
        from += n + 1;
    }
    return true;
}

/* The 64-bit values of fields that are all ones, in the order size, packed size, offset. */
static tw_status read_extra(tw_zip *z, const char *name, const unsigned char *extra, size_t size,
                            uint64_t *fields[3]) {
    bool found = false;
    for (size_t at = 0; at < size;) {
        size_t n = size - at < 4 ? size : tw_zip_u16(extra + at + 2);
        if (size - at < 4 || n > size - at - 4) return damaged(z, "an extra field reaches beyond its record");
        if (tw_zip_u16(extra + at) == TW_ZIP_EXTRA64) {
            if (found) return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' has two 64-bit sizes", z->path, name);
            found = true;
            size_t used = 0;
            for (int f = 0; f < 3; f++) {
                if (*fields[f] != UINT32_MAX) continue;
                if (n - used < 8)
                    return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' lacks a 64-bit size", z->path, name);
                *fields[f] = tw_zip_u64(extra + at + 4 + used);
                used += 8;
            }
        }
        at += 4 + n;
    }
    for (int f = 0; f < 3; f++)
        if (!found && *fields[f] == UINT32_MAX)
            return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' lacks a 64-bit size", z->path, name);
    return TW_OK;
}

/* One record of the directory at *at, its name to *names, both moved on. */
static tw_status read_record(tw_zip *z, const unsigned char *directory, size_t size, size_t *at, char **names,
                             const extent *x, tw_zip_entry *e) {
    const unsigned char *r = directory + *at;
    if (size - *at < TW_ZIP_CENTRAL_BYTES || tw_zip_u32(r) != TW_ZIP_CENTRAL)
        return damaged(z, "its directory has fewer entries than it says");
    size_t name_size = tw_zip_u16(r + 28), extra = tw_zip_u16(r + 30),
           whole = TW_ZIP_CENTRAL_BYTES + name_size + extra + tw_zip_u16(r + 32);
    if (size - *at < whole) return damaged(z, "its directory is cut off");
    const char *name = (const char *)r + TW_ZIP_CENTRAL_BYTES;
    if (!is_safe(name, name_size))
        return FAIL(TW_ERR_FORMAT, "%s: zip: the entry name '%.*s' is refused: it leads out of the archive",
                    z->path, (int)(name_size < 200 ? name_size : 200), name);
    memcpy(*names, name, name_size);
    (*names)[name_size] = '\0';
    uint64_t length = tw_zip_u32(r + 24), packed = tw_zip_u32(r + 20), local = tw_zip_u32(r + 42);
    *e = (tw_zip_entry){.name = *names, .crc = tw_zip_u32(r + 16)};
    TRY(read_extra(z, e->name, r + TW_ZIP_CENTRAL_BYTES + name_size, extra,
                   (uint64_t *[]){&length, &packed, &local}));
    if (tw_zip_u16(r + 8) & 0x2041)
        return FAIL(TW_ERR_UNSUPPORTED, "%s: zip: entry '%s' is encrypted", z->path, e->name);
    e->method = tw_zip_u16(r + 10);
    if (e->method == 0 && packed != length)
        return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' is stored, yet has two sizes", z->path, e->name);
    if (local > x->start || packed > x->start - local ||
        TW_ZIP_LOCAL_BYTES + name_size > x->start - local - packed)
        return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' of %llu bytes reaches beyond the file", z->path,
                    e->name, (unsigned long long)packed);
    e->size = length;
    e->packed = packed;
    e->local = local;
    *names += name_size + 1;
    *at += whole;
    return TW_OK;
}

static int by_name(const void *a, const void *b, void *entries) {
    const tw_zip_entry *e = entries;
    return strcmp(e[*(const int64_t *)a].name, e[*(const int64_t *)b].name);
}

static int by_place(const void *a, const void *b, void *entries) {
    const tw_zip_entry *e = entries;
    uint64_t x = e[*(const int64_t *)a].local, y = e[*(const int64_t *)b].local;
    return (x > y) - (x < y);
}

static tw_status check_order(tw_zip *z, uint64_t directory) {
    size_t n = (size_t)z->count;
    qsort_r(z->by_name, n, sizeof *z->by_name, by_place, z->entries);
    for (size_t i = 0; i < n; i++) {
        tw_zip_entry *e = &z->entries[z->by_name[i]];
        e->limit = i + 1 < n ? z->entries[z->by_name[i + 1]].local : directory;
        if (e->local + TW_ZIP_LOCAL_BYTES + strlen(e->name) + e->packed > e->limit)
            return FAIL(TW_ERR_FORMAT, "%s: zip: entry '%s' overlaps the next one", z->path, e->name);
    }
    qsort_r(z->by_name, n, sizeof *z->by_name, by_name, z->entries);
    for (size_t i = 1; i < n; i++)
        if (strcmp(z->entries[z->by_name[i - 1]].name, z->entries[z->by_name[i]].name) == 0)
            return FAIL(TW_ERR_FORMAT, "%s: zip: there are two entries named '%s'", z->path,
                        z->entries[z->by_name[i]].name);
    return TW_OK;
}

tw_status tw_zip_read_directory(tw_zip *z) {
    extent x;
    TRY(find_end(z, &x));
    /* Checked before anything is allocated by it. */
    if (x.count > (x.end - x.start) / TW_ZIP_CENTRAL_BYTES ||
        x.count > z->size / (TW_ZIP_CENTRAL_BYTES + TW_ZIP_LOCAL_BYTES))
        return damaged(z, "its directory says it has more entries than fit");
    size_t size = (size_t)(x.end - x.start), n = (size_t)x.count;
    unsigned char *directory = malloc(size + 1);
    z->entries = malloc((n + 1) * sizeof *z->entries);
    z->by_name = malloc((n + 1) * sizeof *z->by_name);
    z->names = malloc(size + 1); /* a record is longer than its name and a zero */
    tw_status status = directory && z->entries && z->by_name && z->names
                           ? tw_range_read(z->path, z->fd, x.start, size, directory)
                           : FAIL(TW_ERR_MEMORY, "%s: no memory for a zip directory", z->path);
    char *names = z->names;
    size_t at = 0;
    for (size_t i = 0; i < n && !status; i++) {
        status = read_record(z, directory, size, &at, &names, &x, &z->entries[i]);
        z->by_name[i] = (int64_t)i;
    }
    if (!status && at != size) status = damaged(z, "its directory has more entries than it says");
    free(directory);
    TRY(status);
    z->count = (int64_t)n;
    return check_order(z, x.start);
}
