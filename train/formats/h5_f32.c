#include "train/formats/h5_private.h"

#include "autograd/progress.h"
#include "train/formats/fletcher32.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_VALUES = 256 << 10, CHECK_BYTES = TW_H5_CHECK_BYTES }; /* 1 MiB of f32 */

/* Chunks go past HDF5's filter and chunk cache, which allocate and copy each one several times. What is in
 * the file is the same: the chunk's values, little-endian, with fletcher32 behind them. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "chunks are written as they are in memory");

/* Chunks of at most CHUNK_VALUES that are contiguous in memory: inner sides whole, one side cut into parts as
 * equal as possible (a chunk at the edge is stored whole), 1 before it. */
static void choose_chunk(int ndim, const hsize_t *shape, hsize_t *chunk) {
    hsize_t room = CHUNK_VALUES;
    for (int i = ndim - 1; i >= 0; i--) {
        hsize_t parts = (shape[i] + room - 1) / room;
        chunk[i] = (shape[i] + parts - 1) / parts;
        room = parts > 1 ? 1 : room / shape[i];
        if (room == 0) room = 1;
    }
}

/* False if the chunks are not of this form. */
static bool plan_walk(int rank, const hsize_t *shape, const hsize_t *chunk, tw_h5_walk *w) {
    *w = (tw_h5_walk){.before = 1, .inside = 1};
    while (w->cut < rank - 1 && chunk[w->cut] == 1) w->before *= shape[w->cut++];
    for (int i = w->cut + 1; i < rank; i++) {
        if (chunk[i] != shape[i]) return false;
        w->inside *= shape[i];
    }
    w->side = shape[w->cut], w->step = chunk[w->cut];
    w->parts = (w->side + w->step - 1) / w->step;
    return w->step > 0;
}

/* Writes one chunk; buffer holds `size` bytes of values and room for the checksum. */
static tw_status put_chunk(tw_h5 *f, const char *name, hid_t data, const hsize_t *at, unsigned char *buffer,
                           size_t size) {
    uint32_t check = tw_fletcher32(buffer, size);
    memcpy(buffer + size, &check, CHECK_BYTES);
    if (H5Dwrite_chunk(data, H5P_DEFAULT, 0, at, size + CHECK_BYTES, buffer) < 0)
        return tw_h5_error(f, "write", name);
    return TW_OK;
}

static tw_status get_chunk(tw_h5 *f, const char *name, hid_t data, const hsize_t *at, unsigned char *buffer,
                           size_t size) {
    hsize_t stored = 0;
    uint32_t skipped = 0, check;
    if (H5Dget_chunk_storage_size(data, at, &stored) < 0) return tw_h5_error(f, "read", name);
    if (stored != size + CHECK_BYTES)
        return FAIL(TW_ERR_FORMAT, "%s: a chunk of %s has %llu bytes, %zu are expected", f->path, name,
                    (unsigned long long)stored, size + CHECK_BYTES);
    if (H5Dread_chunk(data, H5P_DEFAULT, at, &skipped, buffer) < 0) return tw_h5_error(f, "read", name);
    memcpy(&check, buffer + size, CHECK_BYTES);
    if (skipped != 0 || check != tw_fletcher32(buffer, size))
        return FAIL(TW_ERR_FORMAT, "%s is damaged: %s does not match its checksum", f->path, name);
    return TW_OK;
}

tw_h5_chunk tw_h5_chunk_at(const tw_h5_walk *w, const hsize_t *shape, hsize_t i) {
    hsize_t outer = i / w->parts, from = i % w->parts * w->step;
    hsize_t rows = w->side - from < w->step ? w->side - from : w->step;
    tw_h5_chunk c = {.first = (int64_t)((outer * w->side + from) * w->inside),
                     .count = (int64_t)(rows * w->inside)};
    c.at[w->cut] = from;
    for (int k = w->cut - 1; k >= 0; k--) c.at[k] = outer % shape[k], outer /= shape[k];
    return c;
}

hsize_t tw_h5_chunk_of(const tw_h5_walk *w, int64_t value) {
    hsize_t row = (hsize_t)value / w->inside;
    return row / w->side * w->parts + row % w->side / w->step;
}

