#include "train/model_file.h"

#include "data/files.h"
#include "train/descriptions.h"
#include "train/values.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <yaml.h>

/* One row a key of whole numbers; section NULL is the top level. Every key must be given, but for those of
 * the other kind of image tower, which must not. `values` of them: a list if more than one. */
typedef struct row {
    const char *section, *key;
    size_t offset;
    const char *range;
    enum { ANY_KIND, VIT_ONLY, RESNET_ONLY } kind;
    int values;
} row;

#define IMAGE(key, field, range)                                                                             \
    { "image", key, offsetof(tw_model_config, image.field), range, ANY_KIND, 1 }
#define OF_KIND(kind, key, field, range, values)                                                             \
    { "image", key, offsetof(tw_model_config, image.field), range, kind, values }
#define TEXT(key, field, range)                                                                              \
    { "text", key, offsetof(tw_model_config, text.field), range, ANY_KIND, 1 }
static const row rows[] = {
    {NULL, "embed_dim", offsetof(tw_model_config, embed), "[1, 65536]", ANY_KIND, 1},
    {NULL, "context_length", offsetof(tw_model_config, context), "[3, 512]", ANY_KIND, 1},
    IMAGE("resolution", resolution, "[1, 4096]"),
    OF_KIND(VIT_ONLY, "patch", patch, "[1, 4096]", 1),
    IMAGE("width", width, "[1, 65536]"),
    OF_KIND(VIT_ONLY, "layers", layers, "[1, 1000]", 1),
    OF_KIND(RESNET_ONLY, "stages", stages, "[1, 1000]", TW_RESNET_STAGES),
    IMAGE("heads", heads, "[1, 1024]"),
    TEXT("vocabulary", vocabulary, "[0, 10000000]"),
    TEXT("positions", positions, "[3, 65536]"),
    TEXT("types", types, "[1, 16]"),
    TEXT("hidden", hidden, "[1, 65536]"),
    TEXT("layers", layers, "[1, 1000]"),
    TEXT("heads", heads, "[1, 1024]"),
    TEXT("intermediate", intermediate, "[1, 1000000]"),
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* Keys of section text that need not be given. Training has its own (text_dropout, attention_dropout); these
 * are for a model that goes on to other tools. */
static const struct {
    const char *key;
    size_t offset;
} rates[] = {
    {"hidden_dropout", offsetof(tw_model_config, text.hidden_dropout)},
    {"attention_dropout", offsetof(tw_model_config, text.attention_dropout)},
};
enum { RATES = sizeof rates / sizeof rates[0] };

/* image.kind; a description without it has a ViT. */
static const char *const kinds[] = {[TW_VIT] = "vit", [TW_RESNET] = "resnet"};

static bool applies(const row *r, const tw_model_config *config) {
    return r->kind == ANY_KIND || (r->kind == RESNET_ONLY) == (config->image.kind == TW_RESNET);
}

typedef struct reader {
    yaml_document_t document;
    const char *origin;
    tw_model_config *config;
    bool seen[ROWS], seen_rate[RATES], seen_name, seen_kind;
} reader;

static size_t line_of(const yaml_node_t *node) {
    return node->start_mark.line + 1;
}

static const char *text_of(const yaml_node_t *scalar) {
    return (const char *)scalar->data.scalar.value;
}

static tw_status set_name(reader *in, const yaml_node_t *value) {
    if (snprintf(in->config->name, sizeof in->config->name, "%s", text_of(value)) >=
        (int)sizeof in->config->name)
        return FAIL(TW_ERR_CONFIG, "%s:%zu: the name is too long", in->origin, line_of(value));
    return TW_OK;
}

static tw_status set_kind(reader *in, const yaml_node_t *value) {
    for (int k = TW_VIT; k <= TW_RESNET; k++)
        if (strcmp(text_of(value), kinds[k]) == 0) {
            in->config->image.kind = (tw_image_tower_kind)k;
            return TW_OK;
        }
    return FAIL(TW_ERR_CONFIG, "%s:%zu: an image tower of kind '%s'; it is vit or resnet", in->origin,
                line_of(value), text_of(value));
}

static tw_status set_number(reader *in, const row *r, int index, const yaml_node_t *value) {
    int64_t number;
    if (value->type != YAML_SCALAR_NODE)
        return FAIL(TW_ERR_CONFIG, "%s:%zu: %s: a number is expected here", in->origin, line_of(value),
                    r->key);
    tw_status status = tw_value_int(text_of(value), r->range, &number);
    if (status != TW_OK) return tw_fail_context(status, "%s:%zu: %s", in->origin, line_of(value), r->key);
    ((int *)(void *)((char *)in->config + r->offset))[index] = (int)number;
    return TW_OK;
}

static tw_status set_row(reader *in, const row *r, const yaml_node_t *value) {
    bool list = value->type == YAML_SEQUENCE_NODE;
    const yaml_node_item_t *items = list ? value->data.sequence.items.start : NULL;
    int64_t count = list ? value->data.sequence.items.top - items : 1;
    if (list != (r->values > 1) || count != r->values)
        return FAIL(TW_ERR_CONFIG, "%s:%zu: %s takes %s%d%s", in->origin, line_of(value), r->key,
                    r->values > 1 ? "a list of " : "", r->values, r->values > 1 ? " numbers" : " number");
    for (int i = 0; i < r->values; i++)
        TRY(set_number(in, r, i, list ? yaml_document_get_node(&in->document, items[i]) : value));
    return TW_OK;
}

static tw_status set_rate(reader *in, int i, const yaml_node_t *value) {
    double number;
    if (value->type != YAML_SCALAR_NODE)
        return FAIL(TW_ERR_CONFIG, "%s:%zu: %s: a number is expected here", in->origin, line_of(value),
                    rates[i].key);
    tw_status status = tw_value_float(text_of(value), "[0, 0.9999]", &number); /* below 1 as a float, too */
    if (status != TW_OK)
        return tw_fail_context(status, "%s:%zu: %s", in->origin, line_of(value), rates[i].key);
    *(float *)(void *)((char *)in->config + rates[i].offset) = (float)number;
    return TW_OK;
}

static tw_status once(const reader *in, const yaml_node_t *key, bool *seen) {
    if (*seen)
        return FAIL(TW_ERR_CONFIG, "%s:%zu: %s is given twice", in->origin, line_of(key), text_of(key));
    *seen = true;
    return TW_OK;
}

static tw_status set_key(reader *in, const char *section, const yaml_node_t *key, const yaml_node_t *value) {
    const char *name = text_of(key);
    bool scalar = value->type == YAML_SCALAR_NODE;
    if (!section && scalar && strcmp(name, "name") == 0) {
        TRY(once(in, key, &in->seen_name));
        return set_name(in, value);
    }
    if (section && scalar && strcmp(section, "image") == 0 && strcmp(name, "kind") == 0) {
        TRY(once(in, key, &in->seen_kind));
        return set_kind(in, value);
    }
    for (size_t i = 0; i < ROWS; i++) {
        bool same_section =
            section ? rows[i].section && strcmp(rows[i].section, section) == 0 : !rows[i].section;
        if (!same_section || strcmp(rows[i].key, name) != 0) continue;
        TRY(once(in, key, &in->seen[i]));
        return set_row(in, &rows[i], value);
    }
    for (int i = 0; i < RATES && section && strcmp(section, "text") == 0; i++) {
        if (strcmp(rates[i].key, name) != 0) continue;
        TRY(once(in, key, &in->seen_rate[i]));
        return set_rate(in, i, value);
    }
    return FAIL(TW_ERR_CONFIG, "%s:%zu: unknown key '%s'%s%s", in->origin, line_of(key), name,
                section ? " in " : "", section ? section : "");
}

static tw_status read_mapping(reader *in, const yaml_node_t *map, const char *section) {
    if (map->type != YAML_MAPPING_NODE)
        return FAIL(TW_ERR_CONFIG, "%s:%zu: keys and values are expected here", in->origin, line_of(map));
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(&in->document, p->key);
        const yaml_node_t *value = yaml_document_get_node(&in->document, p->value);
        if (key->type != YAML_SCALAR_NODE)
            return FAIL(TW_ERR_CONFIG, "%s:%zu: a key must be a word", in->origin, line_of(key));
        const char *name = text_of(key);
        if (value->type != YAML_MAPPING_NODE) {
            TRY(set_key(in, section, key, value));
        } else if (!section && (strcmp(name, "image") == 0 || strcmp(name, "text") == 0)) {
            TRY(read_mapping(in, value, name));
        } else {
            return FAIL(TW_ERR_CONFIG, "%s:%zu: unknown section '%s'", in->origin, line_of(key), name);
        }
    }
    return TW_OK;
}

