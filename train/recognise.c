#include "train/recognise.h"

#include "train/descriptions.h"
#include "train/model_file.h"
#include "train/position_grid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_SIDE = 1 << 24, HEAD_WIDTH = 64 };

/* The tensor of this name, which must have `ndim` sides of 1 .. LARGEST_SIDE; `what` says what lacks else. */
static tw_status need(const tw_weights *w, const char *name, int ndim, const char *what,
                      const tw_weight **out) {
    int64_t i = tw_weights_find(w, name);
    if (i < 0)
        return FAIL(TW_ERR_FORMAT,
                    "%s has no tensor %s: it holds no %s of the Chinese-CLIP family (%lld tensors, first %s)",
                    tw_weights_path(w), name, what, (long long)tw_weights_count(w),
                    tw_weights_count(w) ? tw_weights_at(w, 0)->name : "none");
    *out = tw_weights_at(w, i);
    bool good = (*out)->ndim == ndim;
    for (int k = 0; good && k < ndim; k++) good = (*out)->shape[k] >= 1 && (*out)->shape[k] <= LARGEST_SIDE;
    if (!good)
        return FAIL(TW_ERR_FORMAT, "%s: %s should have %d dimensions, none of them 0", tw_weights_path(w),
                    name, ndim);
    return TW_OK;
}

/* How many of "<prefix>N<suffix>" there are, from N = 0 on. */
static int count_layers(const tw_weights *w, const char *prefix, const char *suffix) {
    for (int n = 0;; n++) {
        char name[256];
        snprintf(name, sizeof name, "%s%d%s", prefix, n, suffix);
        if (tw_weights_find(w, name) < 0) return n;
    }
}

static int family_heads(int64_t width) {
    if (width == 1280) return 16; /* ViT-H */
    return width % HEAD_WIDTH == 0 ? (int)(width / HEAD_WIDTH) : 0;
}

/* ---- the towers ---- */

static tw_status square_side(const tw_weights *w, const tw_weight *positions, int64_t *side) {
    *side = tw_position_grid_side(positions->shape[0]);
    if (*side > 0) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s: %s has %lld rows, which are not a square grid and a class position",
                tw_weights_path(w), positions->name, (long long)positions->shape[0]);
}

static tw_status recognise_vit(const tw_weights *w, int heads, tw_model_config *out) {
    const tw_weight *conv, *positions, *proj = NULL;
    int64_t side;
    TRY(need(w, "visual.conv1.weight", 4, "image tower", &conv));
    TRY(need(w, "visual.positional_embedding", 2, "image tower", &positions));
    if (out->embed == 0 || tw_weights_find(w, "visual.proj") >= 0)
        TRY(need(w, "visual.proj", 2, "image tower", &proj));
    TRY(square_side(w, positions, &side));
    int64_t width = conv->shape[0], patch = conv->shape[2];
    out->image.kind = TW_VIT;
    if (conv->shape[1] != 3 || conv->shape[3] != patch || positions->shape[1] != width ||
        (proj && proj->shape[0] != width))
        return FAIL(TW_ERR_FORMAT,
                    "%s: visual.conv1.weight, visual.positional_embedding and visual.proj do not belong to "
                    "one image tower",
                    tw_weights_path(w));
    if (side * patch > LARGEST_SIDE)
        return FAIL(TW_ERR_FORMAT, "%s: %lld places of %lld pixels a side are too many", tw_weights_path(w),
                    (long long)side, (long long)patch);
    if (proj) out->embed = (int)proj->shape[1];
    out->image.resolution = (int)(side * patch);
    out->image.patch = (int)patch;
    out->image.width = (int)width;
    out->image.layers = count_layers(w, "visual.transformer.resblocks.", ".attn.in_proj_weight");
    out->image.heads = heads;
    if (out->image.layers == 0)
        return FAIL(TW_ERR_FORMAT, "%s has no tensor visual.transformer.resblocks.0.attn.in_proj_weight",
                    tw_weights_path(w));
    return TW_OK;
}

