/* Which words of the draw decide on an element's dropout, once for every device: element e of a sample is
 * kept iff word e of the draw is at least p 2^32, and then scaled by 1 / (1 - p). */
#ifndef TW_AUTOGRAD_OPS_DROPOUT_MATH_H
#define TW_AUTOGRAD_OPS_DROPOUT_MATH_H

#include "autograd/host_device.h"
#include "autograd/op.h"
#include "autograd/random.h"

#include <math.h>

/* `sample` is its index in this micro-batch; step is read, so on the device that can. */
TW_HOST_DEVICE tw_draw tw_dropout_draw(const tw_step *step, uint32_t layer, int64_t sample) {
    tw_draw draw;
    draw.seed = step->seed;
    draw.purpose = TW_DRAW_DROPOUT;
    draw.layer = layer;
    draw.step = step->step;
    draw.sample = step->sample + (uint32_t)sample;
    return draw;
}

TW_HOST_DEVICE uint32_t tw_dropout_threshold(float p) {
    double t = ceil((double)p * 4294967296.0); /* a small p is no whole number of 2^-32 */
    return t >= 4294967295.0 ? UINT32_MAX : (uint32_t)t;
}

#endif
