/* Walks the members of one JSON object in place, for headers of files that are not trusted: no tree is built,
 * so the cost is the text itself, whatever it holds. Values are handed out as text; those of interest are
 * parsed with jansson one by one or walked again. */
#ifndef TW_TRAIN_FORMATS_JSON_SCAN_H
#define TW_TRAIN_FORMATS_JSON_SCAN_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { TW_JSON_SCAN_DEPTH = 16 }; /* objects and arrays inside each other */

typedef struct tw_json_slice {
    const char *text; /* in the scanned text, not zero-terminated */
    size_t size;
} tw_json_slice;

typedef struct tw_json_scan {
    const char *start, *at, *end;
    bool first;
} tw_json_scan;

/* text[0..size) must be UTF-8 (tw_lines_is_utf8) and one object, white space around it allowed. All of this
 * file's errors are TW_ERR_FORMAT with the byte position in `text`. */
tw_status tw_json_scan_begin(tw_json_scan *s, const char *text, size_t size) TW_MUST_CHECK;

/* The next member, in file order; *end is true after the last, when nothing but white space may follow. The
 * name is unescaped into key[0..key_size), zero-terminated; longer ones, and those with control characters
 * (which have no place in a message to a terminal), are refused. Brackets and strings of the value are
 * balanced; what stands between them is for the caller to parse. */
tw_status tw_json_scan_next(tw_json_scan *s, char *key, size_t key_size, tw_json_slice *value,
                            bool *end) TW_MUST_CHECK;

/* A value that must be a string, unescaped under the same rules as a name. */
tw_status tw_json_slice_string(tw_json_slice value, char *out, size_t size) TW_MUST_CHECK;

#endif
