#include "train/config.h"

#include "train/config_table.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define NUMBERS_RANGE(type, range) (TW_CONFIG_##type == TW_CONFIG_ENUM ? NULL : (range))
#define ENUM_CHOICES(type, range) (TW_CONFIG_##type == TW_CONFIG_ENUM ? (range) : NULL)

const tw_config_row tw_config_rows[] = {
#define SECTION(title) {.section = title},
#define KEY(type, name, range, preset, unit, help)                                                           \
    {NULL,                                                                                                   \
     #name,                                                                                                  \
     TW_CONFIG_KEY_##name,                                                                                   \
     TW_CONFIG_##type,                                                                                       \
     NUMBERS_RANGE(type, range),                                                                             \
     ENUM_CHOICES(type, range),                                                                              \
     preset,                                                                                                 \
     unit,                                                                                                   \
     help,                                                                                                   \
     offsetof(tw_config, name)},
#include "train/config.def"
#undef SECTION
#undef KEY
};
const size_t tw_config_row_count = sizeof tw_config_rows / sizeof tw_config_rows[0];

const tw_config_row *tw_config_find(const char *name) {
    for (size_t i = 0; i < tw_config_row_count; i++)
        if (tw_config_rows[i].name && tw_name_equal(tw_config_rows[i].name, name)) return &tw_config_rows[i];
    return NULL;
}

tw_status tw_config_unknown_key(const char *name) {
    const char *names[sizeof tw_config_rows / sizeof tw_config_rows[0]];
    for (size_t i = 0; i < tw_config_row_count; i++) names[i] = tw_config_rows[i].name;
    const char *nearest = tw_nearest_name(name, names, tw_config_row_count);
    if (nearest) return FAIL(TW_ERR_CONFIG, "unknown key '%s'; did you mean '%s'?", name, nearest);
    return FAIL(TW_ERR_CONFIG, "unknown key '%s'; 'tuwen train --help' lists the keys", name);
}

static tw_status set_string(char **field, const char *value) {
    char *copy = strdup(value);
    if (!copy) return FAIL(TW_ERR_MEMORY, "no memory for a text of %zu bytes", strlen(value));
    free(*field);
    *field = copy;
    return TW_OK;
}

/* The configuration is stored in checkpoints as YAML, which holds nothing but UTF-8. */
static tw_status check_utf8(const char *value) {
    utf8proc_int32_t code = 0;
    for (const char *at = value; *at;) {
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)at, -1, &code);
        if (n < 0) return FAIL(TW_ERR_CONFIG, "the value is not UTF-8 at byte %td", at - value);
        at += n;
    }
    return TW_OK;
}

static tw_status set_field(tw_config *config, const tw_config_row *row, const char *value) {
    void *field = tw_config_field(config, row);
    int choice = 0;
    TRY(check_utf8(value));
    switch (row->type) {
    case TW_CONFIG_BOOL:
        return tw_value_bool(value, field);
    case TW_CONFIG_INT:
        return tw_value_int(value, row->range, field);
    case TW_CONFIG_AUTO_INT:
        if (strcmp(value, "auto") != 0) return tw_value_int(value, row->range, field);
        *(int64_t *)field = TW_CONFIG_AUTO;
        return TW_OK;
    case TW_CONFIG_AUTO_FLOAT:
        if (strcmp(value, "auto") != 0) return tw_value_float(value, row->range, field);
        *(double *)field = TW_CONFIG_AUTO;
        return TW_OK;
    case TW_CONFIG_FLOAT:
        return tw_value_float(value, row->range, field);
    case TW_CONFIG_STRING:
        return set_string(field, value);
    case TW_CONFIG_LIST:
        return tw_string_list_split(field, value);
    case TW_CONFIG_ENUM:
        TRY(tw_value_choice(value, row->choices, &choice));
        *(unsigned *)field = (unsigned)choice; /* the type of every enum here */
        return TW_OK;
    }
    return TW_OK;
}

/* "recipe.yaml:3: batch: ..." but "--batch: ...": an option's name says the key already. */
static tw_status at_origin(tw_status status, const char *origin, const char *key) {
    if (status == TW_OK) return TW_OK;
    if (key && strncmp(origin, "--", 2) != 0) tw_fail_context(status, "%s", key);
    return tw_fail_context(status, "%s", origin);
}

tw_status tw_config_set(tw_config *config, const char *key, const char *value, const char *origin) {
    const tw_config_row *row = tw_config_find(key);
    if (!row) return at_origin(tw_config_unknown_key(key), origin, NULL);
    tw_status status = set_field(config, row, value);
    if (status) return at_origin(status, origin, row->name);
    return set_string(&config->origin[row->key], origin);
}

