#include "data/jsonl.h"

#include "data/python_float.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = 24 }; /* an int64_t in decimal, with sign and zero */

struct tw_jsonl {
    tw_lines *lines;
    json_t *record; /* the last one; what its caption points to */
    tw_id *ids;
    char (*digits)[DIGITS];             /* (capacity + 1): text of integer ids; the last is the text id's */
    char number[TW_PYTHON_FLOAT_BYTES]; /* the last text, where it is a number */
    size_t capacity;
    bool images_optional, any_text;
};

tw_status tw_jsonl_open(const char *path, tw_jsonl **out) {
    *out = NULL;
    tw_lines *lines;
    TRY(tw_lines_open(path, &lines));
    return tw_jsonl_open_lines(lines, out);
}

tw_status tw_jsonl_open_lines(tw_lines *lines, tw_jsonl **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) {
        tw_status status = FAIL(TW_ERR_MEMORY, "%s: no memory to read it", tw_lines_path(lines));
        tw_lines_close(lines);
        return status;
    }
    (*out)->lines = lines;
    return TW_OK;
}

void tw_jsonl_allow_no_images(tw_jsonl *jsonl) {
    jsonl->images_optional = true;
}

void tw_jsonl_allow_any_text(tw_jsonl *jsonl) {
    jsonl->any_text = true;
}

void tw_jsonl_close(tw_jsonl *jsonl) {
    if (!jsonl) return;
    tw_lines_close(jsonl->lines);
    json_decref(jsonl->record);
    free(jsonl->ids);
    free(jsonl->digits);
    free(jsonl);
}

const tw_lines *tw_jsonl_lines(const tw_jsonl *jsonl) {
    return jsonl->lines;
}

static tw_status reserve(tw_jsonl *jsonl, size_t count) {
    if (count <= jsonl->capacity && jsonl->digits) return TW_OK;
    size_t capacity = count + count / 2 + 8;
    tw_id *ids = realloc(jsonl->ids, capacity * sizeof *ids);
    if (ids) jsonl->ids = ids;
    void *digits = realloc(jsonl->digits, (capacity + 1) * sizeof *jsonl->digits);
    if (digits) jsonl->digits = digits;
    if (!ids || !digits) return FAIL(TW_ERR_MEMORY, "no memory for a record of %zu images", count);
    jsonl->capacity = capacity;
    return TW_OK;
}

