#include "layers/resnet.h"

#include "layers/names.h"

#include <math.h>
#include <stdlib.h>

enum { EXPANSION = 4, REDUCTION = 32, STEM_POOL = 2, FINAL_WIDTH = 32 };
static const float BN_EPS = 1e-5f;

/* ---- parameters ---- */

static tw_init uniform(double fan_in) {
    return (tw_init){TW_INIT_UNIFORM, (float)(1.0 / sqrt(fan_in))};
}

static tw_status init_norm(tw_batch_norm *n, tw_params *params, const char *prefix, int64_t channels,
                           float gain) {
    char name[256];
    tw_param *p;
    TRY(tw_add_named(params, prefix, "weight", 1, &channels, (tw_init){TW_INIT_CONSTANT, gain}, &p));
    n->gain = p;
    TRY(tw_add_named(params, prefix, "bias", 1, &channels, (tw_init){TW_INIT_CONSTANT, 0.0f}, &p));
    n->bias = p;
    snprintf(name, sizeof name, "%s.running_mean", prefix);
    TRY(tw_params_add_statistic(params, name, channels, 0.0f, &p));
    n->mean = p;
    snprintf(name, sizeof name, "%s.running_var", prefix);
    TRY(tw_params_add_statistic(params, name, channels, 1.0f, &p));
    n->variance = p;
    return TW_OK;
}

typedef struct conv_size {
    int64_t in, out, kernel;
} conv_size;

static tw_status init_conv(tw_conv_norm *c, tw_params *params, const char *conv, const char *norm,
                           conv_size size, float gain) {
    int64_t shape[4] = {size.out, size.in, size.kernel, size.kernel};
    tw_param *w;
    TRY(tw_add_named(params, conv, "weight", 4, shape, uniform((double)(size.in * size.kernel * size.kernel)),
                     &w));
    c->weight = w;
    c->stride = 1;
    return init_norm(&c->norm, params, norm, size.out, gain);
}

static tw_status init_bottleneck(tw_bottleneck *b, tw_params *params, const char *prefix, int64_t in,
                                 int64_t width, int pool) {
    const conv_size sizes[3] = {{in, width, 1}, {width, width, 3}, {width, EXPANSION * width, 1}};
    char conv[128], norm[128];
    b->pool = pool;
    for (int i = 0; i < 3; i++) {
        snprintf(conv, sizeof conv, "%s.conv%d", prefix, i + 1);
        snprintf(norm, sizeof norm, "%s.bn%d", prefix, i + 1);
        /* a block starts as its shortcut: the last gain is 0 */
        TRY(init_conv(&b->conv[i], params, conv, norm, sizes[i], i == 2 ? 0.0f : 1.0f));
    }
    if (pool == 1 && in == EXPANSION * width) return TW_OK;
    snprintf(conv, sizeof conv, "%s.downsample.0", prefix);
    snprintf(norm, sizeof norm, "%s.downsample.1", prefix);
    return init_conv(&b->shortcut, params, conv, norm, (conv_size){in, EXPANSION * width, 1}, 1.0f);
}

static tw_status init_stem(tw_resnet *r, tw_params *params) {
    int64_t half = r->config.width / 2;
    const conv_size sizes[3] = {{3, half, 3}, {half, half, 3}, {half, r->config.width, 3}};
    for (int i = 0; i < 3; i++) {
        char conv[64], norm[64];
        snprintf(conv, sizeof conv, "visual.conv%d", i + 1);
        snprintf(norm, sizeof norm, "visual.bn%d", i + 1);
        TRY(init_conv(&r->stem[i], params, conv, norm, sizes[i], 1.0f));
    }
    r->stem[0].stride = 2;
    return TW_OK;
}

