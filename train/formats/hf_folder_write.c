#include "data/atomic_file.h"
#include "data/files.h"
#include "train/formats/hf_folder.h"
#include "train/formats/hf_names.h"
#include "train/formats/safetensors.h"
#include "train/values.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In the order in which they get their names: a folder without config.json is not taken for a model. */
enum { WEIGHTS, PREPROCESSOR, TOKENIZER, VOCABULARY, CONFIG, FILE_COUNT };
static const char *const NAMES[FILE_COUNT] = {"model.safetensors", "preprocessor_config.json",
                                              "tokenizer_config.json", "vocab.txt", "config.json"};
/* What else of a model transformers would read in the folder, before ours or mixed with it. */
static const char *const OTHERS[] = {"model.safetensors.index.json",
                                     "pytorch_model.bin",
                                     "pytorch_model.bin.index.json",
                                     "tf_model.h5",
                                     "flax_model.msgpack",
                                     "tokenizer.json",
                                     "added_tokens.json",
                                     "special_tokens_map.json",
                                     "processor_config.json"};

typedef struct writing {
    const char *folder;
    const tw_weights_output *original;
    const tw_model_config *model;
    const void *vocab;
    size_t vocab_bytes;
    char *path[FILE_COUNT], *temp[FILE_COUNT];
} writing;

/* The nearest double that prints as short as the float does: 0.48145466, not 0.481454664 and more. */
static json_t *short_real(float value) {
    char text[32];
    tw_float32_text(value, text, sizeof text);
    return json_real(strtod(text, NULL));
}

static json_t *three(const float v[3]) {
    return json_pack("[o, o, o]", short_real(v[0]), short_real(v[1]), short_real(v[2]));
}

/* The one floating type of the tensors; f32, into which the others fit, if they are of several. */
static const char *common_type(const tw_weights_output *output) {
    bool f16 = false, bf16 = false, other = false;
    for (int64_t i = 0; i < output->n; i++) {
        tw_weight_type type = output->items[i].type;
        if (type == TW_WEIGHT_F16)
            f16 = true;
        else if (type == TW_WEIGHT_BF16)
            bf16 = true;
        else if (type == TW_WEIGHT_F32 || type == TW_WEIGHT_F64)
            other = true;
    }
    return other || f16 == bf16 ? "float32" : f16 ? "float16" : "bfloat16";
}

static json_t *vision_json(const tw_image_config *image, int embed) {
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f}", "model_type",
                     "chinese_clip_vision_model", "hidden_size", image->width, "intermediate_size",
                     4 * image->width, "num_hidden_layers", image->layers, "num_attention_heads",
                     image->heads, "image_size", image->resolution, "patch_size", image->patch,
                     "num_channels", 3, "projection_dim", embed, "hidden_act", "quick_gelu", "layer_norm_eps",
                     1e-5);
}

static json_t *text_json(const tw_bert_config *text) {
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:o, s:o}", "model_type",
                     "chinese_clip_text_model", "vocab_size", text->vocabulary, "hidden_size", text->hidden,
                     "intermediate_size", text->intermediate, "num_hidden_layers", text->layers,
                     "num_attention_heads", text->heads, "max_position_embeddings", text->positions,
                     "type_vocab_size", text->types, "pad_token_id", text->padding_id, "hidden_act", "gelu",
                     "layer_norm_eps", 1e-12, "hidden_dropout_prob", short_real(text->hidden_dropout),
                     "attention_probs_dropout_prob", short_real(text->attention_dropout));
}

static json_t *config_json(const writing *w) {
    return json_pack("{s:[s], s:s, s:i, s:f, s:s, s:o, s:o}", "architectures", "ChineseCLIPModel",
                     "model_type", "chinese_clip", "projection_dim", w->model->embed,
                     "logit_scale_init_value", 2.6592, "torch_dtype", common_type(w->original), "text_config",
                     text_json(&w->model->text), "vision_config",
                     vision_json(&w->model->image, w->model->embed));
}

static json_t *preprocessor_json(const tw_image_config *image) {
    return json_pack("{s:s, s:s, s:b, s:b, s:{s:i, s:i}, s:i, s:b, s:b, s:f, s:b, s:o, s:o}",
                     "image_processor_type", "ChineseCLIPImageProcessor", "processor_class",
                     "ChineseCLIPProcessor", "do_convert_rgb", 1, "do_resize", 1, "size", "height",
                     image->resolution, "width", image->resolution, "resample", 3 /* Pillow's bicubic */,
                     "do_center_crop", 0, "do_rescale", 1, "rescale_factor", 1.0 / 255, "do_normalize", 1,
                     "image_mean", three(image->pixel_mean), "image_std", three(image->pixel_std));
}

static json_t *tokenizer_json(const writing *w) {
    return json_pack("{s:s, s:s, s:b, s:b, s:n, s:i, s:s, s:s, s:s, s:s, s:s}", "tokenizer_class",
                     "BertTokenizer", "processor_class", "ChineseCLIPProcessor", "do_lower_case", 1,
                     "tokenize_chinese_chars", 1, "strip_accents", "model_max_length", w->model->context,
                     "cls_token", "[CLS]", "sep_token", "[SEP]", "pad_token", "[PAD]", "unk_token", "[UNK]",
                     "mask_token", "[MASK]");
}

