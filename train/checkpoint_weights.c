#include "train/checkpoint_weights.h"

#include "train/config.h"
#include "train/formats/weight_convert.h"
#include "train/original_order.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where an item's values are. */
typedef enum place_kind { IN_PARAMS, IN_M, IN_V, IN_EXTRA, ADAM_STEPS } place_kind;

typedef struct place {
    place_kind kind;
    char *name; /* of the parameter or raw tensor; owned */
} place;

typedef struct view {
    tw_checkpoint *c; /* borrowed */
    tw_weight *items; /* names owned */
    place *places;
    int64_t n, room;
} view;

static void view_close(void *self) {
    view *v = self;
    if (!v) return;
    for (int64_t i = 0; i < v->n; i++) {
        free((char *)v->items[i].name);
        free(v->places[i].name);
    }
    free(v->items);
    free(v->places);
    free(v);
}

static tw_status read_floats(view *v, int64_t i, float *dst) {
    const place *p = &v->places[i];
    if (p->kind == ADAM_STEPS) {
        *dst = (float)tw_checkpoint_get_meta(v->c)->adam_steps;
        return TW_OK;
    }
    static const tw_checkpoint_part parts[] = {
        [IN_PARAMS] = TW_CHECKPOINT_PARAM, [IN_M] = TW_CHECKPOINT_M, [IN_V] = TW_CHECKPOINT_V};
    return tw_checkpoint_read(v->c, p->name, parts[p->kind], dst, v->items[i].count);
}

static tw_status view_read(void *self, int64_t i, void *dst) {
    view *v = self;
    const tw_weight *t = &v->items[i];
    size_t bytes = (size_t)t->count * tw_weight_type_size(t->type);
    if (v->places[i].kind == IN_EXTRA) return tw_checkpoint_read_raw(v->c, v->places[i].name, dst, bytes);
    if (t->type == TW_WEIGHT_F32) return read_floats(v, i, dst);
    if (v->places[i].kind == ADAM_STEPS && t->type == TW_WEIGHT_I64) {
        memcpy(dst, &tw_checkpoint_get_meta(v->c)->adam_steps, sizeof(int64_t));
        return TW_OK;
    }
    float *values = malloc((size_t)t->count * sizeof *values + 1);
    if (!values) return FAIL(TW_ERR_MEMORY, "no memory for %s", t->name);
    tw_status status = read_floats(v, i, values);
    if (status == TW_OK) status = tw_weight_from_f32(t->type, values, dst, t->count);
    free(values);
    return status;
}

static tw_status add(view *v, const char *name, tw_weight_type type, int ndim, const int64_t *shape,
                     place_kind kind, const char *source) {
    if (v->n == v->room) {
        int64_t room = v->room ? 2 * v->room : 256;
        tw_weight *items = realloc(v->items, (size_t)room * sizeof *items);
        if (items) v->items = items;
        place *places = realloc(v->places, (size_t)room * sizeof *places);
        if (places) v->places = places;
        if (!items || !places) return FAIL(TW_ERR_MEMORY, "no memory for a list of tensors");
        v->room = room;
    }
    char *own = strdup(name), *from = strdup(source);
    tw_weight *t = &v->items[v->n];
    *t = (tw_weight){.name = own, .type = type, .ndim = ndim, .count = 1};
    for (int i = 0; i < ndim; i++)
        if (__builtin_mul_overflow(t->count, t->shape[i] = shape[i], &t->count)) t->count = -1;
    v->places[v->n++] = (place){kind, from};
    if (t->count < 0 || t->count > INT64_MAX / 16)
        return FAIL(TW_ERR_FORMAT, "%s: %s has an impossible size", tw_checkpoint_path(v->c), name);
    return own && from ? TW_OK : FAIL(TW_ERR_MEMORY, "no memory for a list of tensors");
}

static tw_status add_param(view *v, const tw_checkpoint_entry *e, tw_weight_type type) {
    return add(v, e->name, type, e->ndim, e->shape, IN_PARAMS, e->name);
}

static tw_status finish(view *v, const tw_weights_note *note, tw_weights **out) {
    static const tw_weights_source source = {.read = view_read, .close = view_close};
    return tw_weights_create(tw_checkpoint_path(v->c), note, v->items, v->n, &source, v, out);
}

