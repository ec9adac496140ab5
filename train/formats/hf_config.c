/* config.json and preprocessor_config.json of a Hugging Face folder. */
#include "train/formats/hf_folder.h"
#include "train/formats/hf_private.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 1 << 20, MAX_SIDE = 1 << 16, MAX_HEADS = 1 << 12 };
/* OpenAI's CLIP, which transformers takes if nothing is said. */
static const float CLIP_MEAN[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float CLIP_STD[3] = {0.26862954f, 0.26130258f, 0.27577711f};

static tw_status load_json(const char *folder, const char *name, json_t **out) {
    char *text;
    size_t size;
    *out = NULL;
    TRY(tw_hf_read_text(folder, name, CONFIG_BYTES, &text, &size));
    json_error_t error;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (json_is_object(*out)) return TW_OK;
    tw_status status = FAIL(TW_ERR_FORMAT, "%s/%s: not a JSON object", folder, name);
    if (!*out) status = FAIL(TW_ERR_FORMAT, "%s/%s:%d: bad JSON: %s", folder, name, error.line, error.text);
    json_decref(*out);
    *out = NULL;
    return status;
}

/* A whole number from 1 to `most`; a pair of equal ones is good too, as sizes of images may be written. */
static tw_status get_int(const json_t *object, const char *key, int standard, int most, int *out) {
    const json_t *value = json_object_get(object, key);
    *out = standard;
    if (!value || json_is_null(value)) return TW_OK;
    if (json_array_size(value) == 2 && json_equal(json_array_get(value, 0), json_array_get(value, 1)))
        value = json_array_get(value, 0);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > most)
        return FAIL(TW_ERR_FORMAT, "'%s' must be a whole number from 1 to %d", key, most);
    *out = (int)number;
    return TW_OK;
}

static tw_status get_rate(const json_t *object, const char *key, double standard, float *out) {
    const json_t *value = json_object_get(object, key);
    double number = !value || json_is_null(value) ? standard : json_number_value(value);
    *out = (float)number;
    if ((value && !json_is_null(value) && !json_is_number(value)) || !(number >= 0 && number <= 0.9999))
        return FAIL(TW_ERR_FORMAT, "'%s' must be a number from 0 to 0.9999", key);
    return TW_OK;
}

/* The towers of layers/ have one activation and one epsilon each; any other gives other features. */
static tw_status need(const json_t *object, const char *activation, double epsilon) {
    const json_t *act = json_object_get(object, "hidden_act"),
                 *eps = json_object_get(object, "layer_norm_eps");
    if (act && (!json_is_string(act) || strcmp(json_string_value(act), activation) != 0))
        return FAIL(TW_ERR_UNSUPPORTED, "'hidden_act' is '%.32s', only '%s' is possible here",
                    json_is_string(act) ? json_string_value(act) : "?", activation);
    if (eps && (!json_is_number(eps) || fabs(json_number_value(eps) - epsilon) > 1e-6 * epsilon))
        return FAIL(TW_ERR_UNSUPPORTED, "'layer_norm_eps' is %g, only %g is possible here",
                    json_number_value(eps), epsilon);
    return TW_OK;
}

static tw_status read_image(const json_t *vision, tw_hf_config *out) {
    out->has_image = true;
    TRY(need(vision, "quick_gelu", 1e-5));
    TRY(get_int(vision, "image_size", 224, MAX_SIDE, &out->resolution));
    TRY(get_int(vision, "patch_size", 32, MAX_SIDE, &out->patch));
    TRY(get_int(vision, "projection_dim", 512, MAX_SIDE, &out->embed));
    return get_int(vision, "num_attention_heads", 12, MAX_HEADS, &out->image_heads);
}

static tw_status read_text(const json_t *text, tw_hf_config *out) {
    out->has_text = true;
    TRY(need(text, "gelu", 1e-12));
    TRY(get_rate(text, "hidden_dropout_prob", 0.1, &out->hidden_dropout));
    TRY(get_rate(text, "attention_probs_dropout_prob", 0.1, &out->attention_dropout));
    return get_int(text, "num_attention_heads", 12, MAX_HEADS, &out->text_heads);
}

