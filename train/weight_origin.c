#include "train/weight_origin.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void tw_weight_origin_free(tw_weight_origin *o) {
    if (!o) return;
    for (int64_t i = 0; i < o->count; i++) free(o->tensors[i].name);
    free(o->tensors);
    free(o->kind);
    free(o->name);
    *o = (tw_weight_origin){0};
}

/* ---- writing; jansson passes a failed allocation on as NULL, so one check at the end is enough ---- */

static json_t *tensor_json(const tw_origin_tensor *t) {
    json_t *o = json_pack("{s:s, s:s}", "name", t->name, "type", tw_weight_type_name(t->type));
    if (o && t->moment_type != TW_WEIGHT_F32)
        json_object_set_new(o, "m", json_string(tw_weight_type_name(t->moment_type)));
    if (!o || !t->extra) return o;
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_object_set_new(o, "shape", shape);
    return o;
}

static json_t *optimizer_json(const tw_weight_origin *o) {
    json_t *groups = json_array();
    for (int64_t i = 0; i < o->group_count; i++) {
        const tw_weights_group *g = &o->groups[i];
        const struct {
            const char *name;
            double value;
        } numbers[] = {{"lr", g->lr},
                       {"beta1", g->beta1},
                       {"beta2", g->beta2},
                       {"eps", g->eps},
                       {"weight_decay", g->weight_decay}};
        json_t *group = json_object();
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
            if (isfinite(numbers[k].value))
                json_object_set_new(group, numbers[k].name, json_real(numbers[k].value));
        json_array_append_new(groups, group);
    }
    return json_pack("{s:s, s:o}", "step", tw_weight_type_name(o->step_type), "groups", groups);
}

tw_status tw_weight_origin_to_json(const tw_weight_origin *o, char **text) {
    json_t *tensors = json_array();
    for (int64_t i = 0; i < o->count; i++) json_array_append_new(tensors, tensor_json(&o->tensors[i]));
    bool whole = json_array_size(tensors) == (size_t)o->count;
    json_t *root = json_pack("{s:b, s:b, s:o}", "module", o->module, "hugging_face", o->hugging_face,
                             "tensors", tensors);
    if (root && o->kind) json_object_set_new(root, "kind", json_string(o->kind));
    if (root && o->name) json_object_set_new(root, "name", json_string(o->name));
    if (root && o->group_count) json_object_set_new(root, "optimizer", optimizer_json(o));
    *text = root && whole ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return *text ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory, or a tensor's name is not UTF-8");
}

/* ---- reading ---- */

static tw_status bad(const char *where, const char *what) {
    return FAIL(TW_ERR_FORMAT, "%s: what it keeps of the imported file is damaged: %s", where, what);
}

static tw_status copy_text(const json_t *object, const char *key, char **out) {
    const char *text = json_string_value(json_object_get(object, key));
    if (!text) return TW_OK;
    *out = strdup(text);
    return *out ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

static tw_status read_type(const json_t *object, const char *key, tw_weight_type *type) {
    const char *name = json_string_value(json_object_get(object, key));
    return name ? tw_weight_type_parse(name, type) : TW_OK;
}

static tw_status read_tensor(const json_t *o, const char *where, tw_origin_tensor *t) {
    if (!json_string_value(json_object_get(o, "name"))) return bad(where, "a tensor without name");
    TRY(copy_text(o, "name", &t->name));
    if (read_type(o, "type", &t->type) != TW_OK || read_type(o, "m", &t->moment_type) != TW_OK)
        return bad(where, t->name);
    const json_t *shape = json_object_get(o, "shape");
    t->extra = shape != NULL;
    size_t n = json_array_size(shape);
    if (n > TW_WEIGHT_MAX_DIMS || (shape && !json_is_array(shape))) return bad(where, t->name);
    t->ndim = (int)n;
    for (size_t i = 0; i < n; i++) {
        t->shape[i] = json_integer_value(json_array_get(shape, i));
        if (t->shape[i] < 0) return bad(where, t->name);
    }
    return TW_OK;
}

static double number_or_nan(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static tw_status read_optimizer(const json_t *o, const char *where, tw_weight_origin *out) {
    if (!o) return TW_OK;
    const json_t *groups = json_object_get(o, "groups");
    if (read_type(o, "step", &out->step_type) != TW_OK || json_array_size(groups) != 2)
        return bad(where, "optimizer");
    out->group_count = 2;
    for (size_t i = 0; i < 2; i++) {
        const json_t *g = json_array_get(groups, i);
        out->groups[i] = (tw_weights_group){.lr = number_or_nan(g, "lr"),
                                            .beta1 = number_or_nan(g, "beta1"),
                                            .beta2 = number_or_nan(g, "beta2"),
                                            .eps = number_or_nan(g, "eps"),
                                            .weight_decay = number_or_nan(g, "weight_decay")};
    }
    return TW_OK;
}

static tw_status read_root(const json_t *root, const char *where, tw_weight_origin *out) {
    const json_t *tensors = json_object_get(root, "tensors");
    if (!json_is_array(tensors)) return bad(where, "no tensors");
    out->module = json_is_true(json_object_get(root, "module"));
    out->hugging_face = json_is_true(json_object_get(root, "hugging_face"));
    TRY(copy_text(root, "kind", &out->kind));
    TRY(copy_text(root, "name", &out->name));
    out->tensors = calloc(json_array_size(tensors) + 1, sizeof *out->tensors);
    if (!out->tensors) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        out->count++;
        TRY(read_tensor(json_array_get(tensors, i), where, &out->tensors[i]));
    }
    return read_optimizer(json_object_get(root, "optimizer"), where, out);
}

tw_status tw_weight_origin_from_json(const char *text, const char *where, tw_weight_origin *out) {
    *out = (tw_weight_origin){0};
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!root) return bad(where, error.text);
    tw_status status = read_root(root, where, out);
    json_decref(root);
    if (status != TW_OK) tw_weight_origin_free(out);
    return status;
}
