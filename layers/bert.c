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
    if (config->layers < 1) return TW_OK;
    const tw_linear *qkv = &bert->layers[config->layers - 1].qkv;
    TRY(tw_linear_slice(&bert->last_q, params, qkv, 0, d));
    return tw_linear_slice(&bert->last_kv, params, qkv, d, 2 * d);
}

void tw_bert_free(tw_bert *bert) {
    free(bert->layers);
    bert->layers = NULL;
}

/* A batch of texts on a tape. */
typedef struct texts {
    tw_tape *tape;
    const tw_bert *bert;
    tw_tensor *lengths;          /* with padding, else NULL */
    tw_tensor *offsets, *origin; /* packed, else NULL */
    int tokens;                  /* of a text with its padding */
    bool training;
} texts;

/* Places of dropout are numbered 1 (embeddings), then 3 i + 2, 3, 4 for layer i: probabilities, attention
 * output, feed-forward output. */
static uint32_t place_of(int layer) {
    return 3 * (uint32_t)layer + 2;
}

static tw_tensor *take_first(const texts *t, tw_tensor *x) {
    return tw_tape_record(t->tape, TW_OP_take_token, NULL, 2, (tw_tensor *[]){x, t->offsets});
}

/* What follows attention. origin: of x's rows, if they are packed. */
static tw_tensor *rest_of_layer(const texts *t, int index, tw_tensor *x, tw_tensor *attended,
                                tw_tensor *origin) {
    const tw_bert_layer *l = &t->bert->layers[index];
    float dropout = t->training ? t->bert->config.hidden_dropout : 0.0f;
    uint32_t place = place_of(index);
    tw_tensor *h = tw_linear_forward(t->tape, &l->attention_output, attended, TW_IDENTITY, NULL);
    x = tw_add_norm_forward(t->tape, &l->attention_norm, x, h, dropout, place + 1, origin, t->tokens);
    h = tw_linear_forward(t->tape, &l->intermediate, x, TW_ERF_GELU, NULL);
    h = tw_linear_forward(t->tape, &l->output, h, TW_IDENTITY, NULL);
    return tw_add_norm_forward(t->tape, &l->output_norm, x, h, dropout, place + 2, origin, t->tokens);
}

static tw_tensor *layer_forward(const texts *t, int index, tw_tensor *x) {
    const tw_bert_config *c = &t->bert->config;
    tw_attention_attr attention = {.heads = c->heads,
                                   .dropout = t->training ? c->attention_dropout : 0.0f,
                                   .layer = place_of(index),
                                   .tokens = t->tokens};
    tw_tape_block_begin(t->tape);
    tw_tensor *inputs[] = {tw_linear_forward(t->tape, &t->bert->layers[index].qkv, x, TW_IDENTITY, NULL),
                           t->lengths, t->offsets};
    x = rest_of_layer(t, index, x, tw_tape_record(t->tape, TW_OP_attention, &attention, 3, inputs),
                      t->origin);
    tw_tape_block_end(t->tape);
    return x;
}

/* -> (B,D), of token 0. Its draws are those of a whole layer: of query 0, and of a (B,D) matrix's rows, which
 * are a padded sample's first elements. What reads one token only is recorded before what reads all: backward
 * goes the other way, so that a gradient of all tokens is there before one token's is added. */
static tw_tensor *last_layer_forward(const texts *t, tw_tensor *x) {
    const tw_bert_config *c = &t->bert->config;
    int index = c->layers - 1;
    tw_pool_attention_attr attention = {.heads = c->heads,
                                        .dropout = t->training ? c->attention_dropout : 0.0f,
                                        .layer = place_of(index),
                                        .tokens = t->tokens};
    tw_tape_block_begin(t->tape);
    tw_tensor *first = take_first(t, x);
    tw_tensor *inputs[] = {tw_linear_forward(t->tape, &t->bert->last_q, first, TW_IDENTITY, NULL), NULL,
                           t->lengths, t->offsets};
    inputs[1] = tw_linear_forward(t->tape, &t->bert->last_kv, x, TW_IDENTITY, NULL);
    tw_tensor *attended = tw_tape_record(t->tape, TW_OP_pool_attention, &attention, 4, inputs);
    x = rest_of_layer(t, index, first, attended, NULL);
    tw_tape_block_end(t->tape);
    return x;
}

static tw_tensor *embed(const texts *t, tw_tensor *ids) {
    const tw_bert *bert = t->bert;
    tw_embed_tokens_attr attr = {.eps = LN_EPS,
                                 .dropout = t->training ? bert->config.hidden_dropout : 0.0f,
                                 .layer = 1,
                                 .padding_id = bert->config.padding_id,
                                 .tokens = t->tokens};
    tw_tensor *inputs[] = {ids,
                           tw_tape_param(t->tape, bert->word),
                           tw_tape_param(t->tape, bert->position),
                           tw_tape_param(t->tape, bert->type),
                           tw_tape_param(t->tape, bert->embedding_norm.gain),
                           tw_tape_param(t->tape, bert->embedding_norm.bias),
                           t->origin};
    return tw_tape_record(t->tape, TW_OP_embed_tokens, &attr, 7, inputs);
}

tw_tensor *tw_bert_forward(tw_tape *tape, const tw_bert *bert, tw_tensor *ids, tw_tensor *lengths,
                           int64_t rows) {
    texts t = {.tape = tape, .bert = bert, .lengths = lengths, .training = tw_tape_is_training(tape)};
    if (ids) t.tokens = (int)ids->shape[1];
    if (rows > 0) {
        tw_pack_tokens_attr attr = {.rows = rows};
        ids = tw_tape_record(tape, TW_OP_pack_tokens, &attr, 2, (tw_tensor *[]){ids, lengths});
        t.lengths = NULL;
        t.offsets = ids ? tw_tape_result(tape, ids, 1) : NULL;
        t.origin = ids ? tw_tape_result(tape, ids, 2) : NULL;
    }
    tw_tensor *x = embed(&t, ids);
    int n = bert->config.layers, whole = bert->whole_last_block ? n : n - 1;
    for (int i = 0; i < whole; i++) x = layer_forward(&t, i, x);
    return whole >= 0 && whole < n ? last_layer_forward(&t, x) : take_first(&t, x);
}
