#include "train/formats/torch_pickle.h"

#include "data/pickle.h"
#include "data/string_map.h"
#include "train/formats/torch_names.h"
#include "train/formats/torch_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUES = 4 * 1000 * 1000, MAX_NAME = 512 };

/* Memory of names and groups; all freed together. */
typedef struct block {
    struct block *next;
    _Alignas(16) char data[];
} block;

typedef struct reader {
    const char *path;
    tw_torch_dict *d;
    tw_string_map keys; /* of storages */
    int64_t capacity, storage_capacity;
    size_t left;         /* memory that may still be taken */
    char name[MAX_NAME]; /* of the value that is looked at, not zero-terminated */
    size_t name_size;
    bool optimizer; /* inside the optimizer's state */
} reader;

static tw_status take(reader *r, size_t bytes) {
    if (bytes > r->left)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s: its table of tensors needs more memory than the file's size allows", r->path);
    r->left -= bytes;
    return TW_OK;
}

static tw_status no_memory(const reader *r) {
    return FAIL(TW_ERR_MEMORY, "%s: no memory for the table of tensors", r->path);
}

static tw_status allocate(reader *r, size_t bytes, void **out) {
    TRY(take(r, bytes + sizeof(block)));
    block *b = malloc(sizeof *b + bytes);
    if (!b) return no_memory(r);
    b->next = r->d->memory;
    r->d->memory = b;
    *out = b->data;
    return TW_OK;
}

static tw_status copy_string(reader *r, const char *s, size_t size, const char **out) {
    void *memory = NULL;
    TRY(allocate(r, size + 1, &memory));
    memcpy(memory, s, size);
    ((char *)memory)[size] = '\0';
    *out = memory;
    return TW_OK;
}

/* ---- tensors ---- */

static tw_status grow(reader *r, void **array, int64_t count, int64_t *capacity, size_t size) {
    if (count < *capacity) return TW_OK;
    int64_t larger = *capacity ? *capacity * 2 : 64;
    TRY(take(r, (size_t)(larger - *capacity) * size));
    void *moved = realloc(*array, (size_t)larger * size);
    if (!moved) return no_memory(r);
    *array = moved;
    *capacity = larger;
    return TW_OK;
}

static tw_status find_storage(reader *r, const tw_torch_view *v, int64_t *out) {
    bool is_new = false;
    tw_torch_dict *d = r->d;
    TRY(tw_string_map_add(&r->keys, v->key, v->key_size, out, &is_new));
    if (!is_new) {
        const tw_torch_storage *s = &d->storages[*out];
        if (s->type == v->type && s->count == v->storage_count) return TW_OK;
        return FAIL(TW_ERR_FORMAT, "its storage '%s' is described twice, differently", s->key);
    }
    void *array = d->storages;
    TRY(grow(r, &array, d->storage_count, &r->storage_capacity, sizeof *d->storages));
    d->storages = array;
    tw_torch_storage *s = &d->storages[d->storage_count];
    *s = (tw_torch_storage){.type = v->type, .count = v->storage_count};
    TRY(copy_string(r, v->key, v->key_size, &s->key));
    d->storage_count++;
    return TW_OK;
}

/* Adds the tensor r->name: a view, or (NULL) the one integer `value`. */
static tw_status add(reader *r, const tw_torch_view *v, int64_t value) {
    tw_torch_dict *d = r->d;
    int64_t capacity = r->capacity;
    void *items = d->items, *tensors = d->tensors;
    TRY(grow(r, &items, d->count, &capacity, sizeof *d->items));
    d->items = items;
    TRY(grow(r, &tensors, d->count, &r->capacity, sizeof *d->tensors));
    d->tensors = tensors;
    tw_weight *item = &d->items[d->count];
    tw_torch_tensor *t = &d->tensors[d->count];
    *item = (tw_weight){.type = TW_WEIGHT_I64, .count = 1};
    *t = (tw_torch_tensor){.storage = -1, .value = value};
    if (v) {
        item->type = v->type;
        item->ndim = v->ndim;
        item->count = v->count;
        memcpy(item->shape, v->shape, sizeof v->shape);
        t->offset = v->offset;
        memcpy(t->stride, v->stride, sizeof v->stride);
        TRY(find_storage(r, v, &t->storage));
    }
    TRY(copy_string(r, r->name, r->name_size, &item->name));
    d->count++;
    return TW_OK;
}

