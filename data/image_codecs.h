/* The three decoders behind tw_image_decode, one file a library. Each takes a file whose magic number fits,
 * leaves `out` empty on failure, and otherwise keeps tw_image_decode's contract. */
#ifndef TW_DATA_IMAGE_CODECS_H
#define TW_DATA_IMAGE_CODECS_H

#include "data/image.h"

tw_status tw_decode_jpeg(const uint8_t *bytes, size_t n, tw_image *out) TW_MUST_CHECK;
tw_status tw_decode_png(const uint8_t *bytes, size_t n, tw_image *out) TW_MUST_CHECK;
tw_status tw_decode_webp(const uint8_t *bytes, size_t n, tw_image *out) TW_MUST_CHECK;

#endif
