#include "autograd/tensor.h"

#include <stdio.h>

size_t tw_dtype_size(tw_dtype dtype) {
    static const size_t sizes[] = {[TW_F32] = 4, [TW_BF16] = 2, [TW_I32] = 4, [TW_U8] = 1};
    return sizes[dtype];
}

const char *tw_dtype_name(tw_dtype dtype) {
    static const char *const names[] = {
        [TW_F32] = "f32", [TW_BF16] = "bf16", [TW_I32] = "i32", [TW_U8] = "u8"};
    return names[dtype];
}

tw_tensor tw_tensor_of(void *data, tw_dtype dtype, int ndim, const int64_t *shape) {
    tw_tensor t = {.dtype = dtype, .ndim = ndim, .data = data, .value = -1};
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    return t;
}

int64_t tw_tensor_count(const tw_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

size_t tw_tensor_bytes(const tw_tensor *t) {
    return (size_t)tw_tensor_count(t) * tw_dtype_size(t->dtype);
}

bool tw_tensor_is_contiguous(const tw_tensor *t) {
    int64_t stride = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != stride) return false;
        stride *= t->shape[i];
    }
    return true;
}

bool tw_tensor_same_shape(const tw_tensor *a, const tw_tensor *b) {
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

int64_t tw_tensor_cols(const tw_tensor *t) {
    return t->ndim ? t->shape[t->ndim - 1] : 1;
}

int64_t tw_tensor_rows(const tw_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t->ndim; i++) n *= t->shape[i];
    return n;
}

bool tw_tensor_is_rows(const tw_tensor *t, int64_t *row_stride) {
    int last = t->ndim - 1;
    *row_stride = tw_tensor_cols(t);
    if (last < 0 || tw_tensor_count(t) == 0) return true;
    if (t->shape[last] != 1 && t->stride[last] != 1) return false;
    int64_t expected = 0; /* 0: no dimension of more than one row seen yet */
    for (int i = last - 1; i >= 0; i--) {
        if (t->shape[i] == 1) continue;
        if (expected == 0) {
            *row_stride = t->stride[i];
        } else if (t->stride[i] != expected) {
            return false;
        }
        expected = t->stride[i] * t->shape[i];
    }
    return true;
}

const char *tw_tensor_shape_text(const tw_tensor *t, char text[64]) {
    int n = snprintf(text, 64, "(");
    for (int i = 0; i < t->ndim && n < 60; i++)
        n += snprintf(text + n, (size_t)(64 - n), i ? ",%lld" : "%lld", (long long)t->shape[i]);
    if (n > 62) n = 62;
    snprintf(text + n, (size_t)(64 - n), ")");
    return text;
}
