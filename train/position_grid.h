/* The grid part of a positional embedding at another resolution. */
#ifndef TW_TRAIN_POSITION_GRID_H
#define TW_TRAIN_POSITION_GRID_H

#include "autograd/status.h"

#include <stdint.h>

/* from (1 + from_side^2, width) -> to (1 + to_side^2, width): row 0, the class position, is copied; the rest,
 * a square grid in row-major order, is resized bicubically (Keys 1981, a = -0.75) with aligned corners and
 * edges repeated, as torch.nn.functional.interpolate(mode="bicubic", align_corners=True). Sides >= 1. */
tw_status tw_resize_position_grid(const float *from, int64_t from_side, float *to, int64_t to_side,
                                  int64_t width) TW_MUST_CHECK;

/* The side of a grid of `positions` - 1 places; 0 if they are not a square. */
int64_t tw_position_grid_side(int64_t positions);

#endif
