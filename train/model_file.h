/* Model descriptions: configs/models/<name>.yaml, and the copy of it that every checkpoint carries. */
#ifndef TW_TRAIN_MODEL_FILE_H
#define TW_TRAIN_MODEL_FILE_H

#include "layers/dual_encoder.h"

/* Reads a YAML file, or the model of this name in configs/models (of the working folder, of the source tree
 * this build was made from, of the installation; else the one built in). Unknown, missing or repeated keys
 * and impossible sizes are TW_ERR_CONFIG with file and line. `vocabulary: 0` stays 0: the caller puts in the
 * size of the vocabulary it uses. */
tw_status tw_model_config_load(const char *path_or_name, tw_model_config *out) TW_MUST_CHECK;
/* The same from memory; origin names it in messages. */
tw_status tw_model_config_parse(const char *text, size_t bytes, const char *origin,
                                tw_model_config *out) TW_MUST_CHECK;
/* Number i < tw_description_count of the descriptions that are built in (descriptions.h). */
tw_status tw_model_config_built_in(size_t i, tw_model_config *out) TW_MUST_CHECK;
/* The description as YAML that reads back equal; the caller frees *text. */
tw_status tw_model_config_to_yaml(const tw_model_config *config, char **text) TW_MUST_CHECK;

#endif
