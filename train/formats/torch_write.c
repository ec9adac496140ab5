#include "train/formats/torch_write.h"

#include "data/lines.h"
#include "train/formats/torch_names.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Instructions of the pickle machine, see data/pickle.c. */
enum {
    PROTO = 0x80,
    MARK = '(',
    STOP = '.',
    EMPTY_DICT = '}',
    SETITEMS = 'u',
    EMPTY_LIST = ']',
    APPENDS = 'e',
    EMPTY_TUPLE = ')',
    TUPLE = 't',
    GLOBAL = 'c',
    REDUCE = 'R',
    BINPERSID = 'Q',
    BINUNICODE = 'X',
    BININT = 'J',
    LONG1 = 0x8a,
    BINFLOAT = 'G',
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    NONE = 'N'
};

/* The first failure stays in `status`; later writes do nothing. */
typedef struct writer {
    const char *path;
    unsigned char *data;
    size_t size, capacity;
    tw_status status;
} writer;

static void put(writer *w, const void *bytes, size_t size) {
    if (w->status) return;
    if (w->capacity - w->size < size) {
        size_t capacity = (w->size + size) * 2 + 4096;
        unsigned char *moved = realloc(w->data, capacity);
        if (!moved) {
            w->status = FAIL(TW_ERR_MEMORY, "%s: no memory for its table of tensors", w->path);
            return;
        }
        w->data = moved;
        w->capacity = capacity;
    }
    memcpy(w->data + w->size, bytes, size);
    w->size += size;
}

static void put_op(writer *w, int op) {
    put(w, &(unsigned char){(unsigned char)op}, 1);
}

static void put_uint(writer *w, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++, value >>= 8) put_op(w, (int)(value & 255));
}

static void put_int(writer *w, int64_t value) {
    bool fits = value >= INT32_MIN && value <= INT32_MAX;
    put_op(w, fits ? BININT : LONG1);
    if (!fits) put_op(w, 8);
    put_uint(w, (uint64_t)value, fits ? 4 : 8);
}

static void put_float(writer *w, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_op(w, BINFLOAT);
    for (int i = 7; i >= 0; i--) put_op(w, (int)(bits >> (8 * i) & 255)); /* big-endian */
}

static void put_str(writer *w, const char *s) {
    size_t n = strlen(s);
    if (!w->status && (!tw_lines_is_utf8(s, n, NULL) || n > UINT32_MAX))
        w->status = FAIL(TW_ERR_ARGUMENT, "%s: the name '%s' is not UTF-8", w->path, s);
    put_op(w, BINUNICODE);
    put_uint(w, n, 4);
    put(w, s, n);
}

static void put_global(writer *w, const char *module, const char *name) {
    put_op(w, GLOBAL);
    put(w, module, strlen(module));
    put(w, "\n", 1);
    put(w, name, strlen(name));
    put(w, "\n", 1);
}

static void put_ordered_dict(writer *w) {
    put_global(w, "collections", "OrderedDict");
    put_op(w, EMPTY_TUPLE);
    put_op(w, REDUCE);
}

/* Row-major: the stride of a dimension is the product of the later ones, of which PyTorch counts 0 as 1. */
static void put_strides(writer *w, const tw_weight *item) {
    put_op(w, MARK);
    for (int d = 0; d < item->ndim; d++) {
        int64_t stride = 1;
        for (int k = d + 1; k < item->ndim; k++) stride *= item->shape[k] ? item->shape[k] : 1;
        put_int(w, stride);
    }
    put_op(w, TUPLE);
}

/* _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()) */
static void put_tensor(writer *w, const tw_weight *item, int64_t number) {
    char key[24];
    snprintf(key, sizeof key, "%lld", (long long)number);
    put_global(w, "torch._utils", "_rebuild_tensor_v2");
    put_op(w, MARK);
    put_op(w, MARK);
    put_str(w, "storage");
    put_global(w, "torch", tw_torch_storage_name(item->type));
    put_str(w, key);
    put_str(w, "cpu");
    put_int(w, item->count);
    put_op(w, TUPLE);
    put_op(w, BINPERSID);
    put_int(w, 0);
    put_op(w, MARK);
    for (int d = 0; d < item->ndim; d++) put_int(w, item->shape[d]);
    put_op(w, TUPLE);
    put_strides(w, item);
    put_op(w, NEWFALSE);
    put_ordered_dict(w);
    put_op(w, TUPLE);
    put_op(w, REDUCE);
}

/* ---- the optimizer ---- */

static const char STATE[] = TW_WEIGHTS_OPTIMIZER "state.";

static bool is_optimizer(const tw_weight *item) {
    return strncmp(item->name, TW_WEIGHTS_OPTIMIZER, sizeof TW_WEIGHTS_OPTIMIZER - 1) == 0;
}

