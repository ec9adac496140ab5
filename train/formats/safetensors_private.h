/* What the safetensors reader and writer share. */
#ifndef TW_TRAIN_FORMATS_SAFETENSORS_PRIVATE_H
#define TW_TRAIN_FORMATS_SAFETENSORS_PRIVATE_H

#include "train/formats/weights.h"

enum { TW_SAFETENSORS_TYPES = 10 };

typedef struct tw_safetensors_type {
    const char *name; /* in the header */
    tw_weight_type type;
} tw_safetensors_type;

extern const tw_safetensors_type tw_safetensors_types[TW_SAFETENSORS_TYPES];

#endif
