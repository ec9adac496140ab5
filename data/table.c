#include "data/table.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FIELDS_MAX = 256 };

typedef enum kind { CSV, TSV, JSONL } kind;

struct tw_table {
    kind kind;
    tw_lines *lines;
    json_t *record;
    char *buffer; /* CSV, TSV: the row's fields, each followed by a zero */
    size_t size, capacity;
    size_t fields[FIELDS_MAX + 1]; /* where they start in it */
    int field_count;
    int image_column, text_column;
    int64_t first_line; /* of the row: a quoted field may hold line breaks */
    bool begun;
    bool unclosed; /* the file ended within quotes */
};

static const char *const image_names[] = {"image",     "image_path", "path", "file",
                                          "file_name", "filename",   NULL};
static const char *const text_names[] = {"text", "caption", "title", NULL};

static bool ends_with(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcasecmp(path + n - m, end) == 0;
}

tw_status tw_table_open(const char *path, tw_table **out) {
    *out = NULL;
    kind k;
    if (ends_with(path, ".csv"))
        k = CSV;
    else if (ends_with(path, ".tsv") || ends_with(path, ".txt"))
        k = TSV;
    else if (ends_with(path, ".jsonl") || ends_with(path, ".json"))
        k = JSONL;
    else
        return FAIL(TW_ERR_CONFIG, "%s: its name should end in .csv, .tsv, .txt or .jsonl", path);
    tw_table *t = calloc(1, sizeof *t);
    if (!t) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    t->kind = k;
    t->text_column = 1;
    tw_status status = tw_lines_open(path, &t->lines);
    if (status) {
        free(t);
        return status;
    }
    *out = t;
    return TW_OK;
}

void tw_table_close(tw_table *t) {
    if (!t) return;
    tw_lines_close(t->lines);
    json_decref(t->record);
    free(t->buffer);
    free(t);
}

const tw_lines *tw_table_lines(const tw_table *t) {
    return t->lines;
}

/* ---- CSV and TSV ---- */

static tw_status keep(tw_table *t, char c) {
    if (t->size == t->capacity) {
        size_t larger = t->capacity * 2 + 1024;
        char *buffer = realloc(t->buffer, larger);
        if (!buffer) return FAIL(TW_ERR_MEMORY, "no memory for a row of %zu bytes", larger);
        t->buffer = buffer;
        t->capacity = larger;
    }
    t->buffer[t->size++] = c;
    return TW_OK;
}

static tw_status end_field(tw_table *t) {
    if (t->field_count == FIELDS_MAX) return FAIL(TW_ERR_FORMAT, "more than %d columns", FIELDS_MAX);
    TRY(keep(t, '\0'));
    t->fields[++t->field_count] = t->size;
    return TW_OK;
}

/* Splits one row into fields; a quote that is open at the end of the line takes the next one in. */
static tw_status split_row(tw_table *t, const char *line, size_t size) {
    char separator = t->kind == CSV ? ',' : '\t';
    bool quoted = false;
    t->size = 0;
    t->field_count = 0;
    t->fields[0] = 0;
    for (size_t i = 0;; i++) {
        if (i == size) {
            if (!quoted) return end_field(t);
            char *next;
            TRY(tw_lines_next(t->lines, &next, &size));
            t->unclosed = next == NULL;
            if (!next)
                return FAIL(TW_ERR_FORMAT,
                            "a quote opened here is never closed: the rest of the file is lost");
            TRY(keep(t, '\n'));
            line = next;
            i = (size_t)-1;
            continue;
        }
        char c = line[i];
        if (quoted && c == '"' && i + 1 < size && line[i + 1] == '"') {
            TRY(keep(t, line[i++]));
        } else if (t->kind == CSV && c == '"' && (quoted || t->size == t->fields[t->field_count])) {
            quoted = !quoted;
        } else if (!quoted && c == separator) {
            TRY(end_field(t));
        } else {
            TRY(keep(t, c));
        }
    }
}

static int column(const tw_table *t, const char *const *names) {
    for (; *names; names++)
        for (int i = 0; i < t->field_count; i++)
            if (strcasecmp(t->buffer + t->fields[i], *names) == 0) return i;
    return -1;
}

/* The next row that is not blank; a first one that names both columns is the header. */
static tw_status next_fields(tw_table *t, bool *end) {
    for (;;) {
        char *line;
        size_t size;
        TRY(tw_lines_next(t->lines, &line, &size));
        t->first_line = tw_lines_number(t->lines);
        *end = line == NULL;
        if (*end) return TW_OK;
        if (tw_lines_is_blank(line, size)) continue;
        TRY(split_row(t, line, size));
        if (t->begun) return TW_OK;
        t->begun = true;
        int image = column(t, image_names), text = column(t, text_names);
        if (image < 0 || text < 0) return TW_OK;
        t->image_column = image;
        t->text_column = text;
    }
}

