/* Imported models as tuwen checkpoints. */
#include "train/convert_private.h"
#include "train/model_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The run's default: an imported training goes on with it. */
enum { FAMILY_SEED = 123 };

/* Where the moments and the step of a parameter are in the input, -1: nowhere. */
typedef struct state {
    int64_t m, v;
} state;

typedef struct h5_output {
    tw_convert_plan *plan;
    tw_checkpoint_entry *entries;
    int64_t *item; /* (entries) which item of the plan each is */
    state *states; /* (entries) */
    int64_t n;
    tw_checkpoint_raw *raw;
    int64_t *raw_item;
    int64_t raw_count;
} h5_output;

static tw_status fill(void *self, int64_t i, tw_checkpoint_part part, float *dst) {
    h5_output *o = self;
    tw_weights *w = o->plan->in->weights;
    int64_t item = o->item[i], count = o->plan->items[item].count;
    int64_t source = part == TW_CHECKPOINT_PARAM ? o->plan->from[item].source
                     : part == TW_CHECKPOINT_M   ? o->states[i].m
                                                 : o->states[i].v;
    TRY(tw_weights_read_f32(w, source, dst, count));
    tw_convert_progress(o->plan, count * (int64_t)tw_weight_type_size(tw_weights_at(w, source)->type));
    return TW_OK;
}

static tw_status fill_raw(void *self, int64_t i, void *dst) {
    h5_output *o = self;
    return tw_convert_fill(o->plan, o->raw_item[i], dst);
}

/* ---- optimizer ---- */

static int64_t find_state(const tw_weights *w, int64_t number, const char *what) {
    char name[96];
    snprintf(name, sizeof name, TW_WEIGHTS_OPTIMIZER "state.%lld.%s", (long long)number, what);
    return tw_weights_find(w, name);
}

/* All parameters must have been updated equally often: a checkpoint has one counter. */
static tw_status read_step(tw_weights *w, int64_t number, int64_t *steps, tw_weight_type *type) {
    int64_t at = find_state(w, number, "step");
    float value;
    if (at < 0 || tw_weights_at(w, at)->count != 1) return TW_OK;
    *type = tw_weights_at(w, at)->type;
    TRY(tw_weights_read_f32(w, at, &value, 1));
    if (!(value >= 0) || value > 1e9f || (*steps >= 0 && *steps != (int64_t)value))
        return FAIL(TW_ERR_FORMAT,
                    "%s: the optimizer counts %g steps for parameter %lld and %lld for others: leave "
                    "--optimizer out",
                    tw_weights_path(w), (double)value, (long long)number, (long long)*steps);
    *steps = (int64_t)value;
    return TW_OK;
}

static tw_status find_moments(h5_output *o, int64_t i, tw_weight_origin *origin, int64_t *steps) {
    tw_convert_input *in = o->plan->in;
    const tw_weight *t = &o->plan->items[o->item[i]];
    int64_t number = in->numbers ? in->numbers[o->plan->from[o->item[i]].source] : -1;
    o->states[i] = (state){-1, -1};
    if (number < 0) return TW_OK;
    state s = {find_state(in->weights, number, "exp_avg"), find_state(in->weights, number, "exp_avg_sq")};
    if (s.m < 0 && s.v < 0) return TW_OK;
    if (s.m < 0 || s.v < 0 || tw_weights_at(in->weights, s.m)->count != t->count ||
        tw_weights_at(in->weights, s.v)->count != t->count)
        return FAIL(TW_ERR_FORMAT, "%s: optimizer state %lld does not belong to %s: leave --optimizer out",
                    tw_weights_path(in->weights), (long long)number, t->name);
    o->states[i] = s;
    o->entries[i].has_m = o->entries[i].has_v = true;
    origin->tensors[o->item[i]].moment_type = tw_weights_at(in->weights, s.m)->type;
    return read_step(in->weights, number, steps, &origin->step_type);
}

/* ---- tensors ---- */

static tw_status add_entry(h5_output *o, int64_t item) {
    const tw_weight *t = &o->plan->items[item];
    const tw_param *p = tw_params_find(o->plan->in->model->params, t->name);
    if (!p) return FAIL(TW_ERR_SHAPE, "%s is no parameter of the model", t->name);
    if (t->type == TW_WEIGHT_F64) tw_log_warning(o->plan->options->log, "%s is f64: rounded to f32", t->name);
    tw_checkpoint_entry *e = &o->entries[o->n];
    *e = (tw_checkpoint_entry){.name = t->name, .ndim = p->ndim, .count = p->count};
    memcpy(e->shape, p->shape, sizeof e->shape);
    o->item[o->n++] = item;
    return TW_OK;
}

