/* The names that pickles of torch.save may mention: an allow-list. */
#ifndef TW_TRAIN_FORMATS_TORCH_NAMES_H
#define TW_TRAIN_FORMATS_TORCH_NAMES_H

#include "data/pickle.h"
#include "train/formats/weights.h"

/* Tags of the names; a storage's holds the tw_weight_type it stands for. */
enum {
    TW_TORCH_ORDERED_DICT = 1,
    TW_TORCH_TENSOR,      /* _rebuild_tensor, _rebuild_tensor_v2: (storage, offset, size, stride, ...) */
    TW_TORCH_PARAMETER,   /* _rebuild_parameter: (tensor, ...) */
    TW_TORCH_FROM_TYPE,   /* _rebuild_from_type_v2: (one of the two above, type, its arguments, state) */
    TW_TORCH_TYPE,        /* torch.Tensor, torch.nn.parameter.Parameter */
    TW_TORCH_SIZE,        /* torch.Size: (tuple) */
    TW_TORCH_DEVICE,      /* torch.device */
    TW_TORCH_ENCODE,      /* _codecs.encode: (str, "latin1"), how bytes are written in protocol 2 */
    TW_TORCH_NUMPY_VALUE, /* numpy's scalar: (dtype, bytes); a cosine schedule leaves one as "lr" */
    TW_TORCH_NUMPY_DTYPE, /* numpy.dtype: ("f8", False, True) with state (3, "<", ...) */
    TW_TORCH_DTYPE,       /* torch.float32 ... */
    TW_TORCH_PLAIN,       /* TorchScript's lists and typed values: ([...]) or (value, "its type") */
    TW_TORCH_MODULE,      /* a class of TorchScript's __torch__, with attributes; not in the list below */
    TW_TORCH_STORAGE = 64 /* + tw_weight_type: torch.FloatStorage ... */
};

extern const tw_pickle_global tw_torch_names[];
extern const size_t tw_torch_name_count;

/* "FloatStorage" for TW_WEIGHT_F32 and so on; NULL if there is none. */
const char *tw_torch_storage_name(tw_weight_type type);

#endif