static tw_status write_bytes(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wbe");
    if (!file) return FAIL(TW_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    bool good = fwrite(data, 1, size, file) == size;
    int code = errno;
    if (fclose(file) != 0 && good) good = false, code = errno;
    return good ? TW_OK : FAIL(TW_ERR_IO, "%s: cannot write: %s", path, strerror(code));
}

/* Takes over `json`. 15 digits are what a short decimal needs to come out as it went in. */
static tw_status write_json(const char *path, json_t *json) {
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(json);
    if (!text) return FAIL(TW_ERR_MEMORY, "%s: no memory to write it", path);
    size_t size = strlen(text);
    text[size] = '\n'; /* in place of the zero, which is not written */
    tw_status status = write_bytes(path, text, size + 1);
    free(text);
    return status;
}

static tw_status write_weights(const writing *w) {
    tw_weights_output hf;
    TRY(tw_hf_output_create(w->original, &hf));
    tw_status status = tw_safetensors_write_plain(w->temp[WEIGHTS], &hf);
    tw_hf_output_free(&hf);
    return status;
}

static tw_status write_file(writing *w, int i) {
    w->path[i] = tw_path_join(w->folder, NAMES[i]);
    if (!w->path[i]) return FAIL(TW_ERR_MEMORY, "no memory for a path");
    TRY(tw_atomic_begin(w->path[i], &w->temp[i]));
    switch (i) {
    case WEIGHTS:
        return write_weights(w);
    case PREPROCESSOR:
        return write_json(w->temp[i], preprocessor_json(&w->model->image));
    case TOKENIZER:
        return write_json(w->temp[i], tokenizer_json(w));
    case VOCABULARY:
        return write_bytes(w->temp[i], w->vocab, w->vocab_bytes);
    default:
        return write_json(w->temp[i], config_json(w));
    }
}

static bool is_shard(const char *name) {
    const char *number = strncmp(name, "model-", 6) == 0            ? name + 6
                         : strncmp(name, "pytorch_model-", 14) == 0 ? name + 14
                                                                    : NULL;
    return number && strspn(number, "0123456789") == 5 && strncmp(number + 5, "-of-", 4) == 0;
}

static bool is_other(const char *name) {
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
        if (strcmp(name, OTHERS[i]) == 0) return true;
    return is_shard(name) || strcmp(name, NAMES[CONFIG]) == 0;
}

/* Removes what would be read with the new files, config.json among it: from here on until the new one is
 * there, the folder is no model. */
static tw_status remove_others(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) return FAIL(TW_ERR_IO, "%s: %s", folder, strerror(errno));
    tw_status status = TW_OK;
    for (const struct dirent *e; !status && (e = readdir(entries));)
        if (is_other(e->d_name) && unlinkat(dirfd(entries), e->d_name, 0) != 0)
            status = FAIL(TW_ERR_IO, "%s/%s: cannot remove: %s", folder, e->d_name, strerror(errno));
    closedir(entries);
    return status;
}

static tw_status publish(writing *w) {
    TRY(remove_others(w->folder));
    for (int i = 0; i < FILE_COUNT; i++) {
        tw_status status = tw_atomic_publish(w->temp[i], w->path[i]);
        free(w->temp[i]); /* renamed or removed */
        w->temp[i] = NULL;
        TRY(status);
    }
    return TW_OK;
}

static tw_status check_empty(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) return FAIL(TW_ERR_IO, "%s: %s", folder, strerror(errno));
    tw_status status = TW_OK;
    for (const struct dirent *e; !status && (e = readdir(entries));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            !tw_atomic_is_stale(folder, e->d_name))
            status =
                FAIL(TW_ERR_ARGUMENT,
                     "%s: the folder is not empty (it holds '%s'): choose another, or say that it is to be "
                     "replaced",
                     folder, e->d_name);
    closedir(entries);
    return status;
}

/* Transformers reads a word a line; a word beyond the embedding table would be an index out of range there.
 */
static tw_status check_vocab(const writing *w) {
    const char *text = w->vocab;
    int64_t lines = 0;
    for (size_t i = 0; i < w->vocab_bytes; i++) lines += text[i] == '\n';
    if (w->vocab_bytes && text[w->vocab_bytes - 1] != '\n') lines++;
    if (lines == 0 || lines > w->model->text.vocabulary)
        return FAIL(TW_ERR_ARGUMENT, "%s: the vocabulary has %lld words, the model %d", w->folder,
                    (long long)lines, w->model->text.vocabulary);
    return TW_OK;
}

tw_status tw_hf_folder_write(const char *folder, const tw_weights_output *original,
                             const tw_model_config *model, const void *vocab, size_t vocab_bytes,
                             bool replace) {
    writing w = {folder, original, model, vocab, vocab_bytes, {0}, {0}};
    struct stat info;
    if (model->image.kind != TW_VIT)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s: Hugging Face's ChineseCLIPModel has no ResNet; write a .pt instead", folder);
    TRY(check_vocab(&w));
    bool made = stat(folder, &info) != 0;
    if (made)
        TRY(tw_make_folders(folder));
    else if (!S_ISDIR(info.st_mode))
        return FAIL(TW_ERR_ARGUMENT, "%s: there is a file of that name, a folder is to be written", folder);
    else if (!replace)
        TRY(check_empty(folder));
    tw_status status = TW_OK;
    for (int i = 0; i < FILE_COUNT && !status; i++) status = write_file(&w, i);
    if (!status) status = publish(&w);
    for (int i = 0; i < FILE_COUNT; i++) {
        tw_atomic_discard(w.temp[i]);
        free(w.temp[i]);
        free(w.path[i]);
    }
    if (status && made) (void)rmdir(folder); /* stays if any file has got its name */
    return status;
}
