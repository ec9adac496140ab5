#include "train/formats/hf_names.h"

#include <stdio.h>
#include <string.h>

/* '#' stands for a layer's number; '*' at the end for "weight" or "bias"; '~' at the end for anything. The
 * first rule that fits a name is the one. Rules of one fused tensor follow one another, part by part. */
typedef struct rule {
    const char *original, *hf;
    tw_hf_transform transform;
    int part, parts;
} rule;

#define BLOCK "visual.transformer.resblocks.#."
#define LAYER "vision_model.encoder.layers.#."
static const rule RULES[] = {
    {"logit_scale", "logit_scale", TW_HF_COPY, 0, 1},
    {"text_projection", "text_projection.weight", TW_HF_TRANSPOSE, 0, 1},
    {"visual.proj", "visual_projection.weight", TW_HF_TRANSPOSE, 0, 1},
    {"visual.class_embedding", "vision_model.embeddings.class_embedding", TW_HF_COPY, 0, 1},
    {"visual.positional_embedding", "vision_model.embeddings.position_embedding.weight", TW_HF_COPY, 0, 1},
    {"visual.position_ids", "vision_model.embeddings.position_ids", TW_HF_COPY, 0, 1},
    {"visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight", TW_HF_COPY, 0, 1},
    {"visual.ln_pre.*", "vision_model.pre_layrnorm.*", TW_HF_COPY, 0, 1}, /* their spelling */
    {"visual.ln_post.*", "vision_model.post_layernorm.*", TW_HF_COPY, 0, 1},
    {BLOCK "ln_1.*", LAYER "layer_norm1.*", TW_HF_COPY, 0, 1},
    {BLOCK "ln_2.*", LAYER "layer_norm2.*", TW_HF_COPY, 0, 1},
    {BLOCK "attn.in_proj_*", LAYER "self_attn.q_proj.*", TW_HF_ROWS, 0, 3},
    {BLOCK "attn.in_proj_*", LAYER "self_attn.k_proj.*", TW_HF_ROWS, 1, 3},
    {BLOCK "attn.in_proj_*", LAYER "self_attn.v_proj.*", TW_HF_ROWS, 2, 3},
    {BLOCK "attn.out_proj.*", LAYER "self_attn.out_proj.*", TW_HF_COPY, 0, 1},
    {BLOCK "mlp.c_fc.*", LAYER "mlp.fc1.*", TW_HF_COPY, 0, 1},
    {BLOCK "mlp.c_proj.*", LAYER "mlp.fc2.*", TW_HF_COPY, 0, 1},
    {"bert.~", "text_model.~", TW_HF_COPY, 0, 1},
};
enum { RULE_COUNT = sizeof RULES / sizeof RULES[0] };

/* What '#' and the last sign stood for in a name that fitted. */
typedef struct fit {
    const char *number, *rest; /* not zero-terminated; zero-terminated */
    int digits;
} fit;

static bool match(const char *pattern, const char *name, fit *out) {
    *out = (fit){"", "", 0};
    for (; *pattern; pattern++) {
        if (*pattern == '~') {
            out->rest = name;
            return *name != '\0';
        }
        if (*pattern == '*') {
            out->rest = name;
            return strcmp(name, "weight") == 0 || strcmp(name, "bias") == 0;
        }
        if (*pattern == '#') {
            out->number = name;
            while (*name >= '0' && *name <= '9') name++;
            out->digits = (int)(name - out->number);
            if (out->digits < 1 || (out->digits > 1 && out->number[0] == '0')) return false;
        } else if (*pattern != *name++) {
            return false;
        }
    }
    return *name == '\0';
}

/* The pattern with its signs replaced; false if that is too long for a name. */
static bool expand(const char *pattern, const fit *f, char out[TW_HF_NAME_BYTES]) {
    size_t n = strcspn(pattern, "*~"), at = strcspn(pattern, "#");
    int length = at < n ? snprintf(out, TW_HF_NAME_BYTES, "%.*s%.*s%.*s%s", (int)at, pattern, f->digits,
                                   f->number, (int)(n - at - 1), pattern + at + 1, f->rest)
                        : snprintf(out, TW_HF_NAME_BYTES, "%.*s%s", (int)n, pattern, f->rest);
    return length < TW_HF_NAME_BYTES;
}

static bool translate(const rule *r, const char *to, const fit *f, tw_hf_piece *out) {
    *out = (tw_hf_piece){.transform = r->transform, .part = r->part, .parts = r->parts};
    return expand(to, f, out->name);
}

int tw_hf_pieces_of(const char *original, tw_hf_piece pieces[TW_HF_MAX_PIECES]) {
    fit f;
    for (int i = 0; i < RULE_COUNT; i++) {
        if (!match(RULES[i].original, original, &f)) continue;
        int n = 0;
        for (; n < RULES[i].parts; n++)
            if (!translate(&RULES[i + n], RULES[i + n].hf, &f, &pieces[n])) return 0;
        return n;
    }
    return 0;
}

bool tw_hf_original_of(const char *hf, tw_hf_piece *out) {
    fit f;
    for (int i = 0; i < RULE_COUNT; i++)
        if (match(RULES[i].hf, hf, &f)) return translate(&RULES[i], RULES[i].original, &f, out);
    return false;
}

bool tw_hf_is_unused(const char *original) {
    static const char POOLER[] = "bert.pooler.";
    return strncmp(original, POOLER, sizeof POOLER - 1) == 0 ||
           strcmp(original, "bert.embeddings.position_ids") == 0 ||
           strcmp(original, "bert.embeddings.token_type_ids") == 0 ||
           strcmp(original, "visual.position_ids") == 0;
}

bool tw_hf_is_named(const tw_weights *w) {
    return tw_weights_find(w, "vision_model.embeddings.class_embedding") >= 0 ||
           tw_weights_find(w, "text_model.embeddings.word_embeddings.weight") >= 0;
}
