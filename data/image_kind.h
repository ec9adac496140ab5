/* What kind of file some bytes are, from their headers, without decoding. */
#ifndef TW_DATA_IMAGE_KIND_H
#define TW_DATA_IMAGE_KIND_H

#include "autograd/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum tw_image_kind { TW_IMAGE_UNKNOWN = 0, TW_IMAGE_JPEG, TW_IMAGE_PNG, TW_IMAGE_WEBP } tw_image_kind;

/* By the first bytes alone. */
tw_image_kind tw_image_kind_of(const uint8_t *data, size_t size);

/* Walks the file's headers: known kind, a size that tw_image_decode accepts, and not cut off (JPEG: an
 * end-of-image marker after the start of scan; PNG: chunks up to IEND; WebP: the RIFF size). TW_ERR_FORMAT
 * says what is wrong. The pixels may still be damaged: only decoding tells. */
TW_MUST_CHECK tw_status tw_image_check_headers(const uint8_t *data, size_t size, int *width, int *height);

#endif
