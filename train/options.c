#include "train/options.h"

#include "train/values.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const tw_option *find(const tw_options *options, const char *name) {
    for (size_t i = 0; i < options->count; i++)
        if (options->rows[i].type != TW_OPTION_POSITIONAL && tw_name_equal(options->rows[i].name, name))
            return &options->rows[i];
    return NULL;
}

static tw_status unknown_option(const tw_options *options, const char *name) {
    const char **names = malloc((options->count + 1) * sizeof *names);
    if (!names) return FAIL(TW_ERR_MEMORY, "no memory for %zu option names", options->count);
    for (size_t i = 0; i < options->count; i++)
        names[i] = options->rows[i].type == TW_OPTION_POSITIONAL ? NULL : options->rows[i].name;
    names[options->count] = "help";
    const char *nearest = tw_nearest_name(name, names, options->count + 1);
    free(names);
    if (nearest) return FAIL(TW_ERR_CONFIG, "unknown option '--%s'; did you mean '--%s'?", name, nearest);
    return FAIL(TW_ERR_CONFIG, "unknown option '--%s'; 'tuwen %s --help' lists the options", name,
                options->command);
}

static tw_status set_value(const tw_option *row, const char *value) {
    tw_status status = TW_OK;
    switch (row->type) {
    case TW_OPTION_FLAG:
        status = tw_value_bool(value, row->target);
        break;
    case TW_OPTION_INT:
        status = tw_value_int(value, row->range, row->target);
        break;
    case TW_OPTION_FLOAT:
        status = tw_value_float(value, row->range, row->target);
        break;
    case TW_OPTION_CHOICE:
        status = tw_value_choice(value, row->choices, row->target);
        break;
    case TW_OPTION_STRING:
    case TW_OPTION_POSITIONAL:
        if (row->set) return row->set(row->target, row->name, value);
        *(const char **)row->target = value;
        break;
    case TW_OPTION_CALL:
        return row->set(row->target, row->name, value);
    }
    if (status) return tw_fail_context(status, "--%s", row->name);
    return TW_OK;
}

/* Only these words: a number after a flag may be a positional. */
static bool is_bool_word(const char *text) {
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off"};
    for (size_t i = 0; text && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i]) == 0) return true;
    return false;
}

/* argv[*at] is "--name" or "--name=value"; moves *at to the last argument used. */
static tw_status parse_option(const tw_options *options, int argc, char *const *argv, int *at) {
    const char *body = argv[*at] + 2, *equals = strchr(body, '=');
    const char *value = equals ? equals + 1 : NULL;
    char name[128];
    size_t length = equals ? (size_t)(equals - body) : strlen(body);
    if (length >= sizeof name) return FAIL(TW_ERR_CONFIG, "unknown option '%.80s...'", argv[*at]);
    memcpy(name, body, length);
    name[length] = '\0';
    const tw_option *row = find(options, name);
    if (!row) return unknown_option(options, name);
    const char *next = *at + 1 < argc ? argv[*at + 1] : NULL;
    if (!value && (row->type == TW_OPTION_FLAG || row->flag)) {
        value = is_bool_word(next) ? argv[++*at] : "true";
    } else if (!value) {
        if (!next || strncmp(next, "--", 2) == 0) return FAIL(TW_ERR_CONFIG, "--%s needs a value", row->name);
        value = argv[++*at];
    }
    return set_value(row, value);
}

static tw_status take_positional(const tw_options *options, const char *value, size_t *used) {
    while (*used < options->count && options->rows[*used].type != TW_OPTION_POSITIONAL) ++*used;
    if (*used == options->count)
        return FAIL(TW_ERR_CONFIG, "unexpected argument '%s'; 'tuwen %s --help' lists what it takes", value,
                    options->command);
    const tw_option *row = &options->rows[*used];
    if (!row->set) ++*used;
    return set_value(row, value);
}

static tw_status check_required(const tw_options *options) {
    for (size_t i = 0; i < options->count; i++) {
        const tw_option *row = &options->rows[i];
        if (!row->required || row->set || *(const char **)row->target) continue;
        return FAIL(TW_ERR_CONFIG, "%s%s is missing: %s ('tuwen %s --help')",
                    row->type == TW_OPTION_POSITIONAL ? "" : "--", row->name, row->help, options->command);
    }
    return TW_OK;
}

