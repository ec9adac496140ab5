#include "layers/vit.h"

#include "layers/names.h"

#include <math.h>
#include <stdlib.h>

enum { MLP_RATIO = 4 };
static const float LN_EPS = 1e-5f;

static tw_init uniform(double fan_in) {
    return (tw_init){TW_INIT_UNIFORM, (float)(1.0 / sqrt(fan_in))};
}

static const tw_init zero = {TW_INIT_CONSTANT, 0.0f};

/* in_proj is one parameter with PyTorch's names for it: in_proj_weight (3D, D), Xavier-uniform; in_proj_bias
 * (3D). */
static tw_status init_in_proj(tw_linear *l, tw_params *params, const char *prefix, int64_t d) {
    int64_t shape[2] = {3 * d, d};
    tw_param *w, *b;
    tw_init xavier = {TW_INIT_UNIFORM, (float)sqrt(6.0 / (double)(4 * d))};
    TRY(tw_add_named(params, prefix, "in_proj_weight", 2, shape, xavier, &w));
    TRY(tw_add_named(params, prefix, "in_proj_bias", 1, shape, zero, &b));
    *l = (tw_linear){.weight = w, .bias = b};
    return TW_OK;
}

static tw_status init_block(tw_vit_block *b, tw_params *params, int index, int d) {
    char at[128];
    const char *root = "visual.transformer.resblocks";
    int hidden = MLP_RATIO * d;
    snprintf(at, sizeof at, "%s.%d.ln_1", root, index);
    TRY(tw_norm_init(&b->ln_1, params, at, d, LN_EPS));
    snprintf(at, sizeof at, "%s.%d.attn", root, index);
    TRY(init_in_proj(&b->in_proj, params, at, d));
    snprintf(at, sizeof at, "%s.%d.attn.out_proj", root, index);
    TRY(tw_linear_init(&b->out_proj, params, at, d, d, uniform(d), zero));
    snprintf(at, sizeof at, "%s.%d.ln_2", root, index);
    TRY(tw_norm_init(&b->ln_2, params, at, d, LN_EPS));
    snprintf(at, sizeof at, "%s.%d.mlp.c_fc", root, index);
    TRY(tw_linear_init(&b->fc, params, at, d, hidden, uniform(d), uniform(d)));
    snprintf(at, sizeof at, "%s.%d.mlp.c_proj", root, index);
    return tw_linear_init(&b->proj, params, at, hidden, d, uniform(hidden), uniform(hidden));
}

int tw_vit_kept(const tw_image_config *config) {
    int side = config->resolution / config->patch;
    return (int)((double)(side * side) * (1.0 - config->mask_ratio));
}

static tw_status check_mask(const tw_image_config *config) {
    if (!(config->mask_ratio >= 0.0 && config->mask_ratio < 1.0))
        return FAIL(TW_ERR_CONFIG, "mask_ratio %g is not in [0, 1)", config->mask_ratio);
    if (tw_vit_kept(config) >= 1) return TW_OK;
    int side = config->resolution / config->patch;
    return FAIL(TW_ERR_CONFIG, "mask_ratio %g leaves nothing of an image's %d patches: use a smaller one",
                config->mask_ratio, side * side);
}

tw_status tw_vit_init(tw_vit *vit, tw_params *params, const tw_image_config *config, int embed) {
    *vit = (tw_vit){.config = *config};
    int64_t d = config->width, side = config->resolution / config->patch;
    if (config->patch < 1 || config->resolution % config->patch != 0 || config->heads < 1 ||
        d % config->heads != 0)
        return FAIL(TW_ERR_CONFIG,
                    "image tower: resolution %d, patch %d, width %d, %d heads do not fit together",
                    config->resolution, config->patch, config->width, config->heads);
    TRY(check_mask(config));
    int64_t conv[4] = {d, 3, config->patch, config->patch}, positions[2] = {side * side + 1, d};
    tw_init narrow = {TW_INIT_NORMAL, (float)(1.0 / sqrt((double)d))};
    tw_param *p;
    TRY(tw_params_add(params, "visual.class_embedding", 1, &d, narrow, &p));
    vit->class_embedding = p;
    TRY(tw_params_add(params, "visual.positional_embedding", 2, positions, narrow, &p));
    vit->positional_embedding = p;
    TRY(tw_params_add(params, "visual.conv1.weight", 4, conv, uniform((double)(3 * conv[2] * conv[3])), &p));
    TRY(tw_params_fuse(params, 1, &p));
    vit->conv1 = (tw_linear){.weight = p};
    TRY(tw_norm_init(&vit->ln_pre, params, "visual.ln_pre", d, LN_EPS));
    vit->blocks = calloc((size_t)config->layers, sizeof *vit->blocks);
    if (!vit->blocks) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int i = 0; i < config->layers; i++) TRY(init_block(&vit->blocks[i], params, i, config->width));
    if (config->layers > 0) {
        const tw_linear *in = &vit->blocks[config->layers - 1].in_proj;
        TRY(tw_linear_slice(&vit->last_q, params, in, 0, d));
        TRY(tw_linear_slice(&vit->last_kv, params, in, d, 2 * d));
    }
    TRY(tw_norm_init(&vit->ln_post, params, "visual.ln_post", d, LN_EPS));
    return tw_projection_init(&vit->proj, params, "visual.proj", d, embed, narrow);
}

