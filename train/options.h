/* The commands' options: a table of rows, from which parsing, errors and --help come.
 *
 *     const char *out = NULL;
 *     int64_t top = 10;
 *     const tw_option rows[] = {
 *         {.name = "FEATURES", .type = TW_OPTION_POSITIONAL, .target = &features, .help = "folder with
 * features"},
 *         {.name = "output", .type = TW_OPTION_STRING, .target = &out, .required = true, .help = "file to
 * write"},
 *         {.name = "top", .type = TW_OPTION_INT, .target = &top, .range = "[1, 1000]", .help = "answers a
 * query"},
 *     };
 *     const tw_options options = {.command = "retrieve", .summary = "...", .example = "tuwen retrieve ...",
 *                                 .rows = rows, .count = sizeof rows / sizeof rows[0]};
 *     bool help;
 *     TRY(tw_options_parse(&options, argc, argv, &help));
 *     if (help) return TW_OK;
 *
 * A row's target holds the default when parsing begins; --help shows it. Written are `--name value`,
 * `--name=value`, '-' for '_', a flag alone or with true/false after it; `--` ends the options; a repeated
 * option's last value stands. A value that begins with `--` needs the form with '='. */
#ifndef TW_TRAIN_OPTIONS_H
#define TW_TRAIN_OPTIONS_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum tw_option_type {
    TW_OPTION_FLAG,       /* bool * */
    TW_OPTION_INT,        /* int64_t * */
    TW_OPTION_FLOAT,      /* double * */
    TW_OPTION_STRING,     /* const char **; points into argv, NULL when not given */
    TW_OPTION_CHOICE,     /* int *, the position in .choices */
    TW_OPTION_POSITIONAL, /* const char **; points into argv; rows are filled in the table's order. A row
                             with .set takes all that are left: .set(.target, name, value) is called for each
                           */
    TW_OPTION_CALL,       /* .set(.target, name, value) is called */
} tw_option_type;

typedef struct tw_option {
    const char *name; /* with '_'; a positional's in capitals */
    tw_option_type type;
    void *target;
    const char *range;   /* of INT and FLOAT, see values.h; NULL allows all */
    const char *choices; /* of CHOICE: "a|b|c" */
    bool required;       /* STRING, POSITIONAL */
    bool flag;           /* CALL: a value may be left out and is then "true" */
    bool hidden;         /* not shown by --help */
    const char *value;   /* the value's name in --help; NULL: N, X or TEXT by type */
    const char *help;
    tw_status (*set)(void *target, const char *name, const char *value);
} tw_option;

typedef struct tw_options {
    const char *command; /* "retrieve" */
    const char *summary; /* one sentence */
    const char *example; /* lines of shell */
    const tw_option *rows;
    size_t count;
    void (*more_help)(FILE *out); /* printed after the rows; may be NULL */
} tw_options;

/* Parses argv[1] to argv[argc - 1]; argv[0] is the command's name. With --help or -h among them the help is
 * printed on standard output, *help is set, and required arguments may be missing. Errors: TW_ERR_CONFIG, the
 * message names the argument; targets may then be changed in part. */
tw_status tw_options_parse(const tw_options *options, int argc, char *const *argv, bool *help) TW_MUST_CHECK;
void tw_options_print_help(const tw_options *options, FILE *out);

#endif