static tw_status write_chunks(tw_h5 *f, const char *name, hid_t data, int rank, const hsize_t *shape,
                              const hsize_t *chunk, const float *values) {
    tw_h5_walk w;
    if (!plan_walk(rank, shape, chunk, &w))
        return FAIL(TW_ERR_FORMAT, "%s: the chunks of %s are not contiguous in memory", f->path, name);
    size_t size = (size_t)(w.step * w.inside) * sizeof *values;
    unsigned char *buffer = malloc(size + CHECK_BYTES);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for a chunk of %zu bytes", f->path, size);
    tw_status status = TW_OK;
    for (hsize_t i = 0; i < w.before * w.parts && status == TW_OK; i++) {
        tw_h5_chunk c = tw_h5_chunk_at(&w, shape, i);
        size_t bytes = (size_t)c.count * sizeof *values;
        tw_progress_aside();
        memcpy(buffer, values + c.first, bytes);
        memset(buffer + bytes, 0, size - bytes); /* a chunk at the edge is stored whole */
        status = put_chunk(f, name, data, c.at, buffer, size);
    }
    free(buffer);
    return status;
}

static tw_status read_chunks(tw_h5 *f, const char *name, hid_t data, const hsize_t *shape,
                             const tw_h5_walk *w, tw_h5_range range, float *values) {
    if (tw_h5_read_direct(f, data, shape, w, range, values)) return TW_OK;
    size_t size = (size_t)(w->step * w->inside) * sizeof *values;
    unsigned char *buffer = malloc(size + CHECK_BYTES);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for a chunk of %zu bytes", f->path, size);
    tw_status status = TW_OK;
    for (int64_t at = range.first, end = at + range.count; at < end && status == TW_OK;) {
        tw_h5_chunk c = tw_h5_chunk_at(w, shape, tw_h5_chunk_of(w, at));
        int64_t stop = c.first + c.count < end ? c.first + c.count : end;
        tw_progress_aside();
        status = get_chunk(f, name, data, c.at, buffer, size);
        if (status == TW_OK)
            memcpy(values + (at - range.first), buffer + (size_t)(at - c.first) * sizeof *values,
                   (size_t)(stop - at) * sizeof *values);
        at = stop;
    }
    free(buffer);
    return status;
}

tw_status tw_h5_write_f32(tw_h5 *f, const char *name, int ndim, const int64_t *shape, const float *values) {
    if (ndim < 0 || ndim > TW_H5_MAX_DIMS)
        return FAIL(TW_ERR_SHAPE, "%s: %s has %d dimensions, at most %d are allowed", f->path, name, ndim,
                    TW_H5_MAX_DIMS);
    hsize_t sides[TW_H5_MAX_DIMS] = {1}, chunk[TW_H5_MAX_DIMS];
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 1)
            return FAIL(TW_ERR_SHAPE, "%s: side %d of %s is %lld, at least 1 is needed", f->path, i, name,
                        (long long)shape[i]);
        sides[i] = (hsize_t)shape[i];
    }
    int rank = ndim ? ndim : 1;
    choose_chunk(rank, sides, chunk);
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t data = tw_h5_create_data(f, name, H5T_IEEE_F32LE, rank, sides, NULL, chunk);
    if (data >= 0) status = write_chunks(f, name, data, rank, sides, chunk, values);
    if (status == TW_OK && (data < 0 || (ndim == 0 && !tw_h5_set_mark(data, "scalar", 1))))
        status = tw_h5_error(f, "write", name);
    if (data >= 0) H5Dclose(data);
    tw_h5_unlock();
    return status;
}

/* The shape of an open data set, which must be f32 with 1 to 4 sides. */
static tw_status shape_of(tw_h5 *f, const char *name, hid_t data, int *ndim, int64_t *shape) {
    hid_t type = H5Dget_type(data), space = H5Dget_space(data);
    hsize_t sides[H5S_MAX_RANK];
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    bool good = type >= 0 && rank >= 1 && rank <= TW_H5_MAX_DIMS && H5Tequal(type, H5T_IEEE_F32LE) > 0 &&
                H5Sget_simple_extent_dims(space, sides, NULL) >= 0;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (!good) return FAIL(TW_ERR_FORMAT, "%s: %s is not f32 with 1 to 4 dimensions", f->path, name);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        shape[i] = (int64_t)sides[i];
        if (__builtin_mul_overflow(count, shape[i], &count))
            return FAIL(TW_ERR_FORMAT, "%s: %s has an impossible size", f->path, name);
    }
    *ndim = tw_h5_get_mark(data, "scalar", 0) == 1 && rank == 1 && shape[0] == 1 ? 0 : rank;
    return TW_OK;
}