/* Splits "optimizer.state.<index>.<part>". */
static tw_status split_name(const char *path, const tw_weight *item, int64_t *index, const char **part) {
    const char *digits = item->name + sizeof STATE - 1;
    char *end = NULL;
    if (strncmp(item->name, STATE, sizeof STATE - 1) == 0 && digits[0] >= '0' && digits[0] <= '9')
        *index = strtoll(digits, &end, 10);
    if (!end || end[0] != '.' || !end[1])
        return FAIL(TW_ERR_ARGUMENT,
                    "%s: '%s' is no name of an optimizer's tensor, which is %s<index>.exp_avg", path,
                    item->name, STATE);
    *part = end + 1;
    return TW_OK;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* {index: {"step": tensor, "exp_avg": tensor, ...}, ...} of items from `first` on; the indices go to `seen`.
 */
static void put_runs(writer *w, const tw_weight *items, int64_t first, int64_t n, int64_t *seen) {
    int64_t runs = 0;
    put_op(w, EMPTY_DICT);
    put_op(w, MARK);
    for (int64_t i = first; i < n && !w->status; i++) {
        int64_t index = 0;
        const char *part = "";
        w->status = split_name(w->path, &items[i], &index, &part);
        if (runs == 0 || index != seen[runs - 1]) {
            if (runs) put_op(w, SETITEMS);
            put_int(w, index);
            put_op(w, EMPTY_DICT);
            put_op(w, MARK);
            seen[runs++] = index;
        }
        put_str(w, part);
        put_tensor(w, &items[i], i);
    }
    if (runs) put_op(w, SETITEMS);
    put_op(w, SETITEMS);
    qsort(seen, (size_t)runs, sizeof *seen, by_value);
    for (int64_t i = 1; i < runs && !w->status; i++)
        if (seen[i] == seen[i - 1])
            w->status = FAIL(TW_ERR_ARGUMENT, "%s: the tensors of %s%lld are not next to each other", w->path,
                             STATE, (long long)seen[i]);
}

static void put_state(writer *w, const tw_weight *items, int64_t first, int64_t n) {
    int64_t *seen = malloc(((size_t)(n - first) + 1) * sizeof *seen);
    if (seen)
        put_runs(w, items, first, n, seen);
    else if (!w->status)
        w->status = FAIL(TW_ERR_MEMORY, "%s: no memory for its table of tensors", w->path);
    free(seen);
}

static void put_setting(writer *w, const char *name, double value, double otherwise) {
    put_str(w, name);
    put_float(w, isnan(value) ? otherwise : value);
}

static void put_flag(writer *w, const char *name, int op) {
    put_str(w, name);
    put_op(w, op);
}

static void put_group(writer *w, const tw_weights_group *g) {
    put_op(w, EMPTY_DICT);
    put_op(w, MARK);
    put_setting(w, "lr", g->lr, 1e-3);
    put_str(w, "betas");
    put_op(w, MARK);
    put_float(w, isnan(g->beta1) ? 0.9 : g->beta1);
    put_float(w, isnan(g->beta2) ? 0.999 : g->beta2);
    put_op(w, TUPLE);
    put_setting(w, "eps", g->eps, 1e-8);
    put_setting(w, "weight_decay", g->weight_decay, 1e-2);
    put_flag(w, "amsgrad", NEWFALSE);
    put_flag(w, "foreach", NONE);
    put_flag(w, "maximize", NEWFALSE);
    put_flag(w, "capturable", NEWFALSE);
    put_flag(w, "differentiable", NEWFALSE);
    put_flag(w, "fused", NONE);
    put_flag(w, "decoupled_weight_decay", NEWTRUE);
    put_str(w, "params");
    put_op(w, EMPTY_LIST);
    put_op(w, MARK);
    for (int64_t i = 0; i < g->param_count; i++) put_int(w, g->params[i]);
    put_op(w, APPENDS);
    put_op(w, SETITEMS);
}

/* ---- the whole ---- */

tw_status tw_torch_write(const char *path, const tw_weight *items, int64_t n, const tw_weights_note *note,
                         unsigned char **data, size_t *size) {
    writer w = {.path = path};
    int64_t model = 0;
    while (model < n && !is_optimizer(&items[model])) model++;
    for (int64_t i = model; i < n; i++)
        if (!is_optimizer(&items[i]))
            return FAIL(TW_ERR_ARGUMENT, "%s: '%s' comes after the optimizer's tensors", path, items[i].name);
    if (model < n && !note->groups)
        return FAIL(TW_ERR_ARGUMENT, "%s: there is optimizer state, but no parameter groups", path);
    put_op(&w, PROTO);
    put_op(&w, 2);
    put_op(&w, EMPTY_DICT);
    put_op(&w, MARK);
    put_str(&w, "epoch");
    put_int(&w, note->epoch > 0 ? note->epoch : 0);
    put_str(&w, "step");
    put_int(&w, note->step > 0 ? note->step : 0);
    put_str(&w, "name");
    put_str(&w, note->name ? note->name : "tuwen");
    put_str(&w, "state_dict");
    put_ordered_dict(&w);
    put_op(&w, MARK);
    for (int64_t i = 0; i < model; i++) {
        put_str(&w, items[i].name);
        put_tensor(&w, &items[i], i);
    }
    put_op(&w, SETITEMS);
    if (note->groups) {
        put_str(&w, "optimizer");
        put_op(&w, EMPTY_DICT);
        put_op(&w, MARK);
        put_str(&w, "state");
        put_state(&w, items, model, n);
        put_str(&w, "param_groups");
        put_op(&w, EMPTY_LIST);
        put_op(&w, MARK);
        for (int64_t g = 0; g < note->group_count; g++) put_group(&w, &note->groups[g]);
        put_op(&w, APPENDS);
        put_op(&w, SETITEMS);
    }
    put_op(&w, SETITEMS);
    put_op(&w, STOP);
    if (w.status) {
        free(w.data);
        return w.status;
    }
    *data = w.data;
    *size = w.size;
    return TW_OK;
}
