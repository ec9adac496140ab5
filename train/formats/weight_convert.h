/* Conversion between the element types of weight files and float. */
#ifndef TW_TRAIN_FORMATS_WEIGHT_CONVERT_H
#define TW_TRAIN_FORMATS_WEIGHT_CONVERT_H

#include "train/formats/weights.h"

/* dst[i] = src[i], n of them: f16, bf16 and f32 exactly, the others rounded to nearest, bool as 0 and 1. src
 * needs no alignment. No overlap. */
void tw_weight_to_f32(tw_weight_type type, const void *src, float *dst, int64_t n);

/* The same in place: the n elements lie at the END of the n floats' memory (n * 4 bytes at dst), so that a
 * file's halves are read straight to where their floats will be. For types of at most 4 bytes. */
void tw_weight_widen(tw_weight_type type, float *dst, int64_t n);

/* f32, f16, bf16 or f64 from floats, rounded to nearest even; overflow becomes infinity. TW_ERR_UNSUPPORTED
 * for other types. dst needs no alignment. No overlap. */
tw_status tw_weight_from_f32(tw_weight_type type, const float *src, void *dst, int64_t n) TW_MUST_CHECK;

#endif
