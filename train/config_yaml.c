/* The configuration as a flat YAML mapping, read and written with libyaml. */
#include "data/files.h"
#include "train/config.h"
#include "train/config_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <yaml.h>

enum { MAX_FILE_BYTES = 1 << 20, MAX_LIST_ITEMS = 4096 };

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one */
    bool has_event;
    const char *name;                 /* of the file */
    size_t seen_line[TW_CONFIG_KEYS]; /* where a key stood; 0 = not yet */
    tw_config *config;
} reader;

static size_t line_of(const reader *in) {
    return in->event.start_mark.line + 1;
}

static tw_status next_event(reader *in) {
    if (in->has_event) yaml_event_delete(&in->event);
    in->has_event = yaml_parser_parse(&in->parser, &in->event) != 0;
    if (in->has_event) return TW_OK;
    if (in->parser.error == YAML_MEMORY_ERROR)
        return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", in->name);
    const char *problem = in->parser.problem ? in->parser.problem : "it is not YAML";
    if (in->parser.error == YAML_READER_ERROR)
        return FAIL(TW_ERR_CONFIG, "%s: at byte %zu: %s", in->name, in->parser.problem_offset, problem);
    return FAIL(TW_ERR_CONFIG, "%s:%zu: not valid YAML: %s%s%s", in->name, in->parser.problem_mark.line + 1,
                problem, in->parser.context ? ", " : "", in->parser.context ? in->parser.context : "");
}

static tw_status refuse(const reader *in, const char *what) {
    return FAIL(TW_ERR_CONFIG, "%s:%zu: %s", in->name, line_of(in), what);
}

/* Nothing here needs tags, anchors or aliases, and each can hide what a file says. */
static tw_status check_plain(const reader *in) {
    const yaml_event_t *e = &in->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return refuse(in, "aliases are not supported; quote a pattern that begins with '*'");
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor) return refuse(in, "anchors are not supported");
    if (tag) return refuse(in, "tags are not supported");
    return TW_OK;
}

/* The scalar's text; what YAML calls null is "". Valid until the next event. */
static tw_status scalar_text(const reader *in, const char **text) {
    const char *value = (const char *)in->event.data.scalar.value;
    if (strlen(value) != in->event.data.scalar.length) return refuse(in, "a text with a NUL character");
    bool plain = in->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    *text = plain && (strcmp(value, "~") == 0 || strcmp(value, "null") == 0) ? "" : value;
    return TW_OK;
}

static tw_status origin_text(const reader *in, char *origin, size_t size) {
    snprintf(origin, size, "%s:%zu", in->name, line_of(in));
    return TW_OK;
}

static tw_status read_list(reader *in, const tw_config_row *row, const char *origin) {
    tw_status status = TW_OK;
    size_t count = 0;
    char **items = calloc(MAX_LIST_ITEMS, sizeof *items);
    if (!items) return FAIL(TW_ERR_MEMORY, "%s: no memory for a list", origin);
    for (;;) {
        const char *text = "";
        if ((status = next_event(in)) || (status = check_plain(in))) goto done;
        if (in->event.type == YAML_SEQUENCE_END_EVENT) break;
        if (in->event.type != YAML_SCALAR_EVENT) {
            status = refuse(in, "a list holds single values, not lists or mappings");
            goto done;
        }
        if ((status = scalar_text(in, &text))) goto done;
        if (count == MAX_LIST_ITEMS) {
            status = refuse(in, "the list is too long");
            goto done;
        }
        items[count] = strdup(text);
        if (!items[count++]) {
            status = FAIL(TW_ERR_MEMORY, "%s: no memory for a list", origin);
            goto done;
        }
    }
    status = tw_config_set_list(in->config, row->name, (const char *const *)items, count, origin);
done:
    for (size_t i = 0; i < count; i++) free(items[i]);
    free(items);
    return status;
}

static tw_status read_value(reader *in, const tw_config_row *row) {
    char origin[512];
    const char *text = "";
    TRY(next_event(in));
    TRY(check_plain(in));
    TRY(origin_text(in, origin, sizeof origin));
    if (in->event.type == YAML_SEQUENCE_START_EVENT) return read_list(in, row, origin);
    if (in->event.type != YAML_SCALAR_EVENT)
        return FAIL(TW_ERR_CONFIG, "%s: %s: the configuration is flat; a mapping cannot be a value", origin,
                    row->name);
    TRY(scalar_text(in, &text));
    return tw_config_set(in->config, row->name, text, origin);
}

/* The current event is a key. */
static tw_status read_pair(reader *in) {
    const char *name = "";
    TRY(check_plain(in));
    if (in->event.type != YAML_SCALAR_EVENT) return refuse(in, "a key must be a name");
    TRY(scalar_text(in, &name));
    const tw_config_row *row = tw_config_find(name);
    if (!row) {
        tw_status status = tw_config_unknown_key(name);
        return tw_fail_context(status, "%s:%zu", in->name, line_of(in));
    }
    if (in->seen_line[row->key])
        return FAIL(TW_ERR_CONFIG, "%s:%zu: %s was set in line %zu already", in->name, line_of(in), row->name,
                    in->seen_line[row->key]);
    in->seen_line[row->key] = line_of(in);
    return read_value(in, row);
}

