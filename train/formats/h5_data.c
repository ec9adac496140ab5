#include "train/formats/h5_private.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_VALUES = 256 << 10 }; /* 1 MiB of f32 */

hid_t tw_h5_open_data(tw_h5 *f, const char *name, tw_status *status) {
    hid_t data = H5Dopen2(f->id, name, H5P_DEFAULT);
    if (data >= 0) return data;
    H5Eclear2(H5E_DEFAULT);
    *status = FAIL(TW_ERR_NOT_FOUND, "%s has no data set %s", f->path, name);
    return -1;
}

hid_t tw_h5_create_data(tw_h5 *f, const char *name, hid_t type, int ndim, const hsize_t *shape,
                        const hsize_t *limit, const hsize_t *chunk) {
    hid_t space = H5Screate_simple(ndim, shape, limit), plan = H5Pcreate(H5P_DATASET_CREATE), data = -1;
    if (space >= 0 && plan >= 0 && H5Pset_obj_track_times(plan, false) >= 0 &&
        H5Pset_chunk(plan, ndim, chunk) >= 0 && H5Pset_fletcher32(plan) >= 0 &&
        H5Pset_fill_time(plan, H5D_FILL_TIME_NEVER) >= 0)
        data = H5Dcreate2(f->id, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    if (data < 0) tw_h5_keep_error();
    if (space >= 0) H5Sclose(space);
    if (plan >= 0) H5Pclose(plan);
    return data;
}

static bool set_mark(hid_t data, const char *name, int64_t value) {
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    if (space >= 0) attribute = H5Acreate2(data, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0;
    if (!good) tw_h5_keep_error();
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return good;
}

/* The mark's value; `missing` if there is none, -1 if it cannot be read. */
static int64_t get_mark(hid_t data, const char *name, int64_t missing) {
    if (H5Aexists(data, name) <= 0) return missing;
    int64_t value = -1;
    hid_t attribute = H5Aopen(data, name, H5P_DEFAULT);
    if (attribute >= 0 && H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0) value = -1;
    if (attribute >= 0) H5Aclose(attribute);
    return value;
}

tw_status tw_h5_make_group(tw_h5 *f, const char *name) {
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t plan = H5Pcreate(H5P_GROUP_CREATE), group = -1;
    if (plan >= 0 && H5Pset_link_creation_order(plan, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) >= 0 &&
        H5Pset_obj_track_times(plan, false) >= 0)
        group = H5Gcreate2(f->id, name, H5P_DEFAULT, plan, H5P_DEFAULT);
    if (group < 0) status = tw_h5_error(f, "create group", name);
    if (group >= 0) H5Gclose(group);
    if (plan >= 0) H5Pclose(plan);
    tw_h5_unlock();
    return status;
}

/* With the lock held and every part of the path checked, as HDF5 wants it. */
static bool has_path(hid_t id, const char *name) {
    char part[1024];
    size_t n = strlen(name);
    if (n == 0 || n >= sizeof part) return false;
    for (size_t i = 1; i <= n; i++) {
        if (i < n && name[i] != '/') continue;
        memcpy(part, name, i), part[i] = '\0';
        if (H5Lexists(id, part, H5P_DEFAULT) <= 0) return false;
    }
    return true;
}

bool tw_h5_has(tw_h5 *f, const char *name) {
    tw_h5_lock();
    bool found = has_path(f->id, name);
    H5Eclear2(H5E_DEFAULT);
    tw_h5_unlock();
    return found;
}

/* Copies the names of an open group's n links into one block: n pointers, then the strings. */
static tw_status copy_names(tw_h5 *f, const char *name, hid_t group, hsize_t n, char ***names) {
    size_t bytes = (size_t)n * sizeof(char *);
    char **block = NULL;
    for (int pass = 0; pass < 2; pass++) {
        char *text = pass ? (char *)block + (size_t)n * sizeof(char *) : NULL;
        for (hsize_t i = 0; i < n; i++) {
            size_t room = pass ? bytes - (size_t)(text - (char *)block) : 0;
            ssize_t size =
                H5Lget_name_by_idx(group, ".", H5_INDEX_CRT_ORDER, H5_ITER_INC, i, text, room, H5P_DEFAULT);
            if (size < 0) {
                free(block);
                return tw_h5_error(f, "list group", name);
            }
            if (!pass) bytes += (size_t)size + 1;
            if (pass) block[i] = text, text += size + 1;
        }
        if (!pass && !(block = malloc(bytes ? bytes : 1)))
            return FAIL(TW_ERR_MEMORY, "%s: no memory for %llu names", f->path, (unsigned long long)n);
    }
    *names = block;
    return TW_OK;
}

tw_status tw_h5_list(tw_h5 *f, const char *name, char ***names, int64_t *count) {
    *names = NULL, *count = 0;
    tw_status status = TW_OK;
    tw_h5_lock();
    if (has_path(f->id, name)) {
        H5G_info_t info;
        hid_t group = H5Gopen2(f->id, name, H5P_DEFAULT);
        if (group < 0 || H5Gget_info(group, &info) < 0)
            status = tw_h5_error(f, "list group", name);
        else
            status = copy_names(f, name, group, info.nlinks, names);
        if (status == TW_OK) *count = (int64_t)info.nlinks;
        if (group >= 0) H5Gclose(group);
    }
    H5Eclear2(H5E_DEFAULT);
    tw_h5_unlock();
    return status;
}

tw_status tw_h5_write_bytes(tw_h5 *f, const char *name, const void *bytes, size_t size) {
    if (!bytes) return TW_OK;
    if (size > UINT32_MAX / 2)
        return FAIL(TW_ERR_ARGUMENT, "%s: %s has %zu bytes, at most 2 GiB are allowed", f->path, name, size);
    static const char none[1] = "";
    const hsize_t one = 1;
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t type = tw_h5_text_type(size), data = -1;
    if (type >= 0) data = tw_h5_create_data(f, name, type, 1, &one, NULL, &one);
    /* The length is marked because the type is at least 1 long and readers drop NULs at the end. */
    if (data < 0 || H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, size ? bytes : none) < 0 ||
        !set_mark(data, "bytes", (int64_t)size))
        status = tw_h5_error(f, "write", name);
    if (data >= 0) H5Dclose(data);
    if (type >= 0) H5Tclose(type);
    tw_h5_unlock();
    return status;
}

static tw_status read_bytes(tw_h5 *f, const char *name, hid_t data, char **out, size_t *size) {
    hid_t type = H5Dget_type(data), space = H5Dget_space(data);
    size_t room = type < 0 ? 0 : H5Tget_size(type);
    int64_t marked = get_mark(data, "bytes", (int64_t)room);
    tw_status status = TW_OK;
    char *value = NULL;
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) ||
        H5Sget_simple_extent_npoints(space) != 1 || marked < 0 || (size_t)marked > room)
        status = FAIL(TW_ERR_FORMAT, "%s: %s is not one text of fixed length", f->path, name);
    else if (!(value = calloc(1, room + 1)))
        status = FAIL(TW_ERR_MEMORY, "%s: no memory for %s, %zu bytes", f->path, name, room);
    else if (H5Dread(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) < 0)
        status = tw_h5_error(f, "read", name);
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (status != TW_OK) {
        free(value);
        return status;
    }
    value[marked] = '\0';
    *out = value, *size = (size_t)marked;
    return TW_OK;
}