void tw_vit_free(tw_vit *vit) {
    free(vit->blocks);
    vit->blocks = NULL;
}

/* x + what follows attention: its projection and the MLP. */
static tw_tensor *rest_of_block(tw_tape *tape, const tw_vit_block *b, tw_tensor *x, tw_tensor *attended) {
    x = tw_linear_forward(tape, &b->out_proj, attended, TW_IDENTITY, x);
    tw_tensor *hidden =
        tw_linear_forward(tape, &b->fc, tw_norm_forward(tape, &b->ln_2, x), TW_QUICK_GELU, NULL);
    return tw_linear_forward(tape, &b->proj, hidden, TW_IDENTITY, x);
}

static tw_tensor *block_forward(tw_tape *tape, const tw_vit *vit, const tw_vit_block *b, tw_tensor *x) {
    tw_attention_attr attention = {.heads = vit->config.heads};
    tw_tape_block_begin(tape);
    tw_tensor *qkv =
        tw_linear_forward(tape, &b->in_proj, tw_norm_forward(tape, &b->ln_1, x), TW_IDENTITY, NULL);
    tw_tensor *attended = tw_tape_record(tape, TW_OP_attention, &attention, 1, &qkv);
    x = rest_of_block(tape, b, x, attended);
    tw_tape_block_end(tape);
    return x;
}

/* (B,T,D) -> (B,D): the class token's. What reads one token only is recorded before what reads all: backward
 * goes the other way, so that a gradient of all tokens is there before one token's is added. */
static tw_tensor *last_block_forward(tw_tape *tape, const tw_vit *vit, const tw_vit_block *b, tw_tensor *x) {
    tw_pool_attention_attr attention = {.heads = vit->config.heads};
    tw_tape_block_begin(tape);
    tw_tensor *first = tw_tape_record(tape, TW_OP_take_token, NULL, 1, &x);
    x = tw_norm_forward(tape, &b->ln_1, x);
    tw_tensor *query = tw_tape_record(tape, TW_OP_take_token, NULL, 1, &x);
    tw_tensor *inputs[2] = {tw_linear_forward(tape, &vit->last_q, query, TW_IDENTITY, NULL)};
    inputs[1] = tw_linear_forward(tape, &vit->last_kv, x, TW_IDENTITY, NULL);
    x = rest_of_block(tape, b, first, tw_tape_record(tape, TW_OP_pool_attention, &attention, 2, inputs));
    tw_tape_block_end(tape);
    return x;
}

static tw_tensor *blocks_forward(tw_tape *tape, const tw_vit *vit, tw_tensor *x) {
    int n = vit->config.layers, whole = vit->whole_last_block ? n : n - 1;
    for (int i = 0; i < whole; i++) x = block_forward(tape, vit, &vit->blocks[i], x);
    if (whole >= 0 && whole < n) return last_block_forward(tape, vit, &vit->blocks[whole], x);
    return tw_tape_record(tape, TW_OP_take_token, NULL, 1, &x);
}

/* NULL: all. */
static tw_tensor *choose_patches(tw_tape *tape, const tw_vit *vit, tw_tensor *pixels) {
    if (!tw_tape_is_training(tape) || vit->config.mask_ratio == 0.0) return NULL;
    int side = vit->config.resolution / vit->config.patch;
    tw_choose_patches_attr attr = {.patches = side * side, .keep = tw_vit_kept(&vit->config)};
    return tw_tape_record(tape, TW_OP_choose_patches, &attr, 1, &pixels);
}

tw_tensor *tw_vit_forward(tw_tape *tape, const tw_vit *vit, tw_tensor *pixels, tw_dtype compute_type) {
    tw_patchify_attr patchify = {.patch = vit->config.patch, .type = compute_type};
    memcpy(patchify.mean, vit->config.pixel_mean, sizeof patchify.mean);
    memcpy(patchify.std, vit->config.pixel_std, sizeof patchify.std);
    tw_tensor *kept = choose_patches(tape, vit, pixels);
    tw_tensor *patches = tw_tape_record(tape, TW_OP_patchify, &patchify, 2, (tw_tensor *[]){pixels, kept});
    tw_tensor *embedded[] = {tw_linear_forward(tape, &vit->conv1, patches, TW_IDENTITY, NULL),
                             tw_tape_param(tape, vit->class_embedding),
                             tw_tape_param(tape, vit->positional_embedding), kept};
    tw_tensor *x = tw_tape_record(tape, TW_OP_embed_patches, NULL, 4, embedded);
    x = tw_norm_forward(tape, &vit->ln_pre, x);
    x = blocks_forward(tape, vit, x);
    return tw_linear_forward(tape, &vit->proj, tw_norm_forward(tape, &vit->ln_post, x), TW_IDENTITY, NULL);
}