/* A ModifiedResNet: 32 pixels a place of the grid, the pool 32 times as wide as the first stage (resnet.h).
 */
enum { RESNET_REDUCTION = 32, RESNET_POOL_WIDTH = 32 };

static tw_status recognise_resnet(const tw_weights *w, int heads, tw_model_config *out) {
    const tw_weight *stem, *positions, *proj;
    int64_t side;
    TRY(need(w, "visual.conv3.weight", 4, "image tower", &stem));
    TRY(need(w, "visual.attnpool.positional_embedding", 2, "image tower", &positions));
    TRY(need(w, "visual.attnpool.c_proj.weight", 2, "image tower", &proj));
    TRY(square_side(w, positions, &side));
    int64_t width = stem->shape[0];
    if (positions->shape[1] != RESNET_POOL_WIDTH * width || proj->shape[1] != RESNET_POOL_WIDTH * width)
        return FAIL(TW_ERR_FORMAT,
                    "%s: visual.conv3.weight, visual.attnpool.positional_embedding and "
                    "visual.attnpool.c_proj.weight do not belong to one image tower",
                    tw_weights_path(w));
    out->embed = (int)proj->shape[0];
    out->image.kind = TW_RESNET;
    out->image.resolution = (int)(side * RESNET_REDUCTION);
    out->image.width = (int)width;
    out->image.heads = heads;
    for (int stage = 0; stage < TW_RESNET_STAGES; stage++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "visual.layer%d.", stage + 1);
        out->image.stages[stage] = count_layers(w, prefix, ".conv1.weight");
        if (out->image.stages[stage] == 0)
            return FAIL(TW_ERR_FORMAT, "%s has no tensor %s0.conv1.weight", tw_weights_path(w), prefix);
    }
    return TW_OK;
}

static const float pixel_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float pixel_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

static tw_status image_shapes(const tw_weights *w, int heads, tw_model_config *out) {
    memset(&out->image, 0, sizeof out->image);
    memcpy(out->image.pixel_mean, pixel_mean, sizeof pixel_mean);
    memcpy(out->image.pixel_std, pixel_std, sizeof pixel_std);
    bool resnet = tw_weights_find(w, "visual.attnpool.positional_embedding") >= 0;
    return resnet ? recognise_resnet(w, heads, out) : recognise_vit(w, heads, out);
}

static tw_status text_shapes(const tw_weights *w, int heads, tw_model_config *out) {
    const tw_weight *word, *position, *type, *middle;
    memset(&out->text, 0, sizeof out->text);
    TRY(need(w, "bert.embeddings.word_embeddings.weight", 2, "text tower", &word));
    TRY(need(w, "bert.embeddings.position_embeddings.weight", 2, "text tower", &position));
    TRY(need(w, "bert.embeddings.token_type_embeddings.weight", 2, "text tower", &type));
    TRY(need(w, "bert.encoder.layer.0.intermediate.dense.weight", 2, "text tower", &middle));
    int64_t hidden = word->shape[1];
    if (position->shape[1] != hidden || type->shape[1] != hidden || middle->shape[1] != hidden)
        return FAIL(TW_ERR_FORMAT, "%s: word, position and type embeddings and layer 0 differ in width",
                    tw_weights_path(w));
    out->text = (tw_bert_config){
        .vocabulary = (int)word->shape[0],
        .positions = (int)position->shape[0],
        .types = (int)type->shape[0],
        .hidden = (int)hidden,
        .layers = count_layers(w, "bert.encoder.layer.", ".intermediate.dense.weight"),
        .heads = heads,
        .intermediate = (int)middle->shape[0],
        .hidden_dropout = TW_BERT_DROPOUT,
        .attention_dropout = TW_BERT_DROPOUT,
    };
    out->context = out->text.positions < TW_FAMILY_CONTEXT ? out->text.positions : TW_FAMILY_CONTEXT;
    return TW_OK;
}

/* ---- names and heads ---- */

