#include "train/split_texts.h"

#include <stdlib.h>
#include <string.h>

tw_status tw_split_image_ids_are_strings(const tw_dataset *dataset, bool *out) {
    *out = false;
    if (tw_dataset_pairs(dataset) == 0) return TW_OK;
    tw_reader *reader;
    tw_pair pair;
    TRY(tw_reader_open(dataset, &reader));
    tw_status status = tw_dataset_pair(reader, 0, &pair);
    if (status == TW_OK) *out = !pair.image_id.is_integer;
    tw_reader_close(reader);
    /* A damaged first pair says nothing; whoever reads pairs reports it. */
    return status == TW_ERR_FORMAT ? TW_OK : status;
}

static void report_bad(void *context, const char *message) {
    tw_log_warning(context, "%s; left out", message);
}

static tw_status no_memory(int64_t n) {
    return FAIL(TW_ERR_MEMORY, "no memory for %lld texts", (long long)n);
}

/* lines: instead of path, whose images then do not matter; or NULL. */
static tw_status from_captions(tw_split_texts *t, const char *path, tw_lines *lines, tw_log *log) {
    const tw_captions_options options = {.on_bad = report_bad,
                                         .context = log,
                                         .images_optional = lines != NULL,
                                         .any_text = true,
                                         .lines = lines};
    TRY(tw_captions_load(path, &options, &t->captions));
    const tw_captions *c = t->captions;
    t->texts = t->owned_texts = malloc((size_t)c->texts * sizeof *t->texts + 1);
    if (!t->texts) return no_memory(c->texts);
    for (int64_t i = 0; i < c->texts; i++) t->owned_texts[i] = (tw_text){c->text[i], c->text_bytes[i]};
    t->n = c->texts;
    t->ids = c->text_ids;
    t->images_start = c->images_start;
    t->image_ids = c->image_ids;
    t->bad = c->bad;
    if (!lines) snprintf(t->source, sizeof t->source, "%s", path);
    return TW_OK;
}

static tw_status name_images(tw_split_texts *t, const tw_dataset *dataset) {
    bool strings;
    tw_reader *reader;
    TRY(tw_split_image_ids_are_strings(dataset, &strings));
    TRY(tw_reader_open(dataset, &reader));
    tw_status status = TW_OK;
    for (int64_t k = 0; status == TW_OK && k < t->pool->image_start[t->n]; k++) {
        status = tw_dataset_image_at(reader, t->pool->image_of[k], &t->owned_images[k], NULL);
        if (strings) t->owned_images[k].is_integer = false;
    }
    tw_reader_close(reader);
    return status;
}

static tw_status from_pairs(tw_split_texts *t, const tw_dataset *dataset) {
    TRY(tw_pool_load(dataset, NULL, &t->pool));
    const tw_pool *pool = t->pool;
    int64_t n = t->n = pool->n_texts;
    t->ids = t->owned_ids = malloc((size_t)n * sizeof *t->ids + 1);
    t->texts = t->owned_texts = malloc((size_t)n * sizeof *t->texts + 1);
    t->image_ids = t->owned_images = malloc((size_t)pool->image_start[n] * sizeof *t->image_ids + 1);
    if (!t->ids || !t->texts || !t->image_ids) return no_memory(n);
    for (int64_t i = 0; i < n; i++) {
        const tw_pool_text *from = &pool->texts[i];
        t->owned_ids[i] =
            (tw_id){.text = from->id, .size = strlen(from->id), .is_integer = from->id_is_integer};
        t->owned_texts[i] = (tw_text){from->text, from->bytes};
    }
    t->images_start = pool->image_start;
    snprintf(t->source, sizeof t->source, "the pairs of %s", tw_dataset_path(dataset));
    return name_images(t, dataset);
}

static tw_status load(const tw_dataset *dataset, const char *path, tw_log *log, tw_split_texts *out) {
    char found[4096];
    if (path && *path) return from_captions(out, path, NULL, log);
    tw_status status = tw_captions_find(tw_dataset_path(dataset), found, sizeof found);
    if (status == TW_OK) return from_captions(out, found, NULL, log);
    if (status == TW_ERR_NOT_FOUND && tw_dataset_pairs(dataset) > 0) return from_pairs(out, dataset);
    return status;
}

bool tw_split_texts_are_pairs(const char *split_dir) {
    char found[4096];
    return tw_captions_find(split_dir, found, sizeof found) == TW_ERR_NOT_FOUND;
}

tw_status tw_split_texts_load(const tw_dataset *dataset, const char *path, tw_log *log, tw_split_texts *out) {
    *out = (tw_split_texts){0};
    tw_status status = load(dataset, path, log, out);
    if (status != TW_OK) tw_split_texts_free(out);
    return status;
}

/* ---- one text a line ---- */