static tw_status init_stages(tw_resnet *r, tw_params *params) {
    int64_t in = r->config.width;
    for (int s = 0; s < TW_RESNET_STAGES; s++) r->n_blocks += r->config.stages[s];
    r->blocks = calloc((size_t)r->n_blocks, sizeof *r->blocks);
    if (!r->blocks) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_bottleneck *block = r->blocks;
    for (int s = 0; s < TW_RESNET_STAGES; s++) {
        int64_t width = (int64_t)r->config.width << s;
        for (int i = 0; i < r->config.stages[s]; i++) {
            char prefix[64];
            snprintf(prefix, sizeof prefix, "visual.layer%d.%d", s + 1, i);
            TRY(init_bottleneck(block++, params, prefix, in, width, s > 0 && i == 0 ? 2 : 1));
            in = EXPANSION * width;
        }
    }
    return TW_OK;
}

/* q, c: weight and bias; k and v: stacked. All weights N(0, 1/width), biases as PyTorch's linear layers. */
static tw_status init_pool(tw_resnet *r, tw_params *params, int64_t embed) {
    int64_t d = (int64_t)FINAL_WIDTH * r->config.width, side = r->config.resolution / REDUCTION;
    int64_t positions[2] = {side * side + 1, d}, shape[2] = {d, d};
    tw_init narrow = {TW_INIT_NORMAL, (float)(1.0 / sqrt((double)d))}, bias = uniform((double)d);
    tw_param *p, *part;
    TRY(tw_params_add(params, "visual.attnpool.positional_embedding", 2, positions, narrow, &p));
    r->positional_embedding = p;
    TRY(tw_add_named(params, "visual.attnpool.k_proj", "weight", 2, shape, narrow, &part));
    TRY(tw_add_named(params, "visual.attnpool.v_proj", "weight", 2, shape, narrow, &part));
    TRY(tw_params_fuse(params, 2, &p));
    r->kv_proj.weight = p;
    TRY(tw_add_named(params, "visual.attnpool.k_proj", "bias", 1, shape, bias, &part));
    TRY(tw_add_named(params, "visual.attnpool.v_proj", "bias", 1, shape, bias, &part));
    TRY(tw_params_fuse(params, 2, &p));
    r->kv_proj.bias = p;
    TRY(tw_linear_init(&r->q_proj, params, "visual.attnpool.q_proj", d, d, narrow, bias));
    TRY(tw_linear_init(&r->c_proj, params, "visual.attnpool.c_proj", d, embed, narrow, bias));
    r->c_proj.output_f32 = true;
    return TW_OK;
}

static tw_status check(const tw_image_config *c) {
    if (c->mask_ratio != 0.0)
        return FAIL(TW_ERR_CONFIG,
                    "mask_ratio %g: only a vision transformer's patches can be masked, this image tower is a "
                    "ResNet; use 0",
                    c->mask_ratio);
    bool fits = c->resolution >= REDUCTION && c->resolution % REDUCTION == 0 && c->width >= 2 &&
                c->width % 2 == 0 && c->heads >= 1 && FINAL_WIDTH * c->width % c->heads == 0;
    for (int s = 0; s < TW_RESNET_STAGES; s++) fits = fits && c->stages[s] >= 1;
    if (fits) return TW_OK;
    return FAIL(TW_ERR_CONFIG,
                "image tower: resolution %d (a multiple of %d), width %d (even), %d heads (a divisor of %d "
                "widths) and "
                "stages %d, %d, %d, %d (at least 1 each) do not fit together",
                c->resolution, REDUCTION, c->width, c->heads, FINAL_WIDTH, c->stages[0], c->stages[1],
                c->stages[2], c->stages[3]);
}

tw_status tw_resnet_init(tw_resnet *resnet, tw_params *params, const tw_image_config *config, int embed) {
    *resnet = (tw_resnet){.config = *config};
    TRY(check(config));
    TRY(init_stem(resnet, params));
    TRY(init_stages(resnet, params));
    return init_pool(resnet, params, embed);
}

void tw_resnet_free(tw_resnet *resnet) {
    free(resnet->blocks);
    resnet->blocks = NULL;
}

void tw_resnet_synchronise(tw_resnet *resnet, tw_comm *comm) {
    resnet->sync = comm;
    for (int i = 0; i < 3; i++) resnet->stem[i].norm.sync = comm;
    for (int k = 0; k < resnet->n_blocks; k++) {
        for (int i = 0; i < 3; i++) resnet->blocks[k].conv[i].norm.sync = comm;
        resnet->blocks[k].shortcut.norm.sync = comm;
    }
}