static bool same_image(const tw_model_config *a, const tw_model_config *b) {
    return a->embed == b->embed && a->image.kind == b->image.kind &&
           memcmp(a->image.stages, b->image.stages, sizeof a->image.stages) == 0 &&
           a->image.resolution == b->image.resolution && a->image.patch == b->image.patch &&
           a->image.width == b->image.width && a->image.layers == b->image.layers &&
           (!a->image.heads || a->image.heads == b->image.heads);
}

/* Vocabulary 0 in a description stands for any. */
static bool same_text(const tw_model_config *a, const tw_model_config *b) {
    return (b->text.vocabulary == 0 || a->text.vocabulary == b->text.vocabulary) &&
           a->text.positions == b->text.positions && a->text.types == b->text.types &&
           a->text.hidden == b->text.hidden && a->text.layers == b->text.layers &&
           a->text.intermediate == b->text.intermediate && (!a->text.heads || a->text.heads == b->text.heads);
}

/* The width that is cut into heads. */
static int attention_width(const tw_model_config *c) {
    return c->image.kind == TW_RESNET ? RESNET_POOL_WIDTH * c->image.width : c->image.width;
}

/* What is not known yet follows the family's rule. */
static tw_status settle_heads(const char *path, const char *tower, int width, int *heads) {
    if (!*heads) *heads = family_heads(width);
    if (*heads && width % *heads == 0) return TW_OK;
    if (*heads)
        return FAIL(TW_ERR_CONFIG, "%s: %d attention heads do not divide the %s tower's width %d", path,
                    *heads, tower, width);
    return FAIL(TW_ERR_CONFIG,
                "%s: the shapes do not tell how many attention heads the %s tower of width %d has: give a "
                "description with these sizes by --model FILE.yaml",
                path, tower, width);
}

/* Looks through the built-in descriptions; takes name and context of an equal model, and heads of equal
 * towers. */
static tw_status compare_with_known(tw_model_config *out, bool image, bool text) {
    for (size_t i = 0; i < tw_description_count; i++) {
        tw_model_config known;
        TRY(tw_model_config_built_in(i, &known));
        bool equal_image = image && same_image(out, &known), equal_text = text && same_text(out, &known);
        if (equal_image && !out->image.heads) out->image.heads = known.image.heads;
        if (equal_text && !out->text.heads) out->text.heads = known.text.heads;
        if (equal_image && equal_text && strcmp(out->name, "custom") == 0) {
            memcpy(out->name, known.name, sizeof out->name);
            out->context = known.context;
        }
    }
    return TW_OK;
}

tw_status tw_recognise_image(const tw_weights *w, int heads, tw_model_config *out) {
    TRY(image_shapes(w, heads, out));
    TRY(compare_with_known(out, true, false));
    return settle_heads(tw_weights_path(w), "image", attention_width(out), &out->image.heads);
}

tw_status tw_recognise_text(const tw_weights *w, int heads, tw_model_config *out) {
    TRY(text_shapes(w, heads, out));
    TRY(compare_with_known(out, false, true));
    return settle_heads(tw_weights_path(w), "text", out->text.hidden, &out->text.heads);
}

tw_status tw_recognise_model(const tw_weights *w, tw_known_heads heads, tw_model_config *out) {
    const tw_weight *projection;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "custom");
    TRY(image_shapes(w, heads.image, out));
    TRY(text_shapes(w, heads.text, out));
    TRY(need(w, "text_projection", 2, "projection", &projection));
    if (projection->shape[0] != out->text.hidden || projection->shape[1] != out->embed)
        return FAIL(TW_ERR_FORMAT, "%s: text_projection is (%lld,%lld), the towers need (%d,%d)",
                    tw_weights_path(w), (long long)projection->shape[0], (long long)projection->shape[1],
                    out->text.hidden, out->embed);
    TRY(compare_with_known(out, true, true));
    TRY(settle_heads(tw_weights_path(w), "image", attention_width(out), &out->image.heads));
    return settle_heads(tw_weights_path(w), "text", out->text.hidden, &out->text.heads);
}
