/* The configuration's keys as options of a command. */
#include "train/config.h"
#include "train/config_table.h"

#include <stdlib.h>
#include <string.h>

typedef struct pending {
    const char *key, *value;
} pending;

/* The files of --config come before the keys of the command line wherever they stand on it, so both are
 * collected first. */
typedef struct collected {
    pending *keys;
    const char **files;
    size_t key_count, file_count;
} collected;

static tw_status collect_key(void *target, const char *name, const char *value) {
    collected *all = target;
    all->keys[all->key_count++] = (pending){name, value};
    return TW_OK;
}

static tw_status collect_file(void *target, const char *name, const char *value) {
    (void)name;
    collected *all = target;
    all->files[all->file_count++] = value;
    return TW_OK;
}

static void print_more_help(FILE *out) {
    fputs("\nKeys, on the command line as --key value, in the file of --config as `key: value`:\n", out);
    tw_config_print_help(out);
}

static size_t make_rows(tw_option *rows, const tw_options *options, collected *all) {
    size_t count = 0;
    for (size_t i = 0; i < options->count; i++) rows[count++] = options->rows[i];
    rows[count++] = (tw_option){.name = "config",
                                .type = TW_OPTION_CALL,
                                .target = all,
                                .set = collect_file,
                                .value = "FILE",
                                .help = "YAML file with keys; may be repeated, later files win"};
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (!row->name) continue;
        rows[count++] = (tw_option){.name = row->name,
                                    .type = TW_OPTION_CALL,
                                    .target = all,
                                    .set = collect_key,
                                    .flag = row->type == TW_CONFIG_BOOL,
                                    .hidden = true,
                                    .help = row->help};
    }
    return count;
}

static tw_status apply(const collected *all, tw_config *config) {
    for (size_t i = 0; i < all->file_count; i++) TRY(tw_config_load_yaml(all->files[i], config));
    for (size_t i = 0; i < all->key_count; i++) {
        char origin[96];
        snprintf(origin, sizeof origin, "--%s", all->keys[i].key);
        TRY(tw_config_set(config, all->keys[i].key, all->keys[i].value, origin));
    }
    return tw_config_check(config);
}

tw_status tw_config_parse_args(int argc, char *const *argv, tw_config *config, const tw_options *options,
                               bool *help) {
    tw_status status = TW_OK;
    size_t most = (size_t)argc;
    collected all = {.keys = calloc(most, sizeof *all.keys), .files = calloc(most, sizeof *all.files)};
    tw_option *rows = calloc(options->count + tw_config_row_count + 1, sizeof *rows);
    if (!all.keys || !all.files || !rows) {
        status = FAIL(TW_ERR_MEMORY, "no memory for %d arguments", argc);
        goto done;
    }
    tw_options whole = *options;
    whole.rows = rows;
    whole.count = make_rows(rows, options, &all);
    whole.more_help = print_more_help;
    status = tw_options_parse(&whole, argc, argv, help);
    if (!status && !*help) status = apply(&all, config);
done:
    free(rows);
    free(all.files);
    free(all.keys);
    return status;
}
