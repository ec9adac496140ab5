#include "train/formats/h5_private.h"

#include <stdlib.h>

tw_status tw_h5_make_rows(tw_h5 *f, const char *name, int64_t dim, int64_t block_rows) {
    const hsize_t none[2] = {0, (hsize_t)dim}, limit[2] = {H5S_UNLIMITED, (hsize_t)dim},
                  block[2] = {(hsize_t)block_rows, (hsize_t)dim};
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t data = tw_h5_create_data(f, name, H5T_IEEE_F32LE, 2, none, limit, block);
    if (data < 0)
        status = tw_h5_error(f, "create", name);
    else
        H5Dclose(data);
    tw_h5_unlock();
    return status;
}

/* Makes an open table n rows longer and writes them; false on failure. */
static bool append(hid_t data, const float *values, hsize_t n) {
    hsize_t shape[2], start[2] = {0, 0};
    hid_t space = H5Dget_space(data), memory = -1;
    bool good = space >= 0 && H5Sget_simple_extent_dims(space, shape, NULL) == 2;
    if (space >= 0) H5Sclose(space);
    if (!good) return false;
    start[0] = shape[0];
    shape[0] += n;
    if (H5Dset_extent(data, shape) < 0) return false;
    space = H5Dget_space(data);
    shape[0] = n;
    if (space >= 0) memory = H5Screate_simple(2, shape, NULL);
    good = memory >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, shape, NULL) >= 0 &&
           H5Dwrite(data, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, values) >= 0;
    if (!good) tw_h5_keep_error();
    if (memory >= 0) H5Sclose(memory);
    if (space >= 0) H5Sclose(space);
    return good;
}

tw_status tw_h5_append_rows(tw_h5 *f, const char *name, const float *values, int64_t n) {
    tw_status status = TW_OK;
    if (n == 0) return TW_OK;
    tw_h5_lock();
    hid_t data = tw_h5_open_data(f, name, &status);
    if (data >= 0) {
        if (!append(data, values, (hsize_t)n)) status = tw_h5_error(f, "write", name);
        /* The last rows may be written here only. */
        if (H5Dclose(data) < 0 && status == TW_OK) status = tw_h5_error(f, "write", name);
    }
    tw_h5_unlock();
    return status;
}

/* n elements; an empty list has a data set of no elements, in chunks of one. */
static tw_status write_list(tw_h5 *f, const char *name, hid_t file_type, hid_t type, const void *values,
                            int64_t n) {
    const hsize_t size = (hsize_t)n, limit = n ? size : H5S_UNLIMITED,
                  chunk = n > 65536 ? 65536
                          : n       ? size
                                    : 1;
    tw_status status = TW_OK;
    hid_t data = tw_h5_create_data(f, name, file_type, 1, &size, &limit, &chunk);
    if (data < 0 || (n && H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0))
        status = tw_h5_error(f, "write", name);
    if (data >= 0 && H5Dclose(data) < 0 && status == TW_OK) status = tw_h5_error(f, "write", name);
    return status;
}

tw_status tw_h5_write_i64s(tw_h5 *f, const char *name, const int64_t *values, int64_t n) {
    tw_h5_lock();
    tw_status status = write_list(f, name, H5T_STD_I64LE, H5T_NATIVE_INT64, values, n);
    tw_h5_unlock();
    return status;
}

tw_status tw_h5_write_texts(tw_h5 *f, const char *name, const char *texts, int64_t n, size_t width) {
    tw_h5_lock();
    hid_t type = tw_h5_text_type(width);
    tw_status status =
        type < 0 ? tw_h5_error(f, "make a type for", name) : write_list(f, name, type, type, texts, n);
    if (type >= 0) H5Tclose(type);
    tw_h5_unlock();
    return status;
}

static tw_status read_list(tw_h5 *f, const char *name, hid_t data, int64_t n, int64_t **values, char **texts,
                           size_t *width) {
    hid_t type = H5Dget_type(data), space = H5Dget_space(data);
    H5T_class_t class = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
    size_t room = n ? (size_t)n : 1;
    tw_status status = TW_OK;
    *width = type < 0 ? 0 : H5Tget_size(type);
    if (space < 0 || H5Sget_simple_extent_npoints(space) != n)
        status = FAIL(TW_ERR_FORMAT, "%s: %s does not have %lld entries", f->path, name, (long long)n);
    else if (class != H5T_INTEGER && (class != H5T_STRING || H5Tis_variable_str(type)))
        status = FAIL(TW_ERR_FORMAT, "%s: %s holds neither integers nor fixed-length texts", f->path, name);
    else if (n && !tw_h5_is_whole(data))
        status = FAIL(TW_ERR_FORMAT, "%s: a part of %s is missing", f->path, name);
    else if (class == H5T_INTEGER) {
        *values = calloc(room, sizeof **values);
        if (*values && H5Dread(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, *values) < 0)
            status = tw_h5_error(f, "read", name);
    } else {
        *texts = calloc(room, *width);
        if (*texts && H5Dread(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *texts) < 0)
            status = tw_h5_error(f, "read", name);
    }
    if (status == TW_OK && !*values && !*texts)
        status = FAIL(TW_ERR_MEMORY, "%s: no memory for %lld entries of %s", f->path, (long long)n, name);
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return status;
}

tw_status tw_h5_read_list(tw_h5 *f, const char *name, int64_t n, int64_t **values, char **texts,
                          size_t *width) {
    *values = NULL, *texts = NULL, *width = 0;
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t data = tw_h5_open_data(f, name, &status);
    if (data >= 0) {
        status = read_list(f, name, data, n, values, texts, width);
        H5Dclose(data);
    }
    tw_h5_unlock();
    if (status != TW_OK) {
        free(*values);
        free(*texts);
        *values = NULL, *texts = NULL;
    }
    return status;
}
