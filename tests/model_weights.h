/* The tensors of a model as a weight file in memory, with its names and shapes. */
#ifndef TW_TESTS_MODEL_WEIGHTS_H
#define TW_TESTS_MODEL_WEIGHTS_H

#include "layers/dual_encoder.h"
#include "memory_weights.h"
#include "train/model_file.h"

static inline memory_weights weights_of(const tw_model_config *config, tw_weight_type type) {
    memory_weights m = {0};
    tw_dual_encoder *model;
    TW_ASSERT_OK(tw_dual_encoder_create(config, &model));
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        memory_add_shape(&m, p->name, type, p->ndim, p->shape);
    }
    tw_dual_encoder_free(model);
    return m;
}

/* A description of configs/models, with a vocabulary of 30 where it leaves that open. */
static inline tw_model_config described(const char *name) {
    tw_model_config c;
    TW_ASSERT_OK(tw_model_config_load(name, &c));
    if (!c.text.vocabulary) c.text.vocabulary = 30;
    return c;
}

#endif
