/* Shared by shapes.c, shapes_draw.c and shapes_write.c only. */
#ifndef TW_DATA_SHAPES_INTERNAL_H
#define TW_DATA_SHAPES_INTERNAL_H

#include "data/shapes.h"

enum { TW_SHAPES_TEMPLATES = TW_SHAPES_CAPTIONS / 2 };

/* tw_draw.layer of each use, so that no two draws share a stream. */
enum {
    TW_SHAPES_LAYER_POOL = 1,
    TW_SHAPES_LAYER_SIBLING,
    TW_SHAPES_LAYER_TRAIN,
    TW_SHAPES_LAYER_SINGLE,
    TW_SHAPES_LAYER_CAPTION,
    TW_SHAPES_LAYER_JITTER,
    TW_SHAPES_LAYER_NOISE,
};

#endif
