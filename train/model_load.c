#include "train/model_load.h"

#include "train/original_names.h"
#include "train/position_grid.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what fits and what does not ---- */

enum { NAMED = 5, LIST_BYTES = 400 };

/* The first names of a kind of trouble, and how many there are. */
typedef struct trouble {
    int64_t count;
    char names[LIST_BYTES];
} trouble;

static void __attribute__((format(printf, 2, 3))) note(trouble *t, const char *format, ...) {
    size_t used = strlen(t->names);
    va_list args;
    va_start(args, format);
    if (t->count < NAMED && used + 2 < LIST_BYTES) {
        if (used) used += (size_t)snprintf(t->names + used, LIST_BYTES - used, ", ");
        vsnprintf(t->names + used, LIST_BYTES - used, format, args);
    } else if (t->count == NAMED && used + 5 < LIST_BYTES) {
        snprintf(t->names + used, LIST_BYTES - used, ", ...");
    }
    va_end(args);
    t->count++;
}

static void shape_text(int ndim, const int64_t *shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ",%lld" : "%lld", (long long)shape[i]);
    if (used < size) snprintf(text + used, size - used, ")");
}

static bool in_part(const char *name, tw_model_part part) {
    if (part == TW_PART_IMAGE) return strncmp(name, "visual.", 7) == 0;
    if (part == TW_PART_TEXT) return strncmp(name, "bert.", 5) == 0;
    return true;
}

/* A tower may be published without its projection (CLIPVisionModel), which then starts random. */
static bool may_lack(const char *name, tw_model_part part) {
    return part == TW_PART_IMAGE && strcmp(name, "visual.proj") == 0;
}

static bool same_shape(const tw_param *p, const tw_weight *t) {
    if (p->ndim == t->ndim) {
        for (int i = 0; i < p->ndim; i++)
            if (p->shape[i] != t->shape[i]) return false;
        return true;
    }
    /* a scalar saved as one value */
    return p->ndim == 0 && t->ndim == 1 && t->shape[0] == 1;
}

static bool is_grid(const char *name) {
    return strcmp(name, "visual.positional_embedding") == 0 ||
           strcmp(name, "visual.attnpool.positional_embedding") == 0;
}

/* Whether a positional grid of another resolution can become this parameter. */
static bool can_resize(const tw_param *p, const tw_weight *t) {
    return is_grid(p->name) && p->ndim == 2 && t->ndim == 2 && p->shape[1] == t->shape[1] &&
           tw_position_grid_side(p->shape[0]) > 0 && tw_position_grid_side(t->shape[0]) > 0;
}

tw_status tw_model_fits(const tw_dual_encoder *model, const tw_weights *w, tw_model_part part,
                        int64_t *ignored) {
    trouble missing = {0}, shapes = {0}, unknown = {0};
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        if (!in_part(p->name, part)) continue;
        int64_t at = tw_weights_find(w, p->name);
        const tw_weight *t = at < 0 ? NULL : tw_weights_at(w, at);
        char is[96], wanted[96];
        if (!t) {
            if (!may_lack(p->name, part)) note(&missing, "%s", p->name);
        } else if (!same_shape(p, t) && !can_resize(p, t)) {
            shape_text(t->ndim, t->shape, is, sizeof is);
            shape_text(p->ndim, p->shape, wanted, sizeof wanted);
            note(&shapes, "%s is %s, not %s", p->name, is, wanted);
        }
    }
    *ignored = 0;
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const char *name = tw_weights_at(w, i)->name;
        if (strncmp(name, TW_WEIGHTS_OPTIMIZER, strlen(TW_WEIGHTS_OPTIMIZER)) == 0) continue;
        if (tw_name_is_ignored(name) || !in_part(name, part))
            ++*ignored;
        else if (!tw_params_find(model->params, name))
            note(&unknown, "%s", name);
    }
    if (!missing.count && !shapes.count && !unknown.count) return TW_OK;
    char text[3 * (LIST_BYTES + 64)] = "";
    size_t used = 0;
    const struct {
        const trouble *t;
        const char *what;
    } all[] = {{&missing, "missing"}, {&shapes, "of another shape"}, {&unknown, "unknown"}};
    for (int i = 0; i < 3; i++)
        if (all[i].t->count)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld %s (%s)", used ? "; " : "",
                                     (long long)all[i].t->count, all[i].what, all[i].t->names);
    return FAIL(TW_ERR_SHAPE, "%s does not fit model %s: tensors %s", tw_weights_path(w), model->config.name,
                text);
}

/* ---- reading ---- */

static tw_status read_resized(tw_dual_encoder *model, tw_weights *w, int64_t i, tw_param *p,
                              tw_load_report *report) {
    const tw_weight *t = tw_weights_at(w, i);
    int64_t from = tw_position_grid_side(t->shape[0]), to = tw_position_grid_side(p->shape[0]);
    float *old = malloc((size_t)t->count * sizeof *old + 1),
          *resized = malloc((size_t)p->count * sizeof *old);
    tw_status status = old && resized ? tw_weights_read_f32(w, i, old, t->count)
                                      : FAIL(TW_ERR_MEMORY, "no memory to resize %s", p->name);
    if (status == TW_OK) status = tw_resize_position_grid(old, from, resized, to, p->shape[1]);
    if (status == TW_OK) status = tw_params_set(model->params, p, resized);
    free(old);
    free(resized);
    report->resized_from = from;
    report->resized_to = to;
    snprintf(report->text, sizeof report->text,
             "positional grid resized from %lld x %lld to %lld x %lld (bicubic, aligned corners) for %d px",
             (long long)from, (long long)from, (long long)to, (long long)to, model->config.image.resolution);
    return status;
}

static tw_status read_param(tw_dual_encoder *model, tw_weights *w, int64_t i, tw_param *p) {
    float *place = tw_params_host(model->params, p);
    if (place) {
        TRY(tw_weights_read_f32(w, i, place, p->count));
        return tw_params_written(model->params, p);
    }
    float *values = malloc((size_t)p->count * sizeof *values + 1);
    if (!values) return FAIL(TW_ERR_MEMORY, "no memory for %s", p->name);
    tw_status status = tw_weights_read_f32(w, i, values, p->count);
    if (status == TW_OK) status = tw_params_set(model->params, p, values);
    free(values);
    return status;
}

/* In the file's order, which is the disk's. */
tw_status tw_model_load(tw_dual_encoder *model, tw_weights *w, tw_model_part part, tw_load_report *report) {
    tw_load_report own;
    if (!report) report = &own;
    *report = (tw_load_report){0};
    TRY(tw_model_fits(model, w, part, &report->ignored));
    report->no_projection =
        tw_params_find(model->params, "visual.proj") && tw_weights_find(w, "visual.proj") < 0;
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const tw_weight *t = tw_weights_at(w, i);
        tw_param *p = in_part(t->name, part) ? tw_params_find(model->params, t->name) : NULL;
        if (!p) continue;
        TRY(same_shape(p, t) ? read_param(model, w, i, p) : read_resized(model, w, i, p, report));
        report->tensors++;
    }
    return TW_OK;
}
