#include "train/formats/h5_private.h"

#include <stdlib.h>
#include <string.h>

/* Writes one value of this type as an attribute of the root. */
static tw_status set_value(tw_h5 *f, const char *name, hid_t file_type, hid_t memory_type,
                           const void *value) {
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = space < 0 ? -1
                                : H5Acreate_by_name(f->id, "/", name, file_type, space, H5P_DEFAULT,
                                                    H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, memory_type, value) < 0)
        status = tw_h5_error(f, "write attribute", name);
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    tw_h5_unlock();
    return status;
}

tw_status tw_h5_set_i64(tw_h5 *f, const char *name, int64_t value) {
    return set_value(f, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

tw_status tw_h5_set_u64(tw_h5 *f, const char *name, uint64_t value) {
    return set_value(f, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

tw_status tw_h5_set_f64(tw_h5 *f, const char *name, double value) {
    return set_value(f, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

hid_t tw_h5_text_type(size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, size ? size : 1) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
                      H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        H5Tclose(type);
        return -1;
    }
    return type;
}

tw_status tw_h5_set_text(tw_h5 *f, const char *name, const char *text) {
    if (!text) return TW_OK;
    size_t size = strlen(text);
    if (size > TW_H5_ATTRIBUTE_BYTES)
        return FAIL(TW_ERR_ARGUMENT, "%s: attribute %s has %zu bytes, at most %d are allowed", f->path, name,
                    size, TW_H5_ATTRIBUTE_BYTES);
    tw_h5_lock();
    hid_t type = tw_h5_text_type(size);
    tw_h5_unlock();
    if (type < 0) return FAIL(TW_ERR_LIBRARY, "%s: HDF5 refused a text of %zu bytes", f->path, size);
    tw_status status = set_value(f, name, type, type, text);
    tw_h5_lock();
    H5Tclose(type);
    tw_h5_unlock();
    return status;
}

/* Opens an attribute of the root that must hold one value of this class; -1 with *status set if not. */
static hid_t open_value(tw_h5 *f, const char *name, H5T_class_t class, tw_status *status) {
    hid_t attribute = H5Aopen_by_name(f->id, "/", name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0) {
        H5Eclear2(H5E_DEFAULT);
        *status = FAIL(TW_ERR_FORMAT, "%s lacks the attribute %s", f->path, name);
        return -1;
    }
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool good = type >= 0 && space >= 0 && H5Tget_class(type) == class &&
                (class != H5T_STRING || !H5Tis_variable_str(type)) &&
                H5Sget_simple_extent_npoints(space) == 1;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    if (good) return attribute;
    H5Aclose(attribute);
    *status = FAIL(TW_ERR_FORMAT, "%s: attribute %s has another type than expected", f->path, name);
    return -1;
}

static tw_status get_value(tw_h5 *f, const char *name, H5T_class_t class, hid_t memory_type, void *value) {
    tw_status status = TW_OK;
    tw_h5_lock();
    hid_t attribute = open_value(f, name, class, &status);
    if (attribute >= 0) {
        if (H5Aread(attribute, memory_type, value) < 0) status = tw_h5_error(f, "read attribute", name);
        H5Aclose(attribute);
    }
    tw_h5_unlock();
    return status;
}

tw_status tw_h5_get_i64(tw_h5 *f, const char *name, int64_t *value) {
    return get_value(f, name, H5T_INTEGER, H5T_NATIVE_INT64, value);
}

tw_status tw_h5_get_u64(tw_h5 *f, const char *name, uint64_t *value) {
    return get_value(f, name, H5T_INTEGER, H5T_NATIVE_UINT64, value);
}

tw_status tw_h5_get_f64(tw_h5 *f, const char *name, double *value) {
    return get_value(f, name, H5T_FLOAT, H5T_NATIVE_DOUBLE, value);
}

/* Reads an open text attribute into fresh memory. */
static tw_status read_text(tw_h5 *f, const char *name, hid_t attribute, char **text) {
    tw_status status = TW_OK;
    hid_t type = H5Aget_type(attribute);
    size_t size = type < 0 ? 0 : H5Tget_size(type);
    char *value = calloc(1, size + 1);
    if (!value)
        status = FAIL(TW_ERR_MEMORY, "%s: no memory for attribute %s", f->path, name);
    else if (type < 0 || H5Aread(attribute, type, value) < 0)
        status = tw_h5_error(f, "read attribute", name);
    if (type >= 0) H5Tclose(type);
    if (status == TW_OK)
        *text = value;
    else
        free(value);
    return status;
}

tw_status tw_h5_get_text(tw_h5 *f, const char *name, char **text) {
    *text = NULL;
    tw_status status = TW_OK;
    tw_h5_lock();
    if (H5Aexists_by_name(f->id, "/", name, H5P_DEFAULT) > 0) {
        hid_t attribute = open_value(f, name, H5T_STRING, &status);
        if (attribute >= 0) {
            status = read_text(f, name, attribute, text);
            H5Aclose(attribute);
        }
    }
    tw_h5_unlock();
    return status;
}
