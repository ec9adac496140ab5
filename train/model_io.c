#include "train/model_io.h"

#include "data/files.h"
#include "train/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

tw_status tw_checkpoint_model_config(const tw_checkpoint *c, tw_model_config *out) {
    const tw_checkpoint_meta *meta = tw_checkpoint_get_meta(c);
    if (!meta->model_yaml)
        return FAIL(TW_ERR_FORMAT, "%s: no model description inside", tw_checkpoint_path(c));
    return tw_model_config_parse(meta->model_yaml, strlen(meta->model_yaml), tw_checkpoint_path(c), out);
}

static tw_status read_moments(tw_checkpoint *c, tw_adamw *moments, const tw_param *p, float *buffer) {
    const tw_checkpoint_entry *e = tw_checkpoint_find(c, p->name);
    if (e && !e->has_m)
        return FAIL(TW_ERR_NOT_FOUND,
                    "%s keeps no moments of %s, so that its run cannot go on: start from it with --init",
                    tw_checkpoint_path(c), p->name);
    TRY(tw_checkpoint_read(c, p->name, TW_CHECKPOINT_M, buffer, p->count));
    TRY(tw_adamw_set_moment(moments, p, false, buffer));
    TRY(tw_checkpoint_read(c, p->name, TW_CHECKPOINT_V, buffer, p->count));
    return tw_adamw_set_moment(moments, p, true, buffer);
}

tw_status tw_moments_read(tw_dual_encoder *model, tw_checkpoint *c, tw_adamw *moments) {
    int64_t largest = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        int64_t count = tw_params_at(model->params, i)->count;
        if (count > largest) largest = count;
    }
    float *buffer = malloc((size_t)largest * sizeof *buffer + 1);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = TW_OK;
    for (int i = 0; status == TW_OK && i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        if (tw_param_is_trained(p)) status = read_moments(c, moments, p, buffer);
    }
    free(buffer);
    return status;
}

/* Values that the host cannot read where they are, or all of them, go to `copy`. */
static tw_status list_tensors(const tw_dual_encoder *model, tw_checkpoint_tensor *tensors, bool copy_all,
                              float *copy, const float *m, const float *v) {
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        tw_checkpoint_tensor *t = &tensors[i];
        *t = (tw_checkpoint_tensor){
            .name = p->name, .ndim = p->ndim, .param = tw_params_host(model->params, p)};
        memcpy(t->shape, p->shape, sizeof t->shape);
        if (copy_all || !t->param) {
            TRY(tw_params_get(model->params, p, copy));
            t->param = copy;
            copy += p->count;
        }
        if (!m || !tw_param_is_trained(p)) continue;
        t->m = m + p->offset;
        t->v = v + p->offset;
    }
    return TW_OK;
}

static int64_t count_copied(const tw_dual_encoder *model, bool copy_all) {
    int64_t total = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        if (copy_all || !tw_params_host(model->params, p)) total += p->count;
    }
    return total;
}

int64_t tw_snapshot_values(const tw_dual_encoder *model, bool moments) {
    return count_copied(model, true) + (moments ? 2 * tw_params_trainable(model->params) : 0);
}

tw_status tw_model_snapshot(const tw_dual_encoder *model, const tw_adamw *adamw, bool keep, float *room,
                            tw_snapshot *out) {
    int n = tw_params_count(model->params);
    bool copy_all = room != NULL;
    /* Of moments in shares all ranks take part in the gathering, whether or not one of them has room. */
    const float *m = adamw && !copy_all ? tw_adamw_moments(adamw, false) : NULL;
    const float *v = adamw && !copy_all ? tw_adamw_moments(adamw, true) : NULL;
    bool gather = adamw && !m;
    int64_t copied = count_copied(model, copy_all);
    int64_t moments = gather ? tw_params_trainable(model->params) : 0;
    float *own_m = NULL, *own_v = NULL;
    tw_status status = TW_OK;
    *out = (tw_snapshot){0};
    if (keep) {
        *out = (tw_snapshot){.tensors = calloc((size_t)n, sizeof *out->tensors), .n = n};
        if (!copy_all) room = out->copies = malloc((size_t)(copied + 2 * moments) * sizeof *room + 1);
        if (!out->tensors || !room)
            status = FAIL(TW_ERR_MEMORY, "out of memory: a copy of the model to save");
        if (status == TW_OK && gather) m = own_m = room + copied, v = own_v = own_m + moments;
    }
    if (status == TW_OK && gather) status = tw_adamw_get_moments(adamw, false, own_m);
    if (status == TW_OK && gather) status = tw_adamw_get_moments(adamw, true, own_v);
    if (status == TW_OK && keep) status = list_tensors(model, out->tensors, copy_all, room, m, v);
    if (status != TW_OK) tw_snapshot_free(out);
    return status;
}

