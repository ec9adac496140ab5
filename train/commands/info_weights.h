/* What `tuwen info` says about models. */
#ifndef TW_TRAIN_COMMANDS_INFO_WEIGHTS_H
#define TW_TRAIN_COMMANDS_INFO_WEIGHTS_H

#include "layers/dual_encoder.h"

#include <jansson.h>

typedef struct tw_info_options {
    int64_t batch;
    int precision;     /* 0: f32, 1: bf16 */
    double mask_ratio; /* of training */
    const char *model; /* description, NULL: none */
} tw_info_options;

/* Puts "memory" into o: what inference and training take. */
tw_status tw_info_memory(const tw_model_config *config, const tw_info_options *options,
                         json_t *o) TW_MUST_CHECK;
/* Describes the weight file of another tool: kind, architecture, tensors, parameters, types, training
 * position. A file that holds one tower, or none that is known, is described as far as it goes. */
tw_status tw_info_weights(const char *path, const tw_info_options *options, json_t *o) TW_MUST_CHECK;

#endif
