/* The training configuration: one struct with a typed field for every row of train/config.def.
 *
 * Order of precedence: the table's defaults, then the YAML files of --config, then the command line.
 * Every error is TW_ERR_CONFIG unless said otherwise, and its message names the place ("recipe.yaml:3" or
 * "--batch"), the key, the value and what is allowed. Paths are relative to the working folder. */
#ifndef TW_TRAIN_CONFIG_H
#define TW_TRAIN_CONFIG_H

#include "autograd/status.h"
#include "train/options.h"
#include "train/values.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Constants stand in the order of the row's choices; tests/test_config.c compares them. */
enum tw_config_last_batch { TW_CONFIG_LAST_BATCH_SHORT, TW_CONFIG_LAST_BATCH_DROP, TW_CONFIG_LAST_BATCH_PAD };
enum tw_config_schedule { TW_CONFIG_SCHEDULE_COSINE, TW_CONFIG_SCHEDULE_CONSTANT, TW_CONFIG_SCHEDULE_LINEAR };
enum tw_config_precision { TW_CONFIG_PRECISION_F32, TW_CONFIG_PRECISION_BF16 };
enum tw_config_tf32 { TW_CONFIG_TF32_AUTO, TW_CONFIG_TF32_TRUE, TW_CONFIG_TF32_FALSE };
enum tw_config_batch_norm {
    TW_CONFIG_BATCH_NORM_TRAIN,
    TW_CONFIG_BATCH_NORM_SYNC,
    TW_CONFIG_BATCH_NORM_FROZEN
};
enum tw_config_recompute { TW_CONFIG_RECOMPUTE_NONE, TW_CONFIG_RECOMPUTE_LIGHT, TW_CONFIG_RECOMPUTE_BLOCK };
enum tw_config_shard_optimizer {
    TW_CONFIG_SHARD_OPTIMIZER_AUTO,
    TW_CONFIG_SHARD_OPTIMIZER_TRUE,
    TW_CONFIG_SHARD_OPTIMIZER_FALSE
};
enum tw_config_device { TW_CONFIG_DEVICE_AUTO, TW_CONFIG_DEVICE_CPU, TW_CONFIG_DEVICE_CUDA };

enum { TW_CONFIG_AUTO = -1 }; /* what "auto" is to a key of type AUTO_INT or AUTO_FLOAT */

/* TW_CONFIG_KEY_batch and so on, in the table's order. */
enum tw_config_key {
#define SECTION(title)
#define KEY(type, name, range, preset, unit, help) TW_CONFIG_KEY_##name,
#include "train/config.def"
#undef SECTION
#undef KEY
    TW_CONFIG_KEYS
};

#define TW_CONFIG_FIELD_BOOL(name) bool name
#define TW_CONFIG_FIELD_INT(name) int64_t name
#define TW_CONFIG_FIELD_FLOAT(name) double name
#define TW_CONFIG_FIELD_AUTO_INT(name) int64_t name  /* or TW_CONFIG_AUTO */
#define TW_CONFIG_FIELD_AUTO_FLOAT(name) double name /* or TW_CONFIG_AUTO */
#define TW_CONFIG_FIELD_STRING(name) char *name      /* never NULL after tw_config_init; "" = not set */
#define TW_CONFIG_FIELD_ENUM(name) enum tw_config_##name name
#define TW_CONFIG_FIELD_LIST(name) tw_string_list name

typedef struct tw_config {
#define SECTION(title)
#define KEY(type, name, range, preset, unit, help) TW_CONFIG_FIELD_##type(name);
#include "train/config.def"
#undef SECTION
#undef KEY
    char *
        origin[TW_CONFIG_KEYS]; /* where each value was set: "recipe.yaml:3", "--batch"; NULL = the default */
} tw_config;

/* Sets every key to its default. Pair with tw_config_free, also after an error. Errors: TW_ERR_MEMORY. */
tw_status tw_config_init(tw_config *config) TW_MUST_CHECK;
/* Frees what the fields own and zeroes the struct. Accepts NULL and an all-zero struct. */
void tw_config_free(tw_config *config);

/* Sets one key from text; '-' in `key` equals '_'; a list's items are separated by commas. `origin` says in
 * messages where the text came from, and is copied. An unknown key's message names the nearest one. */
tw_status tw_config_set(tw_config *config, const char *key, const char *value,
                        const char *origin) TW_MUST_CHECK;
/* As tw_config_set, for keys of type list only: items are taken as they are. */
tw_status tw_config_set_list(tw_config *config, const char *key, const char *const *items, size_t count,
                             const char *origin) TW_MUST_CHECK;

/* Reads a flat YAML mapping of keys to values. Unknown and repeated keys, values out of range, tags, anchors,
 * aliases, several documents and an empty file are refused. On error the configuration may have changed in
 * part. Errors also: TW_ERR_IO (unreadable). */
tw_status tw_config_load_yaml(const char *path, tw_config *config) TW_MUST_CHECK;
/* The same from memory; `name` stands for the file in messages. */
tw_status tw_config_parse_yaml(const char *text, size_t length, const char *name,
                               tw_config *config) TW_MUST_CHECK;
/* All keys as YAML, to be stored in checkpoints; *text is the caller's to free(). Reading it back gives equal
 * values, bit for bit. */
tw_status tw_config_to_yaml(const tw_config *config, char **text) TW_MUST_CHECK;
/* The name of the first key whose value differs; NULL when all are equal. Origins are not compared. */
const char *tw_config_difference(const tw_config *a, const tw_config *b);

/* The command line of a command that takes a configuration: `--config FILE` (may be repeated; later files
 * win), every key as `--key value`, and the options of `options` (its rows may be none). The command line's
 * keys win over the files' wherever they stand. With --help the whole help is printed and *help set. Ends
 * with tw_config_check. argv[0] is the command's name. */
tw_status tw_config_parse_args(int argc, char *const *argv, tw_config *config, const tw_options *options,
                               bool *help) TW_MUST_CHECK;
/* What no single row can say: micro_batch <= batch, and the like. */
tw_status tw_config_check(const tw_config *config) TW_MUST_CHECK;
/* Fails with "train_data is not set: ..." when the string or list `key` is empty. */
tw_status tw_config_require(const tw_config *config, const char *key) TW_MUST_CHECK;

/* A key's value as text, for logs: "64", "true", "cosine", "bn,ln". `key` must exist. Cut at `size`. */
void tw_config_value_text(const tw_config *config, const char *key, char *text, size_t size);
/* The keys by section, with default, range and unit, as `tuwen train --help` shows them. */
void tw_config_print_help(FILE *out);
/* docs/configuration.md. */
void tw_config_write_markdown(FILE *out);

#endif
