#include "autograd/progress.h"
#include "data/files.h"
#include "train/formats/fletcher32.h"
#include "train/formats/h5_private.h"
#include "train/formats/seal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* HDF5 1.10 finds a chunk by going through all of them: beyond this many that takes longer than it saves.
 * Chunks of tuwen have 1 MiB; each thread may hold one. */
enum { MOST_CHUNKS = 1024, MOST_BYTES = 2 << 20 };

typedef struct chunk {
    int64_t at; /* in the file */
    float *place;
    size_t skip, bytes; /* of its values those behind `skip` belong there; it may hold more */
} chunk;

/* `size` bytes of values at file position c->at, then their checksum, which is of all of them: a chunk of
 * which a part is wanted goes through memory of its own. */
static bool read_chunk(int fd, const chunk *c, size_t size) {
    uint32_t check = 0;
    void *whole = c->bytes < size ? malloc(size) : c->place;
    if (!whole) return false;
    bool good = tw_read_at(fd, (uint64_t)c->at, whole, size) == 0 &&
                tw_read_at(fd, (uint64_t)c->at + size, &check, TW_H5_CHECK_BYTES) == 0 &&
                check == tw_fletcher32(whole, size);
    if (whole != c->place) {
        if (good) memcpy(c->place, (char *)whole + c->skip, c->bytes);
        free(whole);
    }
    return good;
}

/* Where the chunk at coordinates `at` lies, or -1. */
static int64_t find_chunk(hid_t data, const hsize_t *at, size_t size) {
    unsigned skipped = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t stored = 0;
    bool found = H5Dget_chunk_info_by_coord(data, at, &skipped, &address, &stored) >= 0 && skipped == 0 &&
                 address != HADDR_UNDEF && stored == size + TW_H5_CHECK_BYTES && address < INT64_MAX / 2;
    return found ? (int64_t)address : -1;
}

/* The n chunks from number `from` on, which hold the range. */
static bool find_chunks(hid_t data, const hsize_t *shape, const tw_h5_walk *w, size_t size, hsize_t from,
                        hsize_t n, tw_h5_range range, float *values, chunk *chunks) {
    for (hsize_t i = 0; i < n; i++) {
        tw_h5_chunk c = tw_h5_chunk_at(w, shape, from + i);
        int64_t begin = c.first > range.first ? c.first : range.first, end = range.first + range.count;
        if (end > c.first + c.count) end = c.first + c.count;
        chunks[i].place = values + (begin - range.first);
        chunks[i].skip = (size_t)(begin - c.first) * sizeof *values;
        chunks[i].bytes = (size_t)(end - begin) * sizeof *values;
        chunks[i].at = find_chunk(data, c.at, size);
        if (chunks[i].at < 0) return false;
    }
    return true;
}

/* Whether HDF5's addresses count from the file's start or from behind the user block depends on its version:
 * a chunk's bytes, read through it, tell. (Its checksum would not: zeros that lie in the wrong place have the
 * right one.) Bytes that lie in both places tell nothing; another data set's will. */
static bool find_base(tw_h5 *f, hid_t data, const hsize_t *start, const chunk *first, size_t size) {
    const int64_t tries[] = {TW_SEAL_BYTES, 0};
    size_t stored = size + TW_H5_CHECK_BYTES;
    uint32_t skipped = 0;
    int64_t found = -1;
    int matches = 0;
    if (f->base >= 0) return true;
    unsigned char *through = malloc(2 * stored);
    if (!through) return false;
    if (H5Dread_chunk(data, H5P_DEFAULT, start, &skipped, through) >= 0 && skipped == 0)
        for (int i = 0; i < 2; i++) {
            uint64_t at = (uint64_t)(first->at + tries[i]);
            if (tw_read_at(f->fd, at, through + stored, stored) != 0 ||
                memcmp(through, through + stored, stored) != 0)
                continue;
            found = tries[i];
            matches++;
        }
    free(through);
    if (matches == 1) f->base = found;
    return matches == 1;
}

bool tw_h5_read_direct(tw_h5 *f, hid_t data, const hsize_t *shape, const tw_h5_walk *w, tw_h5_range range,
                       float *values) {
    size_t size = (size_t)(w->step * w->inside) * sizeof *values;
    if (f->fd < 0 || w->before * w->parts > MOST_CHUNKS || size > MOST_BYTES) return false;
    hsize_t from = tw_h5_chunk_of(w, range.first),
            n = tw_h5_chunk_of(w, range.first + range.count - 1) - from + 1;
    chunk *chunks = malloc((size_t)n * sizeof *chunks);
    tw_h5_chunk first = tw_h5_chunk_at(w, shape, from);
    bool good = chunks && find_chunks(data, shape, w, size, from, n, range, values, chunks) &&
                find_base(f, data, first.at, &chunks[0], size);
    if (!good) {
        H5Eclear2(H5E_DEFAULT);
        free(chunks);
        return false;
    }
    _Atomic bool all = true;
#pragma omp parallel for schedule(dynamic) if (n > 1)
    for (hsize_t i = 0; i < n; i++) {
        chunk c = chunks[i];
        tw_progress_aside();
        c.at += f->base;
        if (!read_chunk(f->fd, &c, size)) all = false;
    }
    free(chunks);
    return all;
}
