#include "train/original_names.h"

#include "train/formats/hf_names.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tw_name_is_ignored(const char *name) {
    static const char *const patterns[] = {
        "bert.pooler.*",       "bert.embeddings.position_ids", "bert.embeddings.token_type_ids",
        "visual.position_ids", "*.num_batches_tracked",        "cls.*"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (fnmatch(patterns[i], name, 0) == 0) return true;
    return false;
}

/* ---- one file seen under other names ---- */

/* Tensor `source` of the file, or the third `part` of it. */
typedef struct origin {
    int64_t source;
    int part; /* -1: all of it */
} origin;

typedef struct renamed {
    tw_weights *file;
    origin *origins;
    unsigned char *stack; /* the last tensor of which a third was asked for: its neighbours come next */
    int64_t stacked;      /* which one that is; -1: none */
} renamed;

static void renamed_close(void *self) {
    renamed *r = self;
    if (!r) return;
    tw_weights_close(r->file);
    free(r->origins);
    free(r->stack);
    free(r);
}

static tw_status renamed_read(void *self, int64_t i, void *dst) {
    renamed *r = self;
    origin from = r->origins[i];
    if (from.part < 0) return tw_weights_read(r->file, from.source, dst);
    const tw_weight *t = tw_weights_at(r->file, from.source);
    size_t third = (size_t)t->count / 3 * tw_weight_type_size(t->type);
    if (r->stacked != from.source) {
        free(r->stack);
        r->stacked = -1;
        r->stack = malloc(3 * third + 1);
        if (!r->stack) return FAIL(TW_ERR_MEMORY, "no memory for %zu bytes of %s", 3 * third, t->name);
        TRY(tw_weights_read(r->file, from.source, r->stack));
        r->stacked = from.source;
    }
    memcpy(dst, r->stack + (size_t)from.part * third, third);
    if (from.part == 2) {
        free(r->stack);
        r->stack = NULL;
        r->stacked = -1;
    }
    return TW_OK;
}

/* ---- names ---- */

enum { NAME_BYTES = 512 };

static bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Replaces the first `from` in name by `to`; false if it is not there or the result does not fit. */
static bool replace(char name[NAME_BYTES], const char *from, const char *to) {
    char *at = strstr(name, from);
    if (!at) return false;
    size_t before = (size_t)(at - name), rest = strlen(at) - strlen(from), length = strlen(to);
    if (before + length + rest >= NAME_BYTES) return false;
    memmove(at + length, at + strlen(from), rest + 1);
    for (size_t i = 0; i < length; i++) at[i] = to[i];
    return true;
}

/* Names of a file: where those of a tower saved by itself belong, and "module.". */
typedef struct name_style {
    bool module, vision;
} name_style;

static const char *bare_prefix(const char *name, bool vision) {
    static const char *const of_vision[] = {"embeddings.", "encoder.layers.", "pre_layrnorm.",
                                            "post_layernorm."},
                             *const of_bert[] = {"embeddings.", "encoder.layer.", "pooler."};
    for (int i = 0; vision && i < 4; i++)
        if (begins(name, of_vision[i])) return "vision_model.";
    for (int i = 0; !vision && i < 3; i++)
        if (begins(name, of_bert[i])) return "bert.";
    return "";
}

/* A file's name to the original's, but for a stacked tensor's parts; an image tower's from Hugging Face to
 * the one it has in a whole model there. */
static void rename_one(const char *given, name_style style, char name[NAME_BYTES]) {
    if (style.module && begins(given, "module.")) given += strlen("module.");
    snprintf(name, NAME_BYTES, "%s%s", bare_prefix(given, style.vision), given);
    if (begins(name, "visual.")) {
        if (!replace(name, ".attn.Wqkv.weight", ".attn.in_proj_weight"))
            (void)replace(name, ".attn.Wqkv.bias", ".attn.in_proj_bias");
    } else if (begins(name, "bert.")) {
        if (!replace(name, ".LayerNorm.gamma", ".LayerNorm.weight"))
            (void)replace(name, ".LayerNorm.beta", ".LayerNorm.bias");
        (void)replace(name, ".attention.self.out_proj.", ".attention.output.dense.");
    }
}

typedef struct name_list {
    tw_weight *items;
    char *names; /* one behind the other */
    origin *origins;
    int64_t n;
    size_t used; /* bytes of names */
} name_list;

static void add(name_list *list, const tw_weight *t, const char *name, int64_t source, int part) {
    tw_weight *item = &list->items[list->n];
    size_t bytes = strlen(name) + 1;
    *item = *t;
    item->name = memcpy(list->names + list->used, name, bytes);
    list->used += bytes;
    if (part >= 0) item->shape[0] /= 3, item->count /= 3;
    list->origins[list->n++] = (origin){source, part};
}

