/* BERT as text tower (Devlin et al. 2019): embeddings, post-norm layers with erf GELU; the feature is the
 * projected [CLS] state of the last layer. No pooler. */
#ifndef TW_LAYERS_BERT_H
#define TW_LAYERS_BERT_H

#include "layers/linear.h"

typedef struct tw_bert_config {
    int vocabulary, positions, types;
    int hidden, layers, heads, intermediate;
    float hidden_dropout, attention_dropout; /* in training only */
    int padding_id;
} tw_bert_config;

typedef struct tw_bert_layer {
    tw_linear qkv; /* query, key and value stacked */
    tw_linear attention_output, intermediate, output;
    tw_norm attention_norm, output_norm;
} tw_bert_layer;

typedef struct tw_bert {
    tw_bert_config config;
    const tw_param *word, *position, *type;
    tw_norm embedding_norm;
    tw_bert_layer *layers;
} tw_bert;

/* Adds the tower's parameters, all named "bert.*". */
tw_status tw_bert_init(tw_bert *bert, tw_params *params, const tw_bert_config *config) TW_MUST_CHECK;
void tw_bert_free(tw_bert *bert);

/* ids (B,T) i32, lengths (B) i32: tokens before the padding -> (B, hidden), the [CLS] state. */
tw_tensor *tw_bert_forward(tw_tape *tape, const tw_bert *bert, tw_tensor *ids, tw_tensor *lengths);

#endif
