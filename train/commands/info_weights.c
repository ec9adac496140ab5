#include "train/commands/info_weights.h"

#include "train/memory_need.h"
#include "train/model_file.h"
#include "train/model_source.h"
#include "train/original_order.h"
#include "train/recognise.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void put_int(json_t *o, const char *key, int64_t value) {
    json_object_set_new(o, key, json_integer(value));
}

/* Megabytes with one digit, as people compare them. */
static void put_mb(json_t *o, const char *key, size_t bytes) {
    json_object_set_new(o, key, json_real(round((double)bytes / 1e5) / 10));
}

tw_status tw_info_memory(const tw_model_config *config, const tw_info_options *options, json_t *o) {
    tw_memory_need need;
    tw_model_config masked = *config;
    masked.image.mask_ratio = options->mask_ratio;
    TRY(tw_memory_needed(&masked, options->precision ? TW_BF16 : TW_F32, options->batch, &need));
    size_t features = need.image > need.text ? need.image : need.text;
    json_t *m = json_object();
    put_int(m, "batch", options->batch);
    json_object_set_new(m, "precision", json_string(options->precision ? "bf16" : "f32"));
    if (options->mask_ratio > 0) json_object_set_new(m, "mask_ratio", json_real(options->mask_ratio));
    put_mb(m, "inference_mb", need.weights + features);
    put_mb(m, "training_mb", need.training_weights + need.moments + need.training);
    put_mb(m, "training_recomputed_mb", need.training_weights + need.moments + need.training_recomputed);
    put_mb(m, "weights_mb", need.weights);
    put_mb(m, "weights_and_gradients_mb", need.training_weights);
    put_mb(m, "moments_mb", need.moments);
    put_mb(m, "checkpoint_copy_mb", need.checkpoint);
    put_mb(m, "image_activations_mb", need.image);
    put_mb(m, "text_activations_mb", need.text);
    put_mb(m, "training_activations_mb", need.training);
    json_object_set_new(o, "memory", m);
    return TW_OK;
}

/* ---- tensors ---- */

static void count_tensors(const tw_weights *w, json_t *o) {
    int64_t image = 0, text = 0, other = 0, ignored = 0, tensors = 0, optimizer = 0;
    json_t *types = json_object();
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const tw_weight *t = tw_weights_at(w, i);
        if (strncmp(t->name, TW_WEIGHTS_OPTIMIZER, strlen(TW_WEIGHTS_OPTIMIZER)) == 0) {
            optimizer++;
            continue;
        }
        tensors++;
        const char *type = tw_weight_type_name(t->type);
        put_int(types, type, json_integer_value(json_object_get(types, type)) + 1);
        if (tw_name_is_ignored(t->name))
            ignored++;
        else if (tw_original_is_buffer(t->name))
            continue;
        else if (strncmp(t->name, "visual.", 7) == 0)
            image += t->count;
        else if (strncmp(t->name, "bert.", 5) == 0)
            text += t->count;
        else
            other += t->count;
    }
    json_object_set_new(o, "parameters",
                        json_pack("{s:I, s:I, s:I, s:I}", "total", (json_int_t)(image + text + other),
                                  "image_tower", (json_int_t)image, "text_tower", (json_int_t)text, "other",
                                  (json_int_t)other));
    put_int(o, "tensors", tensors);
    json_object_set_new(o, "values", types);
    if (ignored) put_int(o, "tensors_no_model_needs", ignored);
    if (optimizer) put_int(o, "optimizer_tensors", optimizer);
}

static void put_training(const tw_weights *w, json_t *o) {
    const tw_weights_note *note = tw_weights_get_note(w);
    if (note->step < 0 && note->epoch < 0 && !note->name && !note->group_count) return;
    json_t *t = json_object();
    if (note->name) json_object_set_new(t, "name", json_string(note->name));
    if (note->epoch >= 0) put_int(t, "epoch", note->epoch);
    if (note->step >= 0) put_int(t, "step", note->step);
    json_object_set_new(t, "optimizer_state", json_boolean(note->group_count > 0));
    if (note->group_count > 0 && isfinite(note->groups[0].lr))
        json_object_set_new(t, "lr", json_real(note->groups[0].lr));
    json_object_set_new(o, "training", t);
}

static tw_status put_description(const tw_model_config *config, json_t *o) {
    char *yaml;
    TRY(tw_model_config_to_yaml(config, &yaml));
    json_object_set_new(o, "model", json_string(yaml));
    free(yaml);
    return TW_OK;
}

/* A file with one tower, for training from parts, or with neither; or a whole model of which shapes do not
 * tell the heads. `status`: what recognising it gave. */
static void put_parts(const tw_model_source *s, tw_status status, json_t *o) {
    tw_model_config c = {.name = "custom", .embed = s->hf_config.embed};
    char *why = strdup(tw_last_error());
    const tw_weights *w = s->original.weights;
    if (tw_recognise_image(w, s->hf_config.image_heads, &c) == TW_OK)
        json_object_set_new(o, "image_tower",
                            c.image.kind == TW_RESNET
                                ? json_sprintf("ResNet, width %d, %d px", c.image.width, c.image.resolution)
                                : json_sprintf("%d layers, width %d, %d heads, %d px", c.image.layers,
                                               c.image.width, c.image.heads, c.image.resolution));
    if (tw_recognise_text(w, s->hf_config.text_heads, &c) == TW_OK)
        json_object_set_new(o, "text_tower",
                            json_sprintf("%d layers, width %d, %d heads, %d words", c.text.layers,
                                         c.text.hidden, c.text.heads, c.text.vocabulary));
    const char *key = status == TW_ERR_CONFIG ? "heads_not_known" : "not_a_whole_model";
    if (why) json_object_set_new(o, key, json_string(why));
    free(why);
}

static int64_t bytes_of(const tw_model_source *s) {
    struct stat st;
    int64_t bytes = 0;
    if (s->kind != TW_SOURCE_HF_FOLDER) return stat(s->path, &st) == 0 ? (int64_t)st.st_size : 0;
    for (int64_t i = 0; i < tw_weights_count(s->original.weights); i++) {
        const tw_weight *t = tw_weights_at(s->original.weights, i);
        bytes += t->count * (int64_t)tw_weight_type_size(t->type);
    }
    return bytes;
}

static tw_status describe(const tw_model_source *s, const tw_info_options *options, json_t *o) {
    const tw_weights *w = s->original.weights;
    tw_model_config config;
    json_object_set_new(o, "kind", json_string(tw_weights_get_note(w)->kind));
    json_object_set_new(o, "path", json_string(s->path));
    put_int(o, "bytes", bytes_of(s));
    tw_status status = tw_model_source_config(s, options->model, &config);
    if (status == TW_ERR_CONFIG && options->model && *options->model) return status;
    if (status == TW_OK) json_object_set_new(o, "architecture", json_string(config.name));
    json_object_set_new(o, "names",
                        json_string(s->original.hugging_face ? "Hugging Face's"
                                    : s->original.module     ? "the original's, with \"module.\""
                                                             : "the original's"));
    if (status != TW_OK) put_parts(s, status, o);
    count_tensors(w, o);
    put_training(w, o);
    if (status != TW_OK) return TW_OK;
    put_int(o, "context_length", config.context);
    TRY(tw_info_memory(&config, options, o));
    return put_description(&config, o);
}

tw_status tw_info_weights(const char *path, const tw_info_options *options, json_t *o) {
    tw_model_source s;
    TRY(tw_model_source_open(path, &s));
    tw_status status = describe(&s, options, o);
    tw_model_source_close(&s);
    return status;
}
