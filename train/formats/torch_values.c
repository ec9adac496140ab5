#include "train/formats/torch_values.h"

#include "train/formats/torch_names.h"

#include <string.h>

static bool is_str(const tw_pickle_value *v, const char *text) {
    return v->kind == TW_PICKLE_STR && v->bytes.size == strlen(text) &&
           memcmp(v->bytes.data, text, v->bytes.size) == 0;
}

/* The arguments of a call of a name with this tag; NULL if v is none, or has fewer than `least`. */
static const tw_pickle_value *arguments(const tw_pickle_value *v, int tag, size_t least) {
    if (v->kind != TW_PICKLE_OBJECT || v->tag != tag) return NULL;
    const tw_pickle_value *args = v->items.data[1];
    return args->items.size >= least ? args : NULL;
}

const tw_pickle_value *tw_torch_get(const tw_pickle_value *dict, const char *key) {
    for (size_t i = dict->items.size; i >= 2; i -= 2)
        if (is_str(dict->items.data[i - 2], key)) return dict->items.data[i - 1];
    return NULL;
}

/* ---- numbers ---- */

/* The first `size` bytes of a bytes value, which protocol 2 writes as encode(str, "latin1"). */
static bool raw_bytes(const tw_pickle_value *v, unsigned char *out, size_t size) {
    const tw_pickle_value *call = arguments(v, TW_TORCH_ENCODE, 2);
    if (!call) {
        if ((v->kind != TW_PICKLE_BYTES && v->kind != TW_PICKLE_STR) || v->bytes.size != size) return false;
        memcpy(out, v->bytes.data, size);
        return true;
    }
    const tw_pickle_value *text = call->items.data[0];
    if (text->kind != TW_PICKLE_STR || !is_str(call->items.data[1], "latin1")) return false;
    size_t n = 0;
    for (size_t i = 0; i < text->bytes.size && n <= size; n++) { /* UTF-8 of U+0000 to U+00FF */
        unsigned char c = (unsigned char)text->bytes.data[i++];
        if (c >= 0xc4 || n == size) return false;
        if (c >= 0xc2) c = (unsigned char)(c << 6 | ((unsigned char)text->bytes.data[i++] & 0x3f));
        out[n] = c;
    }
    return n == size;
}

static bool numpy_number(const tw_pickle_value *v, double *out) {
    const tw_pickle_value *args = arguments(v, TW_TORCH_NUMPY_VALUE, 2);
    const tw_pickle_value *dtype = args ? arguments(args->items.data[0], TW_TORCH_NUMPY_DTYPE, 1) : NULL;
    if (!dtype) return false;
    const tw_pickle_value *made = args->items.data[0], *type = dtype->items.data[0];
    const tw_pickle_value *state = made->items.size > 2 ? made->items.data[2] : NULL;
    if (state &&
        (state->kind != TW_PICKLE_TUPLE || state->items.size < 2 || is_str(state->items.data[1], ">")))
        return false;
    unsigned char raw[8];
    if (is_str(type, "f8") && raw_bytes(args->items.data[1], raw, 8)) {
        memcpy(out, raw, 8);
        return true;
    }
    if (is_str(type, "f4") && raw_bytes(args->items.data[1], raw, 4)) {
        float f;
        memcpy(&f, raw, 4);
        *out = (double)f;
        return true;
    }
    if (is_str(type, "i8") && raw_bytes(args->items.data[1], raw, 8)) {
        int64_t i;
        memcpy(&i, raw, 8);
        *out = (double)i;
        return true;
    }
    return false;
}

bool tw_torch_number(const tw_pickle_value *v, double *out) {
    switch (v->kind) {
    case TW_PICKLE_INT:
        *out = (double)v->integer;
        return true;
    case TW_PICKLE_FLOAT:
        *out = v->real;
        return true;
    case TW_PICKLE_BOOL:
        *out = v->boolean;
        return true;
    default:
        return numpy_number(v, out);
    }
}

/* ---- tensors ---- */

bool tw_torch_is_tensor(const tw_pickle_value *v) {
    return v->kind == TW_PICKLE_OBJECT &&
           (v->tag == TW_TORCH_TENSOR || v->tag == TW_TORCH_PARAMETER || v->tag == TW_TORCH_FROM_TYPE);
}

static tw_status malformed(const char *what) {
    return FAIL(TW_ERR_FORMAT, "its description is malformed: %s", what);
}

/* (storage, offset, size, stride, ...) of a tensor that may be wrapped in calls that make it a parameter or a
 * subclass; a chain of them is no longer than a pickle is deep. */