static tw_status new_view(tw_checkpoint *c, view **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) return FAIL(TW_ERR_MEMORY, "out of memory");
    (*out)->c = c;
    return TW_OK;
}

tw_status tw_checkpoint_params(tw_checkpoint *c, tw_weights **out) {
    const tw_checkpoint_meta *meta = tw_checkpoint_get_meta(c);
    tw_weights_note note = {.kind = "tuwen checkpoint", .epoch = meta->epoch, .step = meta->step};
    view *v;
    *out = NULL;
    TRY(new_view(c, &v));
    tw_status status = TW_OK;
    for (int64_t i = 0; status == TW_OK && i < tw_checkpoint_count(c); i++)
        status = add_param(v, tw_checkpoint_at(c, i), TW_WEIGHT_F32);
    if (status == TW_OK) return finish(v, &note, out);
    view_close(v);
    return status;
}

/* ---- as in the imported file ---- */

/* The parameters in the order of the original's code. */
static int by_order(const void *a, const void *b, void *context) {
    const tw_checkpoint *c = context;
    return tw_original_order(tw_checkpoint_at(c, *(const int64_t *)a)->name,
                             tw_checkpoint_at(c, *(const int64_t *)b)->name);
}

static tw_status add_in_order(view *v, tw_checkpoint *c) {
    int64_t n = tw_checkpoint_count(c), *order = malloc(((size_t)n + 1) * sizeof *order);
    if (!order) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) order[i] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_order, c);
    tw_status status = TW_OK;
    for (int64_t i = 0; status == TW_OK && i < n; i++)
        status = add_param(v, tw_checkpoint_at(c, order[i]), TW_WEIGHT_F32);
    free(order);
    return status;
}

static tw_status add_imported(view *v, tw_checkpoint *c, const tw_weight_origin *origin) {
    int64_t params = 0;
    for (int64_t i = 0; i < origin->count; i++) {
        const tw_origin_tensor *t = &origin->tensors[i];
        if (t->extra) {
            TRY(add(v, t->name, t->type, t->ndim, t->shape, IN_EXTRA, t->name));
            continue;
        }
        const tw_checkpoint_entry *e = tw_checkpoint_find(c, t->name);
        if (!e)
            return FAIL(TW_ERR_FORMAT, "%s lacks %s, which the imported file had", tw_checkpoint_path(c),
                        t->name);
        TRY(add_param(v, e, t->type));
        params++;
    }
    if (params == tw_checkpoint_count(c)) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s has %lld parameters, the imported file had %lld", tw_checkpoint_path(c),
                (long long)tw_checkpoint_count(c), (long long)params);
}

static tw_weight_type moment_type(const tw_weight_origin *origin, const char *name) {
    for (int64_t i = 0; i < origin->count; i++)
        if (strcmp(origin->tensors[i].name, name) == 0) return origin->tensors[i].moment_type;
    return TW_WEIGHT_F32;
}

static tw_status add_moments(view *v, const tw_checkpoint_entry *e, const tw_weight_origin *origin,
                             int64_t number) {
    char name[96];
    tw_weight_type type = moment_type(origin, e->name);
    snprintf(name, sizeof name, TW_WEIGHTS_OPTIMIZER "state.%lld.step", (long long)number);
    TRY(add(v, name, origin->group_count ? origin->step_type : TW_WEIGHT_F32, 0, NULL, ADAM_STEPS, e->name));
    snprintf(name, sizeof name, TW_WEIGHTS_OPTIMIZER "state.%lld.exp_avg", (long long)number);
    TRY(add(v, name, type, e->ndim, e->shape, IN_M, e->name));
    snprintf(name, sizeof name, TW_WEIGHTS_OPTIMIZER "state.%lld.exp_avg_sq", (long long)number);
    return add(v, name, type, e->ndim, e->shape, IN_V, e->name);
}

