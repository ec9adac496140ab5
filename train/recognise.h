/* A model's description from its tensors' names and shapes alone, so that nobody has to name it.
 *
 * Shapes tell everything but the number of attention heads. Those are, in this order: what the caller knows
 * (config.json of a Hugging Face folder, --model), what the built-in description with exactly these shapes
 * says (of the folder configs/models as it was when this was built: no file that lies about has a say), and
 * the family's rule: 64 values a head (in a ResNet's attention pool too), 16 heads of 80 for width 1280. */
#ifndef TW_TRAIN_RECOGNISE_H
#define TW_TRAIN_RECOGNISE_H

#include "layers/dual_encoder.h"
#include "train/formats/weights.h"

typedef struct tw_known_heads {
    int image, text; /* 0: not known */
} tw_known_heads;

/* The context length of the family; a text tower with fewer positions has as many as it has positions. */
enum { TW_FAMILY_CONTEXT = 52 };

/* `w` under original names (original_names.h). The name is that of the equal built-in description, else
 * "custom". Dropouts are the family's, pixel statistics CLIP's. Errors are TW_ERR_FORMAT and name file and
 * tensor: a tower is missing, shapes contradict each other; TW_ERR_CONFIG: the heads cannot be told. */
tw_status tw_recognise_model(const tw_weights *w, tw_known_heads heads, tw_model_config *out) TW_MUST_CHECK;
/* One tower alone: the image tower with its projection's width in out->embed, or the text tower. The rest of
 * *out is left as it was; out->embed too, unless it is 0, where the file has no projection
 * (CLIPVisionModel's, for one). */
tw_status tw_recognise_image(const tw_weights *w, int heads, tw_model_config *out) TW_MUST_CHECK;
tw_status tw_recognise_text(const tw_weights *w, int heads, tw_model_config *out) TW_MUST_CHECK;

#endif
