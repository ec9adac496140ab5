#include "data/files.h"
#include "data/jsonl.h"
#include "data/prepare_internal.h"
#include "data/table.h"

#include <stdlib.h>
#include <string.h>

/* What became of each image file that the table names. */
typedef struct table_import {
    tw_import *m;
    const char *images;
    bool number_images;
    tw_string_map paths; /* as they stand in the table */
    bool *good;          /* (paths.count) */
    int64_t capacity;
    int64_t rows;
} table_import;

static tw_status number_id(int64_t number, char text[24], tw_id *out) {
    int n = snprintf(text, 24, "%lld", (long long)number);
    *out = (tw_id){.text = text, .size = (size_t)n, .is_integer = true};
    return TW_OK;
}

/* The id of a path: itself, or its number. */
static tw_status image_id(const table_import *t, const tw_table_row *row, int64_t index, char text[24],
                          tw_id *out) {
    if (t->number_images) return number_id(index + 1, text, out);
    TRY(tw_id_from_text(row->image, row->image_bytes, out));
    out->is_integer = false;
    return TW_OK;
}

static tw_status read_image(table_import *t, const char *place, const tw_table_row *row, const tw_id *id,
                            bool *good) {
    char path[4400];
    uint8_t *data;
    size_t size;
    *good = false;
    if ((size_t)snprintf(path, sizeof path, "%s%s%s", row->image[0] == '/' ? "" : t->images,
                         row->image[0] == '/' ? "" : "/", row->image) >= sizeof path) {
        tw_status status = FAIL(TW_ERR_FORMAT, "%s: the image path is too long", place);
        return tw_import_bad(t->m, TW_BAD_IMAGE_FILE, status);
    }
    tw_status status = tw_read_file(path, &data, &size);
    if (status == TW_ERR_MEMORY) return status;
    if (status) return tw_import_bad(t->m, TW_BAD_IMAGE_FILE, tw_fail_context(TW_ERR_FORMAT, "%s", place));
    status = tw_import_image(t->m, place, id, data, size, good);
    free(data);
    return status;
}

static tw_status note_path(table_import *t, int64_t index) {
    if (index < t->capacity) return TW_OK;
    int64_t capacity = t->capacity * 2 + 256;
    bool *good = realloc(t->good, (size_t)capacity);
    if (!good) return FAIL(TW_ERR_MEMORY, "no memory for %lld images", (long long)capacity);
    t->good = good;
    t->capacity = capacity;
    return TW_OK;
}

static tw_status import_row(table_import *t, const char *place, const tw_table_row *row) {
    char image_text[24], text_text[24];
    int64_t index;
    bool is_new;
    tw_id id, text_id;
    TRY(tw_string_map_add(&t->paths, row->image, row->image_bytes, &index, &is_new));
    tw_status status = image_id(t, row, index, image_text, &id);
    if (is_new) {
        TRY(note_path(t, index));
        t->good[index] = false;
        if (status) return tw_import_bad(t->m, TW_BAD_ID, tw_fail_context(status, "%s", place));
        TRY(read_image(t, place, row, &id, &t->good[index]));
    }
    TRY(number_id(t->m->report->texts + 1, text_text, &text_id));
    if (!t->good[index]) { /* a text of an image that is left out goes with it */
        if (is_new) return TW_OK;
        status = FAIL(TW_ERR_FORMAT, "%s: its image '%s' was left out", place, row->image);
        return tw_import_bad(t->m, TW_BAD_UNKNOWN_IMAGE, status);
    }
    char *line;
    size_t size;
    TRY(tw_import_pair(t->m, &id, &text_id, row->text, row->text_bytes));
    TRY(tw_caption_to_json(&text_id, row->text, row->text_bytes, &id, 1, &line, &size));
    status = tw_import_text_line(t->m, line, size, row->text, row->text_bytes, true);
    free(line);
    return status;
}

static tw_status import_rows(table_import *t, tw_table *table) {
    const tw_lines *lines = tw_table_lines(table);
    for (;;) {
        tw_table_row row;
        tw_bad_kind bad;
        bool end;
        tw_status status = tw_table_next(table, &row, &end, &bad);
        if (end) break;
        t->rows++;
        if (status) {
            TRY(tw_import_bad(t->m, bad, status));
        } else {
            char place[4400];
            (void)snprintf(place, sizeof place, "%s:%lld", tw_lines_path(lines),
                           (long long)tw_lines_number(lines));
            TRY(import_row(t, place, &row));
        }
        TRY(tw_import_tick(t->m, tw_lines_path(lines), tw_lines_position(lines), tw_lines_size(lines),
                           t->m->report->texts));
    }
    return t->rows ? TW_OK : FAIL(TW_ERR_FORMAT, "%s: holds no rows", tw_lines_path(lines));
}

tw_status tw_prepare_table(const char *table_path, const char *images, bool number_images, const char *output,
                           const tw_prepare_options *options, tw_prepare_report *report) {
    tw_import m;
    tw_table *table = NULL;
    table_import t = {.m = &m, .images = images, .number_images = number_images};
    tw_status status = tw_import_begin(&m, output, options, report);
    if (status == TW_OK) status = tw_table_open(table_path, &table);
    if (status == TW_OK) status = import_rows(&t, table);
    tw_table_close(table);
    tw_string_map_free(&t.paths);
    free(t.good);
    return tw_import_end(&m, status);
}
