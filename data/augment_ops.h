/* AutoAugment's operations on RGB pixels (height, width, 3) in place; internal to data/. */
#ifndef TW_DATA_AUGMENT_OPS_H
#define TW_DATA_AUGMENT_OPS_H

#include "data/augment.h"

/* enhance.c: look-up tables */
void tw_posterize(int bits, size_t pixels, uint8_t *rgb);
void tw_solarize(int threshold, size_t pixels, uint8_t *rgb);
void tw_auto_contrast(size_t pixels, uint8_t *rgb);
void tw_equalize(size_t pixels, uint8_t *rgb);
void tw_invert(size_t pixels, uint8_t *rgb);
/* enhance.c: blends with a poorer version of the picture; `factor` as Pillow passes it to C, in float */
void tw_enhance_color(float factor, size_t pixels, uint8_t *rgb);
void tw_enhance_contrast(float factor, size_t pixels, uint8_t *rgb);
tw_status tw_enhance_sharpness(float factor, int width, int height, uint8_t *rgb) TW_MUST_CHECK;

/* affine.c: bicubic with a = -1 and no antialiasing; what comes from outside has the fill colour */
tw_status tw_rotate(double degrees, int width, int height, uint8_t *rgb) TW_MUST_CHECK;
tw_status tw_shear_x(double factor, int width, int height, uint8_t *rgb) TW_MUST_CHECK;

#endif
