#include "train/formats/checkpoint_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tw_status write_meta(tw_h5 *f, const tw_checkpoint_meta *m) {
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"context_length", m->context_length},
        {"step", m->step},
        {"epoch", m->epoch},
        {"position", m->position},
        {"adam_steps", m->adam_steps},
        {"skipped", m->skipped},
        {"skipped_total", m->skipped_total},
        {"best_step", m->best_step},
        {"threads", m->threads},
        {"ranks", m->ranks},
        {"micro_batch", m->micro_batch},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        TRY(tw_h5_set_i64(f, numbers[i].name, numbers[i].value));
    TRY(tw_h5_set_u64(f, "seed", m->seed));
    TRY(tw_h5_set_f64(f, "best_r1", m->best_r1));
    TRY(tw_h5_set_text(f, "precision", m->precision));
    TRY(tw_h5_set_text(f, "cpu", m->cpu));
    TRY(tw_h5_set_text(f, "build", m->build));
    TRY(tw_h5_set_text(f, "train_data", m->train_data));
    TRY(tw_h5_make_group(f, "meta"));
    const struct {
        const char *name, *text;
    } texts[] = {{"meta/model_yaml", m->model_yaml},
                 {"meta/config_yaml", m->config_yaml},
                 {"meta/extra", m->extra},
                 {"meta/origin", m->origin}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].text) TRY(tw_h5_write_bytes(f, texts[i].name, texts[i].text, strlen(texts[i].text)));
    return tw_h5_write_bytes(f, "meta/vocab", m->vocab, m->vocab_bytes);
}

static tw_status check_name(const char *path, const char *name) {
    if (!name || !name[0] || strchr(name, '/') || strcmp(name, ".") == 0 || strlen(name) > TW_CHECKPOINT_NAME)
        return FAIL(TW_ERR_ARGUMENT, "%s: a tensor cannot be called '%s'", path, name ? name : "(null)");
    return TW_OK;
}

static tw_status check_tensor(const char *path, const tw_checkpoint_tensor *t) {
    TRY(check_name(path, t->name));
    if (!t->param) return FAIL(TW_ERR_ARGUMENT, "%s: tensor %s has no values", path, t->name);
    return TW_OK;
}

static tw_status make_groups(tw_h5 *f) {
    TRY(tw_h5_make_group(f, "params"));
    TRY(tw_h5_make_group(f, "optim"));
    TRY(tw_h5_make_group(f, "optim/m"));
    return tw_h5_make_group(f, "optim/v");
}

static uint64_t count_of(int ndim, const int64_t *shape) {
    uint64_t count = 1;
    for (int k = 0; k < ndim; k++) count *= (uint64_t)shape[k];
    return count;
}

static tw_status write_tensors(tw_h5 *f, const tw_checkpoint_tensor *tensors, int64_t n) {
    uint64_t values = 0;
    TRY(make_groups(f));
    for (int64_t i = 0; i < n; i++) values += count_of(tensors[i].ndim, tensors[i].shape);
    tw_h5_tell_memory(f, values * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const tw_checkpoint_tensor *t = &tensors[i];
        TRY(check_tensor(tw_h5_path(f), t));
        const float *parts[] = {t->param, t->m, t->v};
        for (int part = 0; part < 3; part++) {
            char name[TW_CHECKPOINT_NAME + 16];
            if (!parts[part]) continue;
            snprintf(name, sizeof name, "%s/%s", tw_checkpoint_groups[part], t->name);
            TRY(tw_h5_write_f32(f, name, t->ndim, t->shape, parts[part]));
        }
    }
    return TW_OK;
}

tw_status tw_checkpoint_write(const char *path, const tw_checkpoint_meta *meta,
                              const tw_checkpoint_tensor *tensors, int64_t n) {
    tw_h5 *f;
    TRY(tw_h5_create(path, TW_CHECKPOINT_KIND, TW_CHECKPOINT_VERSION, &f));
    tw_status status = write_meta(f, meta);
    if (status == TW_OK) status = write_tensors(f, tensors, n);
    if (status == TW_OK) return tw_h5_commit(f);
    tw_h5_close(f);
    return status;
}

static tw_status write_part(tw_h5 *f, const tw_checkpoint_output *o, int64_t i, tw_checkpoint_part part,
                            float *buffer) {
    const tw_checkpoint_entry *e = &o->entries[i];
    char name[TW_CHECKPOINT_NAME + 16];
    snprintf(name, sizeof name, "%s/%s", tw_checkpoint_groups[part], e->name);
    TRY(o->fill(o->self, i, part, buffer));
    return tw_h5_write_f32(f, name, e->ndim, e->shape, buffer);
}

static tw_status write_entry(tw_h5 *f, const tw_checkpoint_output *o, int64_t i) {
    const tw_checkpoint_entry *e = &o->entries[i];
    TRY(check_name(tw_h5_path(f), e->name));
    float *buffer = malloc(count_of(e->ndim, e->shape) * sizeof *buffer + 1);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for %s", tw_h5_path(f), e->name);
    tw_status status = write_part(f, o, i, TW_CHECKPOINT_PARAM, buffer);
    if (status == TW_OK && e->has_m) status = write_part(f, o, i, TW_CHECKPOINT_M, buffer);
    if (status == TW_OK && e->has_v) status = write_part(f, o, i, TW_CHECKPOINT_V, buffer);
    free(buffer);
    return status;
}

static tw_status write_raw(tw_h5 *f, const tw_checkpoint_output *o, int64_t i) {
    const tw_checkpoint_raw *r = &o->raw[i];
    TRY(check_name(tw_h5_path(f), r->name));
    unsigned char *buffer = malloc(r->bytes + 1);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "%s: no memory for %s", tw_h5_path(f), r->name);
    char name[TW_CHECKPOINT_NAME + 16];
    snprintf(name, sizeof name, "%s/%s", TW_CHECKPOINT_EXTRA, r->name);
    tw_status status = o->fill_raw(o->self, i, buffer);
    if (status == TW_OK) status = tw_h5_write_bytes(f, name, buffer, r->bytes);
    free(buffer);
    return status;
}

static tw_status write_output(tw_h5 *f, const tw_checkpoint_output *o) {
    uint64_t values = 0;
    TRY(make_groups(f));
    for (int64_t i = 0; i < o->n; i++) values += count_of(o->entries[i].ndim, o->entries[i].shape);
    tw_h5_tell_memory(f, values * sizeof(float));
    for (int64_t i = 0; i < o->n; i++) TRY(write_entry(f, o, i));
    if (o->raw_count) TRY(tw_h5_make_group(f, TW_CHECKPOINT_EXTRA));
    for (int64_t i = 0; i < o->raw_count; i++) TRY(write_raw(f, o, i));
    return TW_OK;
}

tw_status tw_checkpoint_write_output(const char *path, const tw_checkpoint_meta *meta,
                                     const tw_checkpoint_output *output) {
    tw_h5 *f;
    TRY(tw_h5_create(path, TW_CHECKPOINT_KIND, TW_CHECKPOINT_VERSION, &f));
    tw_status status = write_meta(f, meta);
    if (status == TW_OK) status = write_output(f, output);
    if (status == TW_OK) return tw_h5_commit(f);
    tw_h5_close(f);
    return status;
}
