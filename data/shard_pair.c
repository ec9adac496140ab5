#include "data/shard_pair.h"

#include "data/lines.h"
#include "data/pickle.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A tuple of three holds four values; more than these is no pair. */
enum { MAX_VALUES = 64, DIGITS = 24 };

struct tw_pair_reader {
    tw_pickle *pickle;
    json_t *json; /* the last JSON value, which the last pair may point into */
    char ids[2][TW_ID_MAX_BYTES + 1];
    char *text;
    size_t capacity;
};

tw_status tw_pair_reader_new(tw_pair_reader **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) return FAIL(TW_ERR_MEMORY, "no memory for a reader of pairs");
    tw_status status = tw_pickle_new(MAX_VALUES, &(*out)->pickle);
    if (status) {
        free(*out);
        *out = NULL;
    }
    return status;
}

void tw_pair_reader_free(tw_pair_reader *r) {
    if (!r) return;
    tw_pickle_free(r->pickle);
    json_decref(r->json);
    free(r->text);
    free(r);
}

static tw_status integer_id(char text[DIGITS], int64_t value, tw_id *out) {
    int n = snprintf(text, DIGITS, "%lld", (long long)value);
    *out = (tw_id){.text = text, .size = (size_t)n, .is_integer = true};
    return TW_OK;
}

static tw_status string_id(char text[TW_ID_MAX_BYTES + 1], const char *data, size_t size, tw_id *out) {
    if (size <= TW_ID_MAX_BYTES) {
        memcpy(text, data, size);
        text[size] = '\0';
        data = text;
    }
    TRY(tw_id_from_text(data, size, out));
    out->is_integer = false;
    return TW_OK;
}

static bool is_string(const tw_pickle_value *v) {
    return v->kind == TW_PICKLE_STR || v->kind == TW_PICKLE_BYTES;
}

static tw_status pickled_id(char *text, const tw_pickle_value *v, tw_id *out) {
    if (v->kind == TW_PICKLE_INT) return integer_id(text, v->integer, out);
    if (is_string(v)) return string_id(text, v->bytes.data, v->bytes.size, out);
    return FAIL(TW_ERR_FORMAT, "an id is of type %s, not int or str", tw_pickle_kind_name(v->kind));
}

static tw_status copy_text(tw_pair_reader *r, const char *data, size_t size, tw_pair *out) {
    if (!tw_lines_is_utf8(data, size, NULL)) return FAIL(TW_ERR_FORMAT, "the text is not UTF-8");
    if (size >= r->capacity) {
        free(r->text);
        r->capacity = 0;
        r->text = malloc(size + size / 2 + 256);
        if (!r->text) return FAIL(TW_ERR_MEMORY, "no memory for a text of %zu bytes", size);
        r->capacity = size + size / 2 + 256;
    }
    if (size) memcpy(r->text, data, size);
    r->text[size] = '\0';
    out->text = r->text;
    out->text_bytes = size;
    return TW_OK;
}

static tw_status parse_pickle(tw_pair_reader *r, const void *value, size_t size, tw_pair *out) {
    const tw_pickle_value *root;
    TRY(tw_pickle_read(r->pickle, value, size, &root));
    if ((root->kind != TW_PICKLE_TUPLE && root->kind != TW_PICKLE_LIST) || root->items.size != 3)
        return FAIL(TW_ERR_FORMAT, "holds a %s, not a tuple (image_id, text_id, text)",
                    tw_pickle_kind_name(root->kind));
    tw_pickle_value *const *items = root->items.data;
    TRY(pickled_id(r->ids[0], items[0], &out->image_id));
    TRY(pickled_id(r->ids[1], items[1], &out->text_id));
    if (!is_string(items[2]))
        return FAIL(TW_ERR_FORMAT, "the text is of type %s, not str", tw_pickle_kind_name(items[2]->kind));
    return copy_text(r, items[2]->bytes.data, items[2]->bytes.size, out);
}

