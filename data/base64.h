/* Base64 as Python's `base64.urlsafe_b64decode` accepts it, minus what it would silently drop.
 *
 * Both alphabets ('+' '/' and '-' '_'), also mixed; white space (space, \t \n \v \f \r) anywhere; padding is
 * required and may be longer than needed once a group is complete. Python discards every other character
 * and whatever follows the padding; here both are errors with their position, since in a data set they
 * mean a damaged record. */
#ifndef TW_DATA_BASE64_H
#define TW_DATA_BASE64_H

#include "autograd/status.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes that decoding `size` characters can give at most: what `out` of tw_base64_decode must hold. */
static inline size_t tw_base64_decoded_bound(size_t size) {
    return size / 4 * 3 + 3;
}
/* Characters of `size` bytes encoded, padding included, no terminating zero. */
static inline size_t tw_base64_encoded_size(size_t size) {
    return (size + 2) / 3 * 4;
}

/* Decodes text[0..size) into out (room for tw_base64_decoded_bound(size) bytes; may not overlap text) and
 * stores the number of bytes in *decoded. TW_ERR_FORMAT names the 0-based position of what is wrong. */
TW_MUST_CHECK tw_status tw_base64_decode(const char *text, size_t size, uint8_t *out, size_t *decoded);

/* Writes tw_base64_encoded_size(size) characters of the standard alphabet to out, with padding. */
void tw_base64_encode(const uint8_t *bytes, size_t size, char *out);

#endif