/* What goes into meta/origin besides: the tensors as they came. A file that was none but tuwen's stays so. */
static tw_status describe_tensors(const h5_output *o, tw_weight_origin *origin) {
    const tw_convert_plan *plan = o->plan;
    bool f32 = plan->options->precision == TW_AS_F32;
    origin->tensors = calloc((size_t)plan->n + 1, sizeof *origin->tensors);
    if (!origin->tensors) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; i < plan->n; i++) {
        const tw_weight *t = &plan->items[i];
        if (plan->from[i].optimizer) break;
        tw_origin_tensor *to = &origin->tensors[origin->count++];
        *to = (tw_origin_tensor){.name = strdup(t->name), .type = t->type, .extra = plan->from[i].extra};
        if (!to->name) return FAIL(TW_ERR_MEMORY, "out of memory");
        if (!to->extra && (f32 || t->type == TW_WEIGHT_F64)) to->type = TW_WEIGHT_F32;
        to->ndim = t->ndim;
        memcpy(to->shape, t->shape, sizeof to->shape);
    }
    return TW_OK;
}

static tw_status list_tensors(h5_output *o) {
    const tw_convert_plan *plan = o->plan;
    for (int64_t i = 0; i < plan->n && !plan->from[i].optimizer; i++) {
        const tw_weight *t = &plan->items[i];
        if (!plan->from[i].extra) {
            TRY(add_entry(o, i));
            continue;
        }
        o->raw[o->raw_count] = (tw_checkpoint_raw){t->name, (size_t)t->count * tw_weight_type_size(t->type)};
        o->raw_item[o->raw_count++] = i;
    }
    return TW_OK;
}

/* ---- the file ---- */

static void copy_groups(const tw_weights_note *note, tw_weight_origin *origin) {
    origin->group_count = note->group_count == 2 ? 2 : 0;
    for (int64_t g = 0; g < origin->group_count; g++) {
        origin->groups[g] = note->groups[g];
        origin->groups[g].params = NULL;
        origin->groups[g].param_count = 0;
    }
}

static tw_status describe(h5_output *o, tw_weight_origin *origin, tw_checkpoint_meta *meta) {
    const tw_convert_input *in = o->plan->in;
    const tw_weights_note *note = tw_weights_get_note(in->weights);
    int64_t steps = -1;
    origin->module = in->origin.module;
    origin->hugging_face = in->origin.hugging_face;
    const char *kind = in->origin.kind ? in->origin.kind : note->kind;
    origin->kind = strdup(kind ? kind : "unknown");
    origin->name = in->origin.name ? strdup(in->origin.name) : NULL;
    TRY(describe_tensors(o, origin));
    if (o->plan->options->optimizer) copy_groups(note, origin);
    for (int64_t i = 0; i < o->n; i++) TRY(find_moments(o, i, origin, &steps));
    if (in->vocab) {
        size_t bytes;
        const char *text = tw_vocab_text(in->vocab, &bytes);
        meta->vocab = malloc(bytes + 1);
        if (!meta->vocab) return FAIL(TW_ERR_MEMORY, "out of memory");
        memcpy(meta->vocab, text, meta->vocab_bytes = bytes);
    }
    const tw_checkpoint_meta *had =
        in->source.checkpoint ? tw_checkpoint_get_meta(in->source.checkpoint) : NULL;
    if (had && had->config_yaml) meta->config_yaml = strdup(had->config_yaml);
    meta->precision = strdup("f32");
    meta->context_length = in->config.context;
    meta->step = note->step > 0 ? note->step : 0;
    meta->epoch = note->epoch > 0 ? note->epoch : 0;
    meta->adam_steps = steps > 0 ? steps : 0;
    meta->seed = had ? had->seed : FAMILY_SEED;
    meta->ranks = 1;
    TRY(tw_model_config_to_yaml(&in->config, &meta->model_yaml));
    /* A model that tuwen trained has nothing to be given back. */
    return had && !had->origin ? TW_OK : tw_weight_origin_to_json(origin, &meta->origin);
}

tw_status tw_convert_write_h5(tw_convert_plan *plan) {
    size_t n = (size_t)plan->n + 1;
    h5_output o = {.plan = plan,
                   .entries = calloc(n, sizeof *o.entries),
                   .item = calloc(n, sizeof *o.item),
                   .states = calloc(n, sizeof *o.states),
                   .raw = calloc(n, sizeof *o.raw),
                   .raw_item = calloc(n, sizeof *o.raw_item)};
    tw_weight_origin origin = {0};
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    tw_status status = TW_OK;
    if (!o.entries || !o.item || !o.states || !o.raw || !o.raw_item)
        status = FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) status = list_tensors(&o);
    if (status == TW_OK) status = describe(&o, &origin, &meta);
    tw_checkpoint_output output = {o.entries, o.n, o.raw, o.raw_count, fill, fill_raw, &o};
    if (status == TW_OK) status = tw_checkpoint_write_output(plan->options->out, &meta, &output);
    tw_checkpoint_meta_free(&meta);
    tw_weight_origin_free(&origin);
    free(o.entries);
    free(o.item);
    free(o.states);
    free(o.raw);
    free(o.raw_item);
    return status;
}
