/* What can be wrong with one record of a data set. A reader that returns TW_ERR_FORMAT for a record says
 * which of these it was; the caller counts and skips it, or stops (`prepare --strict`). */
#ifndef TW_DATA_BAD_RECORD_H
#define TW_DATA_BAD_RECORD_H

typedef enum tw_bad_kind {
    TW_BAD_NONE = 0,
    TW_BAD_LINE,          /* a TSV line without tab, a table row without its columns */
    TW_BAD_UTF8,          /* not UTF-8 */
    TW_BAD_ID,            /* an id that is empty, too long, not an integer or string, or a reserved word */
    TW_BAD_BASE64,        /* data/base64.h says what is */
    TW_BAD_PAIR,          /* a pair in an LMDB that is neither the pickle nor the JSON it should be */
    TW_BAD_IMAGE,         /* a payload that is no JPEG, PNG or WebP file, or a truncated one */
    TW_BAD_IMAGE_FILE,    /* a file that cannot be read */
    TW_BAD_DUPLICATE,     /* an image id that was there before: the first one is kept */
    TW_BAD_JSON,          /* a line that does not parse */
    TW_BAD_FIELD,         /* a field that is missing or has another type */
    TW_BAD_EMPTY_TEXT,    /* a text of nothing but white space */
    TW_BAD_UNKNOWN_IMAGE, /* a text that names an image that is not there */
    TW_BAD_KINDS
} tw_bad_kind;

/* "line without tab", "bad base64", … for reports. Never NULL. */
const char *tw_bad_kind_name(tw_bad_kind kind);

#endif
