#include "train/formats/weights.h"

#include "autograd/progress.h"
#include "train/formats/weight_convert.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [TW_WEIGHT_F32] = {"f32", 4},   [TW_WEIGHT_F16] = {"f16", 2}, [TW_WEIGHT_BF16] = {"bf16", 2},
    [TW_WEIGHT_F64] = {"f64", 8},   [TW_WEIGHT_I64] = {"i64", 8}, [TW_WEIGHT_I32] = {"i32", 4},
    [TW_WEIGHT_I16] = {"i16", 2},   [TW_WEIGHT_I8] = {"i8", 1},   [TW_WEIGHT_U8] = {"u8", 1},
    [TW_WEIGHT_BOOL] = {"bool", 1},
};
enum { TYPES = sizeof types / sizeof types[0] };

size_t tw_weight_type_size(tw_weight_type type) {
    return (unsigned)type < TYPES ? types[type].size : 0;
}

const char *tw_weight_type_name(tw_weight_type type) {
    return (unsigned)type < TYPES ? types[type].name : "unknown";
}

tw_status tw_weight_type_parse(const char *name, tw_weight_type *out) {
    for (unsigned i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, name) == 0) {
            *out = (tw_weight_type)i;
            return TW_OK;
        }
    return FAIL(TW_ERR_NOT_FOUND, "there is no element type '%s'", name);
}

struct tw_weights {
    char *path;
    tw_weights_note note;
    char *kind, *name;
    tw_weights_group *groups;
    int64_t *params; /* of all groups */
    tw_weight *items;
    char *names; /* of all items */
    int64_t count;
    int64_t *by_name; /* the items' numbers, names ascending */
    tw_weights_source source;
    void *self;
};

void tw_weights_close(tw_weights *w) {
    if (!w) return;
    if (w->source.close) w->source.close(w->self);
    free(w->path);
    free(w->kind);
    free(w->name);
    free(w->groups);
    free(w->params);
    free(w->items);
    free(w->names);
    free(w->by_name);
    free(w);
}

const char *tw_weights_path(const tw_weights *w) {
    return w->path;
}

const tw_weights_note *tw_weights_get_note(const tw_weights *w) {
    return &w->note;
}

int64_t tw_weights_count(const tw_weights *w) {
    return w->count;
}

const tw_weight *tw_weights_at(const tw_weights *w, int64_t i) {
    return &w->items[i];
}

