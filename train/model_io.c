#include "train/model_io.h"

#include "train/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

tw_status tw_checkpoint_model_config(const tw_checkpoint *c, tw_model_config *out) {
    const tw_checkpoint_meta *meta = tw_checkpoint_get_meta(c);
    if (!meta->model_yaml)
        return FAIL(TW_ERR_FORMAT, "%s: no model description inside", tw_checkpoint_path(c));
    return tw_model_config_parse(meta->model_yaml, strlen(meta->model_yaml), tw_checkpoint_path(c), out);
}

/* Another architecture is recognised before anything is read: all that does not fit is counted, the first is
 * named. */
static tw_status check_names(const tw_dual_encoder *model, const tw_checkpoint *c) {
    const char *missing = NULL, *extra = NULL;
    int n_missing = 0, n_extra = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        if (tw_checkpoint_find(c, p->name)) {
            TRY(tw_checkpoint_expect(c, p->name, p->ndim, p->shape));
        } else if (n_missing++ == 0) {
            missing = p->name;
        }
    }
    for (int64_t i = 0; i < tw_checkpoint_count(c); i++) {
        const char *name = tw_checkpoint_at(c, i)->name;
        if (!tw_params_find(model->params, name) && n_extra++ == 0) extra = name;
    }
    if (n_missing || n_extra)
        return FAIL(TW_ERR_SHAPE, "%s does not fit model %s: %d tensors missing%s%s%s, %d unknown%s%s%s",
                    tw_checkpoint_path(c), model->config.name, n_missing, missing ? " (first " : "",
                    missing ? missing : "", missing ? ")" : "", n_extra, extra ? " (first " : "",
                    extra ? extra : "", extra ? ")" : "");
    return TW_OK;
}

static tw_status read_param(tw_dual_encoder *model, tw_checkpoint *c, tw_adamw *moments, tw_param *p,
                            float *buffer) {
    TRY(tw_checkpoint_read(c, p->name, TW_CHECKPOINT_PARAM, buffer, p->count));
    TRY(tw_params_set(model->params, p, buffer));
    if (!moments || !tw_param_is_trained(p)) return TW_OK;
    TRY(tw_checkpoint_read(c, p->name, TW_CHECKPOINT_M, buffer, p->count));
    TRY(tw_adamw_set_moment(moments, p, false, buffer));
    TRY(tw_checkpoint_read(c, p->name, TW_CHECKPOINT_V, buffer, p->count));
    return tw_adamw_set_moment(moments, p, true, buffer);
}

tw_status tw_model_read(tw_dual_encoder *model, tw_checkpoint *c, tw_adamw *moments) {
    TRY(check_names(model, c));
    int64_t largest = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        int64_t count = tw_params_at(model->params, i)->count;
        if (count > largest) largest = count;
    }
    float *buffer = malloc((size_t)largest * sizeof *buffer + 1);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = TW_OK;
    for (int i = 0; status == TW_OK && i < tw_params_count(model->params); i++)
        status = read_param(model, c, moments, tw_params_at(model->params, i), buffer);
    free(buffer);
    return status;
}

static tw_status copy_values(const tw_dual_encoder *model, const tw_adamw *adamw,
                             tw_checkpoint_tensor *tensors, float *at) {
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        tw_checkpoint_tensor *t = &tensors[i];
        *t = (tw_checkpoint_tensor){.name = p->name, .ndim = p->ndim, .param = at};
        memcpy(t->shape, p->shape, sizeof t->shape);
        TRY(tw_params_get(model->params, p, at));
        at += p->count;
        if (!adamw || !tw_param_is_trained(p)) continue;
        t->m = at;
        TRY(tw_adamw_get_moment(adamw, p, false, at));
        at += p->count;
        t->v = at;
        TRY(tw_adamw_get_moment(adamw, p, true, at));
        at += p->count;
    }
    return TW_OK;
}

