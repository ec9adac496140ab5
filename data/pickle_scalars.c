#include "data/lines.h"
#include "data/pickle_machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading the input ---- */

static tw_status take(tw_pickle *p, size_t size, const unsigned char **out) {
    if (size > p->size - p->at) return tw_pickle_damaged(p, "cut off");
    *out = p->data + p->at;
    p->at += size;
    return TW_OK;
}

tw_status tw_pickle_take_uint(tw_pickle *p, int bytes, uint64_t *out) {
    const unsigned char *s = NULL;
    TRY(take(p, (size_t)bytes, &s));
    *out = 0;
    for (int i = bytes; i-- > 0;) *out = *out << 8 | s[i];
    return TW_OK;
}

tw_status tw_pickle_take_line(tw_pickle *p, const char **line, size_t *size) {
    const unsigned char *start = p->data + p->at;
    const unsigned char *end = p->at < p->size ? memchr(start, '\n', p->size - p->at) : NULL;
    if (!end) return tw_pickle_damaged(p, "cut off");
    *line = (const char *)start;
    *size = (size_t)(end - start);
    p->at += *size + 1;
    return TW_OK;
}

/* ---- scalars ---- */

static tw_status push_int(tw_pickle *p, int64_t integer) {
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_INT, &v));
    v->integer = integer;
    return tw_pickle_push(p, v);
}

static tw_status push_bool(tw_pickle *p, bool boolean) {
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_BOOL, &v));
    v->boolean = boolean;
    return tw_pickle_push(p, v);
}

static tw_status push_bytes(tw_pickle *p, tw_pickle_kind kind, const void *data, size_t size) {
    tw_pickle_value *v = NULL;
    if (kind == TW_PICKLE_STR && !tw_lines_is_utf8(data, size, NULL))
        return tw_pickle_damaged(p, "a str that is not UTF-8, or holds a lone surrogate");
    TRY(tw_pickle_make(p, kind, &v));
    v->bytes.data = data;
    v->bytes.size = size;
    return tw_pickle_push(p, v);
}

/* As many bytes as the number before them, of `length_bytes`, says. */
static tw_status take_counted(tw_pickle *p, int length_bytes, const unsigned char **out, size_t *bytes) {
    uint64_t size = 0;
    TRY(tw_pickle_take_uint(p, length_bytes, &size));
    if (size > p->size - p->at) return tw_pickle_damaged(p, "cut off");
    *bytes = (size_t)size;
    return take(p, *bytes, out);
}

static tw_status counted_bytes(tw_pickle *p, tw_pickle_kind kind, int length_bytes) {
    size_t size = 0;
    const unsigned char *s = NULL;
    TRY(take_counted(p, length_bytes, &s, &size));
    return push_bytes(p, kind, s, size);
}

/* Python 2's str has no encoding: text if it can be read as such. */
static tw_status push_old_str(tw_pickle *p, const void *data, size_t size) {
    return push_bytes(p, tw_lines_is_utf8(data, size, NULL) ? TW_PICKLE_STR : TW_PICKLE_BYTES, data, size);
}

static tw_status old_counted_str(tw_pickle *p, int length_bytes) {
    size_t size = 0;
    const unsigned char *s = NULL;
    TRY(take_counted(p, length_bytes, &s, &size));
    return push_old_str(p, s, size);
}

/* INT and LONG: decimal, LONG with "L" behind it; "00" and "01" are INT's booleans. */
static tw_status decimal(tw_pickle *p, bool is_long) {
    const char *line = NULL;
    size_t size = 0;
    TRY(tw_pickle_take_line(p, &line, &size));
    if (!is_long && size == 2 && line[0] == '0' && (line[1] == '0' || line[1] == '1'))
        return push_bool(p, line[1] == '1');
    if (is_long && size > 0 && line[size - 1] == 'L') size--;
    char digits[32];
    if (size == 0 || size >= sizeof digits)
        return tw_pickle_damaged(p, "an integer that does not fit 64 bits");
    memcpy(digits, line, size);
    digits[size] = '\0';
    char *end;
    errno = 0;
    long long value = strtoll(digits, &end, 10);
    if (errno == ERANGE) return tw_pickle_damaged(p, "an integer that does not fit 64 bits");
    if (end != digits + size) return tw_pickle_damaged(p, "not an integer");
    return push_int(p, value);
}

/* LONG1, LONG4: little-endian two's complement of any length. */
static tw_status binary_long(tw_pickle *p, int length_bytes) {
    size_t size = 0;
    const unsigned char *s = NULL;
    TRY(take_counted(p, length_bytes, &s, &size));
    if (size > 8) return tw_pickle_damaged(p, "an integer that does not fit 64 bits");
    uint64_t value = size > 0 && s[size - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | s[i];
    return push_int(p, (int64_t)value);
}

static tw_status push_float(tw_pickle *p, double real) {
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_FLOAT, &v));
    v->real = real;
    return tw_pickle_push(p, v);
}

static tw_status text_float(tw_pickle *p) {
    const char *line = NULL;
    size_t size = 0;
    TRY(tw_pickle_take_line(p, &line, &size));
    char digits[64];
    if (size == 0 || size >= sizeof digits) return tw_pickle_damaged(p, "not a float");
    memcpy(digits, line, size);
    digits[size] = '\0';
    char *end;
    double value = strtod(digits, &end);
    if (end != digits + size) return tw_pickle_damaged(p, "not a float");
    return push_float(p, value);
}