void tw_snapshot_free(tw_snapshot *s) {
    free(s->tensors);
    free(s->copies);
    *s = (tw_snapshot){0};
}

/* vocab.txt in the folder `beside`, or in the folder of the file `beside`. */
static bool vocab_beside(const char *beside, char *path, size_t size) {
    if (!beside) return false;
    if (tw_is_folder(beside)) {
        snprintf(path, size, "%s/vocab.txt", beside);
    } else {
        const char *slash = strrchr(beside, '/');
        snprintf(path, size, "%.*svocab.txt", slash ? (int)(slash - beside + 1) : 0, beside);
    }
    return access(path, R_OK) == 0;
}

/* Says where a vocabulary was looked for. */
static tw_status no_vocabulary(const tw_checkpoint *c, const char *const *beside) {
    char places[700] = "", path[4096];
    size_t used = 0;
    if (c) used = (size_t)snprintf(places, sizeof places, " inside %s;", tw_checkpoint_path(c));
    for (; beside && *beside; beside++) {
        (void)vocab_beside(*beside, path, sizeof path);
        if (used < sizeof places)
            used += (size_t)snprintf(places + used, sizeof places - used, " as %s;", path);
    }
    return FAIL(TW_ERR_NOT_FOUND, "no vocabulary: it was looked for%s give it with --vocab FILE",
                *places ? places : " nowhere, as no file was given;");
}

tw_status tw_find_vocab(const char *path, const tw_checkpoint *c, const char *const *beside, tw_vocab **out) {
    *out = NULL;
    if (path && *path) return tw_vocab_load(path, out);
    const tw_checkpoint_meta *meta = c ? tw_checkpoint_get_meta(c) : NULL;
    if (meta && meta->vocab_bytes)
        return tw_vocab_parse(meta->vocab, meta->vocab_bytes, tw_checkpoint_path(c), out);
    char found[4096] = "";
    for (const char *const *at = beside; at && *at; at++)
        if (vocab_beside(*at, found, sizeof found)) return tw_vocab_load(found, out);
    return no_vocabulary(c, beside);
}

static tw_status open_model(tw_model_source *s, const tw_model_choice *choice, tw_device *device,
                            tw_dtype compute_type, tw_loaded_model *out) {
    tw_model_config config;
    const char *const beside[] = {s->path, NULL};
    TRY(tw_model_source_config(s, choice->model, &config));
    TRY(tw_find_vocab(choice->vocab, s->checkpoint, beside, &out->vocab));
    if (tw_vocab_size(out->vocab) != config.text.vocabulary)
        return FAIL(TW_ERR_SHAPE, "the vocabulary %s has %d entries, the word embeddings of %s have %d",
                    tw_vocab_origin(out->vocab), tw_vocab_size(out->vocab), s->path, config.text.vocabulary);
    if (choice->resolution) config.image.resolution = choice->resolution;
    if (choice->context) config.context = choice->context;
    TRY(tw_dual_encoder_create(&config, &out->model));
    TRY(tw_dual_encoder_allocate(out->model, device, compute_type, false));
    return tw_model_load(out->model, s->original.weights, TW_PART_ALL, &out->report);
}

tw_status tw_model_open(const tw_model_choice *choice, tw_device *device, tw_dtype compute_type,
                        tw_loaded_model *out) {
    *out = (tw_loaded_model){0};
    tw_model_source source;
    TRY(tw_model_source_open(choice->path, &source));
    tw_status status = open_model(&source, choice, device, compute_type, out);
    tw_model_source_close(&source);
    if (status != TW_OK) tw_loaded_model_free(out);
    return status;
}

void tw_loaded_model_free(tw_loaded_model *m) {
    if (!m) return;
    tw_dual_encoder_free(m->model);
    tw_vocab_free(m->vocab);
    *m = (tw_loaded_model){0};
}