static tw_status add_tensor(reader *r, const tw_pickle_value *value) {
    tw_torch_view view;
    tw_status status = tw_torch_tensor_view(value, &view);
    if (!status) status = add(r, &view, 0);
    return status ? tw_fail_context(status, "%s: tensor '%.*s'", r->path, (int)r->name_size, r->name) : TW_OK;
}

/* All storages, also those of tensors that nobody reads: where one lies in a legacy file follows from the
 * sizes of those before it. */
static tw_status find_storages(reader *r, const tw_pickle_value *v) {
    if (v->kind == TW_PICKLE_PERSISTENT) {
        tw_torch_view view;
        int64_t ignored;
        tw_status status = tw_torch_storage_view(v, &view);
        if (!status) status = find_storage(r, &view, &ignored);
        return status ? tw_fail_context(status, "%s: a tensor", r->path) : TW_OK;
    }
    if (v->depth < 2) return TW_OK;
    for (size_t i = 0; i < v->items.size; i++) TRY(find_storages(r, v->items.data[i]));
    return TW_OK;
}

/* ---- walking through a state dict ---- */

static tw_status append_name(reader *r, const char *s, size_t size) {
    if (memchr(s, '\0', size)) return FAIL(TW_ERR_FORMAT, "%s: a name holds a zero byte", r->path);
    if (r->name_size + size + 1 > MAX_NAME)
        return FAIL(TW_ERR_UNSUPPORTED, "%s: a name has more than %d bytes", r->path, MAX_NAME);
    if (r->name_size) r->name[r->name_size++] = '.';
    memcpy(r->name + r->name_size, s, size);
    r->name_size += size;
    return TW_OK;
}

static tw_status append_number(reader *r, int64_t number) {
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)number);
    return append_name(r, text, (size_t)n);
}

static tw_status append_key(reader *r, const tw_pickle_value *key) {
    if (key->kind == TW_PICKLE_STR) return append_name(r, key->bytes.data, key->bytes.size);
    if (key->kind == TW_PICKLE_INT) return append_number(r, key->integer);
    return FAIL(TW_ERR_FORMAT, "%s: a %s is no name of a tensor (in '%.*s')", r->path,
                tw_pickle_kind_name(key->kind), (int)r->name_size, r->name);
}

/* The recursion is as deep as the pickle's values, TW_PICKLE_MAX_DEPTH at most. */
static tw_status walk(reader *r, const tw_pickle_value *v) {
    if (tw_torch_is_tensor(v)) return add_tensor(r, v);
    bool is_dict = v->kind == TW_PICKLE_DICT;
    if (!is_dict && v->kind != TW_PICKLE_LIST && v->kind != TW_PICKLE_TUPLE) {
        /* Adam's count of updates was a plain number until PyTorch 1.12. */
        bool is_step = r->optimizer && v->kind == TW_PICKLE_INT && r->name_size > 5 &&
                       memcmp(r->name + r->name_size - 5, ".step", 5) == 0;
        return is_step ? add(r, NULL, v->integer) : TW_OK;
    }
    if (v->depth < 3) return TW_OK; /* no room for a tensor's arguments: plain values */
    size_t name_size = r->name_size;
    for (size_t i = 0; i < v->items.size; i += is_dict ? 2 : 1) {
        TRY(is_dict ? append_key(r, v->items.data[i]) : append_number(r, (int64_t)i));
        TRY(walk(r, v->items.data[is_dict ? i + 1 : i]));
        r->name_size = name_size;
    }
    return TW_OK;
}

/* A module of TorchScript, with attributes (an object without any is no module). */
static bool is_module(const tw_pickle_value *v) {
    return v->kind == TW_PICKLE_OBJECT && v->tag == TW_TORCH_MODULE && v->items.size == 3;
}