static tw_status read_id(const json_t *value, const char *field, char *digits, tw_id *out, tw_bad_kind *bad) {
    if (json_is_integer(value)) {
        int n = snprintf(digits, DIGITS, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        *out = (tw_id){.text = digits, .size = (size_t)n, .is_integer = true};
        return TW_OK;
    }
    if (!json_is_string(value)) {
        *bad = TW_BAD_FIELD;
        return FAIL(TW_ERR_FORMAT, "'%s' must be an integer or a string", field);
    }
    *bad = TW_BAD_ID;
    tw_status status = tw_id_from_text(json_string_value(value), json_string_length(value), out);
    if (status) return tw_fail_context(status, "'%s'", field);
    out->is_integer = false;
    return TW_OK;
}

static tw_status field(const json_t *record, const char *name, const json_t **out) {
    *out = json_object_get(record, name);
    return *out ? TW_OK : FAIL(TW_ERR_FORMAT, "the field '%s' is missing", name);
}

/* Python's str() of a value that is no string, NULL where it has none here. */
static const char *python_str(const json_t *value, char number[TW_PYTHON_FLOAT_BYTES]) {
    if (json_is_integer(value))
        snprintf(number, TW_PYTHON_FLOAT_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        tw_python_float(json_real_value(value), number);
    else
        return json_is_true(value)    ? "True"
               : json_is_false(value) ? "False"
               : json_is_null(value)  ? "None"
                                      : NULL;
    return number;
}

static tw_status read_text(tw_jsonl *jsonl, const json_t *text, tw_caption *out, tw_bad_kind *bad) {
    out->text = json_is_string(text) ? json_string_value(text)
                : jsonl->any_text    ? python_str(text, jsonl->number)
                                     : NULL;
    *bad = TW_BAD_FIELD;
    if (!out->text)
        return FAIL(TW_ERR_FORMAT, "'text' must be a string%s", jsonl->any_text ? " or a number" : "");
    out->text_bytes = json_is_string(text) ? json_string_length(text) : strlen(out->text);
    *bad = TW_BAD_EMPTY_TEXT;
    if (!jsonl->any_text && tw_lines_is_blank(out->text, out->text_bytes))
        return FAIL(TW_ERR_FORMAT, "text %s is empty", out->text_id.text);
    *bad = TW_BAD_NONE;
    return TW_OK;
}

static tw_status read_record(tw_jsonl *jsonl, tw_caption *out, tw_bad_kind *bad) {
    const json_t *record = jsonl->record, *text_id, *text, *image_ids;
    *bad = TW_BAD_FIELD;
    if (!json_is_object(record)) return FAIL(TW_ERR_FORMAT, "not a JSON object");
    TRY(field(record, "text_id", &text_id));
    TRY(field(record, "text", &text));
    image_ids = json_object_get(record, "image_ids");
    if (!image_ids && !jsonl->images_optional) return field(record, "image_ids", &image_ids);
    if (image_ids && !json_is_array(image_ids)) return FAIL(TW_ERR_FORMAT, "'image_ids' must be an array");
    out->images = json_array_size(image_ids);
    tw_status status = reserve(jsonl, out->images);
    if (status) {
        *bad = TW_BAD_NONE;
        return status;
    }
    TRY(read_id(text_id, "text_id", jsonl->digits[jsonl->capacity], &out->text_id, bad));
    for (size_t i = 0; i < out->images; i++)
        TRY(read_id(json_array_get(image_ids, i), "image_ids", jsonl->digits[i], &jsonl->ids[i], bad));
    out->image_ids = jsonl->ids;
    return read_text(jsonl, text, out, bad);
}

static tw_status parse(tw_jsonl *jsonl, const char *line, size_t size, tw_caption *out, tw_bad_kind *bad) {
    size_t at;
    *bad = TW_BAD_UTF8;
    if (!tw_lines_is_utf8(line, size, &at))
        return FAIL(TW_ERR_FORMAT, "not UTF-8: byte 0x%02x at column %zu", (unsigned char)line[at], at + 1);
    *bad = TW_BAD_JSON;
    json_error_t error;
    json_decref(jsonl->record);
    jsonl->record = json_loadb(line, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (!jsonl->record) {
        if (json_error_code(&error) == json_error_out_of_memory) {
            *bad = TW_BAD_NONE;
            return FAIL(TW_ERR_MEMORY, "no memory for a record of %zu bytes", size);
        }
        return FAIL(TW_ERR_FORMAT, "bad JSON at column %d: %s", error.column, error.text);
    }
    out->line = line;
    out->line_bytes = size;
    return read_record(jsonl, out, bad);
}

tw_status tw_jsonl_next(tw_jsonl *jsonl, tw_caption *out, bool *end, tw_bad_kind *bad) {
    *out = (tw_caption){0};
    *end = false;
    *bad = TW_BAD_NONE;
    char *line;
    size_t size;
    do {
        TRY(tw_lines_next(jsonl->lines, &line, &size));
        if (!line) {
            *end = true;
            return TW_OK;
        }
    } while (tw_lines_is_blank(line, size));
    tw_status status = parse(jsonl, line, size, out, bad);
    if (status)
        return tw_fail_context(status, "%s:%lld", tw_lines_path(jsonl->lines),
                               (long long)tw_lines_number(jsonl->lines));
    return TW_OK;
}

static json_t *id_to_json(const tw_id *id) {
    if (id->is_integer) return json_integer(strtoll(id->text, NULL, 10));
    return json_stringn(id->text, id->size);
}

/* Takes over `array`. */
static tw_status dump(json_t *array, char **out, size_t *size) {
    *out = array ? json_dumps(array, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(array);
    if (!*out) return FAIL(TW_ERR_MEMORY, "no memory for a JSON record");
    *size = strlen(*out);
    return TW_OK;
}

tw_status tw_pair_to_json(const tw_id *image_id, const tw_id *text_id, const char *text, size_t text_bytes,
                          char **out, size_t *size) {
    json_t *array = json_array();
    if (array && (json_array_append_new(array, id_to_json(image_id)) ||
                  json_array_append_new(array, id_to_json(text_id)) ||
                  json_array_append_new(array, json_stringn(text, text_bytes)))) {
        json_decref(array);
        array = NULL;
    }
    return dump(array, out, size);
}

tw_status tw_caption_to_json(const tw_id *text_id, const char *text, size_t text_bytes,
                             const tw_id *image_ids, size_t images, char **out, size_t *size) {
    json_t *record = json_object(), *ids = json_array();
    int bad = !record || !ids;
    for (size_t i = 0; i < images && !bad; i++) bad |= json_array_append_new(ids, id_to_json(&image_ids[i]));
    if (!bad) {
        bad |= json_object_set_new(record, "text_id", id_to_json(text_id));
        bad |= json_object_set_new(record, "text", json_stringn(text, text_bytes));
        bad |= json_object_set(record, "image_ids", ids);
    }
    json_decref(ids);
    if (bad) {
        json_decref(record);
        record = NULL;
    }
    return dump(record, out, size);
}
