/* Hugging Face model folders: weights, config.json and what stands beside them. */
#ifndef TW_TRAIN_FORMATS_HF_FOLDER_H
#define TW_TRAIN_FORMATS_HF_FOLDER_H

#include "layers/dual_encoder.h"
#include "train/formats/weights.h"

/* True if `path` is a folder that holds one of the weight files below. */
bool tw_hf_is_folder(const char *path);

/* Opens the weights of a folder under the names they have there (hf_names.h knows the original ones). The
 * first of these that is there is taken, as by transformers: model.safetensors, model.safetensors.index.json
 * with its shards, pytorch_model.bin, pytorch_model.bin.index.json with its shards. Tensors come file by
 * file, in the order of their data.
 * TW_ERR_NOT_FOUND: none of them. TW_ERR_FORMAT, naming file and tensor: a bad index, a shard name that is
 * not a plain file name, a shard that is missing or damaged, a tensor that is not in the shard that the index
 * names, or in one that it does not. And the errors of tw_safetensors_open and tw_pt_open. */
tw_status tw_hf_folder_open(const char *folder, tw_weights **out) TW_MUST_CHECK;

/* What config.json says that shapes do not tell. */
typedef struct tw_hf_config {
    bool has_image, has_text; /* a text model alone has no image tower, and the reverse; then its part is 0 */
    int resolution, patch, image_heads, embed; /* embed: the projection's width */
    float pixel_mean[3],
        pixel_std[3]; /* preprocessor_config.json's or processor_config.json's; else CLIP's */
    int text_heads;
    float hidden_dropout, attention_dropout;
} tw_hf_config;

/* True where pixels are normalised as CLIP does, to 1e-4. */
bool tw_pixels_are_clips(const float mean[3], const float std[3]);

/* Reads config.json of a folder of model type chinese_clip, clip (its image tower), clip_vision_model,
 * chinese_clip_vision_model, bert or chinese_clip_text_model; what it does not say has transformers' default.
 * TW_ERR_NOT_FOUND: no config.json. TW_ERR_FORMAT, TW_ERR_UNSUPPORTED, naming file and key: bad JSON, a value
 * out of range, another model type, or an activation or epsilon that the towers of layers/ do not have. */
tw_status tw_hf_config_read(const char *folder, tw_hf_config *out) TW_MUST_CHECK;

/* Writes what ChineseCLIPModel.from_pretrained and ChineseCLIPProcessor.from_pretrained load, and what gives
 * them the features of tuwen: model.safetensors, preprocessor_config.json (resize to resolution x resolution,
 * bicubic, no crop), tokenizer_config.json, vocab.txt and, last, config.json. `original` has the tensors
 * under their original names, fused as there; types are kept.
 *
 * The folder is made if it is not there. One that holds anything is refused (TW_ERR_ARGUMENT) unless
 * `replace`; then the files of another model in it that transformers would read beside ours (shards,
 * pytorch_model.bin, tokenizer.json, ...) are removed. All files are written under temporary names first, so
 * that an error, a full disk for one, leaves the folder as it was.
 * TW_ERR_UNSUPPORTED: no Hugging Face form (RN50); TW_ERR_ARGUMENT: the vocabulary is empty or has more
 * lines than the model has words; TW_ERR_IO. */
tw_status tw_hf_folder_write(const char *folder, const tw_weights_output *original,
                             const tw_model_config *model, const void *vocab, size_t vocab_bytes,
                             bool replace) TW_MUST_CHECK;

#endif