static bool asks_for_help(int argc, char *const *argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

/* "-" is standard input and "-3" a number, not options. */
static bool looks_like_short_option(const char *text) {
    return text[0] == '-' && text[1] != '\0' && !isdigit((unsigned char)text[1]) && text[1] != '.';
}

tw_status tw_options_parse(const tw_options *options, int argc, char *const *argv, bool *help) {
    *help = asks_for_help(argc, argv);
    if (*help) {
        tw_options_print_help(options, stdout);
        return TW_OK;
    }
    size_t positionals = 0;
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (!ended && strncmp(argv[i], "--", 2) == 0) {
            TRY(parse_option(options, argc, argv, &i));
        } else if (!ended && looks_like_short_option(argv[i])) {
            return FAIL(TW_ERR_CONFIG, "unknown option '%s'; options begin with two dashes", argv[i]);
        } else {
            TRY(take_positional(options, argv[i], &positionals));
        }
    }
    return check_required(options);
}

static const char *value_name(const tw_option *row) {
    if (row->value) return row->value;
    switch (row->type) {
    case TW_OPTION_INT:
        return "N";
    case TW_OPTION_FLOAT:
        return "X";
    case TW_OPTION_CHOICE:
        return row->choices;
    case TW_OPTION_STRING:
    case TW_OPTION_CALL:
        return "TEXT";
    case TW_OPTION_FLAG:
    case TW_OPTION_POSITIONAL:
        break;
    }
    return NULL;
}

/* The target's value, as --help shows it; "" when there is nothing to show. */
static void default_text(const tw_option *row, char *text, size_t size) {
    text[0] = '\0';
    const char *string = NULL;
    switch (row->type) {
    case TW_OPTION_FLAG:
        if (*(bool *)row->target) snprintf(text, size, "true");
        break;
    case TW_OPTION_INT:
        snprintf(text, size, "%lld", (long long)*(int64_t *)row->target);
        break;
    case TW_OPTION_FLOAT:
        tw_float_text(*(double *)row->target, text, size);
        break;
    case TW_OPTION_CHOICE:
        tw_choice_name(row->choices, *(int *)row->target, text, size);
        break;
    case TW_OPTION_STRING:
    case TW_OPTION_POSITIONAL:
        string = row->set ? NULL : *(const char **)row->target;
        if (string && !row->required) snprintf(text, size, "%s", string);
        break;
    case TW_OPTION_CALL:
        break;
    }
}

static void print_row(const tw_option *row, FILE *out) {
    char left[96], preset[128];
    const char *value = value_name(row);
    bool positional = row->type == TW_OPTION_POSITIONAL;
    snprintf(left, sizeof left, "%s%s%s%s", positional ? "" : "--", row->name, value ? " " : "",
             value ? value : "");
    default_text(row, preset, sizeof preset);
    fprintf(out, "  %-28s%s%s", left, strlen(left) > 27 ? "\n                              " : "", row->help);
    if (row->range) fprintf(out, ", %s", row->range);
    if (row->required) fprintf(out, " (required)");
    if (preset[0]) fprintf(out, " (default: %s)", preset);
    fputc('\n', out);
}

void tw_options_print_help(const tw_options *options, FILE *out) {
    fprintf(out, "usage: tuwen %s [options]", options->command);
    for (size_t i = 0; i < options->count; i++) {
        const tw_option *row = &options->rows[i];
        if (row->type != TW_OPTION_POSITIONAL) continue;
        fprintf(out, row->required ? " %s%s" : " [%s%s]", row->name, row->set ? "..." : "");
    }
    fprintf(out, "\n\n%s\n\n", options->summary);
    for (int positional = 1; positional >= 0; positional--)
        for (size_t i = 0; i < options->count; i++) {
            const tw_option *row = &options->rows[i];
            if ((row->type == TW_OPTION_POSITIONAL) == positional && !row->hidden) print_row(row, out);
        }
    fprintf(out, "  %-28s%s\n", "--help", "print this and stop");
    if (options->more_help) options->more_help(out);
    if (options->example) fprintf(out, "\nexample:\n  %s\n", options->example);
}