/* A tower's part; old files say it twice, and then the second one counts. */
static const json_t *tower(const json_t *root, const char *key, const char *old_key) {
    const json_t *old = json_object_get(root, old_key);
    return json_is_object(old) ? old : json_object_get(root, key);
}

static bool is(const char *type, const char *name) {
    return strcmp(type, name) == 0;
}

static tw_status read_towers(const json_t *root, tw_hf_config *out) {
    const char *type = json_string_value(json_object_get(root, "model_type"));
    if (!type) return FAIL(TW_ERR_FORMAT, "'model_type' is missing or not a string");
    if (is(type, "bert") || is(type, "chinese_clip_text_model")) return read_text(root, out);
    if (is(type, "clip_vision_model") || is(type, "chinese_clip_vision_model")) return read_image(root, out);
    bool chinese = is(type, "chinese_clip");
    if (!chinese && !is(type, "clip"))
        return FAIL(TW_ERR_UNSUPPORTED,
                    "model_type '%.64s' is none of chinese_clip, clip and bert, nor of their towers", type);
    tw_status status = read_image(tower(root, "vision_config", "vision_config_dict"), out);
    if (status) return tw_fail_context(status, "vision_config");
    TRY(get_int(root, "projection_dim", 512, MAX_SIDE, &out->embed));
    if (!chinese) return TW_OK;
    status = read_text(tower(root, "text_config", "text_config_dict"), out);
    return status ? tw_fail_context(status, "text_config") : TW_OK;
}

static tw_status get_three(const json_t *object, const char *key, float out[3]) {
    const json_t *value = json_object_get(object, key);
    if (!value) return TW_OK;
    for (size_t c = 0; c < 3; c++) {
        const json_t *number = json_array_get(value, c);
        if (json_array_size(value) != 3 || !json_is_number(number))
            return FAIL(TW_ERR_FORMAT, "'%s' must be three numbers", key);
        out[c] = (float)json_number_value(number);
        if (!isfinite(out[c]) || fabsf(out[c]) > 1e3f)
            return FAIL(TW_ERR_FORMAT, "'%s' is out of range", key);
    }
    return TW_OK;
}

bool tw_pixels_are_clips(const float mean[3], const float std[3]) {
    bool same = true;
    for (int c = 0; c < 3; c++)
        same &= fabsf(mean[c] - CLIP_MEAN[c]) < 1e-4f && fabsf(std[c] - CLIP_STD[c]) < 1e-4f;
    return same;
}

static tw_status read_pixels(const char *folder, tw_hf_config *out) {
    json_t *root;
    memcpy(out->pixel_mean, CLIP_MEAN, sizeof CLIP_MEAN);
    memcpy(out->pixel_std, CLIP_STD, sizeof CLIP_STD);
    const char *name = "preprocessor_config.json";
    tw_status status = load_json(folder, name, &root);
    /* Since transformers 5 a processor is saved whole, the image processor a part of it. */
    if (status == TW_ERR_NOT_FOUND) status = load_json(folder, name = "processor_config.json", &root);
    if (status == TW_ERR_NOT_FOUND) return TW_OK;
    TRY(status);
    const json_t *part = json_object_get(root, "image_processor"), *pixels = part ? part : root;
    status = get_three(pixels, "image_mean", out->pixel_mean);
    if (!status) status = get_three(pixels, "image_std", out->pixel_std);
    for (int c = 0; c < 3 && !status; c++)
        if (!(out->pixel_std[c] > 0)) status = FAIL(TW_ERR_FORMAT, "'image_std' must be above 0");
    json_decref(root);
    return status ? tw_fail_context(status, "%s/%s", folder, name) : TW_OK;
}

tw_status tw_hf_config_read(const char *folder, tw_hf_config *out) {
    json_t *root;
    *out = (tw_hf_config){0};
    TRY(load_json(folder, "config.json", &root));
    tw_status status = read_towers(root, out);
    json_decref(root);
    if (status) return tw_fail_context(status, "%s/config.json", folder);
    return out->has_image ? read_pixels(folder, out) : TW_OK;
}
