/* Inside of the configuration: config.def as an array, for config.c, config_yaml.c and config_help.c only. */
#ifndef TW_TRAIN_CONFIG_TABLE_H
#define TW_TRAIN_CONFIG_TABLE_H

#include "train/config.h"

typedef enum tw_config_type {
    TW_CONFIG_BOOL,
    TW_CONFIG_INT,
    TW_CONFIG_FLOAT,
    TW_CONFIG_STRING,
    TW_CONFIG_ENUM,
    TW_CONFIG_LIST,
    TW_CONFIG_AUTO_INT,
    TW_CONFIG_AUTO_FLOAT
} tw_config_type;

/* A line of config.def: a section's title (name is NULL) or a key. */
typedef struct tw_config_row {
    const char *section;
    const char *name;
    enum tw_config_key key;
    tw_config_type type;
    const char *range; /* of numbers */
    const char *choices;
    const char *preset, *unit, *help;
    size_t offset; /* of the field in tw_config */
} tw_config_row;

extern const tw_config_row tw_config_rows[];
extern const size_t tw_config_row_count;

/* The row of a key; NULL if there is none. */
const tw_config_row *tw_config_find(const char *name);
/* Fails: "unknown key 'batchsize'; did you mean 'batch'?" */
tw_status tw_config_unknown_key(const char *name) TW_MUST_CHECK;

static inline void *tw_config_field(tw_config *config, const tw_config_row *row) {
    return (char *)config + row->offset;
}
static inline const void *tw_config_const_field(const tw_config *config, const tw_config_row *row) {
    return (const char *)config + row->offset;
}

#endif
