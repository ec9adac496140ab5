#include "data/captions.h"

#include "data/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* While reading, strings are offsets into one growing block, which may move; at the end they become pointers.
 */
typedef struct owned {
    tw_captions captions; /* first: what callers hold */
    char *bytes;
    size_t size, capacity;
    tw_id *text_ids, *image_ids; /* .text: NULL until the end; .size as it stays */
    const char **text;
    size_t *text_bytes;
    int64_t *images_start;
    int64_t texts, texts_capacity, images, images_capacity;
} owned;

static tw_status no_memory(int64_t records) {
    return FAIL(TW_ERR_MEMORY, "no memory for %lld texts", (long long)records);
}

/* The array with room for `capacity` elements; as it was, and *status set, if there is no memory. */
static void *resized(void *array, int64_t capacity, size_t element, tw_status *status) {
    void *larger = realloc(array, (size_t)capacity * element);
    if (!larger) *status = no_memory(capacity);
    return larger ? larger : array;
}

static tw_status reserve(owned *o, size_t images) {
    tw_status status = TW_OK;
    if (!o->images_start || o->texts + 1 >= o->texts_capacity) {
        int64_t capacity = o->texts_capacity * 2 + 1024;
        o->text_ids = resized(o->text_ids, capacity, sizeof *o->text_ids, &status);
        o->text = resized(o->text, capacity, sizeof *o->text, &status);
        o->text_bytes = resized(o->text_bytes, capacity, sizeof *o->text_bytes, &status);
        o->images_start = resized(o->images_start, capacity, sizeof *o->images_start, &status);
        if (status == TW_OK) o->texts_capacity = capacity;
    }
    if (o->images + (int64_t)images > o->images_capacity) {
        int64_t capacity = (o->images + (int64_t)images) * 2;
        o->image_ids = resized(o->image_ids, capacity, sizeof *o->image_ids, &status);
        if (status == TW_OK) o->images_capacity = capacity;
    }
    return status;
}

/* Appends a string and its zero; the strings come out again in the order they went in. */
static tw_status keep(owned *o, const char *text, size_t size) {
    if (!o->bytes || o->capacity - o->size < size + 1) {
        size_t larger = (o->size + size + 1) * 2;
        char *bytes = realloc(o->bytes, larger);
        if (!bytes) return no_memory(o->texts);
        o->bytes = bytes;
        o->capacity = larger;
    }
    memcpy(o->bytes + o->size, text, size);
    o->size += size;
    o->bytes[o->size++] = '\0';
    return TW_OK;
}

static tw_status keep_id(owned *o, const tw_id *from, tw_id *to) {
    *to = (tw_id){.size = from->size, .is_integer = from->is_integer};
    return keep(o, from->text, from->size);
}

static tw_status add(owned *o, const tw_caption *c) {
    TRY(reserve(o, c->images));
    TRY(keep_id(o, &c->text_id, &o->text_ids[o->texts]));
    TRY(keep(o, c->text, c->text_bytes));
    o->text_bytes[o->texts] = c->text_bytes;
    o->images_start[o->texts] = o->images;
    for (size_t i = 0; i < c->images; i++)
        TRY(keep_id(o, &c->image_ids[i], &o->image_ids[o->images + (int64_t)i]));
    o->images += (int64_t)c->images;
    o->texts++;
    return TW_OK;
}

/* Offsets become pointers; the arrays become the caller's. */
static void settle(owned *o) {
    const char *at = o->bytes;
    o->images_start[o->texts] = o->images;
    for (int64_t i = 0; i < o->texts; i++) {
        o->text_ids[i].text = at;
        at += o->text_ids[i].size + 1;
        o->text[i] = at;
        at += o->text_bytes[i] + 1;
        for (int64_t k = o->images_start[i]; k < o->images_start[i + 1]; k++) {
            o->image_ids[k].text = at;
            at += o->image_ids[k].size + 1;
        }
    }
    o->captions.texts = o->texts;
    o->captions.text_ids = o->text_ids;
    o->captions.text = o->text;
    o->captions.text_bytes = o->text_bytes;
    o->captions.images_start = o->images_start;
    o->captions.image_ids = o->image_ids;
}

static tw_status read_all(tw_jsonl *jsonl, const tw_captions_options *options, owned *o) {
    for (;;) {
        tw_caption caption;
        tw_bad_kind bad;
        bool end;
        tw_status status = tw_jsonl_next(jsonl, &caption, &end, &bad);
        if (status && (bad == TW_BAD_NONE || (options && options->strict))) return status;
        if (status) {
            o->captions.bad++;
            if (options && options->on_bad) options->on_bad(options->context, tw_last_error());
            continue;
        }
        if (end) return TW_OK;
        TRY(add(o, &caption));
    }
}

tw_status tw_captions_load(const char *path, const tw_captions_options *options, tw_captions **out) {
    *out = NULL;
    tw_jsonl *jsonl;
    if (options && options->lines)
        TRY(tw_jsonl_open_lines(options->lines, &jsonl));
    else
        TRY(tw_jsonl_open(path, &jsonl));
    if (options && options->images_optional) tw_jsonl_allow_no_images(jsonl);
    if (options && options->any_text) tw_jsonl_allow_any_text(jsonl);
    owned *o = calloc(1, sizeof *o);
    tw_status status = o ? read_all(jsonl, options, o) : no_memory(0);
    if (status == TW_OK && o->texts == 0)
        status = o->captions.bad ? tw_fail_context(FAIL(TW_ERR_FORMAT, "%s", tw_last_error()),
                                                   "%s: all of its %lld records are bad, the last one", path,
                                                   (long long)o->captions.bad)
                                 : FAIL(TW_ERR_FORMAT, "%s: holds no texts", path);
    tw_jsonl_close(jsonl);
    if (status) {
        tw_captions_free(o ? &o->captions : NULL);
        return status;
    }
    settle(o);
    *out = &o->captions;
    return TW_OK;
}

void tw_captions_free(tw_captions *captions) {
    if (!captions) return;
    owned *o = (owned *)captions;
    free(o->bytes);
    free(o->text_ids);
    free(o->image_ids);
    free(o->text);
    free(o->text_bytes);
    free(o->images_start);
    free(o);
}

tw_status tw_captions_find(const char *split_dir, char *path, size_t path_bytes) {
    char parent[4096], split[4096], root[4096], above[4096];
    if ((size_t)snprintf(path, path_bytes, "%s/texts.jsonl", split_dir) >= path_bytes)
        return FAIL(TW_ERR_ARGUMENT, "path too long: %.100s…", split_dir);
    if (access(path, F_OK) == 0) return TW_OK;
    if (tw_split_path(split_dir, parent, split, sizeof split) ||
        tw_split_path(parent, root, above, sizeof above))
        return FAIL(TW_ERR_NOT_FOUND, "%s: there is no such file", path);
    int n = snprintf(path, path_bytes, "%s/%s_texts.jsonl", root, split);
    if (n > 0 && (size_t)n < path_bytes && access(path, F_OK) == 0) return TW_OK;
    return FAIL(TW_ERR_NOT_FOUND, "no texts for %s: neither %s/texts.jsonl nor %s/%s_texts.jsonl is there",
                split_dir, split_dir, root, split);
}
