/* What torch.save puts into a pickle, read as data: which tensors there are, under which names, and where in
 * which storage their values lie. The values are outside the pickle, see pt.h.
 *
 * Understood: a dict with "state_dict" (or "model_state_dict", "model", "module") and "epoch", "step",
 * "name", "optimizer" beside it; or a bare dict of tensors. Inside the state dict, dicts, lists and tuples
 * may be nested: names are joined by '.'. Values that are no tensors are passed over there. Names that a
 * pickle may mention are the list in torch_names.c; every other one is refused, nothing is ever run.
 *
 * Or what torch.jit.save puts there: a tree of modules, objects of classes that the archive's program
 * defines. A module's attributes that are modules or tensors are its children; a parameter, a buffer and any
 * other tensor look alike there, so a name here may be one that state_dict() does not have. The program, and
 * values of other kinds, are passed over. */
#ifndef TW_TRAIN_FORMATS_TORCH_PICKLE_H
#define TW_TRAIN_FORMATS_TORCH_PICKLE_H

#include "train/formats/weights.h"

typedef struct tw_torch_storage {
    const char *key; /* in the zip: the entry data/<key> */
    tw_weight_type type;
    int64_t count; /* elements */
} tw_torch_storage;

typedef struct tw_torch_tensor {
    int64_t storage; /* -1: the one value is `value` */
    int64_t offset;  /* of the first element in the storage, in elements; so are the strides */
    int64_t stride[TW_WEIGHT_MAX_DIMS];
    int64_t value; /* of an optimizer's "step" that is a plain integer */
} tw_torch_tensor;

typedef struct tw_torch_dict {
    tw_weights_note note; /* kind: NULL */
    tw_weight *items;     /* the model's tensors, then the optimizer's */
    tw_torch_tensor *tensors;
    int64_t count;
    tw_torch_storage *storages; /* all, also those of tensors that are not among the items */
    int64_t storage_count;
    size_t end; /* where in the input the pickle ended */
    void *memory;
} tw_torch_dict;

/* What the pickle is from: a file of torch.save, or a TorchScript archive. */
typedef enum tw_torch_origin { TW_TORCH_SAVED, TW_TORCH_SCRIPTED } tw_torch_origin;

/* Interprets the pickle at data[0]. memory: about how many bytes the result and the work may take. All that
 * *out holds is its own; messages begin with `path`. TW_ERR_FORMAT: damaged, or without tensors, or a tensor
 * that lies outside its storage; TW_ERR_UNSUPPORTED: names or types that are not read. */
tw_status tw_torch_read(const char *path, const void *data, size_t size, size_t memory,
                        tw_torch_origin origin, tw_torch_dict **out) TW_MUST_CHECK;
void tw_torch_free(tw_torch_dict *dict); /* accepts NULL */

#endif