static tw_status rebuild_arguments(const tw_pickle_value *v, const tw_pickle_value **out) {
    const tw_pickle_value *args;
    while (tw_torch_is_tensor(v)) {
        if ((args = arguments(v, TW_TORCH_TENSOR, 4))) {
            *out = args;
            return TW_OK;
        }
        if ((args = arguments(v, TW_TORCH_PARAMETER, 1))) {
            v = args->items.data[0];
            continue;
        }
        args = arguments(v, TW_TORCH_FROM_TYPE, 3);
        if (!args || args->items.data[0]->kind != TW_PICKLE_GLOBAL ||
            args->items.data[2]->kind != TW_PICKLE_TUPLE)
            break;
        int tag = args->items.data[0]->tag;
        args = args->items.data[2];
        if (tag == TW_TORCH_TENSOR && args->items.size >= 4) {
            *out = args;
            return TW_OK;
        }
        if (tag != TW_TORCH_PARAMETER || args->items.size < 1) break;
        v = args->items.data[0];
    }
    return malformed("the tensor's arguments");
}

/* A tuple of at most TW_WEIGHT_MAX_DIMS numbers >= 0, or torch.Size of one. */
static tw_status sizes(const tw_pickle_value *v, int *n, int64_t *out) {
    const tw_pickle_value *size = arguments(v, TW_TORCH_SIZE, 1);
    if (size) v = size->items.data[0];
    if (v->kind != TW_PICKLE_TUPLE && v->kind != TW_PICKLE_LIST) return malformed("no tuple of sizes");
    if (v->items.size > TW_WEIGHT_MAX_DIMS)
        return FAIL(TW_ERR_UNSUPPORTED, "it has %zu dimensions, at most %d are read", v->items.size,
                    TW_WEIGHT_MAX_DIMS);
    *n = (int)v->items.size;
    for (int i = 0; i < *n; i++) {
        const tw_pickle_value *e = v->items.data[i];
        if (e->kind != TW_PICKLE_INT || e->integer < 0) return malformed("a size that is no number >= 0");
        out[i] = e->integer;
    }
    return TW_OK;
}

/* ("storage", type, key, device, count) and, in legacy files, the part of it that the tensor sees: None or
 * (key, offset, count). */
tw_status tw_torch_storage_view(const tw_pickle_value *v, tw_torch_view *out) {
    *out = (tw_torch_view){0};
    const tw_pickle_value *id = v->kind == TW_PICKLE_PERSISTENT ? v->items.data[0] : v;
    if (id == v || id->kind != TW_PICKLE_TUPLE || id->items.size < 5 || !is_str(id->items.data[0], "storage"))
        return malformed("no storage");
    const tw_pickle_value *type = id->items.data[1], *key = id->items.data[2], *count = id->items.data[4];
    if (type->kind != TW_PICKLE_GLOBAL || type->tag < TW_TORCH_STORAGE)
        return malformed("its storage's type is no storage");
    if (key->kind != TW_PICKLE_STR || key->bytes.size == 0 || memchr(key->bytes.data, '\0', key->bytes.size))
        return malformed("its storage's key");
    out->type = (tw_weight_type)(type->tag - TW_TORCH_STORAGE);
    if (count->kind != TW_PICKLE_INT || count->integer < 0 ||
        count->integer > INT64_MAX / (int64_t)tw_weight_type_size(out->type))
        return malformed("its storage's size");
    out->key = key->bytes.data;
    out->key_size = key->bytes.size;
    out->storage_count = count->integer;
    if (id->items.size < 6 || id->items.data[5]->kind == TW_PICKLE_NONE) return TW_OK;
    const tw_pickle_value *part = id->items.data[5];
    if (part->kind != TW_PICKLE_TUPLE || part->items.size != 3 || part->items.data[1]->kind != TW_PICKLE_INT)
        return malformed("the part of its storage");
    out->offset = part->items.data[1]->integer;
    return TW_OK;
}

static tw_status check_inside(tw_torch_view *v) {
    int64_t last = v->offset;
    for (int d = 0; d < v->ndim; d++)
        if (v->shape[d] == 0) return TW_OK; /* count is 0 */
    v->count = 1;
    for (int d = 0; d < v->ndim; d++) {
        int64_t step;
        if (__builtin_mul_overflow(v->count, v->shape[d], &v->count) ||
            __builtin_mul_overflow(v->shape[d] - 1, v->stride[d], &step) ||
            __builtin_add_overflow(last, step, &last))
            return FAIL(TW_ERR_FORMAT, "its shape is larger than any file");
    }
    if (last >= v->storage_count)
        return FAIL(TW_ERR_FORMAT, "it reaches to element %lld of a storage of %lld", (long long)last,
                    (long long)v->storage_count);
    return TW_OK;
}

tw_status tw_torch_tensor_view(const tw_pickle_value *v, tw_torch_view *out) {
    const tw_pickle_value *args = NULL;
    int strides = 0;
    TRY(rebuild_arguments(v, &args));
    TRY(tw_torch_storage_view(args->items.data[0], out));
    const tw_pickle_value *offset = args->items.data[1];
    if (offset->kind != TW_PICKLE_INT || offset->integer < 0 || out->offset < 0 ||
        __builtin_add_overflow(out->offset, offset->integer, &out->offset))
        return malformed("its offset");
    TRY(sizes(args->items.data[2], &out->ndim, out->shape));
    TRY(sizes(args->items.data[3], &strides, out->stride));
    if (strides != out->ndim) return malformed("shape and strides differ in length");
    return check_inside(out);
}
