/* The model descriptions of configs/models, as they were when the library was built. */
#ifndef TW_TRAIN_DESCRIPTIONS_H
#define TW_TRAIN_DESCRIPTIONS_H

#include <stddef.h>

typedef struct tw_description {
    const char *name; /* ViT-B-16 */
    const char *yaml; /* see model_file.h */
} tw_description;

extern const tw_description tw_descriptions[]; /* names ascending */
extern const size_t tw_description_count;

#endif
