#include "train/original_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parts of names between dots; of two that stand in one module, the earlier one comes first. Modules list
 * their own parameters before their children, in the order of their making. */
static const char *const parts[] = {"text_projection",
                                    "logit_scale",
                                    "visual",
                                    "bert",
                                    "class_embedding",
                                    "positional_embedding",
                                    "proj",
                                    "conv1",
                                    "bn1",
                                    "conv2",
                                    "bn2",
                                    "conv3",
                                    "bn3",
                                    "layer1",
                                    "layer2",
                                    "layer3",
                                    "layer4",
                                    "ln_pre",
                                    "transformer",
                                    "ln_post",
                                    "attnpool",
                                    "attn",
                                    "ln_1",
                                    "mlp",
                                    "ln_2",
                                    "in_proj_weight",
                                    "in_proj_bias",
                                    "out_proj",
                                    "c_fc",
                                    "k_proj",
                                    "q_proj",
                                    "v_proj",
                                    "c_proj",
                                    "embeddings",
                                    "encoder",
                                    "pooler",
                                    "position_ids",
                                    "word_embeddings",
                                    "position_embeddings",
                                    "token_type_embeddings",
                                    "attention",
                                    "intermediate",
                                    "self",
                                    "query",
                                    "key",
                                    "value",
                                    "output",
                                    "dense",
                                    "LayerNorm",
                                    "downsample",
                                    "weight",
                                    "bias",
                                    "running_mean",
                                    "running_var",
                                    "num_batches_tracked"};
enum { PARTS = sizeof parts / sizeof parts[0] };

static int rank_of(const char *part, size_t n) {
    for (int i = 0; i < PARTS; i++)
        if (strlen(parts[i]) == n && memcmp(parts[i], part, n) == 0) return i;
    return PARTS;
}

static bool is_number(const char *part, size_t n) {
    return n > 0 && strspn(part, "0123456789") >= n;
}

int tw_original_order(const char *a, const char *b) {
    while (*a && *b) {
        size_t n = strcspn(a, "."), m = strcspn(b, ".");
        if (n != m || memcmp(a, b, n) != 0) {
            if (is_number(a, n) && is_number(b, m)) return n != m ? (n < m ? -1 : 1) : memcmp(a, b, n);
            int x = rank_of(a, n), y = rank_of(b, m);
            return x != y ? (x < y ? -1 : 1) : strcmp(a, b);
        }
        a += n + (a[n] == '.');
        b += m + (b[m] == '.');
    }
    return (*a != 0) - (*b != 0);
}

bool tw_original_no_decay(const char *name) {
    return strstr(name, "bn") || strstr(name, "ln") || strstr(name, "bias") || strstr(name, "logit_scale");
}

bool tw_original_is_buffer(const char *name) {
    const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
    return strcmp(last, "running_mean") == 0 || strcmp(last, "running_var") == 0 ||
           strcmp(last, "num_batches_tracked") == 0 || strcmp(last, "position_ids") == 0;
}

/* Gives the parameters of one group their numbers; returns how many parameters there are for it. */
static int64_t number_group(const tw_weights *w, const tw_weights_group *group, bool no_decay, bool image,
                            int64_t *numbers) {
    int64_t n = 0;
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const char *name = tw_weights_at(w, i)->name;
        if (strncmp(name, TW_WEIGHTS_OPTIMIZER, strlen(TW_WEIGHTS_OPTIMIZER)) == 0 ||
            tw_original_is_buffer(name) || tw_original_no_decay(name) != no_decay)
            continue;
        if (!image && strncmp(name, "visual.", 7) == 0) continue;
        if (n < group->param_count) numbers[i] = group->params[n];
        n++;
    }
    return n;
}

tw_status tw_original_optimizer_numbers(const tw_weights *w, int64_t **numbers) {
    const tw_weights_note *note = tw_weights_get_note(w);
    int64_t n = tw_weights_count(w), first = 0, second = 0;
    *numbers = malloc(((size_t)n + 1) * sizeof **numbers);
    if (!*numbers) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int image = 1; image >= 0 && note->group_count == 2; image--) {
        for (int64_t i = 0; i < n; i++) (*numbers)[i] = -1;
        first = number_group(w, &note->groups[0], true, image, *numbers);
        second = number_group(w, &note->groups[1], false, image, *numbers);
        if (first == note->groups[0].param_count && second == note->groups[1].param_count) return TW_OK;
    }
    free(*numbers);
    *numbers = NULL;
    if (note->group_count != 2)
        return FAIL(
            TW_ERR_FORMAT,
            "%s: the optimizer has %lld parameter groups, the original code's has 2: its state cannot be "
            "used",
            tw_weights_path(w), (long long)note->group_count);
    return FAIL(
        TW_ERR_FORMAT,
        "%s: the optimizer has %lld parameters without and %lld with weight decay, the model %lld and "
        "%lld: its state cannot be told apart",
        tw_weights_path(w), (long long)note->groups[0].param_count, (long long)note->groups[1].param_count,
        (long long)first, (long long)second);
}
