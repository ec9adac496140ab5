#include "train/formats/features_line.h"

#include "train/formats/json_number.h"

#include <math.h>
#include <string.h>

static const char *skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

/* The byte behind `c`, which white space may precede; NULL if something else stands there. */
static const char *after(const char *p, const char *end, char c) {
    if (p < end && *p == c) return p + 1;
    p = skip_space(p, end);
    return p < end && *p == c ? p + 1 : NULL;
}

/* The bytes of a string of printable ASCII without escapes; p is at its quotation mark. */
static const char *plain_string(const char *p, const char *end, const char **text, size_t *size) {
    if (p == end || *p != '"') return NULL;
    const char *from = ++p;
    while (p < end && *p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\') p++;
    if (p == end || *p != '"') return NULL;
    *text = from, *size = (size_t)(p - from);
    return p + 1;
}

static const char *plain_integer(const char *p, const char *end, const char **text, size_t *size) {
    const char *from = p;
    if (p < end && *p == '-') p++;
    const char *first = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    if (p == first || p - first > 18 || (*first == '0' && p - from > 1)) return NULL;
    *text = from, *size = (size_t)(p - from);
    return p;
}

static const char *key(const char *p, const char *end, const char **name, size_t *size) {
    p = plain_string(skip_space(p, end), end, name, size);
    return p ? after(p, end, ':') : NULL;
}

static bool is(const char *name, size_t size, const char *wanted) {
    return size == strlen(wanted) && memcmp(name, wanted, size) == 0;
}

static const char *head(const char *p, const char *end, tw_features_kind *kind, tw_id *id) {
    const char *name;
    size_t size;
    if (!(p = after(p, end, '{')) || !(p = key(p, end, &name, &size))) return NULL;
    if (is(name, size, "image_id"))
        *kind = TW_FEATURES_IMAGE;
    else if (is(name, size, "text_id"))
        *kind = TW_FEATURES_TEXT;
    else
        return NULL;
    p = skip_space(p, end);
    id->is_integer = p < end && *p != '"';
    p = id->is_integer ? plain_integer(p, end, &id->text, &id->size)
                       : plain_string(p, end, &id->text, &id->size);
    if (!p || id->size == 0 || id->size > TW_ID_MAX_BYTES || !(p = after(p, end, ','))) return NULL;
    if (!(p = key(p, end, &name, &size)) || !is(name, size, "feature")) return NULL;
    return after(p, end, '[');
}

bool tw_features_line(const char *line, size_t size, int64_t dim, float *values, tw_features_kind *kind,
                      tw_id *id) {
    const char *end = line + size, *p = head(line, end, kind, id);
    for (int64_t k = 0; k < dim && p; k++) {
        double x;
        if (k && !(p = after(p, end, ','))) return false;
        p = tw_json_number(skip_space(p, end), end, &x);
        if (!p) return false;
        values[k] = (float)x;
        if (!isfinite(values[k])) return false;
    }
    if (!p || !(p = after(p, end, ']')) || !(p = after(p, end, '}'))) return false;
    return skip_space(p, end) == end;
}
