#include "train/model_io.h"

#include "data/files.h"
#include "train/formats/seal.h"
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

/* What this rank keeps of a parameter's moments. What fits no rank is refused on every one. */
static tw_status read_moments(tw_checkpoint *c, tw_adamw *moments, const tw_param *p, float *buffer) {
    const tw_checkpoint_entry *e = tw_checkpoint_find(c, p->name);
    if (e && (!e->has_m || !e->has_v))
        return FAIL(TW_ERR_NOT_FOUND,
                    "%s keeps no moments of %s, so that its run cannot go on: start from it with --init",
                    tw_checkpoint_path(c), p->name);
    if (!e || e->count != p->count) return tw_checkpoint_expect(c, p->name, p->ndim, p->shape);
    int64_t first = 0, count;
    for (int64_t at = 0; (count = tw_adamw_next_kept(moments, p, at, &first)) > 0; at = first + count) {
        TRY(tw_checkpoint_read_range(c, p->name, TW_CHECKPOINT_M, first, buffer, count));
        TRY(tw_adamw_set_moment_range(moments, p, false, first, buffer, count));
        TRY(tw_checkpoint_read_range(c, p->name, TW_CHECKPOINT_V, first, buffer, count));
        TRY(tw_adamw_set_moment_range(moments, p, true, first, buffer, count));
    }
    return TW_OK;
}

tw_status tw_moments_read(tw_dual_encoder *model, tw_checkpoint *c, tw_adamw *moments) {
    int64_t largest = 0, first = 0, count;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        for (int64_t at = 0; (count = tw_adamw_next_kept(moments, p, at, &first)) > 0; at = first + count)
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

/* Whole slabs of what is trained, in host memory. */
typedef struct slabs {
    const float *values, *m, *v; /* values NULL: they are the set's; m and v NULL: no moments */
} slabs;

/* Whether the set itself does not have this parameter's f32 values. */
static bool is_in_shares(const tw_dual_encoder *model, const tw_param *p) {
    return tw_params_in_shares(model->params) && tw_param_is_trained(p);
}

/* Values that the host cannot read where they are, or all of them, go to `copy`. */
static tw_status list_tensors(const tw_dual_encoder *model, tw_checkpoint_tensor *tensors, bool copy_all,
                              float *copy, const slabs *whole) {
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        tw_checkpoint_tensor *t = &tensors[i];
        bool shared = is_in_shares(model, p);
        *t = (tw_checkpoint_tensor){.name = p->name,
                                    .ndim = p->ndim,
                                    .param = shared ? whole->values + p->offset
                                                    : tw_params_host(model->params, p)};
        memcpy(t->shape, p->shape, sizeof t->shape);
        if (!shared && (copy_all || !t->param)) {
            TRY(tw_params_get(model->params, p, copy));
            t->param = copy;
            copy += p->count;
        }
        if (!whole->m || !tw_param_is_trained(p)) continue;
        t->m = whole->m + p->offset;
        t->v = whole->v + p->offset;
    }
    return TW_OK;
}

static int64_t count_copied(const tw_dual_encoder *model, bool copy_all) {
    int64_t total = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        if (is_in_shares(model, p)) continue;
        if (copy_all || !tw_params_host(model->params, p)) total += p->count;
    }
    return total;
}

/* Elements of a slab of masters that is gathered for a snapshot. */
static int64_t gathered_masters(const tw_dual_encoder *model) {
    return tw_params_in_shares(model->params) ? tw_params_trainable(model->params) : 0;
}

int64_t tw_snapshot_values(const tw_dual_encoder *model, bool moments) {
    return count_copied(model, true) + gathered_masters(model) +
           (moments ? 2 * tw_params_trainable(model->params) : 0);
}

tw_status tw_model_snapshot(const tw_dual_encoder *model, const tw_adamw *adamw, bool keep, float *room,
                            tw_snapshot *out) {
    int n = tw_params_count(model->params);
    bool copy_all = room != NULL;
    /* Of moments in shares all ranks take part in the gathering, whether or not one of them has room. */
    slabs whole = {.m = adamw && !copy_all ? tw_adamw_moments(adamw, false) : NULL,
                   .v = adamw && !copy_all ? tw_adamw_moments(adamw, true) : NULL};
    bool gather = adamw && !whole.m;
    int64_t copied = count_copied(model, copy_all), masters = gathered_masters(model);
    int64_t moments = gather ? tw_params_trainable(model->params) : 0;
    float *own_values = NULL, *own_m = NULL, *own_v = NULL;
    tw_status status = TW_OK;
    *out = (tw_snapshot){0};
    if (masters && !adamw)
        return FAIL(TW_ERR_ARGUMENT,
                    "a copy of a model whose masters are in shares: its optimizer is needed");
    if (keep) {
        *out = (tw_snapshot){.tensors = calloc((size_t)n, sizeof *out->tensors), .n = n};
        if (!copy_all)
            room = out->copies = malloc((size_t)(copied + masters + 2 * moments) * sizeof *room + 1);
        if (!out->tensors || !room)
            status = FAIL(TW_ERR_MEMORY, "out of memory: a copy of the model to save");
    }
    if (status == TW_OK && keep) {
        own_values = room + copied, own_m = own_values + masters, own_v = own_m + moments;
        if (masters) whole.values = own_values;
        if (gather) whole.m = own_m, whole.v = own_v;
    }
    if (status == TW_OK && masters) status = tw_adamw_get_masters(adamw, own_values);
    if (status == TW_OK && gather) status = tw_adamw_get_moments(adamw, false, own_m);
    if (status == TW_OK && gather) status = tw_adamw_get_moments(adamw, true, own_v);
    if (status == TW_OK && keep) status = list_tensors(model, out->tensors, copy_all, room, &whole);
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

/* Memory comes in while weights are read: more than a MiB of alignment a model does not need. */
static void expect_values(const tw_dual_encoder *model, tw_device *device) {
    size_t bytes = 1 << 20;
    for (int i = 0; i < tw_params_count(model->params); i++)
        bytes += (size_t)tw_params_at(model->params, i)->count * sizeof(float);
    device->expect(device, bytes);
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
    if (compute_type == TW_F32) expect_values(out->model, device);
    TRY(tw_dual_encoder_allocate(out->model, device, compute_type, false));
    return tw_model_load(out->model, s->original.weights, TW_PART_ALL, &out->report);
}

tw_status tw_model_open(const tw_model_choice *choice, tw_device *device, tw_dtype compute_type,
                        tw_loaded_model *out) {
    *out = (tw_loaded_model){0};
    tw_model_source source;
    /* A sealed file is read whole before it is known what model lies in it. */
    if (compute_type == TW_F32) device->expect(device, tw_seal_memory(choice->path));
    tw_status status = tw_model_source_open(choice->path, &source);
    if (status == TW_OK) {
        status = open_model(&source, choice, device, compute_type, out);
        tw_model_source_close(&source);
    }
    device->expect(device, 0); /* none that was not taken is kept */
    if (status != TW_OK) tw_loaded_model_free(out);
    return status;
}

void tw_loaded_model_free(tw_loaded_model *m) {
    if (!m) return;
    tw_dual_encoder_free(m->model);
    tw_vocab_free(m->vocab);
    *m = (tw_loaded_model){0};
}