static tw_status binary_float(tw_pickle *p) { /* big-endian */
    const unsigned char *s = NULL;
    TRY(take(p, 8, &s));
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits = bits << 8 | s[i];
    double value;
    memcpy(&value, &bits, sizeof value);
    return push_float(p, value);
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Value of `digits` hexadecimal digits, or -1. */
static int64_t hex_number(const char *s, size_t left, int digits) {
    if (left < (size_t)digits) return -1;
    int64_t value = 0;
    for (int i = 0; i < digits; i++) {
        int h = hex(s[i]);
        if (h < 0) return -1;
        value = value << 4 | h;
    }
    return value;
}

static size_t put_utf8(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(c | (n == 2 ? 0xc0u : n == 3 ? 0xe0u : 0xf0u));
    return (size_t)n;
}

/* UNICODE: Python's raw-unicode-escape, Latin-1 with \uXXXX and \UXXXXXXXX. */
static tw_status escaped_unicode(tw_pickle *p) {
    const char *s = NULL;
    size_t size = 0;
    void *memory = NULL;
    TRY(tw_pickle_take_line(p, &s, &size));
    TRY(tw_pickle_allocate(p, size * 2 + 1, &memory));
    char *out = memory;
    size_t n = 0;
    for (size_t i = 0; i < size;) {
        int digits = 0;
        if (s[i] == '\\' && i + 1 < size) {
            digits = s[i + 1] == 'u' ? 4 : s[i + 1] == 'U' ? 8 : 0;
            if (!digits)
                n += put_utf8(out + n, (unsigned char)s[i++]); /* it escapes nothing, nor does the next */
        }
        int64_t c = (unsigned char)s[i];
        if (digits) c = hex_number(s + i + 2, size - i - 2, digits);
        if (c < 0 || c > 0x10ffff) return tw_pickle_damaged(p, "a bad \\u escape");
        n += put_utf8(out + n, (uint32_t)c);
        i += digits ? (size_t)digits + 2 : 1;
    }
    return push_bytes(p, TW_PICKLE_STR, out, n);
}

/* One escape of a Python string literal after its backslash; returns the characters used, 0 if it is bad. */
static size_t literal_escape(const char *s, size_t left, char *out) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *known = s[0] ? strchr(from, s[0]) : NULL;
    if (known) {
        *out = to[known - from];
        return 1;
    }
    if (s[0] == 'x') {
        int64_t value = hex_number(s + 1, left - 1, 2);
        *out = (char)value;
        return value < 0 ? 0 : 3;
    }
    int value = 0;
    size_t n = 0;
    while (n < 3 && n < left && s[n] >= '0' && s[n] <= '7') value = value * 8 + (s[n++] - '0');
    *out = (char)value;
    return n;
}

/* STRING: the repr of a Python 2 str. */
static tw_status quoted_str(tw_pickle *p) {
    const char *s = NULL;
    size_t size = 0;
    void *memory = NULL;
    TRY(tw_pickle_take_line(p, &s, &size));
    while (size > 0 && (s[size - 1] == ' ' || s[size - 1] == '\r')) size--;
    if (size < 2 || s[0] != s[size - 1] || (s[0] != '\'' && s[0] != '"'))
        return tw_pickle_damaged(p, "a str without its quotes");
    TRY(tw_pickle_allocate(p, size, &memory));
    char *out = memory;
    size_t n = 0;
    for (size_t i = 1; i < size - 1; n++) {
        if (s[i] != '\\') {
            out[n] = s[i++];
            continue;
        }
        size_t left = size - 1 - (i + 1), used = left > 0 ? literal_escape(s + i + 1, left, out + n) : 0;
        if (used == 0) return tw_pickle_damaged(p, "a bad escape in a str");
        i += 1 + used;
    }
    return push_old_str(p, out, n);
}

static tw_status push_none(tw_pickle *p) {
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, TW_PICKLE_NONE, &v));
    return tw_pickle_push(p, v);
}

static tw_status push_number(tw_pickle *p, int bytes) {
    uint64_t value = 0;
    TRY(tw_pickle_take_uint(p, bytes, &value));
    return push_int(p, bytes == 4 ? (int32_t)(uint32_t)value : (int64_t)value);
}

tw_status tw_pickle_scalar(tw_pickle *p, unsigned char op) {
    switch (op) {
    case 'N':
        return push_none(p);
    case 0x88:
        return push_bool(p, true);
    case 0x89:
        return push_bool(p, false);
    case 'I':
        return decimal(p, false);
    case 'L':
        return decimal(p, true);
    case 'J':
        return push_number(p, 4);
    case 'M':
        return push_number(p, 2);
    case 'K':
        return push_number(p, 1);
    case 0x8a:
        return binary_long(p, 1);
    case 0x8b:
        return binary_long(p, 4);
    case 'F':
        return text_float(p);
    case 'G':
        return binary_float(p);
    case 'S':
        return quoted_str(p);
    case 'T':
        return old_counted_str(p, 4);
    case 'U':
        return old_counted_str(p, 1);
    case 'V':
        return escaped_unicode(p);
    case 'X':
        return counted_bytes(p, TW_PICKLE_STR, 4);
    case 0x8c:
        return counted_bytes(p, TW_PICKLE_STR, 1);
    case 0x8d:
        return counted_bytes(p, TW_PICKLE_STR, 8);
    case 'B':
        return counted_bytes(p, TW_PICKLE_BYTES, 4);
    case 'C':
        return counted_bytes(p, TW_PICKLE_BYTES, 1);
    case 0x8e: /* BINBYTES8, BYTEARRAY8 */
    case 0x96:
        return counted_bytes(p, TW_PICKLE_BYTES, 8);
    default:
        return tw_pickle_object(p, op);
    }
}
