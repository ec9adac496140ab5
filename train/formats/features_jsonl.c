#include "train/formats/features_private.h"

#include "data/lines.h"
#include "data/python_float.h"
#include "train/formats/features_line.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const KEYS[] = {"image_id", "text_id"};

static tw_status begin(tw_features_writer *w) {
    return tw_atomic_file_open(&w->file, w->path);
}

/* "v, v, ...]}" */
static void put_values(FILE *out, const float *values, int64_t n) {
    char text[8192];
    size_t used = 0;
    for (int64_t k = 0; k < n; k++) {
        if (used > sizeof text - TW_PYTHON_FLOAT_BYTES - 8) fwrite(text, 1, used, out), used = 0;
        if (k) text[used++] = ',', text[used++] = ' ';
        used += (size_t)tw_python_float((double)values[k], text + used);
    }
    fwrite(text, 1, used, out);
    fputs("]}\n", out);
}

static tw_status append(tw_features_writer *w, const tw_id *ids, const float *values, int64_t n) {
    FILE *out = w->file.stream;
    for (int64_t i = 0; i < n; i++) {
        fprintf(out, "{\"%s\": ", KEYS[w->kind]);
        TRY(tw_id_print(out, ids[i].text, ids[i].is_integer));
        fputs(", \"feature\": [", out);
        put_values(out, values + i * w->dim, w->dim);
    }
    if (ferror(out)) return FAIL(TW_ERR_IO, "%s: cannot be written (disk full?)", w->path);
    return TW_OK;
}

static tw_status commit(tw_features_writer *w) {
    return tw_atomic_file_commit(&w->file);
}

/* A file being read: rows as they come. */
typedef struct table {
    tw_features *f;
    tw_id_list ids;
    int64_t capacity;
} table;

static tw_status reserve(table *t, int64_t rows, int64_t dim, const char *where) {
    if (rows <= t->capacity) return TW_OK;
    int64_t capacity = rows > 2 * t->capacity ? rows : 2 * t->capacity;
    float *values = realloc(t->f->values, (size_t)(capacity * dim) * sizeof *values);
    if (!values) return FAIL(TW_ERR_MEMORY, "%s: no memory for %lld rows", where, (long long)capacity);
    t->f->values = values, t->capacity = capacity;
    return TW_OK;
}

static tw_status add_row(table *t, const json_t *feature, const char *where) {
    tw_features *f = t->f;
    int64_t dim = (int64_t)json_array_size(feature);
    if (f->n == 0) f->dim = dim;
    if (dim == 0 || dim != f->dim)
        return FAIL(TW_ERR_FORMAT, "%s: the feature has %lld values, %lld are expected", where,
                    (long long)dim, (long long)(f->n ? f->dim : 1));
    TRY(reserve(t, f->n + 1, dim, where));
    for (int64_t k = 0; k < dim; k++) {
        const json_t *value = json_array_get(feature, (size_t)k);
        float x = (float)json_number_value(value);
        if (!json_is_number(value) || !isfinite(x))
            return FAIL(TW_ERR_FORMAT, "%s: value %lld of the feature is no finite float", where,
                        (long long)k);
        f->values[f->n * dim + k] = x;
    }
    f->n++;
    return TW_OK;
}

static tw_status add_id(table *t, const json_t *value, const char *where) {
    char digits[32];
    tw_id id = {.text = digits, .is_integer = json_is_integer(value)};
    if (json_is_integer(value)) {
        sprintf(digits, "%lld", (long long)json_integer_value(value));
        id.size = strlen(digits);
    } else if (json_is_string(value)) {
        id.text = json_string_value(value), id.size = json_string_length(value);
    }
    if (id.size == 0 || id.size > TW_ID_MAX_BYTES || strlen(id.text) != id.size)
        return FAIL(TW_ERR_FORMAT, "%s: the id is no integer and no text of 1 to %d bytes", where,
                    TW_ID_MAX_BYTES);
    return tw_id_list_add(&t->ids, &id);
}

/* A record's kind by its key; every record of a file must be of the first one's. */
static tw_status add_record(table *t, const json_t *record, const char *where) {
    tw_features_kind kind = TW_FEATURES_UNKNOWN;
    for (int k = 0; k < 2; k++)
        if (json_object_get(record, KEYS[k])) kind = (tw_features_kind)k;
    const json_t *feature = json_object_get(record, "feature");
    if (kind == TW_FEATURES_UNKNOWN || !json_is_array(feature))
        return FAIL(TW_ERR_FORMAT, "%s: lacks image_id or text_id, or the list feature", where);
    if (t->f->n && kind != t->f->kind)
        return FAIL(TW_ERR_FORMAT, "%s: has %s, the lines before have %s", where, KEYS[kind],
                    KEYS[t->f->kind]);
    t->f->kind = kind;
    TRY(add_id(t, json_object_get(record, KEYS[kind]), where));
    return add_row(t, feature, where);
}

