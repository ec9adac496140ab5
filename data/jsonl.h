/* JSON lines of texts: {"text_id": 8428, "text": "…", "image_ids": [1076345, 517602]}, other keys allowed
 * and ignored. Ids are integers or strings. */
#ifndef TW_DATA_JSONL_H
#define TW_DATA_JSONL_H

#include "autograd/status.h"
#include "data/bad_record.h"
#include "data/lines.h"
#include "data/record_id.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tw_jsonl tw_jsonl;

typedef struct tw_caption {
    tw_id text_id;
    const char *text; /* valid UTF-8, zero-terminated; may hold zero bytes itself. Not blank, unless any text
                         is allowed */
    size_t text_bytes;
    const tw_id *image_ids; /* (images), may be none */
    size_t images;
    const char *line; /* the record as it stands in the file */
    size_t line_bytes;
} tw_caption;

TW_MUST_CHECK tw_status tw_jsonl_open(const char *path, tw_jsonl **out);
/* The same from lines at their beginning, which it takes over, also on failure. */
TW_MUST_CHECK tw_status tw_jsonl_open_lines(tw_lines *lines, tw_jsonl **out);
/* From here on a record without "image_ids" is one without images, not a bad one. */
void tw_jsonl_allow_no_images(tw_jsonl *jsonl);
/* From here on a text may be empty or blank, and a number (or true, false, null) is the text that Python's
 * str() makes of it, as the original's extraction takes them; otherwise such a record is bad. */
void tw_jsonl_allow_any_text(tw_jsonl *jsonl);
void tw_jsonl_close(tw_jsonl *jsonl); /* accepts NULL */

/* The next record; *end is true after the last. Blank lines are passed over. A record that is wrong gives
 * TW_ERR_FORMAT with "file:line: what", its kind in *bad, and the next call goes on after it; *bad is
 * TW_BAD_NONE for any other error, which is final. What *out points to is valid until the next call. */
TW_MUST_CHECK tw_status tw_jsonl_next(tw_jsonl *jsonl, tw_caption *out, bool *end, tw_bad_kind *bad);
/* The lines underneath, for position and progress. */
const tw_lines *tw_jsonl_lines(const tw_jsonl *jsonl);

/* The JSON array [image_id, text_id, text], as values in `pairs` hold it. Text must be valid UTF-8. *out is
 * freed with free(); *size is without the terminating zero. */
TW_MUST_CHECK tw_status tw_pair_to_json(const tw_id *image_id, const tw_id *text_id, const char *text,
                                        size_t text_bytes, char **out, size_t *size);
/* A record of the file, {"text_id": …, "text": …, "image_ids": […]}, under the same rules. */
TW_MUST_CHECK tw_status tw_caption_to_json(const tw_id *text_id, const char *text, size_t text_bytes,
                                           const tw_id *image_ids, size_t images, char **out, size_t *size);

#endif
