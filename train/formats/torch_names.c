#include "train/formats/torch_names.h"

#define STORAGE(name, type)                                                                                  \
    {"torch", name, TW_TORCH_STORAGE + (type), TW_PICKLE_CONSTANT, false}, {                                 \
        "torch.cuda", name, TW_TORCH_STORAGE + (type), TW_PICKLE_CONSTANT, false                             \
    }
#define DTYPE(name)                                                                                          \
    { "torch", name, TW_TORCH_DTYPE, TW_PICKLE_CONSTANT, false }

const tw_pickle_global tw_torch_names[] = {
    {"collections", "OrderedDict", TW_TORCH_ORDERED_DICT, TW_PICKLE_MAKES_DICT, true}, /* state: _metadata */
    {"torch._utils", "_rebuild_tensor_v2", TW_TORCH_TENSOR, TW_PICKLE_MAKES, false},
    {"torch._utils", "_rebuild_tensor", TW_TORCH_TENSOR, TW_PICKLE_MAKES, false},
    {"torch._utils", "_rebuild_parameter", TW_TORCH_PARAMETER, TW_PICKLE_MAKES, false},
    {"torch._utils", "_rebuild_parameter_with_state", TW_TORCH_PARAMETER, TW_PICKLE_MAKES, false},
    {"torch._tensor", "_rebuild_from_type_v2", TW_TORCH_FROM_TYPE, TW_PICKLE_MAKES, false},
    {"torch", "Tensor", TW_TORCH_TYPE, TW_PICKLE_CONSTANT, false},
    {"torch.nn.parameter", "Parameter", TW_TORCH_TYPE, TW_PICKLE_CONSTANT, false},
    {"torch", "Size", TW_TORCH_SIZE, TW_PICKLE_MAKES, false},
    {"torch", "device", TW_TORCH_DEVICE, TW_PICKLE_MAKES, false},
    {"_codecs", "encode", TW_TORCH_ENCODE, TW_PICKLE_MAKES, false},
    {"numpy.core.multiarray", "scalar", TW_TORCH_NUMPY_VALUE, TW_PICKLE_MAKES, false},
    {"numpy._core.multiarray", "scalar", TW_TORCH_NUMPY_VALUE, TW_PICKLE_MAKES, false},
    {"numpy", "dtype", TW_TORCH_NUMPY_DTYPE, TW_PICKLE_MAKES, true},
    {"torch.jit._pickle", "build_intlist", TW_TORCH_PLAIN, TW_PICKLE_MAKES, false},
    {"torch.jit._pickle", "build_doublelist", TW_TORCH_PLAIN, TW_PICKLE_MAKES, false},
    {"torch.jit._pickle", "build_boollist", TW_TORCH_PLAIN, TW_PICKLE_MAKES, false},
    {"torch.jit._pickle", "build_tensorlist", TW_TORCH_PLAIN, TW_PICKLE_MAKES, false},
    {"torch.jit._pickle", "restore_type_tag", TW_TORCH_PLAIN, TW_PICKLE_MAKES, false},
    STORAGE("FloatStorage", TW_WEIGHT_F32),
    STORAGE("HalfStorage", TW_WEIGHT_F16),
    STORAGE("BFloat16Storage", TW_WEIGHT_BF16),
    STORAGE("DoubleStorage", TW_WEIGHT_F64),
    STORAGE("LongStorage", TW_WEIGHT_I64),
    STORAGE("IntStorage", TW_WEIGHT_I32),
    STORAGE("ShortStorage", TW_WEIGHT_I16),
    STORAGE("CharStorage", TW_WEIGHT_I8),
    STORAGE("ByteStorage", TW_WEIGHT_U8),
    STORAGE("BoolStorage", TW_WEIGHT_BOOL),
    DTYPE("float32"),
    DTYPE("float16"),
    DTYPE("bfloat16"),
    DTYPE("float64"),
    DTYPE("int64"),
    DTYPE("int32"),
    DTYPE("int16"),
    DTYPE("int8"),
    DTYPE("uint8"),
    DTYPE("bool"),
};
const size_t tw_torch_name_count = sizeof tw_torch_names / sizeof tw_torch_names[0];

const char *tw_torch_storage_name(tw_weight_type type) {
    for (size_t i = 0; i < tw_torch_name_count; i++)
        if (tw_torch_names[i].tag == TW_TORCH_STORAGE + (int)type) return tw_torch_names[i].name;
    return NULL;
}