/* ---- reading ----
 *
 * Lines are gathered into a batch and parsed side by side (features_line.h); what is unusual about a line or
 * wrong with it is found out by jansson, line after line, so that the first one is reported. */

enum { BATCH_BYTES = 4 << 20 };

typedef struct line {
    size_t at, size; /* in the batch's text */
    int64_t number;  /* in the file */
    bool plain;      /* parsed, with: */
    tw_features_kind kind;
    tw_id id;
} line;

typedef struct batch {
    char *text;
    size_t bytes, room;
    line *lines;
    int64_t n, capacity;
} batch;

static tw_status add_line(batch *b, const char *text, size_t size, int64_t number, const char *path) {
    if (b->n == b->capacity) {
        int64_t capacity = b->capacity ? 2 * b->capacity : 256;
        line *lines = realloc(b->lines, (size_t)capacity * sizeof *lines);
        if (!lines) return FAIL(TW_ERR_MEMORY, "%s: no memory for %lld lines", path, (long long)capacity);
        b->lines = lines, b->capacity = capacity;
    }
    if (size > b->room - b->bytes) {
        size_t room = b->bytes + size > BATCH_BYTES ? b->bytes + size : BATCH_BYTES;
        char *grown = realloc(b->text, room);
        if (!grown)
            return FAIL(TW_ERR_MEMORY, "%s:%lld: no memory for %zu bytes", path, (long long)number, room);
        b->text = grown, b->room = room;
    }
    memcpy(b->text + b->bytes, text, size);
    b->lines[b->n++] = (line){.at = b->bytes, .size = size, .number = number};
    b->bytes += size;
    return TW_OK;
}

/* Lines that are not blank, to the end of the file or until there are enough. */
static tw_status fill(tw_lines *lines, batch *b) {
    b->n = 0, b->bytes = 0;
    while (b->bytes < BATCH_BYTES) {
        char *text;
        size_t size;
        TRY(tw_lines_next(lines, &text, &size));
        if (!text) return TW_OK;
        if (!tw_lines_is_blank(text, size))
            TRY(add_line(b, text, size, tw_lines_number(lines), tw_lines_path(lines)));
    }
    return TW_OK;
}

static tw_status add_unusual(table *t, const batch *b, const line *l, const char *path) {
    char where[512];
    json_error_t error;
    snprintf(where, sizeof where, "%.400s:%lld", path, (long long)l->number);
    json_t *record = json_loadb(b->text + l->at, l->size, JSON_REJECT_DUPLICATES, &error);
    if (!record) return FAIL(TW_ERR_FORMAT, "%s: no JSON: %s", where, error.text);
    tw_status status = add_record(t, record, where);
    json_decref(record);
    return status;
}

/* Every line becomes the row after those before it, or an error. */
static tw_status add_batch(table *t, const batch *b, const char *path) {
    tw_features *f = t->f;
    int64_t first = 0;
    if (b->n == 0) return TW_OK;
    if (f->n == 0) TRY(add_unusual(t, b, &b->lines[first++], path)); /* says kind and dim */
    TRY(reserve(t, f->n + b->n - first, f->dim, path));
    float *values = f->values + (f->n - first) * f->dim;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = first; i < b->n; i++) {
        line *l = &b->lines[i];
        l->plain = tw_features_line(b->text + l->at, l->size, f->dim, values + i * f->dim, &l->kind, &l->id);
    }
    for (int64_t i = first; i < b->n; i++) {
        const line *l = &b->lines[i];
        if (!l->plain || l->kind != f->kind) {
            TRY(add_unusual(t, b, l, path));
            continue;
        }
        TRY(tw_id_list_add(&t->ids, &l->id));
        f->n++;
    }
    return TW_OK;
}

static tw_status read_lines(tw_lines *lines, table *t) {
    batch b = {0};
    tw_status status;
    do {
        status = fill(lines, &b);
        if (status == TW_OK) status = add_batch(t, &b, tw_lines_path(lines));
    } while (status == TW_OK && b.n > 0);
    free(b.text);
    free(b.lines);
    return status;
}

static tw_status load(const char *path, tw_features *f) {
    tw_lines *lines;
    table t = {.f = f};
    TRY(tw_lines_open(path, &lines));
    tw_status status = read_lines(lines, &t);
    tw_lines_close(lines);
    if (status == TW_OK && f->n == 0) status = FAIL(TW_ERR_FORMAT, "%s holds no features", path);
    if (status == TW_OK) status = tw_id_list_move(&t.ids, f);
    tw_id_list_free(&t.ids);
    return status;
}

const tw_features_format tw_features_jsonl = {{".jsonl", NULL}, begin, append, commit, load};