static tw_status walk_module(reader *r, const tw_pickle_value *module) {
    const tw_pickle_value *attributes = module->items.data[2];
    size_t name_size = r->name_size;
    for (size_t i = 0; i < attributes->items.size; i += 2) {
        const tw_pickle_value *child = attributes->items.data[i + 1];
        bool is_tensor = tw_torch_is_tensor(child);
        if (!is_tensor && !is_module(child)) continue;
        TRY(append_key(r, attributes->items.data[i]));
        TRY(is_tensor ? add_tensor(r, child) : walk_module(r, child));
        r->name_size = name_size;
    }
    return TW_OK;
}

static tw_status read_modules(reader *r, const tw_pickle_value *root) {
    if (!is_module(root))
        return FAIL(TW_ERR_FORMAT, "%s: a TorchScript archive that holds a %s, a module was expected",
                    r->path, tw_torch_is_tensor(root) ? "tensor" : tw_pickle_kind_name(root->kind));
    r->d->note.epoch = r->d->note.step = -1;
    TRY(walk_module(r, root));
    if (r->d->count == 0)
        return FAIL(TW_ERR_FORMAT, "%s: the modules of this TorchScript archive have no tensor", r->path);
    return find_storages(r, root);
}

/* ---- what stands beside the tensors ---- */

static double number_or_nan(const tw_pickle_value *v) {
    double value;
    return v && tw_torch_number(v, &value) ? value : (double)NAN;
}

static tw_status read_group(reader *r, const tw_pickle_value *dict, tw_weights_group *g) {
    const tw_pickle_value *betas = tw_torch_get(dict, "betas"), *params = tw_torch_get(dict, "params");
    bool pair =
        betas && (betas->kind == TW_PICKLE_TUPLE || betas->kind == TW_PICKLE_LIST) && betas->items.size == 2;
    *g = (tw_weights_group){.lr = number_or_nan(tw_torch_get(dict, "lr")),
                            .beta1 = number_or_nan(pair ? betas->items.data[0] : NULL),
                            .beta2 = number_or_nan(pair ? betas->items.data[1] : NULL),
                            .eps = number_or_nan(tw_torch_get(dict, "eps")),
                            .weight_decay = number_or_nan(tw_torch_get(dict, "weight_decay"))};
    if (!params || params->kind != TW_PICKLE_LIST)
        return FAIL(TW_ERR_FORMAT, "%s: a parameter group of the optimizer lacks its list of parameters",
                    r->path);
    void *memory = NULL;
    TRY(allocate(r, params->items.size * sizeof *g->params, &memory));
    int64_t *numbers = memory;
    if (!numbers) return no_memory(r);
    for (size_t i = 0; i < params->items.size; i++) {
        if (params->items.data[i]->kind != TW_PICKLE_INT)
            return FAIL(TW_ERR_FORMAT, "%s: a parameter group of the optimizer lists what is no number",
                        r->path);
        numbers[i] = params->items.data[i]->integer;
    }
    g->params = numbers;
    g->param_count = (int64_t)params->items.size;
    return TW_OK;
}

static tw_status read_optimizer(reader *r, const tw_pickle_value *optimizer) {
    const tw_pickle_value *state = tw_torch_get(optimizer, "state"),
                          *groups = tw_torch_get(optimizer, "param_groups");
    if (state && state->kind == TW_PICKLE_DICT) {
        r->optimizer = true;
        TRY(append_name(r, "optimizer.state", 15));
        TRY(walk(r, state));
        r->name_size = 0;
    }
    if (!groups || groups->kind != TW_PICKLE_LIST || groups->items.size == 0) return TW_OK;
    void *memory = NULL;
    TRY(allocate(r, groups->items.size * sizeof(tw_weights_group), &memory));
    tw_weights_group *made = memory;
    for (size_t i = 0; i < groups->items.size; i++) {
        if (groups->items.data[i]->kind != TW_PICKLE_DICT)
            return FAIL(TW_ERR_FORMAT, "%s: a parameter group of the optimizer is no dict", r->path);
        TRY(read_group(r, groups->items.data[i], &made[i]));
    }
    r->d->note.groups = made;
    r->d->note.group_count = (int64_t)groups->items.size;
    return TW_OK;
}

/* "epoch" and "step" are whole numbers; what else stands there says nothing. */
static int64_t whole(const tw_pickle_value *v) {
    double value;
    bool ok = v && tw_torch_number(v, &value) && value >= 0 && value < 0x1p53 && value == floor(value);
    return ok ? (int64_t)value : -1;
}

