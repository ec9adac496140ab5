#include "layers/bert.h"

#include "layers/names.h"

#include <stdlib.h>

static const float LN_EPS = 1e-12f;
static const tw_init normal = {TW_INIT_NORMAL, 0.02f};
static const tw_init zero = {TW_INIT_CONSTANT, 0.0f};

/* query, key and value are three parameters in checkpoints and one product in computation. */
static tw_status init_qkv(tw_linear *l, tw_params *params, const char *prefix, int64_t d) {
    static const char *const names[] = {"query", "key", "value"};
    int64_t shape[2] = {d, d};
    tw_param *part, *weight, *bias;
    char at[192];
    for (int i = 0; i < 3; i++) {
        snprintf(at, sizeof at, "%s.%s", prefix, names[i]);
        TRY(tw_add_named(params, at, "weight", 2, shape, normal, &part));
    }
    TRY(tw_params_fuse(params, 3, &weight));
    for (int i = 0; i < 3; i++) {
        snprintf(at, sizeof at, "%s.%s", prefix, names[i]);
        TRY(tw_add_named(params, at, "bias", 1, shape, zero, &part));
    }
    TRY(tw_params_fuse(params, 3, &bias));
    *l = (tw_linear){.weight = weight, .bias = bias};
    return TW_OK;
}

static tw_status init_layer(tw_bert_layer *l, tw_params *params, int index, const tw_bert_config *config) {
    char at[128];
    const char *root = "bert.encoder.layer";
    int d = config->hidden;
    snprintf(at, sizeof at, "%s.%d.attention.self", root, index);
    TRY(init_qkv(&l->qkv, params, at, d));
    snprintf(at, sizeof at, "%s.%d.attention.output.dense", root, index);
    TRY(tw_linear_init(&l->attention_output, params, at, d, d, normal, zero));
    snprintf(at, sizeof at, "%s.%d.attention.output.LayerNorm", root, index);
    TRY(tw_norm_init(&l->attention_norm, params, at, d, LN_EPS));
    snprintf(at, sizeof at, "%s.%d.intermediate.dense", root, index);
    TRY(tw_linear_init(&l->intermediate, params, at, d, config->intermediate, normal, zero));
    snprintf(at, sizeof at, "%s.%d.output.dense", root, index);
    TRY(tw_linear_init(&l->output, params, at, config->intermediate, d, normal, zero));
    snprintf(at, sizeof at, "%s.%d.output.LayerNorm", root, index);
    return tw_norm_init(&l->output_norm, params, at, d, LN_EPS);
}

tw_status tw_bert_init(tw_bert *bert, tw_params *params, const tw_bert_config *config) {
    *bert = (tw_bert){.config = *config};
    int64_t d = config->hidden;
    if (config->heads < 1 || config->hidden % config->heads != 0)
        return FAIL(TW_ERR_CONFIG, "text tower: hidden size %d is no multiple of %d heads", config->hidden,
                    config->heads);
    struct {
        const char *name;
        int64_t rows;
        const tw_param **param;
    } tables[] = {{"word_embeddings", config->vocabulary, &bert->word},
                  {"position_embeddings", config->positions, &bert->position},
                  {"token_type_embeddings", config->types, &bert->type}};
    for (int i = 0; i < 3; i++) {
        char at[128];
        int64_t shape[2] = {tables[i].rows, d};
        tw_param *p;
        snprintf(at, sizeof at, "bert.embeddings.%s", tables[i].name);
        TRY(tw_add_named(params, at, "weight", 2, shape, normal, &p));
        *tables[i].param = p;
    }
    TRY(tw_norm_init(&bert->embedding_norm, params, "bert.embeddings.LayerNorm", d, LN_EPS));
    bert->layers = calloc((size_t)config->layers, sizeof *bert->layers);
    if (!bert->layers) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int i = 0; i < config->layers; i++) TRY(init_layer(&bert->layers[i], params, i, config));
    return TW_OK;
}

void tw_bert_free(tw_bert *bert) {
    free(bert->layers);
    bert->layers = NULL;
}

/* Places of dropout are numbered 1 (embeddings), then 3 i + 2, 3, 4 for layer i: probabilities, attention
 * output, feed-forward output. */
static tw_tensor *layer_forward(tw_tape *tape, const tw_bert *bert, int index, tw_tensor *x,
                                tw_tensor *lengths, bool training) {
    const tw_bert_layer *l = &bert->layers[index];
    float hidden = training ? bert->config.hidden_dropout : 0.0f;
    uint32_t place = 3 * (uint32_t)index + 2;
    tw_attention_attr attention = {.heads = bert->config.heads,
                                   .dropout = training ? bert->config.attention_dropout : 0.0f,
                                   .layer = place};
    tw_tape_block_begin(tape);
    tw_tensor *inputs[] = {tw_linear_forward(tape, &l->qkv, x, TW_IDENTITY, NULL), lengths};
    tw_tensor *h = tw_tape_record(tape, TW_OP_attention, &attention, 2, inputs);
    h = tw_linear_forward(tape, &l->attention_output, h, TW_IDENTITY, NULL);
    x = tw_add_norm_forward(tape, &l->attention_norm, x, h, hidden, place + 1);
    h = tw_linear_forward(tape, &l->intermediate, x, TW_ERF_GELU, NULL);
    h = tw_linear_forward(tape, &l->output, h, TW_IDENTITY, NULL);
    x = tw_add_norm_forward(tape, &l->output_norm, x, h, hidden, place + 2);
    tw_tape_block_end(tape);
    return x;
}

tw_tensor *tw_bert_forward(tw_tape *tape, const tw_bert *bert, tw_tensor *ids, tw_tensor *lengths) {
    bool training = tw_tape_is_training(tape);
    tw_embed_tokens_attr attr = {.eps = LN_EPS,
                                 .dropout = training ? bert->config.hidden_dropout : 0.0f,
                                 .layer = 1,
                                 .padding_id = bert->config.padding_id};
    tw_tensor *inputs[] = {ids,
                           tw_tape_param(tape, bert->word),
                           tw_tape_param(tape, bert->position),
                           tw_tape_param(tape, bert->type),
                           tw_tape_param(tape, bert->embedding_norm.gain),
                           tw_tape_param(tape, bert->embedding_norm.bias)};
    tw_tensor *x = tw_tape_record(tape, TW_OP_embed_tokens, &attr, 6, inputs);
    for (int i = 0; i < bert->config.layers; i++) x = layer_forward(tape, bert, i, x, lengths, training);
    return tw_tape_record(tape, TW_OP_take_token, NULL, 1, &x);
}
