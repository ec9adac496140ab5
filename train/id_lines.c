#include "train/id_lines.h"

#include "data/lines.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = 24 }; /* an int64_t in decimal, with sign and zero */

struct tw_id_lines {
    tw_lines *lines;
    tw_direction direction;
    json_t *record;         /* the last one; string ids point into it */
    tw_id *ids;             /* (capacity) */
    char (*digits)[DIGITS]; /* (capacity + 1): text of integer ids, the last is the query's */
    size_t capacity;
    char place[4200];
};

const char *tw_direction_name(tw_direction direction) {
    return direction == TW_TEXT_TO_IMAGE ? "text-to-image" : "image-to-text";
}

const char *tw_direction_query(tw_direction direction) {
    return direction == TW_TEXT_TO_IMAGE ? "text_id" : "image_id";
}

const char *tw_direction_answers(tw_direction direction) {
    return direction == TW_TEXT_TO_IMAGE ? "image_ids" : "text_ids";
}

tw_status tw_id_lines_open(const char *path, tw_direction direction, tw_id_lines **out) {
    *out = NULL;
    tw_id_lines *file = calloc(1, sizeof *file);
    if (!file) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    file->direction = direction;
    tw_status status = tw_lines_open(path, &file->lines);
    if (status) {
        free(file);
        return status;
    }
    *out = file;
    return TW_OK;
}

void tw_id_lines_close(tw_id_lines *file) {
    if (!file) return;
    tw_lines_close(file->lines);
    json_decref(file->record);
    free(file->ids);
    free(file->digits);
    free(file);
}

const char *tw_id_lines_place(tw_id_lines *file) {
    snprintf(file->place, sizeof file->place, "%s:%lld", tw_lines_path(file->lines),
             (long long)tw_lines_number(file->lines));
    return file->place;
}

static tw_status reserve(tw_id_lines *file, size_t count) {
    if (file->digits && count <= file->capacity) return TW_OK;
    size_t capacity = count + count / 2 + 16;
    tw_id *ids = realloc(file->ids, capacity * sizeof *ids);
    if (ids) file->ids = ids;
    void *digits = realloc(file->digits, (capacity + 1) * sizeof *file->digits);
    if (digits) file->digits = digits;
    if (!ids || !digits) return FAIL(TW_ERR_MEMORY, "no memory for a record of %zu ids", count);
    file->capacity = capacity;
    return TW_OK;
}

static tw_status read_id(const json_t *value, char *digits, tw_id *out) {
    if (json_is_integer(value)) {
        int n = snprintf(digits, DIGITS, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        *out = (tw_id){.text = digits, .size = (size_t)n, .is_integer = true};
        return TW_OK;
    }
    if (!json_is_string(value)) return FAIL(TW_ERR_FORMAT, "an id must be an integer or a string");
    TRY(tw_id_from_text(json_string_value(value), json_string_length(value), out));
    out->is_integer = false;
    return TW_OK;
}

static tw_status read_record(tw_id_lines *file, tw_id *query, int64_t *n) {
    const char *query_name = tw_direction_query(file->direction);
    const char *answers_name = tw_direction_answers(file->direction);
    if (!json_is_object(file->record)) return FAIL(TW_ERR_FORMAT, "not a JSON object");
    const json_t *id = json_object_get(file->record, query_name);
    const json_t *list = json_object_get(file->record, answers_name);
    if (!id || !list) return FAIL(TW_ERR_FORMAT, "the field '%s' is missing", id ? answers_name : query_name);
    if (!json_is_array(list)) return FAIL(TW_ERR_FORMAT, "'%s' must be an array", answers_name);
    size_t count = json_array_size(list);
    TRY(reserve(file, count));
    tw_status status = read_id(id, file->digits[file->capacity], query);
    if (status) return tw_fail_context(status, "'%s'", query_name);
    for (size_t i = 0; i < count; i++) {
        status = read_id(json_array_get(list, i), file->digits[i], &file->ids[i]);
        if (status)
            return tw_fail_context(status, "%s %s: rank %zu of '%s'", query_name, query->text, i + 1,
                                   answers_name);
    }
    *n = (int64_t)count;
    return TW_OK;
}

/* Parses the line into file->record. */
static tw_status parse(tw_id_lines *file, const char *line, size_t size) {
    json_error_t error;
    json_decref(file->record);
    file->record = NULL;
    if (tw_lines_is_blank(line, size)) return FAIL(TW_ERR_FORMAT, "the line is blank");
    file->record = json_loadb(line, size, JSON_DECODE_ANY, &error);
    if (file->record) return TW_OK;
    if (json_error_code(&error) == json_error_out_of_memory)
        return FAIL(TW_ERR_MEMORY, "no memory for a record of %zu bytes", size);
    return FAIL(TW_ERR_FORMAT, "bad JSON at column %d: %s", error.column, error.text);
}

tw_status tw_id_lines_next(tw_id_lines *file, tw_id *query, const tw_id **answers, int64_t *n, bool *end) {
    char *line;
    size_t size;
    TRY(tw_lines_next(file->lines, &line, &size));
    *end = line == NULL;
    if (*end) return TW_OK;
    tw_status status = parse(file, line, size);
    if (status == TW_OK) status = read_record(file, query, n);
    if (status) return tw_fail_context(status, "%s", tw_id_lines_place(file));
    *answers = file->ids;
    return TW_OK;
}

tw_status tw_id_lines_direction(const char *path, tw_direction *out) {
    tw_id_lines *file;
    TRY(tw_id_lines_open(path, TW_TEXT_TO_IMAGE, &file));
    char *line;
    size_t size;
    tw_status status = tw_lines_next(file->lines, &line, &size);
    if (status == TW_OK && !line)
        status = FAIL(TW_ERR_FORMAT, "%s: holds no predictions", path);
    else if (status == TW_OK && (status = parse(file, line, size)) != TW_OK)
        status = tw_fail_context(status, "%s", tw_id_lines_place(file));
    for (tw_direction d = 0; status == TW_OK && d <= TW_DIRECTIONS; d++) {
        *out = d;
        if (d == TW_DIRECTIONS)
            status =
                FAIL(TW_ERR_FORMAT, "%s: neither 'text_id' with 'image_ids' nor 'image_id' with 'text_ids'",
                     tw_id_lines_place(file));
        else if (json_object_get(file->record, tw_direction_query(d)) &&
                 json_object_get(file->record, tw_direction_answers(d)))
            break;
    }
    tw_id_lines_close(file);
    return status;
}

static tw_status write_id(FILE *out, const tw_id *id) {
    if (id->is_integer) {
        fputs(id->text, out);
        return TW_OK;
    }
    json_t *value = json_stringn(id->text, id->size);
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    json_decref(value);
    if (!text) return FAIL(TW_ERR_MEMORY, "no memory to write id %s", id->text);
    fputs(text, out);
    free(text);
    return TW_OK;
}

tw_status tw_id_line_write(FILE *out, tw_direction direction, const tw_id *query, const tw_id *gallery,
                           const int32_t *indexes, int64_t n) {
    fprintf(out, "{\"%s\": ", tw_direction_query(direction));
    TRY(write_id(out, query));
    fprintf(out, ", \"%s\": [", tw_direction_answers(direction));
    for (int64_t i = 0; i < n; i++) {
        if (i) fputs(", ", out);
        TRY(write_id(out, &gallery[indexes[i]]));
    }
    fputs("]}\n", out);
    return TW_OK;
}
