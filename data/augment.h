/* Training augmentation: random resized crop, horizontal flip, AutoAugment's original policy; the pixels of
 * timm's create_transform(scale=(0.9, 1.0), auto_augment='original', interpolation='bicubic') as the original
 * code uses it (FACTS.md §4), byte for byte given the same draws.
 *
 * Two steps, so that each can be compared with timm alone: draw a plan, a function of (seed, epoch, sample)
 * and the image's size; apply it, which draws nothing. */
#ifndef TW_DATA_AUGMENT_H
#define TW_DATA_AUGMENT_H

#include "data/image.h"

#include <stdbool.h>

/* What is drawn from. The original's: areas from 0.9 of the image on, and AutoAugment. For a few thousand
 * photographs and a model from random weights, smaller crops without changes of colour teach more. */
typedef struct tw_augment_policy {
    double min_area;   /* the crop's smallest share of the image's area, above 0, at most 1 */
    bool auto_augment; /* AutoAugment's original policy after crop and flip */
} tw_augment_policy;
static const tw_augment_policy tw_augment_original = {.min_area = 0.9, .auto_augment = true};

/* The operations of the original policy, with what `value` means. */
typedef enum tw_augment_kind {
    TW_AUGMENT_POSTERIZE,     /* bits kept, 1 to 8 */
    TW_AUGMENT_SOLARIZE,      /* values from this threshold on are inverted, 0 to 256 */
    TW_AUGMENT_AUTO_CONTRAST, /* - */
    TW_AUGMENT_EQUALIZE,      /* - */
    TW_AUGMENT_INVERT,        /* - */
    TW_AUGMENT_ROTATE,        /* degrees counterclockwise, any finite number */
    TW_AUGMENT_SHEAR_X,       /* pixels a row, any finite number */
    TW_AUGMENT_COLOR,         /* factor: 0 gray, 1 unchanged, above 1 stronger */
    TW_AUGMENT_CONTRAST,      /* factor, likewise */
    TW_AUGMENT_SHARPNESS,     /* factor: 0 smoothed, 1 unchanged, above 1 sharper */
    TW_AUGMENT_KINDS,
} tw_augment_kind;

typedef struct tw_augment_op {
    tw_augment_kind kind;
    double value;
} tw_augment_op;

typedef struct tw_augment_plan {
    int x, y, width, height; /* the crop, inside the image */
    bool flip;               /* left to right, after the resize */
    int op_count;            /* 0 to 2, after the conversion to RGB */
    tw_augment_op ops[2];
} tw_augment_plan;

/* The name of an operation in timm, for example "AutoContrast". Never NULL. */
const char *tw_augment_name(tw_augment_kind kind);

/* Draws the plan of one sample for an image of width × height (1 to TW_IMAGE_MAX_SIDE). Philox draws of
 * purpose TW_DRAW_AUGMENT with step = epoch; each decision has its own element (see augment.c). */
void tw_augment_plan_draw(const tw_augment_policy *policy, int width, int height, uint64_t seed,
                          uint32_t epoch, uint32_t sample, tw_augment_plan *plan);

/* Crops and resizes in the image's own mode, flips, converts to RGB, applies the operations.
 * rgb is (resolution, resolution, 3). TW_ERR_ARGUMENT: the crop is not inside the image, a value is out of
 * its range. TW_ERR_MEMORY. After an error rgb is undefined. */
tw_status tw_augment_apply(const tw_image *image, const tw_augment_plan *plan, int resolution,
                           uint8_t *rgb) TW_MUST_CHECK;

/* One operation, in place on rgb (height, width, 3). Errors as tw_augment_apply. */
tw_status tw_augment_op_apply(const tw_augment_op *op, int width, int height, uint8_t *rgb) TW_MUST_CHECK;

/* The training path: decode, draw the plan, apply it. rgb is (resolution, resolution, 3).
 * Errors: those of tw_image_decode and tw_augment_apply. */
tw_status tw_image_augment(const void *bytes, size_t n, int resolution, const tw_augment_policy *policy,
                           uint64_t seed, uint32_t epoch, uint32_t sample, uint8_t *rgb) TW_MUST_CHECK;

#endif
