/* The configuration's documentation, from its table. */
#include "train/config.h"
#include "train/config_table.h"

#include <string.h>

static const char *type_name(tw_config_type type) {
    static const char *const names[] = {"bool",   "integer", "number",  "text",
                                        "choice", "list",    "integer", "number"};
    return names[type];
}

static const char *value_name(const tw_config_row *row) {
    static const char *const names[] = {"[true|false]", "N", "X", "TEXT", "", "A,B", "N|auto", "X|auto"};
    return row->type == TW_CONFIG_ENUM ? row->choices : names[row->type];
}

void tw_config_print_help(FILE *out) {
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (row->section) {
            fprintf(out, "\n %s\n", row->section);
            continue;
        }
        char left[96];
        int width = snprintf(left, sizeof left, "--%s %s", row->name, value_name(row));
        fprintf(out, "  %-28s%s%s", left, width > 27 ? "\n                              " : "", row->help);
        if (row->range) fprintf(out, ", %s", row->range);
        if (row->preset[0]) fprintf(out, " (default: %s)", row->preset);
        fputc('\n', out);
    }
}

/* '|' would end a Markdown table's cell. */
static void print_cell(FILE *out, const char *text, const char *separator) {
    for (; *text; text++) {
        if (*text == '|')
            fputs(separator, out);
        else
            fputc(*text, out);
    }
}

void tw_config_write_markdown(FILE *out) {
    fputs("# Configuration\n\n"
          "Made from `train/config.def` by `tuwen --configuration-markdown`; do not edit.\n\n"
          "Every key is set in a YAML file (`tuwen train --config recipe.yaml`, a flat mapping `key: value`) "
          "or on the\n"
          "command line (`--key value`, `--key=value`, `-` for `_`), which wins over the files. Lists are "
          "YAML lists, or\n"
          "items separated by commas. Paths are relative to the working folder. An unknown key or a value "
          "out of range\n"
          "ends the command with exit code 2 and a message that names file, line and the nearest key.\n",
          out);
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (row->section) {
            fprintf(
                out,
                "\n## %c%s\n\n| key | type | default | range | unit | meaning |\n|---|---|---|---|---|---|\n",
                row->section[0] - 'a' + 'A', row->section + 1);
            continue;
        }
        fprintf(out, "| `%s` | %s | %s%s%s | ", row->name, type_name(row->type), row->preset[0] ? "`" : "",
                row->preset, row->preset[0] ? "`" : "");
        if (row->range) fputs(row->range, out);
        if (row->type == TW_CONFIG_AUTO_INT || row->type == TW_CONFIG_AUTO_FLOAT) fputs(", auto", out);
        if (row->choices) print_cell(out, row->choices, ", ");
        fprintf(out, " | %s | ", row->unit);
        print_cell(out, row->help, "\\|");
        fputs(" |\n", out);
    }
}
