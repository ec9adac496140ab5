/* Weight files under the original's names (FACTS of the family, §3), whatever tool wrote them.
 *
 *   module.visual.conv1.weight                        visual.conv1.weight
 *   visual....attn.Wqkv.{weight,bias}                 visual....attn.in_proj_{weight,bias}
 *   bert....attention.self.Wqkv.{weight,bias}         bert....attention.self.{query,key,value}.{weight,bias}
 *   bert....attention.self.out_proj.{weight,bias}     bert....attention.output.dense.{weight,bias}
 *   embeddings.*, encoder.layer.*, pooler.*           bert.*        (a BertModel saved by itself)
 *   embeddings.*, encoder.layers.*, pre_layrnorm.*, post_layernorm.*   vision_model.*   (a CLIPVisionModel's)
 *   ....LayerNorm.{gamma,beta}                        ....LayerNorm.{weight,bias}
 *   vision_model.*, text_model.*, ...                 as hf_names.h says
 *
 * Optimizer state ("optimizer.*", weights.h) keeps its names. Values are read from the file when they are
 * asked for; nothing is copied before. */
#ifndef TW_TRAIN_ORIGINAL_NAMES_H
#define TW_TRAIN_ORIGINAL_NAMES_H

#include "train/formats/weights.h"

typedef struct tw_original {
    tw_weights *weights; /* under original names; owned, with the file behind it */
    bool module;         /* the file's names begin with "module." */
    bool hugging_face;   /* the file's names are Hugging Face's */
} tw_original;

/* Takes `file`, which is closed even on failure. TW_ERR_FORMAT, naming the tensors: two tensors with the same
 * original name, a Wqkv that is not three equal parts. */
tw_status tw_original_open(tw_weights *file, tw_original *out) TW_MUST_CHECK;
void tw_original_close(tw_original *o); /* accepts one that is all zero */

/* Tensors of checkpoints that are no part of the model: BERT's pooler, its position ids, its heads for
 * pre-training, batch norm's num_batches_tracked. */
bool tw_name_is_ignored(const char *name);

#endif
