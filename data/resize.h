/* Pillow's Image.resize with BICUBIC, byte for byte. */
#ifndef TW_DATA_RESIZE_H
#define TW_DATA_RESIZE_H

#include "data/image.h"

/* Resizes to width × height in the image's own mode, as Pillow 13's resize((width, height), BICUBIC):
 * antialiased bicubic (a = -0.5, the support grows with the reduction), first along rows, then along columns,
 * 8-bit in between with weights of 22 fractional bits; modes 1 and P by nearest; LA and RGBA through
 * premultiplied alpha; I and I;16 with double weights. An image of that size already is copied.
 * `out` is owned by the caller on success and empty on failure; `in` is not changed.
 * TW_ERR_FORMAT: a size outside tw_image_alloc's limits. TW_ERR_MEMORY. */
tw_status tw_image_resize(const tw_image *in, int width, int height, tw_image *out) TW_MUST_CHECK;

/* The same of the part [x, x + box_width) × [y, y + box_height), as Pillow's crop() and then resize(): pixels
 * outside of the box have no influence. TW_ERR_ARGUMENT: the box is empty or not inside the image. */
tw_status tw_image_resize_box(const tw_image *in, int x, int y, int box_width, int box_height, int width,
                              int height, tw_image *out) TW_MUST_CHECK;

#endif