int64_t tw_weights_find(const tw_weights *w, const char *name) {
    int64_t low = 0, high = w->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(w->items[w->by_name[middle]].name, name);
        if (order == 0) return w->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* ---- making one ---- */

static tw_status no_memory(const char *path) {
    return FAIL(TW_ERR_MEMORY, "%s: no memory for the table of tensors", path);
}

static tw_status copy_note(tw_weights *w, const tw_weights_note *note) {
    w->note = (tw_weights_note){.kind = "", .epoch = -1, .step = -1};
    if (!note) return TW_OK;
    w->note.epoch = note->epoch;
    w->note.step = note->step;
    if (note->kind) w->note.kind = w->kind = strdup(note->kind);
    if (note->name) w->note.name = w->name = strdup(note->name);
    if ((note->kind && !w->kind) || (note->name && !w->name)) return no_memory(w->path);
    if (note->group_count <= 0) return TW_OK;
    size_t total = 0;
    for (int64_t g = 0; g < note->group_count; g++) total += (size_t)note->groups[g].param_count;
    w->groups = malloc((size_t)note->group_count * sizeof *w->groups);
    w->params = malloc((total + 1) * sizeof *w->params);
    if (!w->groups || !w->params) return no_memory(w->path);
    int64_t *next = w->params;
    for (int64_t g = 0; g < note->group_count; g++) {
        w->groups[g] = note->groups[g];
        size_t n = (size_t)note->groups[g].param_count;
        if (n) memcpy(next, note->groups[g].params, n * sizeof *next);
        w->groups[g].params = next;
        next += n;
    }
    w->note.groups = w->groups;
    w->note.group_count = note->group_count;
    return TW_OK;
}

static tw_status check_item(const char *path, tw_weight *item) {
    if ((unsigned)item->type >= TYPES)
        return FAIL(TW_ERR_FORMAT, "%s: tensor '%s' is of an unknown type", path, item->name);
    if (item->ndim < 0 || item->ndim > TW_WEIGHT_MAX_DIMS)
        return FAIL(TW_ERR_FORMAT, "%s: tensor '%s' has %d dimensions, at most %d are read", path, item->name,
                    item->ndim, TW_WEIGHT_MAX_DIMS);
    int64_t most = INT64_MAX / (int64_t)types[item->type].size;
    item->count = 1;
    bool empty = false;
    for (int d = 0; d < item->ndim; d++) {
        if (item->shape[d] < 0)
            return FAIL(TW_ERR_FORMAT, "%s: tensor '%s' has a negative size", path, item->name);
        if (item->shape[d] == 0) {
            empty = true;
            continue;
        }
        if (item->count > most / item->shape[d])
            return FAIL(TW_ERR_FORMAT, "%s: the shape of tensor '%s' is larger than any file", path,
                        item->name);
        item->count *= item->shape[d];
    }
    if (empty) item->count = 0;
    return TW_OK;
}

static tw_status copy_items(tw_weights *w, const tw_weight *items, int64_t n) {
    size_t bytes = 1;
    for (int64_t i = 0; i < n; i++) bytes += strlen(items[i].name) + 1;
    w->items = malloc((size_t)(n + 1) * sizeof *w->items);
    w->names = malloc(bytes);
    w->by_name = malloc((size_t)(n + 1) * sizeof *w->by_name);
    if (!w->items || !w->names || !w->by_name) return no_memory(w->path);
    char *next = w->names;
    for (int64_t i = 0; i < n; i++) {
        size_t size = strlen(items[i].name) + 1;
        w->items[i] = items[i];
        w->items[i].name = memcpy(next, items[i].name, size);
        next += size;
        w->by_name[i] = i;
        TRY(check_item(w->path, &w->items[i]));
    }
    w->count = n;
    return TW_OK;
}

static int by_name(const void *a, const void *b, void *items) {
    const tw_weight *w = items;
    return strcmp(w[*(const int64_t *)a].name, w[*(const int64_t *)b].name);
}

static tw_status sort_names(tw_weights *w) {
    qsort_r(w->by_name, (size_t)w->count, sizeof *w->by_name, by_name, w->items);
    for (int64_t i = 1; i < w->count; i++) {
        const char *name = w->items[w->by_name[i]].name;
        if (strcmp(w->items[w->by_name[i - 1]].name, name) == 0)
            return FAIL(TW_ERR_FORMAT, "%s: there are two tensors named '%s'", w->path, name);
    }
    return TW_OK;
}

tw_status tw_weights_create(const char *path, const tw_weights_note *note, const tw_weight *items, int64_t n,
                            const tw_weights_source *source, void *self, tw_weights **out) {
    *out = NULL;
    tw_weights *w = calloc(1, sizeof *w);
    if (!w) {
        if (source->close) source->close(self);
        return no_memory(path);
    }
    w->source = *source;
    w->self = self;
    w->path = strdup(path);
    tw_status status = w->path ? copy_note(w, note) : no_memory(path);
    if (!status) status = copy_items(w, items, n);
    if (!status) status = sort_names(w);
    if (status)
        tw_weights_close(w);
    else
        *out = w;
    return status;
}

/* ---- reading ---- */

static tw_status check_index(const tw_weights *w, int64_t i) {
    if (i >= 0 && i < w->count) return TW_OK;
    return FAIL(TW_ERR_ARGUMENT, "%s: there is no tensor number %lld, there are %lld", w->path, (long long)i,
                (long long)w->count);
}

tw_status tw_weights_read(tw_weights *w, int64_t i, void *dst) {
    tw_progress_tick();
    TRY(check_index(w, i));
    return w->items[i].count ? w->source.read(w->self, i, dst) : TW_OK;
}

tw_status tw_weights_read_f32(tw_weights *w, int64_t i, float *dst, int64_t count) {
    tw_progress_tick();
    TRY(check_index(w, i));
    const tw_weight *item = &w->items[i];
    if (item->count != count)
        return FAIL(TW_ERR_SHAPE, "%s: tensor '%s' has %lld values, %lld are asked for", w->path, item->name,
                    (long long)item->count, (long long)count);
    if (count == 0) return TW_OK;
    size_t size = types[item->type].size, n = (size_t)count;
    if (size <= sizeof *dst) {
        TRY(w->source.read(w->self, i, (unsigned char *)dst + n * (sizeof *dst - size)));
        tw_weight_widen(item->type, dst, count);
        return TW_OK;
    }
    void *wide = malloc(n * size); /* f64, i64: rare and small in these files */
    if (!wide) return FAIL(TW_ERR_MEMORY, "%s: no memory to read tensor '%s'", w->path, item->name);
    tw_status status = w->source.read(w->self, i, wide);
    if (!status) tw_weight_to_f32(item->type, wide, dst, count);
    free(wide);
    return status;
}