tw_status tw_model_snapshot(const tw_dual_encoder *model, const tw_adamw *adamw, tw_snapshot *out) {
    int n = tw_params_count(model->params);
    int64_t total = 0;
    for (int i = 0; i < n; i++) total += tw_params_at(model->params, i)->count * (adamw ? 3 : 1);
    *out = (tw_snapshot){.tensors = calloc((size_t)n, sizeof *out->tensors),
                         .n = n,
                         .values = malloc((size_t)total * sizeof *out->values)};
    tw_status status = out->tensors && out->values
                           ? copy_values(model, adamw, out->tensors, out->values)
                           : FAIL(TW_ERR_MEMORY, "out of memory: a copy of the model to save");
    if (status != TW_OK) tw_snapshot_free(out);
    return status;
}

void tw_snapshot_free(tw_snapshot *s) {
    free(s->tensors);
    free(s->values);
    *s = (tw_snapshot){0};
}

/* vocab.txt in the folder `beside`, or in the folder of the file `beside`. */
static bool vocab_beside(const char *beside, char *path, size_t size) {
    struct stat st;
    if (!beside) return false;
    if (stat(beside, &st) == 0 && S_ISDIR(st.st_mode)) {
        snprintf(path, size, "%s/vocab.txt", beside);
    } else {
        const char *slash = strrchr(beside, '/');
        snprintf(path, size, "%.*svocab.txt", slash ? (int)(slash - beside + 1) : 0, beside);
    }
    return access(path, R_OK) == 0;
}

tw_status tw_find_vocab(const char *path, const tw_checkpoint *c, const char *beside, tw_vocab **out) {
    *out = NULL;
    if (path && *path) return tw_vocab_load(path, out);
    const tw_checkpoint_meta *meta = c ? tw_checkpoint_get_meta(c) : NULL;
    if (meta && meta->vocab_bytes)
        return tw_vocab_parse(meta->vocab, meta->vocab_bytes, tw_checkpoint_path(c), out);
    char found[4096] = "";
    if (vocab_beside(beside, found, sizeof found)) return tw_vocab_load(found, out);
    return FAIL(TW_ERR_NOT_FOUND, "no vocabulary: --vocab is not given, %s%s%s%s; give --vocab FILE",
                c ? "the checkpoint has none" : "there is no checkpoint", beside ? " and there is no " : "",
                found, "");
}

static tw_status open_model(tw_checkpoint *c, const char *vocab_path, tw_device *device,
                            tw_dtype compute_type, tw_loaded_model *out) {
    tw_model_config config;
    TRY(tw_checkpoint_model_config(c, &config));
    TRY(tw_find_vocab(vocab_path, c, tw_checkpoint_path(c), &out->vocab));
    if (tw_vocab_size(out->vocab) != config.text.vocabulary)
        return FAIL(TW_ERR_SHAPE, "the vocabulary has %d entries, the model's word embeddings have %d",
                    tw_vocab_size(out->vocab), config.text.vocabulary);
    TRY(tw_dual_encoder_create(&config, &out->model));
    TRY(tw_dual_encoder_allocate(out->model, device, compute_type, false));
    return tw_model_read(out->model, c, NULL);
}

tw_status tw_model_open(const char *checkpoint, const char *vocab_path, tw_device *device,
                        tw_dtype compute_type, tw_loaded_model *out) {
    *out = (tw_loaded_model){0};
    tw_checkpoint *c;
    TRY(tw_checkpoint_open(checkpoint, &c));
    tw_status status = open_model(c, vocab_path, device, compute_type, out);
    tw_checkpoint_close(c);
    if (status != TW_OK) tw_loaded_model_free(out);
    return status;
}

void tw_loaded_model_free(tw_loaded_model *m) {
    if (!m) return;
    tw_dual_encoder_free(m->model);
    tw_vocab_free(m->vocab);
    *m = (tw_loaded_model){0};
}
