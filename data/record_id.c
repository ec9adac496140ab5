#include "data/record_id.h"

#include "data/lines.h"

#include <string.h>

/* Written as "%lld" writes an int64_t: no leading zeros, no "+", no "-0". */
static bool looks_integer(const char *text, size_t size) {
    size_t i = size > 0 && text[0] == '-' ? 1 : 0;
    size_t digits = size - i;
    if (digits == 0 || digits > 19 || (text[i] == '0' && size > 1)) return false;
    for (size_t k = i; k < size; k++)
        if (text[k] < '0' || text[k] > '9') return false;
    const char *limit = i ? "9223372036854775808" : "9223372036854775807";
    return digits < 19 || memcmp(text + i, limit, 19) <= 0;
}

tw_status tw_id_from_text(const char *text, size_t size, tw_id *out) {
    if (size == 0) return FAIL(TW_ERR_FORMAT, "the id is empty");
    if (size > TW_ID_MAX_BYTES)
        return FAIL(TW_ERR_FORMAT, "the id is %zu bytes long, the longest is %d", size, TW_ID_MAX_BYTES);
    size_t bad;
    if (!tw_lines_is_utf8(text, size, &bad))
        return FAIL(TW_ERR_FORMAT, "the id is not UTF-8 (its byte %zu)", bad);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return FAIL(TW_ERR_FORMAT, "the id holds a control character (0x%02x)", (unsigned)text[i]);
    *out = (tw_id){.text = text, .size = size, .is_integer = looks_integer(text, size)};
    return TW_OK;
}

bool tw_id_is_reserved(const char *text, size_t size) {
    return (size == 10 && memcmp(text, "num_images", 10) == 0) ||
           (size == 11 && memcmp(text, "num_samples", 11) == 0) ||
           (size == 12 && memcmp(text, "tuwen_format", 12) == 0);
}