/* Lines as they come; texts of ids are the digits of their numbers. */
typedef struct line_list {
    char *bytes; /* for each: digits, zero, text, zero */
    size_t used, room;
    int64_t n, capacity;
    size_t *text_bytes;
} line_list;

static tw_status add_line(line_list *l, int64_t number, const char *text, size_t size) {
    if (l->n == l->capacity) {
        int64_t capacity = 2 * l->capacity + 1024;
        size_t *larger = realloc(l->text_bytes, (size_t)capacity * sizeof *larger);
        if (!larger) return no_memory(capacity);
        l->text_bytes = larger, l->capacity = capacity;
    }
    size_t needed = l->used + size + 32;
    if (needed > l->room) {
        char *larger = realloc(l->bytes, 2 * needed);
        if (!larger) return no_memory(l->n);
        l->bytes = larger, l->room = 2 * needed;
    }
    l->used += (size_t)sprintf(l->bytes + l->used, "%lld", (long long)number) + 1;
    memcpy(l->bytes + l->used, text, size);
    l->bytes[l->used + size] = '\0';
    l->used += size + 1;
    l->text_bytes[l->n++] = size;
    return TW_OK;
}

static tw_status read_lines(tw_split_texts *t, tw_lines *lines, tw_log *log, line_list *l) {
    for (;;) {
        char *line;
        size_t size, at = 0;
        TRY(tw_lines_next(lines, &line, &size));
        if (!line) return TW_OK;
        bool blank = tw_lines_is_blank(line, size);
        if (!blank && tw_lines_is_utf8(line, size, &at)) {
            TRY(add_line(l, tw_lines_number(lines), line, size));
            continue;
        }
        t->bad++;
        if (!blank)
            tw_log_warning(log, "%s:%lld: not UTF-8: byte 0x%02x at column %zu; left out",
                           tw_lines_path(lines), (long long)tw_lines_number(lines), (unsigned char)line[at],
                           at + 1);
    }
}

/* Takes the list's bytes over. */
static tw_status settle_lines(tw_split_texts *t, line_list *l) {
    int64_t n = t->n = l->n;
    char *at = t->owned_bytes = l->bytes;
    t->ids = t->owned_ids = malloc((size_t)n * sizeof *t->ids);
    t->texts = t->owned_texts = malloc((size_t)n * sizeof *t->texts);
    if (!t->ids || !t->texts) return no_memory(n);
    for (int64_t i = 0; i < n; i++) {
        t->owned_ids[i] = (tw_id){.text = at, .size = strlen(at), .is_integer = true};
        at += t->owned_ids[i].size + 1;
        t->owned_texts[i] = (tw_text){at, l->text_bytes[i]};
        at += l->text_bytes[i] + 1;
    }
    return TW_OK;
}

static tw_status from_lines(tw_split_texts *t, tw_lines *lines, tw_log *log) {
    line_list l = {0};
    tw_status status = read_lines(t, lines, log, &l);
    if (status == TW_OK && l.n == 0) status = FAIL(TW_ERR_FORMAT, "%s: holds no texts", tw_lines_path(lines));
    if (status == TW_OK)
        status = settle_lines(t, &l);
    else
        free(l.bytes);
    free(l.text_bytes);
    return status;
}

static bool is_jsonl(const char *path, const char *first, size_t size) {
    size_t n = strlen(path), end = strlen(".jsonl");
    if (n > end && strcmp(path + n - end, ".jsonl") == 0) return true;
    return size > 0 && first[strspn(first, " \t")] == '{';
}

tw_status tw_split_texts_read(const char *path, tw_texts_format format, tw_log *log, tw_split_texts *out) {
    *out = (tw_split_texts){0};
    bool piped = strcmp(path, "-") == 0;
    const char *first = NULL;
    size_t size = 0;
    tw_lines *lines;
    TRY(tw_lines_open(piped ? "/dev/stdin" : path, &lines));
    tw_status status = format == TW_TEXTS_AUTO ? tw_lines_peek(lines, &first, &size) : TW_OK;
    bool jsonl =
        format == TW_TEXTS_JSONL || (format == TW_TEXTS_AUTO && first && is_jsonl(path, first, size));
    snprintf(out->source, sizeof out->source, "%s", piped ? "standard input" : path);
    if (status == TW_OK && jsonl) {
        status = from_captions(out, path, lines, log); /* takes the lines over */
    } else {
        if (status == TW_OK) status = from_lines(out, lines, log);
        tw_lines_close(lines);
    }
    if (status != TW_OK) tw_split_texts_free(out);
    return status;
}

void tw_split_texts_free(tw_split_texts *texts) {
    tw_captions_free(texts->captions);
    tw_pool_free(texts->pool);
    free(texts->owned_ids);
    free(texts->owned_images);
    free(texts->owned_texts);
    free(texts->owned_bytes);
    *texts = (tw_split_texts){0};
}