static tw_status read_document(reader *in) {
    TRY(next_event(in)); /* the stream's start */
    TRY(next_event(in));
    if (in->event.type == YAML_STREAM_END_EVENT)
        return FAIL(TW_ERR_CONFIG, "%s: the file is empty", in->name);
    TRY(next_event(in)); /* what the document holds */
    TRY(check_plain(in));
    if (in->event.type != YAML_MAPPING_START_EVENT)
        return refuse(in, "expected lines of the form 'key: value'");
    for (;;) {
        TRY(next_event(in));
        if (in->event.type == YAML_MAPPING_END_EVENT) break;
        TRY(read_pair(in));
    }
    TRY(next_event(in)); /* the document's end */
    TRY(next_event(in));
    if (in->event.type != YAML_STREAM_END_EVENT) return refuse(in, "a second document; one is expected");
    return TW_OK;
}

tw_status tw_config_parse_yaml(const char *text, size_t length, const char *name, tw_config *config) {
    reader in = {.name = name, .config = config};
    if (!yaml_parser_initialize(&in.parser)) return FAIL(TW_ERR_MEMORY, "%s: no memory to read it", name);
    yaml_parser_set_input_string(&in.parser, (const unsigned char *)text, length);
    tw_status status = read_document(&in);
    if (in.has_event) yaml_event_delete(&in.event);
    yaml_parser_delete(&in.parser);
    return status;
}

tw_status tw_config_load_yaml(const char *path, tw_config *config) {
    tw_status status = TW_OK;
    char *text = NULL;
    size_t length = 0;
    FILE *file;
    if (tw_open_stream(path, &file) != TW_OK) return tw_fail_context(TW_ERR_IO, "configuration");
    text = malloc(MAX_FILE_BYTES + 1);
    if (!text) {
        status = FAIL(TW_ERR_MEMORY, "%s: no memory to read it", path);
        goto done;
    }
    length = fread(text, 1, MAX_FILE_BYTES + 1, file);
    if (ferror(file))
        status = FAIL(TW_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    else if (length > MAX_FILE_BYTES)
        status = FAIL(TW_ERR_CONFIG, "%s: is larger than 1 MiB, which no configuration is", path);
    else
        status = tw_config_parse_yaml(text, length, path, config);
done:
    free(text);
    fclose(file);
    return status;
}

typedef struct buffer {
    char *text;
    size_t length, size;
} buffer;

static int write_bytes(void *data, unsigned char *bytes, size_t count) {
    buffer *out = data;
    if (out->length + count + 1 > out->size) {
        size_t size = 2 * (out->length + count + 1);
        char *text = realloc(out->text, size);
        if (!text) return 0;
        out->text = text;
        out->size = size;
    }
    memcpy(out->text + out->length, bytes, count);
    out->length += count;
    out->text[out->length] = '\0';
    return 1;
}

static bool emit_scalar(yaml_emitter_t *emitter, const char *text, bool quoted) {
    yaml_event_t event;
    return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1,
                                        1,
                                        quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE) &&
           yaml_emitter_emit(emitter, &event);
}

static bool emit_list(yaml_emitter_t *emitter, const tw_string_list *list) {
    yaml_event_t event;
    if (!yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE) ||
        !yaml_emitter_emit(emitter, &event))
        return false;
    for (size_t i = 0; i < list->count; i++)
        if (!emit_scalar(emitter, list->items[i], true)) return false;
    return yaml_sequence_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

static bool emit_pair(yaml_emitter_t *emitter, const tw_config *config, const tw_config_row *row) {
    const void *field = tw_config_const_field(config, row);
    if (!emit_scalar(emitter, row->name, false)) return false;
    if (row->type == TW_CONFIG_LIST) return emit_list(emitter, field);
    if (row->type == TW_CONFIG_STRING) return emit_scalar(emitter, *(char *const *)field, true);
    char text[64];
    tw_config_value_text(config, row->name, text, sizeof text);
    return emit_scalar(emitter, text, false);
}

static bool emit_all(yaml_emitter_t *emitter, const tw_config *config) {
    yaml_event_t event;
    if (!yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) ||
        !yaml_emitter_emit(emitter, &event) ||
        !yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) ||
        !yaml_emitter_emit(emitter, &event) ||
        !yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE) ||
        !yaml_emitter_emit(emitter, &event))
        return false;
    for (size_t i = 0; i < tw_config_row_count; i++)
        if (tw_config_rows[i].name && !emit_pair(emitter, config, &tw_config_rows[i])) return false;
    return yaml_mapping_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event) &&
           yaml_document_end_event_initialize(&event, 1) && yaml_emitter_emit(emitter, &event) &&
           yaml_stream_end_event_initialize(&event) && yaml_emitter_emit(emitter, &event);
}

tw_status tw_config_to_yaml(const tw_config *config, char **text) {
    yaml_emitter_t emitter;
    buffer out = {0};
    *text = NULL;
    if (!yaml_emitter_initialize(&emitter))
        return FAIL(TW_ERR_MEMORY, "no memory to write the configuration");
    yaml_emitter_set_output(&emitter, write_bytes, &out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    bool written = emit_all(&emitter, config);
    tw_status status = TW_OK;
    if (!written)
        status = FAIL(emitter.error == YAML_MEMORY_ERROR ? TW_ERR_MEMORY : TW_ERR_LIBRARY,
                      "the configuration cannot be written as YAML: %s",
                      emitter.problem ? emitter.problem : "no memory");
    yaml_emitter_delete(&emitter);
    if (status) {
        free(out.text);
        return status;
    }
    *text = out.text;
    return TW_OK;
}
