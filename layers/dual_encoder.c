#include "layers/dual_encoder.h"

#include <math.h>
#include <stdlib.h>

static tw_status init(tw_dual_encoder *m) {
    const tw_model_config *c = &m->config;
    if (c->context < 2 || c->context > c->text.positions)
        return FAIL(TW_ERR_CONFIG, "context length %d must lie in 2..%d, the text tower's positions",
                    c->context, c->text.positions);
    TRY(tw_params_create(&m->params));
    TRY(c->image.kind == TW_RESNET ? tw_resnet_init(&m->resnet, m->params, &c->image, c->embed)
                                   : tw_vit_init(&m->vit, m->params, &c->image, c->embed));
    TRY(tw_bert_init(&m->text, m->params, &c->text));
    tw_init narrow = {TW_INIT_NORMAL, (float)(1.0 / sqrt((double)c->text.hidden))};
    TRY(tw_projection_init(&m->text_projection, m->params, "text_projection", c->text.hidden, c->embed,
                           narrow));
    tw_param *scale;
    tw_init start = {TW_INIT_CONSTANT, (float)log(1.0 / 0.07)};
    TRY(tw_params_add(m->params, "logit_scale", 0, NULL, start, &scale));
    m->logit_scale = scale;
    return TW_OK;
}

tw_status tw_dual_encoder_create(const tw_model_config *config, tw_dual_encoder **out) {
    tw_dual_encoder *m = *out = calloc(1, sizeof *m);
    if (!m) return FAIL(TW_ERR_MEMORY, "out of memory");
    m->config = *config;
    tw_status status = init(m);
    if (status != TW_OK) {
        tw_dual_encoder_free(m);
        *out = NULL;
    }
    return status;
}

void tw_dual_encoder_free(tw_dual_encoder *model) {
    if (!model) return;
    tw_vit_free(&model->vit);
    tw_resnet_free(&model->resnet);
    tw_bert_free(&model->text);
    tw_params_free(model->params);
    free(model);
}

tw_status tw_dual_encoder_allocate(tw_dual_encoder *model, tw_device *device, tw_dtype compute_type,
                                   bool training) {
    model->compute_type = compute_type;
    return tw_params_allocate(model->params, device, compute_type, training);
}

tw_tensor *tw_encode_image(tw_tape *tape, const tw_dual_encoder *model, tw_tensor *pixels) {
    tw_dtype type = model->compute_type;
    tw_tensor *x = model->config.image.kind == TW_RESNET
                       ? tw_resnet_forward(tape, &model->resnet, pixels, type)
                       : tw_vit_forward(tape, &model->vit, pixels, type);
    return tw_tape_record(tape, TW_OP_l2_normalise, NULL, 1, &x);
}

void tw_dual_encoder_save(tw_dual_encoder *model, bool last_block_token, bool pack_text) {
    model->vit.whole_last_block = model->text.whole_last_block = !last_block_token;
    model->padded_text = !pack_text;
}

tw_tensor *tw_encode_text(tw_tape *tape, const tw_dual_encoder *model, tw_tensor *ids, tw_tensor *lengths,
                          int64_t rows) {
    tw_tensor *x = tw_bert_forward(tape, &model->text, ids, lengths, rows);
    x = tw_linear_forward(tape, &model->text_projection, x, TW_IDENTITY, NULL);
    return tw_tape_record(tape, TW_OP_l2_normalise, NULL, 1, &x);
}
