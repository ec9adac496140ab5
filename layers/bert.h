/* BERT as text tower (Devlin et al. 2019): embeddings, post-norm layers with erf GELU; the feature is the
 * projected [CLS] state of the last layer. No pooler.
 *
 * Texts may be packed: their tokens lie one behind the other without padding (autograd/ops/packed.h). As only
 * [CLS], token 0, is read in the end, of the last layer only what it needs is computed: keys and values of
 * all tokens, queries and all that follows of this one. Neither changes the result but for rounding: hidden
 * keys have no share in it, and dropout draws by a token's place in its text, wherever its row lies. */
#ifndef TW_LAYERS_BERT_H
#define TW_LAYERS_BERT_H

#include "layers/linear.h"

#define TW_BERT_DROPOUT 0.1f /* of every published model, at all places */

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
    tw_linear last_q, last_kv; /* parts of the last layer's qkv */
    bool whole_last_block;     /* compute it for every token; false at first, may be set */
} tw_bert;

/* Adds the tower's parameters, all named "bert.*". */
tw_status tw_bert_init(tw_bert *bert, tw_params *params, const tw_bert_config *config) TW_MUST_CHECK;
void tw_bert_free(tw_bert *bert);

/* ids (B,T) i32, lengths (B) i32: tokens before the padding -> (B, hidden), the [CLS] state. rows 0: with the
 * padding; else packed into so many rows, at least the sum of the lengths, each of which is 1 or more. */
tw_tensor *tw_bert_forward(tw_tape *tape, const tw_bert *bert, tw_tensor *ids, tw_tensor *lengths,
                           int64_t rows);

#endif
