/* The dual encoder: an image tower, a text tower, their projections into one space, and logit_scale. */
#ifndef TW_LAYERS_DUAL_ENCODER_H
#define TW_LAYERS_DUAL_ENCODER_H

#include "layers/bert.h"
#include "layers/resnet.h"
#include "layers/vit.h"

typedef struct tw_model_config {
    char name[64];
    int embed;   /* width of the common space */
    int context; /* tokens of a text, [CLS] and [SEP] included */
    tw_image_config image;
    tw_bert_config text;
} tw_model_config;

typedef struct tw_dual_encoder {
    tw_model_config config;
    tw_params *params; /* owned */
    tw_vit vit;        /* the image tower, if its kind is TW_VIT */
    tw_resnet resnet;  /* ... or TW_RESNET */
    tw_bert text;
    tw_linear text_projection;
    const tw_param *logit_scale; /* the logarithm of the scale; a scalar */
    tw_dtype compute_type;       /* set by tw_dual_encoder_allocate */
    bool padded_text;            /* texts are computed with their padding; see tw_dual_encoder_save */
} tw_dual_encoder;

/* Names all parameters; nothing is allocated on a device yet, so that parameters can be frozen first. */
tw_status tw_dual_encoder_create(const tw_model_config *config, tw_dual_encoder **out) TW_MUST_CHECK;
void tw_dual_encoder_free(tw_dual_encoder *model);
/* Allocates the slabs, see tw_params_allocate. Values are undefined until initialised or loaded. */
tw_status tw_dual_encoder_allocate(tw_dual_encoder *model, tw_device *device, tw_dtype compute_type,
                                   bool training) TW_MUST_CHECK;

/* What is saved without changing results but for rounding, for tapes recorded from now on; both are at first:
 * of each transformer tower's last block only what token 0 needs; texts without their padding. */
void tw_dual_encoder_save(tw_dual_encoder *model, bool last_block_token, bool pack_text);

/* L2-normalised features (B, embed) f32. pixels as tw_vit_forward; ids, lengths
 * and rows as tw_bert_forward. */
tw_tensor *tw_encode_image(tw_tape *tape, const tw_dual_encoder *model, tw_tensor *pixels);
tw_tensor *tw_encode_text(tw_tape *tape, const tw_dual_encoder *model, tw_tensor *ids, tw_tensor *lengths,
                          int64_t rows);

#endif
