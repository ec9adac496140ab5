#include "train/formats/h5_private.h"

#include <stdlib.h>
#include <string.h>

typedef enum path_is { PATH_IS_MISSING, PATH_IS_HERE, PATH_IS_LINK } path_is;

/* With the lock held and every part of the path checked, as HDF5 wants it. Links to other names or files are
 * told apart, since following one would open a file that nobody checked. */
static path_is find_path(hid_t id, const char *name) {
    char part[1024];
    size_t n = strlen(name);
    if (n == 0 || n >= sizeof part) return PATH_IS_MISSING;
    for (size_t i = 1; i <= n; i++) {
        H5L_info_t link;
        if (i < n && name[i] != '/') continue;
        memcpy(part, name, i), part[i] = '\0';
        if (H5Lexists(id, part, H5P_DEFAULT) <= 0 || H5Lget_info(id, part, &link, H5P_DEFAULT) < 0)
            return PATH_IS_MISSING;
        if (link.type != H5L_TYPE_HARD) return PATH_IS_LINK;
    }
    return PATH_IS_HERE;
}

/* What a data set or its chunks may claim: whoever reads it makes room for that much. tuwen writes no holes
 * and compresses nothing, but a file that was packed again by another program may be somewhat smaller. */
static hsize_t most_bytes(const tw_h5 *f) {
    int64_t file = tw_h5_file_bytes(f);
    return file < 0 ? INT64_MAX : 2 * (hsize_t)file + (1u << 20);
}

/* Multiplies by every side; beyond `most` the result is most + 1, which nothing multiplies back to 0. */
static hsize_t bytes_of(size_t element, const hsize_t *sides, int rank, hsize_t most) {
    hsize_t bytes = element;
    for (int i = 0; i < rank; i++)
        if (sides[i] == 0) return 0;
    for (int i = 0; i < rank; i++) bytes = bytes > most / sides[i] ? most + 1 : bytes * sides[i];
    return bytes;
}

/* Everything that must hold before any part of a data set is read. */
static tw_status check_data(tw_h5 *f, const char *name, hid_t data) {
    hid_t type = H5Dget_type(data), space = H5Dget_space(data), plan = H5Dget_create_plist(data);
    hsize_t sides[H5S_MAX_RANK], chunk[H5S_MAX_RANK], most = most_bytes(f), bytes = 0;
    int rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, sides, NULL);
    size_t element = type < 0 ? 0 : H5Tget_size(type);
    tw_status status = TW_OK;
    if (element == 0 || rank < 0 || plan < 0)
        status = tw_h5_error(f, "read", name);
    else if (H5Pget_external_count(plan) != 0 || H5Pget_layout(plan) == H5D_VIRTUAL)
        status = FAIL(TW_ERR_FORMAT, "%s: the values of %s lie in another file", f->path, name);
    else if ((bytes = bytes_of(element, sides, rank, most)) > 0 && H5Pget_layout(plan) == H5D_CHUNKED &&
             H5Pget_chunk(plan, H5S_MAX_RANK, chunk) == rank && bytes_of(element, chunk, rank, most) > bytes)
        bytes = bytes_of(element, chunk, rank, most);
    if (status == TW_OK && bytes > most)
        status = FAIL(TW_ERR_FORMAT, "%s: %s says that it is far larger than the file", f->path, name);
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (plan >= 0) H5Pclose(plan);
    return status;
}

hid_t tw_h5_open_data(tw_h5 *f, const char *name, tw_status *status) {
    if (find_path(f->id, name) == PATH_IS_LINK) {
        *status = FAIL(TW_ERR_FORMAT, "%s: %s is a link to somewhere else", f->path, name);
        return -1;
    }
    hid_t data = H5Dopen2(f->id, name, H5P_DEFAULT);
    if (data < 0) {
        H5Eclear2(H5E_DEFAULT);
        *status = FAIL(TW_ERR_NOT_FOUND, "%s has no data set %s", f->path, name);
        return -1;
    }
    *status = check_data(f, name, data);
    if (*status == TW_OK) return data;
    H5Dclose(data);
    H5Eclear2(H5E_DEFAULT);
    return -1;
}

bool tw_h5_is_whole(hid_t data) {
    hid_t space = H5Dget_space(data), plan = H5Dget_create_plist(data);
    hsize_t sides[H5S_MAX_RANK], chunk[H5S_MAX_RANK], stored = 0, wanted = 1;
    int rank = space < 0 ? -1 : H5Sget_simple_extent_dims(space, sides, NULL);
    bool whole = H5Dget_storage_size(data) > 0;
    if (plan < 0 || rank < 0)
        whole = false;
    else if (H5Pget_layout(plan) == H5D_CHUNKED) { /* its space_status is wrong of chunks with a checksum */
        whole =
            H5Pget_chunk(plan, H5S_MAX_RANK, chunk) == rank && H5Dget_num_chunks(data, space, &stored) >= 0;
        for (int i = 0; i < rank && whole; i++) wanted *= (sides[i] + chunk[i] - 1) / chunk[i];
        whole = whole && stored == wanted;
    }
    if (space >= 0) H5Sclose(space);
    if (plan >= 0) H5Pclose(plan);
    return whole;
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

bool tw_h5_set_mark(hid_t data, const char *name, int64_t value) {
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    if (space >= 0) attribute = H5Acreate2(data, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0;
    if (!good) tw_h5_keep_error();
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return good;
}

int64_t tw_h5_get_mark(hid_t data, const char *name, int64_t missing) {
    if (H5Aexists(data, name) <= 0) return missing;
    int64_t value = -1;
    hid_t attribute = H5Aopen(data, name, H5P_DEFAULT);
    hid_t type = attribute < 0 ? -1 : H5Aget_type(attribute),
          space = attribute < 0 ? -1 : H5Aget_space(attribute);
    bool one = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_INTEGER &&
               H5Sget_simple_extent_npoints(space) == 1; /* more would be written beyond `value` */
    if (!one || H5Aread(attribute, H5T_NATIVE_INT64, &value) < 0) value = -1;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
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

bool tw_h5_has(tw_h5 *f, const char *name) {
    tw_h5_lock();
    bool found = find_path(f->id, name) != PATH_IS_MISSING;
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
    path_is path = find_path(f->id, name);
    if (path == PATH_IS_LINK)
        status = FAIL(TW_ERR_FORMAT, "%s: %s is a link to somewhere else", f->path, name);
    if (path == PATH_IS_HERE) {
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
        !tw_h5_set_mark(data, "bytes", (int64_t)size))
        status = tw_h5_error(f, "write", name);
    if (data >= 0) H5Dclose(data);
    if (type >= 0) H5Tclose(type);
    tw_h5_unlock();
    return status;
}

static tw_status read_bytes(tw_h5 *f, const char *name, hid_t data, char **out, size_t *size) {
    hid_t type = H5Dget_type(data), space = H5Dget_space(data);
    size_t room = type < 0 ? 0 : H5Tget_size(type);
    int64_t marked = tw_h5_get_mark(data, "bytes", (int64_t)room);
    tw_status status = TW_OK;
    char *value = NULL;
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) ||
        H5Sget_simple_extent_npoints(space) != 1 || marked < 0 || (size_t)marked > room)
        status = FAIL(TW_ERR_FORMAT, "%s: %s is not one text of fixed length", f->path, name);
    else if (!tw_h5_is_whole(data))
        status = FAIL(TW_ERR_FORMAT, "%s: %s has no value", f->path, name);
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
    if (find_path(f->id, name) != PATH_IS_MISSING) {
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