tw_status tw_h5_read_bytes(tw_h5 *f, const char *name, char **out, size_t *size) {
    *out = NULL, *size = 0;
    tw_status status = TW_OK;
    tw_h5_lock();
    if (has_path(f->id, name)) {
        hid_t data = tw_h5_open_data(f, name, &status);
        if (data >= 0) {
            status = read_bytes(f, name, data, out, size);
            H5Dclose(data);
        }
    }
    H5Eclear2(H5E_DEFAULT);
    tw_h5_unlock();
    return status;
}

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
    if (data < 0 || H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0 ||
        (ndim == 0 && !set_mark(data, "scalar", 1)))
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
    *ndim = get_mark(data, "scalar", 0) == 1 && rank == 1 && shape[0] == 1 ? 0 : rank;
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

tw_status tw_h5_read_f32(tw_h5 *f, const char *name, float *values, int64_t count) {
    tw_status status = TW_OK;
    int ndim = 0;
    int64_t shape[TW_H5_MAX_DIMS], size = 1;
    tw_h5_lock();
    hid_t data = tw_h5_open_data(f, name, &status);
    if (data >= 0) status = shape_of(f, name, data, &ndim, shape);
    for (int i = 0; status == TW_OK && i < ndim; i++) size *= shape[i];
    if (status == TW_OK && size != count)
        status = FAIL(TW_ERR_SHAPE, "%s: %s has %lld values, %lld were expected", f->path, name,
                      (long long)size, (long long)count);
    if (status == TW_OK && H5Dread(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        status = tw_h5_error(f, "read", name);
    if (data >= 0) H5Dclose(data);
    tw_h5_unlock();
    return status;
}