static tw_status read_document(reader *in) {
    const yaml_node_t *root = yaml_document_get_root_node(&in->document);
    if (!root) return FAIL(TW_ERR_CONFIG, "%s: the file is empty", in->origin);
    TRY(read_mapping(in, root, NULL));
    for (size_t i = 0; i < ROWS; i++) {
        bool wanted = applies(&rows[i], in->config);
        if (in->seen[i] == wanted) continue;
        return FAIL(TW_ERR_CONFIG, "%s: %s%s%s is %s%s", in->origin, rows[i].section ? rows[i].section : "",
                    rows[i].section ? "." : "", rows[i].key,
                    wanted ? "missing" : "no key of an image tower of kind ",
                    wanted ? "" : kinds[in->config->image.kind]);
    }
    return TW_OK;
}

tw_status tw_model_config_parse(const char *text, size_t bytes, const char *origin, tw_model_config *out) {
    *out =
        (tw_model_config){.image = {.pixel_mean = {0.48145466f, 0.4578275f, 0.40821073f},
                                    .pixel_std = {0.26862954f, 0.26130258f, 0.27577711f}},
                          .text = {.hidden_dropout = TW_BERT_DROPOUT, .attention_dropout = TW_BERT_DROPOUT}};
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return FAIL(TW_ERR_MEMORY, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    reader in = {.origin = origin, .config = out};
    tw_status status;
    if (yaml_parser_load(&parser, &in.document)) {
        status = read_document(&in);
        yaml_document_delete(&in.document);
    } else {
        status = FAIL(TW_ERR_CONFIG, "%s:%zu: not YAML: %s", origin, parser.problem_mark.line + 1,
                      parser.problem ? parser.problem : "unreadable");
    }
    yaml_parser_delete(&parser);
    return status;
}

static tw_status read_file(const char *path, char **text, size_t *bytes) {
    enum { LIMIT = 1 << 20 };
    *text = NULL;
    *bytes = 0;
    FILE *f;
    TRY(tw_open_stream(path, &f));
    *text = malloc(LIMIT);
    *bytes = *text ? fread(*text, 1, LIMIT, f) : 0;
    bool failed = ferror(f) != 0;
    fclose(f);
    if (!*text) return FAIL(TW_ERR_MEMORY, "out of memory");
    if (!failed && *bytes < LIMIT) return TW_OK;
    free(*text);
    return FAIL(failed ? TW_ERR_IO : TW_ERR_CONFIG,
                failed ? "%s: cannot be read" : "%s: too large for a model description", path);
}

static const char *const folders[] = {"configs/models", TW_SOURCE_DIR "/configs/models",
                                      TW_INSTALL_DATA_DIR "/tuwen/models"};
enum { FOLDERS = sizeof folders / sizeof folders[0] };

/* A name without '/' and not a file is looked up in configs/models. */
static bool find_file(const char *name, char *path, size_t size) {
    snprintf(path, size, "%s", name);
    if (access(path, R_OK) == 0 || strchr(name, '/')) return true;
    for (int i = 0; i < FOLDERS; i++) {
        snprintf(path, size, "%s/%s.yaml", folders[i], name);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

static tw_status load_built_in(const char *name, tw_model_config *out) {
    for (size_t i = 0; i < tw_description_count; i++)
        if (strcmp(tw_descriptions[i].name, name) == 0) return tw_model_config_built_in(i, out);
    return FAIL(
        TW_ERR_CONFIG,
        "model '%s': no such file, and no %s.yaml in configs/models; give a YAML file or one of its names",
        name, name);
}

tw_status tw_model_config_load(const char *path_or_name, tw_model_config *out) {
    char path[4096], *text = NULL;
    size_t bytes = 0;
    if (!find_file(path_or_name, path, sizeof path)) return load_built_in(path_or_name, out);
    TRY(read_file(path, &text, &bytes));
    tw_status status = tw_model_config_parse(text, bytes, path, out);
    free(text);
    return status;
}

tw_status tw_model_config_built_in(size_t i, tw_model_config *out) {
    const tw_description *d = &tw_descriptions[i];
    return tw_model_config_parse(d->yaml, strlen(d->yaml), d->name, out);
}

/* Section text, the last, goes on. The family's rate is not written: older builds do not know the keys. */
static void write_rates(const tw_model_config *config, FILE *f) {
    char text[32];
    for (int i = 0; i < RATES; i++) {
        float rate = *(const float *)(const void *)((const char *)config + rates[i].offset);
        if (rate == TW_BERT_DROPOUT) continue;
        tw_float32_text(rate, text, sizeof text);
        fprintf(f, "  %s: %s\n", rates[i].key, text);
    }
}

tw_status tw_model_config_to_yaml(const tw_model_config *config, char **text) {
    size_t bytes;
    FILE *f = open_memstream(text, &bytes);
    if (!f) return FAIL(TW_ERR_MEMORY, "out of memory");
    fputs("name: '", f);
    for (const char *c = config->name; *c; c++) fputs(*c == '\'' ? "''" : (char[]){*c, '\0'}, f);
    fputs("'\n", f);
    const char *section = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        const row *r = &rows[i];
        if (!applies(r, config)) continue;
        if (r->section && (!section || strcmp(section, r->section) != 0)) {
            fprintf(f, "%s:\n", r->section);
            if (strcmp(r->section, "image") == 0) fprintf(f, "  kind: %s\n", kinds[config->image.kind]);
        }
        section = r->section;
        const int *value = (const int *)(const void *)((const char *)config + r->offset);
        fprintf(f, "%s%s: %s%d", section ? "  " : "", r->key, r->values > 1 ? "[" : "", value[0]);
        for (int k = 1; k < r->values; k++) fprintf(f, ", %d", value[k]);
        fputs(r->values > 1 ? "]\n" : "\n", f);
    }
    write_rates(config, f);
    return fclose(f) == 0 ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}
