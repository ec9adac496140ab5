/* Single values and tensors of a torch.save pickle, from their pickle_values. For torch_pickle.c. */
#ifndef TW_TRAIN_FORMATS_TORCH_VALUES_H
#define TW_TRAIN_FORMATS_TORCH_VALUES_H

#include "data/pickle.h"
#include "train/formats/weights.h"

/* A number: int, float, bool or numpy's scalar. False if v is none of them. */
bool tw_torch_number(const tw_pickle_value *v, double *out);

/* The value of a dict's key, the last one if it occurs twice, as Python has it; NULL if it does not. */
const tw_pickle_value *tw_torch_get(const tw_pickle_value *dict, const char *key);

/* Is it a tensor or parameter? */
bool tw_torch_is_tensor(const tw_pickle_value *v);

/* A tensor as the pickle describes it; nothing points into the pickle but `key`. */
typedef struct tw_torch_view {
    const char *key; /* the storage's, key_size bytes, not zero-terminated */
    size_t key_size;
    tw_weight_type type;
    int64_t storage_count; /* elements of the whole storage */
    int64_t offset;        /* elements, like the strides */
    int ndim;
    int64_t count; /* elements of the tensor */
    int64_t shape[TW_WEIGHT_MAX_DIMS], stride[TW_WEIGHT_MAX_DIMS];
} tw_torch_view;

/* TW_ERR_FORMAT if the description is malformed or the tensor does not lie inside its storage. Messages do
 * not name the tensor. */
tw_status tw_torch_tensor_view(const tw_pickle_value *v, tw_torch_view *out) TW_MUST_CHECK;
/* Only the storage a PERSISTENT value stands for: key, type, storage_count, and in offset where the part of
 * it begins that legacy files may name. */
tw_status tw_torch_storage_view(const tw_pickle_value *v, tw_torch_view *out) TW_MUST_CHECK;

#endif
