/* Ids of images and texts. The original's files hold them as JSON integers or strings and keep that type;
 * LMDB keys hold their text form. Both travel together here, so that what was 1076345 comes out as
 * 1076345 and what was "1076345" as "1076345". */
#ifndef TW_DATA_RECORD_ID_H
#define TW_DATA_RECORD_ID_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>

/* LMDB's longest key. A longer id is a bad record. */
enum { TW_ID_MAX_BYTES = 511 };

typedef struct tw_id {
    const char *text; /* UTF-8 without zero bytes, followed by a zero; decimal if it is an integer */
    size_t size;      /* bytes of text, 1 … TW_ID_MAX_BYTES */
    bool is_integer;  /* it was an integer (fits int64_t) where it came from */
} tw_id;

/* An id given as text: not empty, at most TW_ID_MAX_BYTES, UTF-8 without control characters; otherwise
 * TW_ERR_FORMAT. is_integer is set if the text is written as an integer would be ("12", not "012").
 * out->text is `text` itself, which must be zero-terminated for as long as the id is used. */
TW_MUST_CHECK tw_status tw_id_from_text(const char *text, size_t size, tw_id *out);

/* True for the keys that the environments keep for themselves (num_images, num_samples, tuwen_format): no
 * image can have them as id. */
bool tw_id_is_reserved(const char *text, size_t size);

#endif