tw_status tw_h5_shape(tw_h5 *f, const char *name, int *ndim, int64_t shape[TW_H5_MAX_DIMS]) {
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t data = tw_h5_open_data(f, name, &status);
    if (data >= 0) {
        status = shape_of(f, name, data, ndim, shape);
        H5Dclose(data);
    }
    tw_h5_unlock();
    return status;
}

/* Of an array in another form than above HDF5 reads all: what lies side by side in a file of its own form is
 * not known. */
static tw_status read_plain(tw_h5 *f, const char *name, hid_t data, int64_t size, tw_h5_range range,
                            float *values) {
    if (!tw_h5_is_whole(data))
        return FAIL(TW_ERR_FORMAT, "%s: a part of the values of %s is missing", f->path, name);
    float *all = range.count == size ? values : malloc((size_t)size * sizeof *all);
    if (!all)
        return FAIL(TW_ERR_MEMORY, "%s: no memory for the %lld values of %s", f->path, (long long)size, name);
    tw_status status = TW_OK;
    if (H5Dread(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) < 0)
        status = tw_h5_error(f, "read", name);
    else if (all != values)
        memcpy(values, all + range.first, (size_t)range.count * sizeof *values);
    if (all != values) free(all);
    return status;
}

/* Reads an open f32 data set of 1 to 4 sides; by chunks if it was written as above. */
static tw_status read_values(tw_h5 *f, const char *name, hid_t data, int64_t size, tw_h5_range range,
                             float *values) {
    hid_t plan = H5Dget_create_plist(data), space = H5Dget_space(data);
    hsize_t shape[TW_H5_MAX_DIMS], chunk[TW_H5_MAX_DIMS];
    tw_h5_walk w;
    int rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, shape, NULL);
    unsigned flags, count_of_values[1];
    size_t none = 0;
    bool ours =
        plan >= 0 && rank >= 1 && H5Pget_layout(plan) == H5D_CHUNKED &&
        H5Pget_chunk(plan, rank, chunk) == rank && H5Pget_nfilters(plan) == 1 &&
        H5Pget_filter2(plan, 0, &flags, &none, count_of_values, 0, NULL, NULL) == H5Z_FILTER_FLETCHER32 &&
        plan_walk(rank, shape, chunk, &w);
    tw_status status = ours ? read_chunks(f, name, data, shape, &w, range, values)
                            : read_plain(f, name, data, size, range, values);
    if (plan >= 0) H5Pclose(plan);
    if (space >= 0) H5Sclose(space);
    return status;
}

/* whole: the range must be all there is. */
static tw_status read_range(tw_h5 *f, const char *name, tw_h5_range range, bool whole, float *values) {
    tw_status status = TW_OK;
    int ndim = 0;
    int64_t shape[TW_H5_MAX_DIMS], size = 1;
    tw_h5_lock();
    hid_t data = tw_h5_open_data(f, name, &status);
    if (data >= 0) status = shape_of(f, name, data, &ndim, shape);
    for (int i = 0; status == TW_OK && i < ndim; i++) size *= shape[i];
    if (status == TW_OK && whole && size != range.count)
        status = FAIL(TW_ERR_SHAPE, "%s: %s has %lld values, %lld were expected", f->path, name,
                      (long long)size, (long long)range.count);
    else if (status == TW_OK && (range.first < 0 || range.count < 0 || range.first > size - range.count))
        status = FAIL(TW_ERR_SHAPE, "%s: %s has %lld values: not the %lld from number %lld on", f->path, name,
                      (long long)size, (long long)range.count, (long long)range.first);
    if (status == TW_OK && range.count > 0) status = read_values(f, name, data, size, range, values);
    if (data >= 0) H5Dclose(data);
    tw_h5_unlock();
    return status;
}

tw_status tw_h5_read_f32(tw_h5 *f, const char *name, float *values, int64_t count) {
    return read_range(f, name, (tw_h5_range){0, count}, true, values);
}

tw_status tw_h5_read_f32_range(tw_h5 *f, const char *name, int64_t first, float *values, int64_t count) {
    return read_range(f, name, (tw_h5_range){first, count}, false, values);
}
