#include "data/bad_record.h"

#include <stddef.h>

const char *tw_bad_kind_name(tw_bad_kind kind) {
    static const char *const names[TW_BAD_KINDS] = {
        [TW_BAD_NONE] = "good",
        [TW_BAD_LINE] = "malformed line",
        [TW_BAD_UTF8] = "not UTF-8",
        [TW_BAD_ID] = "bad id",
        [TW_BAD_BASE64] = "bad base64",
        [TW_BAD_PAIR] = "bad pair",
        [TW_BAD_IMAGE] = "not an image, or truncated",
        [TW_BAD_IMAGE_FILE] = "unreadable image file",
        [TW_BAD_DUPLICATE] = "image id twice",
        [TW_BAD_JSON] = "bad JSON",
        [TW_BAD_FIELD] = "missing or wrong field",
        [TW_BAD_EMPTY_TEXT] = "empty text",
        [TW_BAD_UNKNOWN_IMAGE] = "unknown image",
    };
    return (int)kind >= 0 && kind < TW_BAD_KINDS ? names[kind] : "unknown";
}