static tw_status no_tensors(const reader *r, const tw_pickle_value *root) {
    char keys[200] = "";
    size_t n = 0;
    for (size_t i = 0; i < root->items.size && n + 50 < sizeof keys; i += 2) {
        const tw_pickle_value *k = root->items.data[i];
        if (k->kind == TW_PICKLE_STR)
            n += (size_t)snprintf(keys + n, sizeof keys - n, "%s'%.*s'", n ? ", " : "",
                                  (int)(k->bytes.size < 40 ? k->bytes.size : 40), k->bytes.data);
    }
    return FAIL(TW_ERR_FORMAT, "%s: there is no state dict in it and no tensor (its keys: %s)", r->path,
                n ? keys : "none");
}

static tw_status read_root(reader *r, const tw_pickle_value *root) {
    static const char *const wrappers[] = {"state_dict", "model_state_dict", "model", "module"};
    if (root->kind != TW_PICKLE_DICT)
        return FAIL(TW_ERR_FORMAT, "%s: it holds a %s, a state dict was expected", r->path,
                    tw_torch_is_tensor(root) ? "tensor" : tw_pickle_kind_name(root->kind));
    const tw_pickle_value *state = NULL, *name = tw_torch_get(root, "name");
    for (size_t i = 0; i < sizeof wrappers / sizeof wrappers[0] && !state; i++) {
        state = tw_torch_get(root, wrappers[i]);
        if (state && state->kind != TW_PICKLE_DICT) state = NULL;
    }
    r->d->note.epoch = whole(tw_torch_get(root, "epoch"));
    r->d->note.step = whole(tw_torch_get(root, "step"));
    if (name && name->kind == TW_PICKLE_STR)
        TRY(copy_string(r, name->bytes.data, name->bytes.size, &r->d->note.name));
    TRY(walk(r, state ? state : root));
    if (r->d->count == 0) return no_tensors(r, root);
    const tw_pickle_value *optimizer = tw_torch_get(root, "optimizer");
    if (!optimizer) optimizer = tw_torch_get(root, "optimizer_state_dict");
    if (state && optimizer && optimizer->kind == TW_PICKLE_DICT) TRY(read_optimizer(r, optimizer));
    return find_storages(r, root);
}

/* What the interpreter says, with what to do about it. */
static tw_status refused(const char *path, tw_status status) {
    char why[512];
    if (status != TW_ERR_UNSUPPORTED || !strstr(tw_last_error(), "the name '"))
        return tw_fail_context(status, "%s", path);
    snprintf(why, sizeof why, "%s", tw_last_error());
    return FAIL(status, "%s: %s (read are state dicts: save model.state_dict(), not the model)", path, why);
}

tw_status tw_torch_read(const char *path, const void *data, size_t size, size_t memory,
                        tw_torch_origin origin, tw_torch_dict **out) {
    *out = NULL;
    reader r = {.path = path, .d = calloc(1, sizeof *r.d), .left = memory / 2};
    tw_pickle *pickle = NULL;
    const tw_pickle_value *root = NULL;
    if (!r.d) return no_memory(&r);
    tw_status status = tw_pickle_new(MAX_VALUES, &pickle);
    if (!status) {
        tw_pickle_allow(pickle, tw_torch_names, tw_torch_name_count);
        if (origin == TW_TORCH_SCRIPTED) tw_pickle_allow_classes(pickle, "__torch__", TW_TORCH_MODULE);
        tw_pickle_limit(pickle, memory / 2);
        status = tw_pickle_read(pickle, data, size, &root);
        if (status) status = refused(path, status);
    }
    if (!status) {
        r.d->end = tw_pickle_end(pickle);
        status = origin == TW_TORCH_SCRIPTED ? read_modules(&r, root) : read_root(&r, root);
    }
    tw_pickle_free(pickle);
    tw_string_map_free(&r.keys);
    if (status)
        tw_torch_free(r.d);
    else
        *out = r.d;
    return status;
}

void tw_torch_free(tw_torch_dict *d) {
    if (!d) return;
    for (block *b = d->memory, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(d->items);
    free(d->tensors);
    free(d->storages);
    free(d);
}