tw_status tw_config_set_list(tw_config *config, const char *key, const char *const *items, size_t count,
                             const char *origin) {
    const tw_config_row *row = tw_config_find(key);
    if (!row) return at_origin(tw_config_unknown_key(key), origin, NULL);
    if (row->type != TW_CONFIG_LIST)
        return at_origin(FAIL(TW_ERR_CONFIG, "takes one value, not a list"), origin, row->name);
    for (size_t i = 0; i < count; i++) {
        tw_status status = check_utf8(items[i]);
        if (!status && !items[i][0]) status = FAIL(TW_ERR_CONFIG, "item %zu of the list is empty", i + 1);
        if (status) return at_origin(status, origin, row->name);
    }
    TRY(tw_string_list_copy(tw_config_field(config, row), items, count));
    return set_string(&config->origin[row->key], origin);
}

tw_status tw_config_init(tw_config *config) {
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (!row->name) continue;
        tw_status status = set_field(config, row, row->preset);
        if (status) return tw_fail_context(status, "default of %s", row->name);
    }
    return TW_OK;
}

void tw_config_free(tw_config *config) {
    if (!config) return;
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (row->type == TW_CONFIG_STRING && row->name) free(*(char **)tw_config_field(config, row));
        if (row->type == TW_CONFIG_LIST) tw_string_list_free(tw_config_field(config, row));
    }
    for (size_t i = 0; i < TW_CONFIG_KEYS; i++) free(config->origin[i]);
    memset(config, 0, sizeof *config);
}

static bool equal_fields(const tw_config_row *row, const void *a, const void *b) {
    switch (row->type) {
    case TW_CONFIG_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case TW_CONFIG_INT:
    case TW_CONFIG_AUTO_INT:
        return *(const int64_t *)a == *(const int64_t *)b;
    case TW_CONFIG_FLOAT:
    case TW_CONFIG_AUTO_FLOAT:
        return memcmp(a, b, sizeof(double)) == 0;
    case TW_CONFIG_STRING:
        return strcmp(*(char *const *)a, *(char *const *)b) == 0;
    case TW_CONFIG_ENUM:
        return *(const unsigned *)a == *(const unsigned *)b;
    case TW_CONFIG_LIST:
        return tw_string_list_equal(a, b);
    }
    return false;
}

const char *tw_config_difference(const tw_config *a, const tw_config *b) {
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (row->name && !equal_fields(row, tw_config_const_field(a, row), tw_config_const_field(b, row)))
            return row->name;
    }
    return NULL;
}

static const char *origin_of(const tw_config *config, enum tw_config_key key) {
    return config->origin[key] ? config->origin[key] : "default";
}

tw_status tw_config_check(const tw_config *config) {
    if (config->micro_batch > config->batch)
        return FAIL(TW_ERR_CONFIG,
                    "micro_batch %lld (%s) is larger than batch %lld (%s); 0 takes the whole batch",
                    (long long)config->micro_batch, origin_of(config, TW_CONFIG_KEY_micro_batch),
                    (long long)config->batch, origin_of(config, TW_CONFIG_KEY_batch));
    if (config->val_texts[0] && !config->val_data[0])
        return FAIL(TW_ERR_CONFIG, "val_texts (%s) is set without val_data, whose texts it would name",
                    origin_of(config, TW_CONFIG_KEY_val_texts));
    return TW_OK;
}

tw_status tw_config_require(const tw_config *config, const char *key) {
    const tw_config_row *row = tw_config_find(key);
    if (!row) return FAIL(TW_ERR_ARGUMENT, "there is no key '%s'", key);
    char value[2];
    tw_config_value_text(config, key, value, sizeof value);
    if (value[0]) return TW_OK;
    return FAIL(TW_ERR_CONFIG, "%s is not set: give --%s, or write it into the file of --config (%s)",
                row->name, row->name, row->help);
}

static void list_text(const tw_string_list *list, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < list->count && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%s", i ? "," : "", list->items[i]);
        if (n > 0) used += (size_t)n;
    }
}

void tw_config_value_text(const tw_config *config, const char *key, char *text, size_t size) {
    const tw_config_row *row = tw_config_find(key);
    snprintf(text, size, "%s", "");
    if (!row) return;
    const void *field = tw_config_const_field(config, row);
    switch (row->type) {
    case TW_CONFIG_BOOL:
        snprintf(text, size, "%s", *(const bool *)field ? "true" : "false");
        break;
    case TW_CONFIG_AUTO_INT:
        if (*(const int64_t *)field == TW_CONFIG_AUTO) {
            snprintf(text, size, "auto");
            break;
        } /* fall through */
    case TW_CONFIG_INT:
        snprintf(text, size, "%lld", (long long)*(const int64_t *)field);
        break;
    case TW_CONFIG_AUTO_FLOAT:
        if (*(const double *)field == TW_CONFIG_AUTO) {
            snprintf(text, size, "auto");
            break;
        } /* fall through */
    case TW_CONFIG_FLOAT:
        tw_float_text(*(const double *)field, text, size);
        break;
    case TW_CONFIG_STRING:
        snprintf(text, size, "%s", *(char *const *)field);
        break;
    case TW_CONFIG_ENUM:
        tw_choice_name(row->choices, (int)*(const unsigned *)field, text, size);
        break;
    case TW_CONFIG_LIST:
        list_text(field, text, size);
        break;
    }
}