static tw_status add_thirds(name_list *list, const tw_weights *file, int64_t source, const char *name) {
    static const char *const parts[] = {".self.query.", ".self.key.", ".self.value."};
    const tw_weight *t = tw_weights_at(file, source);
    if (t->ndim < 1 || t->shape[0] % 3 != 0)
        return FAIL(TW_ERR_FORMAT, "%s: %s does not consist of query, key and value of equal size",
                    tw_weights_path(file), t->name);
    for (int part = 0; part < 3; part++) {
        char third[NAME_BYTES];
        snprintf(third, sizeof third, "%s", name);
        if (!replace(third, ".self.Wqkv.", parts[part]))
            return FAIL(TW_ERR_FORMAT, "%s: the name %s is too long", tw_weights_path(file), t->name);
        add(list, t, third, source, part);
    }
    return TW_OK;
}

static bool is_stacked(const char *name) {
    return begins(name, "bert.") && strstr(name, ".self.Wqkv.");
}

/* How many tensors there will be, and the bytes of their names: a file of many short names, made to harm,
 * must not cost more than what it lists. */
static tw_status measure(const tw_weights *file, name_style style, size_t *n, size_t *bytes) {
    *n = *bytes = 0;
    for (int64_t i = 0; i < tw_weights_count(file); i++) {
        const tw_weight *t = tw_weights_at(file, i);
        char name[NAME_BYTES];
        if (strlen(t->name) + strlen("vision_model.") >= NAME_BYTES)
            return FAIL(TW_ERR_FORMAT, "%s: the tensor name '%.40s...' is too long", tw_weights_path(file),
                        t->name);
        rename_one(t->name, style, name);
        size_t parts = is_stacked(name) ? 3 : 1;
        *n += parts;
        *bytes += parts * (strlen(name) + 2); /* "query" is longer than "Wqkv" by one */
    }
    return TW_OK;
}

static tw_status list_names(const tw_weights *file, name_style style, name_list *list) {
    for (int64_t i = 0; i < tw_weights_count(file); i++) {
        const tw_weight *t = tw_weights_at(file, i);
        char name[NAME_BYTES];
        rename_one(t->name, style, name);
        if (is_stacked(name))
            TRY(add_thirds(list, file, i, name));
        else
            add(list, t, name, i, -1);
    }
    return TW_OK;
}

/* All of them do, or none is stripped: a name of which only some have it belongs to something else. */
static bool all_begin_with_module(const tw_weights *file) {
    int64_t n = tw_weights_count(file);
    for (int64_t i = 0; i < n; i++) {
        const char *name = tw_weights_at(file, i)->name;
        if (!begins(name, "module.") && !begins(name, TW_WEIGHTS_OPTIMIZER)) return false;
    }
    return n > 0 && begins(tw_weights_at(file, 0)->name, "module.");
}

static tw_status make_view(tw_weights *file, name_style style, tw_weights **out) {
    static const tw_weights_source source = {.read = renamed_read, .close = renamed_close};
    size_t n, bytes;
    tw_status status = measure(file, style, &n, &bytes);
    if (status != TW_OK) {
        tw_weights_close(file);
        return status;
    }
    renamed *r = calloc(1, sizeof *r);
    name_list list = {.items = malloc((n + 1) * sizeof *list.items),
                      .names = malloc(bytes + 1),
                      .origins = malloc((n + 1) * sizeof *list.origins)};
    if (!r || !list.items || !list.names || !list.origins)
        status = FAIL(TW_ERR_MEMORY, "%s: no memory for %zu names", tw_weights_path(file), n);
    if (status == TW_OK) status = list_names(file, style, &list);
    if (status == TW_OK) {
        *r = (renamed){.file = file, .origins = list.origins, .stacked = -1};
        list.origins = NULL;
        status = tw_weights_create(tw_weights_path(file), tw_weights_get_note(file), list.items, list.n,
                                   &source, r, out); /* owns r and with it the file */
    } else {
        free(r);
        tw_weights_close(file);
    }
    free(list.items);
    free(list.names);
    free(list.origins);
    return status;
}

tw_status tw_original_open(tw_weights *file, tw_original *out) {
    /* An image tower by itself, as transformers 5 saves it; before that it said "vision_model.". */
    bool vision = tw_weights_find(file, "embeddings.class_embedding") >= 0;
    *out =
        (tw_original){.module = all_begin_with_module(file), .hugging_face = tw_hf_is_named(file) || vision};
    if (!out->hugging_face) return make_view(file, (name_style){.module = out->module}, &out->weights);
    if (vision) TRY(make_view(file, (name_style){.vision = true}, &file));
    return tw_hf_as_original(file, &out->weights);
}

void tw_original_close(tw_original *o) {
    if (!o) return;
    tw_weights_close(o->weights);
    *o = (tw_original){0};
}
