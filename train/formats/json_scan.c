#include "train/formats/json_scan.h"

#include <jansson.h>
#include <string.h>

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(tw_json_scan *s) {
    while (s->at < s->end && is_space(*s->at)) s->at++;
}

static tw_status expect(tw_json_scan *s, char c) {
    skip_space(s);
    if (s->at < s->end && *s->at == c) {
        s->at++;
        return TW_OK;
    }
    return FAIL(TW_ERR_FORMAT, "bad JSON at byte %zu: %s, '%c' expected", (size_t)(s->at - s->start),
                s->at < s->end ? "something else" : "the text ends", c);
}

/* The string that starts at s->at, quotes included. */
static tw_status scan_string(tw_json_scan *s, tw_json_slice *out) {
    const char *from = s->at;
    TRY(expect(s, '"'));
    while (s->at < s->end && *s->at != '"') {
        if ((unsigned char)*s->at < 0x20)
            return FAIL(TW_ERR_FORMAT, "bad JSON at byte %zu: control character in a string",
                        (size_t)(s->at - s->start));
        if (*s->at == '\\' && s->at + 1 < s->end) s->at++; /* what is escaped cannot end the string */
        s->at++;
    }
    if (s->at == s->end)
        return FAIL(TW_ERR_FORMAT, "bad JSON: the string at byte %zu does not end",
                    (size_t)(from - s->start));
    s->at++;
    *out = (tw_json_slice){from, (size_t)(s->at - from)};
    return TW_OK;
}

/* Objects and arrays: brackets are matched by kind, without recursion. */
static tw_status scan_nested(tw_json_scan *s) {
    char closing[TW_JSON_SCAN_DEPTH];
    int depth = 0;
    do {
        if (s->at >= s->end) return FAIL(TW_ERR_FORMAT, "bad JSON: the text ends inside a value");
        char c = *s->at;
        if (c == '"') {
            tw_json_slice ignored;
            TRY(scan_string(s, &ignored));
            continue;
        }
        if (c == '{' || c == '[') {
            if (depth == TW_JSON_SCAN_DEPTH)
                return FAIL(TW_ERR_FORMAT, "bad JSON at byte %zu: nested deeper than %d",
                            (size_t)(s->at - s->start), TW_JSON_SCAN_DEPTH);
            closing[depth++] = c == '{' ? '}' : ']';
        } else if ((c == '}' || c == ']') && closing[--depth] != c) {
            return FAIL(TW_ERR_FORMAT, "bad JSON at byte %zu: '%c' closes nothing",
                        (size_t)(s->at - s->start), c);
        }
        s->at++;
    } while (depth > 0);
    return TW_OK;
}

static tw_status scan_value(tw_json_scan *s, tw_json_slice *out) {
    skip_space(s);
    const char *from = s->at;
    if (s->at < s->end && *s->at == '"') return scan_string(s, out);
    if (s->at < s->end && (*s->at == '{' || *s->at == '[')) {
        TRY(scan_nested(s));
    } else {
        while (s->at < s->end && !strchr(",]}:\"[{", *s->at) && !is_space(*s->at)) s->at++;
        if (s->at == from)
            return FAIL(TW_ERR_FORMAT, "bad JSON at byte %zu: a value expected", (size_t)(from - s->start));
    }
    *out = (tw_json_slice){from, (size_t)(s->at - from)};
    return TW_OK;
}

tw_status tw_json_slice_string(tw_json_slice value, char *out, size_t size) {
    /* An escape is at most six times what it stands for. */
    if (value.size < 2 || value.text[0] != '"') return FAIL(TW_ERR_FORMAT, "a string expected");
    if (value.size > 6 * size) return FAIL(TW_ERR_FORMAT, "a name of %zu bytes is too long", value.size);
    json_error_t error;
    json_t *string = json_loadb(value.text, value.size, JSON_DECODE_ANY, &error);
    if (!string) return FAIL(TW_ERR_FORMAT, "bad JSON string: %s", error.text);
    tw_status status = TW_OK;
    size_t n = json_string_length(string);
    if (!json_is_string(string)) {
        status = FAIL(TW_ERR_FORMAT, "a string expected");
    } else if (n >= size) {
        status = FAIL(TW_ERR_FORMAT, "a name of %zu bytes is too long (at most %zu)", n, size - 1);
    } else {
        memcpy(out, json_string_value(string), n + 1);
        for (size_t i = 0; i < n && !status; i++)
            if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
                status = FAIL(TW_ERR_FORMAT, "a name with control characters");
    }
    json_decref(string);
    return status;
}

tw_status tw_json_scan_begin(tw_json_scan *s, const char *text, size_t size) {
    *s = (tw_json_scan){text, text, text + size, true};
    return expect(s, '{');
}

tw_status tw_json_scan_next(tw_json_scan *s, char *key, size_t key_size, tw_json_slice *value, bool *end) {
    skip_space(s);
    *end = s->at < s->end && *s->at == '}';
    if (*end) {
        s->at++;
        skip_space(s);
        return s->at == s->end ? TW_OK
                               : FAIL(TW_ERR_FORMAT, "bad JSON at byte %zu: text after the object",
                                      (size_t)(s->at - s->start));
    }
    if (!s->first) TRY(expect(s, ','));
    s->first = false;
    skip_space(s);
    size_t position = (size_t)(s->at - s->start);
    tw_json_slice name;
    TRY(scan_string(s, &name));
    tw_status status = tw_json_slice_string(name, key, key_size);
    if (status) return tw_fail_context(status, "the name at byte %zu", position);
    TRY(expect(s, ':'));
    return scan_value(s, value);
}