/* Numbers the parameters with moments: first those without decay, then the others. */
static tw_status add_optimizer(view *v, tw_checkpoint *c, const tw_weight_origin *origin,
                               tw_weights_group groups[2]) {
    int64_t params = v->n, number = 0;
    for (int g = 0; g < 2; g++) {
        groups[g].param_count = 0;
        for (int64_t i = 0; i < params; i++) {
            if (v->places[i].kind != IN_PARAMS) continue;
            const tw_checkpoint_entry *e = tw_checkpoint_find(c, v->places[i].name);
            if (!e->has_m || !e->has_v || tw_original_no_decay(e->name) != (g == 0)) continue;
            TRY(add_moments(v, e, origin, number++));
            groups[g].param_count++;
        }
    }
    return TW_OK;
}

/* The run's settings, as the original's optimizer keeps them. */
static tw_status read_settings(const tw_checkpoint *c, tw_weights_group groups[2], char **name) {
    const tw_checkpoint_meta *meta = tw_checkpoint_get_meta(c);
    tw_config config;
    groups[0] = (tw_weights_group){.lr = NAN, .beta1 = NAN, .beta2 = NAN, .eps = NAN, .weight_decay = 0};
    groups[1] = groups[0];
    groups[1].weight_decay = NAN;
    if (!meta->config_yaml) return TW_OK;
    tw_status status = tw_config_init(&config);
    if (status == TW_OK)
        status = tw_config_parse_yaml(meta->config_yaml, strlen(meta->config_yaml), tw_checkpoint_path(c),
                                      &config);
    if (status == TW_OK) {
        for (int g = 0; g < 2; g++) {
            groups[g].lr = config.lr;
            groups[g].beta1 = config.beta1;
            if (config.beta2 != TW_CONFIG_AUTO) groups[g].beta2 = config.beta2;
            if (config.eps != TW_CONFIG_AUTO) groups[g].eps = config.eps;
        }
        groups[1].weight_decay = config.weight_decay;
        if (*config.name && !*name) *name = strdup(config.name);
    }
    tw_config_free(&config);
    return status;
}

static tw_status add_all(view *v, tw_checkpoint *c, bool optimizer, tw_weight_origin *origin,
                         tw_weights_group groups[2]) {
    TRY(origin->count ? add_imported(v, c, origin) : add_in_order(v, c));
    tw_status status = TW_OK;
    if (origin->group_count)
        memcpy(groups, origin->groups, sizeof origin->groups);
    else
        status = read_settings(c, groups, &origin->name);
    groups[0].param_count = groups[1].param_count = 0;
    if (!optimizer) return TW_OK; /* whatever another version's settings say */
    if (status != TW_OK)
        return tw_fail_context(status, "the settings of the run cannot be read: leave --optimizer out");
    return add_optimizer(v, c, origin, groups);
}

static tw_status make_originals(tw_checkpoint *c, bool optimizer, tw_weight_origin *origin,
                                tw_weights **out) {
    const tw_checkpoint_meta *meta = tw_checkpoint_get_meta(c);
    tw_weights_group groups[2] = {{0}};
    view *v;
    if (meta->origin) TRY(tw_weight_origin_from_json(meta->origin, tw_checkpoint_path(c), origin));
    TRY(new_view(c, &v));
    tw_status status = add_all(v, c, optimizer, origin, groups);
    int64_t n = groups[0].param_count + groups[1].param_count, *numbers = malloc(((size_t)n + 1) * sizeof n);
    if (status == TW_OK && !numbers) status = FAIL(TW_ERR_MEMORY, "out of memory");
    if (status != TW_OK) {
        free(numbers);
        view_close(v);
        return status;
    }
    for (int64_t i = 0; i < n; i++) numbers[i] = i;
    groups[0].params = numbers;
    groups[1].params = numbers + groups[0].param_count;
    tw_weights_note note = {.kind = "tuwen checkpoint",
                            .name = origin->name,
                            .epoch = meta->epoch,
                            .step = meta->step,
                            .groups = n ? groups : NULL,
                            .group_count = n ? 2 : 0};
    status = finish(v, &note, out);
    free(numbers);
    return status;
}

tw_status tw_checkpoint_originals(tw_checkpoint *c, bool optimizer, tw_weights **out,
                                  tw_weight_origin *origin) {
    tw_weight_origin own = {0};
    *out = NULL;
    tw_status status = make_originals(c, optimizer, &own, out);
    if (origin && status == TW_OK)
        *origin = own;
    else
        tw_weight_origin_free(&own);
    return status;
}