/* ---- forward ---- */

static tw_tensor *norm_forward(tw_tape *tape, const tw_batch_norm *n, tw_tensor *x, bool relu,
                               tw_tensor *residual) {
    bool training = tw_tape_is_training(tape) && !n->mean->frozen;
    tw_batch_norm_attr attr = {
        .eps = BN_EPS, .relu = relu, .training = training, .comm = training ? n->sync : NULL};
    tw_tensor *inputs[] = {x,
                           tw_tape_param(tape, n->gain),
                           tw_tape_param(tape, n->bias),
                           tw_tape_param(tape, n->mean),
                           tw_tape_param(tape, n->variance),
                           residual};
    return tw_tape_record(tape, TW_OP_batch_norm, &attr, 6, inputs);
}

static tw_tensor *conv_forward(tw_tape *tape, const tw_conv_norm *c, tw_tensor *x, bool relu,
                               tw_tensor *residual) {
    tw_conv2d_attr attr = {.stride = c->stride, .padding = (int)c->weight->shape[2] / 2};
    tw_tensor *inputs[] = {x, tw_tape_param(tape, c->weight)};
    x = tw_tape_record(tape, TW_OP_conv2d, &attr, 2, inputs);
    return norm_forward(tape, &c->norm, x, relu, residual);
}

static tw_tensor *pool_forward(tw_tape *tape, tw_tensor *x, int size) {
    if (size == 1) return x;
    return tw_tape_record(tape, TW_OP_avg_pool, &(tw_avg_pool_attr){size}, 1, &x);
}

static tw_tensor *bottleneck_forward(tw_tape *tape, const tw_bottleneck *b, tw_tensor *x) {
    tw_tape_block_begin(tape);
    tw_tensor *shortcut = x;
    if (b->shortcut.weight)
        shortcut = conv_forward(tape, &b->shortcut, pool_forward(tape, x, b->pool), false, NULL);
    x = conv_forward(tape, &b->conv[0], x, true, NULL);
    x = conv_forward(tape, &b->conv[1], x, true, NULL);
    x = conv_forward(tape, &b->conv[2], pool_forward(tape, x, b->pool), true, shortcut);
    tw_tape_block_end(tape);
    return x;
}

tw_tensor *tw_resnet_forward(tw_tape *tape, const tw_resnet *resnet, tw_tensor *pixels,
                             tw_dtype compute_type) {
    tw_patchify_attr patchify = {.patch = 1, .grid = true, .type = compute_type};
    memcpy(patchify.mean, resnet->config.pixel_mean, sizeof patchify.mean);
    memcpy(patchify.std, resnet->config.pixel_std, sizeof patchify.std);
    tw_tensor *x = tw_tape_record(tape, TW_OP_patchify, &patchify, 1, &pixels);
    tw_tape_block_begin(tape);
    for (int i = 0; i < 3; i++) x = conv_forward(tape, &resnet->stem[i], x, true, NULL);
    x = pool_forward(tape, x, STEM_POOL);
    tw_tape_block_end(tape);
    for (int i = 0; i < resnet->n_blocks; i++) x = bottleneck_forward(tape, &resnet->blocks[i], x);
    tw_tensor *tokens[] = {x, tw_tape_param(tape, resnet->positional_embedding)};
    x = tw_tape_record(tape, TW_OP_pool_tokens, NULL, 2, tokens);
    tw_tensor *kv = tw_linear_forward(tape, &resnet->kv_proj, x, TW_IDENTITY, NULL);
    x = tw_tape_record(tape, TW_OP_take_token, NULL, 1, &x);
    tw_tensor *attended[] = {tw_linear_forward(tape, &resnet->q_proj, x, TW_IDENTITY, NULL), kv};
    tw_pool_attention_attr attr = {.heads = resnet->config.heads};
    x = tw_tape_record(tape, TW_OP_pool_attention, &attr, 2, attended);
    return tw_linear_forward(tape, &resnet->c_proj, x, TW_IDENTITY, NULL);
}