static tw_status json_id(char *text, const json_t *v, tw_id *out) {
    if (json_is_integer(v)) return integer_id(text, json_integer_value(v), out);
    if (json_is_string(v)) return string_id(text, json_string_value(v), json_string_length(v), out);
    return FAIL(TW_ERR_FORMAT, "an id is neither an integer nor a string");
}

static tw_status parse_json(tw_pair_reader *r, const void *value, size_t size, tw_pair *out) {
    json_error_t error;
    json_decref(r->json);
    r->json = json_loadb(value, size, JSON_ALLOW_NUL, &error);
    if (!r->json) return FAIL(TW_ERR_FORMAT, "bad JSON: %s", error.text);
    const json_t *text = json_array_get(r->json, 2);
    if (json_array_size(r->json) != 3 || !json_is_string(text))
        return FAIL(TW_ERR_FORMAT, "not a JSON array [image_id, text_id, text]");
    TRY(json_id(r->ids[0], json_array_get(r->json, 0), &out->image_id));
    TRY(json_id(r->ids[1], json_array_get(r->json, 1), &out->text_id));
    out->text = json_string_value(text);
    out->text_bytes = json_string_length(text);
    return TW_OK;
}

tw_status tw_pair_parse(tw_pair_reader *r, const void *value, size_t size, tw_pair *out) {
    *out = (tw_pair){0};
    /* No pickle starts with '[': that is not an instruction. */
    if (size > 0 && *(const char *)value == '[') return parse_json(r, value, size, out);
    return parse_pickle(r, value, size, out);
}

/* ---- writing ---- */

static size_t put_uint(char *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) out[i] = (char)(value >> (8 * i));
    return (size_t)bytes;
}

static size_t put_str(char *out, const char *text, size_t size) {
    size_t n = 0;
    if (size < 256) {
        out[n++] = (char)0x8c;
        n += put_uint(out + n, size, 1);
    } else {
        out[n++] = 'X';
        n += put_uint(out + n, size, 4);
    }
    memcpy(out + n, text, size);
    n += size;
    out[n++] = (char)0x94;
    return n;
}

/* Python's choice: the shortest of BININT1, BININT2, BININT, LONG1. */
static size_t put_int(char *out, int64_t value) {
    out[0] = value >= 0 && value < 256 ? 'K' : value >= 0 && value < 65536 ? 'M' : 'J';
    if (value == (int32_t)value)
        return 1 + put_uint(out + 1, (uint64_t)value, out[0] == 'K' ? 1 : out[0] == 'M' ? 2 : 4);
    int bytes = 8;
    while (bytes > 1 && value >> (8 * bytes - 9) == (value < 0 ? -1 : 0)) bytes--;
    out[0] = (char)0x8a;
    out[1] = (char)bytes;
    return 2 + put_uint(out + 2, (uint64_t)value, bytes);
}

static size_t put_id(char *out, const tw_id *id) {
    return id->is_integer ? put_int(out, strtoll(id->text, NULL, 10)) : put_str(out, id->text, id->size);
}

tw_status tw_pair_to_pickle(const tw_id *image_id, const tw_id *text_id, const char *text, size_t text_bytes,
                            char **out, size_t *size) {
    if (text_bytes > UINT32_MAX) return FAIL(TW_ERR_UNSUPPORTED, "a text of %zu bytes", text_bytes);
    char *s = malloc(text_bytes + image_id->size + text_id->size + 64);
    if (!s) return FAIL(TW_ERR_MEMORY, "no memory for a text of %zu bytes", text_bytes);
    size_t n = 11; /* PROTO 4, FRAME and its length */
    n += put_id(s + n, image_id);
    n += put_id(s + n, text_id);
    n += put_str(s + n, text, text_bytes);
    s[n++] = (char)0x87; /* TUPLE3 */
    s[n++] = (char)0x94; /* MEMOIZE */
    s[n++] = '.';
    (void)put_uint(s, 0x950480, 3);
    (void)put_uint(s + 3, n - 11, 8);
    *out = s;
    *size = n;
    return TW_OK;
}
