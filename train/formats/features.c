#include "train/formats/features.h"

#include "autograd/progress.h"
#include "train/formats/features_private.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- ids ---- */

tw_status tw_id_list_add(tw_id_list *list, const tw_id *id) {
    if (list->n == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 1024;
        size_t *at = realloc(list->at, (size_t)capacity * sizeof *at);
        if (at) list->at = at;
        bool *integer = realloc(list->integer, (size_t)capacity * sizeof *integer);
        if (integer) list->integer = integer;
        if (!at || !integer) return FAIL(TW_ERR_MEMORY, "no memory for %lld ids", (long long)capacity);
        list->capacity = capacity;
    }
    if (list->bytes + id->size + 1 > list->room) {
        size_t room = 2 * list->room + id->size + 4096;
        char *text = realloc(list->text, room);
        if (!text) return FAIL(TW_ERR_MEMORY, "no memory for %lld ids", (long long)list->n + 1);
        list->text = text, list->room = room;
    }
    memcpy(list->text + list->bytes, id->text, id->size);
    list->text[list->bytes + id->size] = '\0';
    list->at[list->n] = list->bytes;
    list->integer[list->n++] = id->is_integer;
    list->integers += id->is_integer;
    list->bytes += id->size + 1;
    if (id->size > list->longest) list->longest = id->size;
    return TW_OK;
}

void tw_id_list_free(tw_id_list *list) {
    free(list->text);
    free(list->at);
    free(list->integer);
    memset(list, 0, sizeof *list);
}

tw_status tw_id_list_move(tw_id_list *list, tw_features *f) {
    f->ids = malloc((size_t)(list->n ? list->n : 1) * sizeof *f->ids);
    if (!f->ids) return FAIL(TW_ERR_MEMORY, "no memory for %lld ids", (long long)list->n);
    for (int64_t i = 0; i < list->n; i++) {
        const char *text = list->text + list->at[i];
        f->ids[i] = (tw_id){.text = text, .size = strlen(text), .is_integer = list->integer[i]};
    }
    f->id_text = list->text;
    list->text = NULL;
    tw_id_list_free(list);
    return TW_OK;
}

tw_status tw_id_print(FILE *out, const char *text, bool is_integer) {
    if (is_integer) {
        fputs(text, out); /* errors of the stream are sticky */
        return TW_OK;
    }
    json_t *value = json_string(text);
    char *json = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    if (json) fputs(json, out);
    tw_status status = json ? TW_OK : FAIL(TW_ERR_FORMAT, "the id '%s' is not UTF-8", text);
    free(json);
    json_decref(value);
    return status;
}

/* ---- any format ---- */

static const tw_features_format *format_of(const char *path) {
    static const tw_features_format *const all[] = {&tw_features_h5, &tw_features_npy, &tw_features_jsonl};
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int k = 0; k < 2; k++) {
            const char *ending = all[i]->endings[k];
            size_t size = ending ? strlen(ending) : 0;
            if (ending && n > size && strcmp(path + n - size, ending) == 0) return all[i];
        }
    return NULL;
}

tw_status tw_features_create(const char *path, tw_features_kind kind, int64_t dim, const char *model,
                             tw_features_writer **out) {
    *out = NULL;
    const tw_features_format *format = format_of(path);
    if (!format)
        return FAIL(TW_ERR_CONFIG,
                    "features cannot be written to %s: the name must end in .h5, .npy or .jsonl", path);
    if (dim < 1 || kind == TW_FEATURES_UNKNOWN)
        return FAIL(TW_ERR_ARGUMENT, "%s: features of %lld values and kind %d", path, (long long)dim,
                    (int)kind);
    tw_features_writer *w = calloc(1, sizeof *w);
    if (!w) return FAIL(TW_ERR_MEMORY, "%s: no memory to write it", path);
    w->format = format, w->kind = kind, w->dim = dim;
    w->path = strdup(path);
    if (model) w->model = strdup(model);
    tw_status status = !w->path || (model && !w->model)
                           ? FAIL(TW_ERR_MEMORY, "%s: no memory to write it", path)
                           : format->begin(w);
    if (status == TW_OK)
        *out = w;
    else
        tw_features_discard(w);
    return status;
}

tw_status tw_features_append(tw_features_writer *w, const tw_id *ids, const float *values, int64_t n) {
    tw_progress_tick();
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < w->dim; k++)
            if (!isfinite(values[i * w->dim + k]))
                return FAIL(TW_ERR_NUMERIC, "%s: the feature of %.100s is not finite (value %lld)", w->path,
                            ids[i].text, (long long)k);
    tw_status status = w->format->append(w, ids, values, n);
    if (status != TW_OK) return status;
    w->n += n;
    return TW_OK;
}

tw_status tw_features_commit(tw_features_writer *w) {
    tw_status status = w->format->commit(w);
    tw_features_discard(w);
    return status;
}

void tw_features_discard(tw_features_writer *w) {
    if (!w) return;
    tw_h5_close(w->h5);
    tw_atomic_file_discard(&w->file);
    tw_id_list_free(&w->ids);
    free(w->block);
    free(w->path);
    free(w->model);
    free(w);
}

tw_status tw_features_load(const char *path, tw_features **out) {
    *out = NULL;
    const tw_features_format *format = format_of(path);
    if (!format)
        return FAIL(TW_ERR_CONFIG, "%s is no feature file by its name, which must end in .h5, .npy or .jsonl",
                    path);
    tw_features *f = calloc(1, sizeof *f);
    if (!f) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
    f->kind = TW_FEATURES_UNKNOWN;
    tw_status status = format->load(path, f);
    if (status == TW_OK)
        *out = f;
    else
        tw_features_free(f);
    return status;
}

void tw_features_free(tw_features *f) {
    if (!f) return;
    free(f->values);
    free(f->ids);
    free(f->id_text);
    free(f->model);
    free(f);
}