static tw_status next_row(tw_table *t, tw_table_row *out, bool *end, tw_bad_kind *bad) {
    *bad = TW_BAD_LINE;
    tw_status status = next_fields(t, end);
    if (t->unclosed || (status && status != TW_ERR_FORMAT)) *bad = TW_BAD_NONE;
    if (status || *end) return status;
    int last = t->image_column > t->text_column ? t->image_column : t->text_column;
    if (last >= t->field_count)
        return FAIL(TW_ERR_FORMAT, "%d columns, wanted are image and text in columns %d and %d",
                    t->field_count, t->image_column + 1, t->text_column + 1);
    out->image = t->buffer + t->fields[t->image_column];
    out->image_bytes = t->fields[t->image_column + 1] - t->fields[t->image_column] - 1;
    out->text = t->buffer + t->fields[t->text_column];
    out->text_bytes = t->fields[t->text_column + 1] - t->fields[t->text_column] - 1;
    return TW_OK;
}

/* ---- JSON lines ---- */

static tw_status string_field(const json_t *record, const char *const *names, const char **out,
                              size_t *size) {
    for (const char *const *name = names; *name; name++) {
        const json_t *value = json_object_get(record, *name);
        if (!value) continue;
        if (!json_is_string(value)) return FAIL(TW_ERR_FORMAT, "'%s' must be a string", *name);
        *out = json_string_value(value);
        *size = json_string_length(value);
        return TW_OK;
    }
    return FAIL(TW_ERR_FORMAT, "the field '%s' is missing", names[0]);
}

static tw_status next_record(tw_table *t, tw_table_row *out, bool *end, tw_bad_kind *bad) {
    char *line;
    size_t size, at;
    json_error_t error;
    do {
        TRY(tw_lines_next(t->lines, &line, &size));
        *end = line == NULL;
        if (*end) return TW_OK;
    } while (tw_lines_is_blank(line, size));
    t->first_line = tw_lines_number(t->lines);
    *bad = TW_BAD_UTF8;
    if (!tw_lines_is_utf8(line, size, &at))
        return FAIL(TW_ERR_FORMAT, "not UTF-8: byte 0x%02x at column %zu", (unsigned char)line[at], at + 1);
    *bad = TW_BAD_JSON;
    json_decref(t->record);
    t->record = json_loadb(line, size, JSON_ALLOW_NUL, &error);
    if (!t->record) return FAIL(TW_ERR_FORMAT, "bad JSON at column %d: %s", error.column, error.text);
    *bad = TW_BAD_FIELD;
    TRY(string_field(t->record, image_names, &out->image, &out->image_bytes));
    return string_field(t->record, text_names, &out->text, &out->text_bytes);
}

static tw_status next(tw_table *t, tw_table_row *out, bool *end, tw_bad_kind *bad) {
    if (t->kind == JSONL)
        TRY(next_record(t, out, end, bad));
    else
        TRY(next_row(t, out, end, bad));
    if (*end) return TW_OK;
    size_t at;
    *bad = TW_BAD_UTF8;
    if (!tw_lines_is_utf8(out->text, out->text_bytes, &at))
        return FAIL(TW_ERR_FORMAT, "text not UTF-8: byte 0x%02x at its byte %zu",
                    (unsigned char)out->text[at], at);
    *bad = TW_BAD_EMPTY_TEXT;
    if (tw_lines_is_blank(out->text, out->text_bytes)) return FAIL(TW_ERR_FORMAT, "the text is empty");
    *bad = TW_BAD_LINE;
    if (out->image_bytes == 0 || memchr(out->image, '\0', out->image_bytes))
        return FAIL(TW_ERR_FORMAT, "the image path is empty or holds a zero byte");
    return TW_OK;
}

tw_status tw_table_next(tw_table *t, tw_table_row *out, bool *end, tw_bad_kind *bad) {
    *out = (tw_table_row){0};
    *end = false;
    *bad = TW_BAD_NONE;
    tw_status status = next(t, out, end, bad);
    if (status == TW_OK) *bad = TW_BAD_NONE;
    if (status) return tw_fail_context(status, "%s:%lld", tw_lines_path(t->lines), (long long)t->first_line);
    return TW_OK;
}
