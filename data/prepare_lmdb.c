#include "data/captions.h"
#include "data/jsonl.h"
#include "data/prepare_internal.h"
#include "data/shards.h"

#include <stdlib.h>
#include <string.h>

static tw_status import_images(tw_import *m, const tw_dataset *d, tw_reader *reader) {
    const char *path = tw_dataset_path(d);
    for (int64_t i = 0; i < tw_dataset_images(d); i++) {
        tw_id id = {0};
        tw_bytes bytes;
        tw_status status = tw_dataset_image_at(reader, i, &id, NULL);
        tw_bad_kind kind = TW_BAD_ID;
        if (status == TW_OK) {
            kind = TW_BAD_BASE64;
            status = tw_dataset_image_at(reader, i, NULL, &bytes);
        }
        if (status == TW_ERR_FORMAT) {
            TRY(tw_import_bad(m, kind, status));
        } else {
            bool written;
            if (status) return status;
            TRY(tw_import_image(m, path, &id, bytes.data, bytes.size, &written));
        }
        TRY(tw_import_tick(m, path, i + 1, tw_dataset_images(d), m->report->images));
    }
    return TW_OK;
}

/* The images of each text, in the order of its pairs. */
typedef struct text_images {
    tw_string_map texts; /* key: type, id, zero, text */
    int64_t *last;       /* (texts): its newest link, or -1 */
    int64_t last_capacity;
    struct {
        int64_t image, previous;
    } * links;
    int64_t link_count, link_capacity;
    tw_string_map images; /* key: type, id */
} text_images;

static tw_status number_of(tw_string_map *map, const tw_id *id, const char *text, size_t text_bytes,
                           int64_t *out) {
    size_t size = 1 + id->size + 1 + text_bytes;
    char *key = malloc(size);
    if (!key) return FAIL(TW_ERR_MEMORY, "no memory for a text of %zu bytes", text_bytes);
    key[0] = id->is_integer ? 'i' : 's';
    memcpy(key + 1, id->text, id->size + 1);
    if (text_bytes) memcpy(key + 2 + id->size, text, text_bytes);
    tw_status status = tw_string_map_add(map, key, size, out, NULL);
    free(key);
    return status;
}

static tw_status note_pair(text_images *t, const tw_pair *pair) {
    int64_t text, image, texts = t->texts.count;
    TRY(number_of(&t->texts, &pair->text_id, pair->text, pair->text_bytes, &text));
    TRY(number_of(&t->images, &pair->image_id, NULL, 0, &image));
    if (text >= t->last_capacity) {
        int64_t capacity = t->last_capacity * 2 + 1024;
        int64_t *last = realloc(t->last, (size_t)capacity * sizeof *last);
        if (!last) return FAIL(TW_ERR_MEMORY, "no memory for %lld texts", (long long)capacity);
        t->last = last;
        t->last_capacity = capacity;
    }
    if (text == texts) t->last[text] = -1;
    if (t->link_count == t->link_capacity) {
        int64_t capacity = t->link_capacity * 2 + 1024;
        void *links = realloc(t->links, (size_t)capacity * sizeof *t->links);
        if (!links) return FAIL(TW_ERR_MEMORY, "no memory for %lld pairs", (long long)capacity);
        t->links = links;
        t->link_capacity = capacity;
    }
    t->links[t->link_count].image = image;
    t->links[t->link_count].previous = t->last[text];
    t->last[text] = t->link_count++;
    return TW_OK;
}

static tw_id id_of_key(const char *key) {
    return (tw_id){.text = key + 1, .size = strlen(key + 1), .is_integer = key[0] == 'i'};
}

static tw_status write_text(tw_import *m, const text_images *t, int64_t text, tw_id **ids, size_t *capacity) {
    size_t count = 0, size, n;
    for (int64_t k = t->last[text]; k >= 0; k = t->links[k].previous) count++;
    if (count > *capacity || !*ids) {
        tw_id *larger = realloc(*ids, (count * 2 + 1) * sizeof **ids);
        if (!larger) return FAIL(TW_ERR_MEMORY, "no memory for a text of %zu images", count);
        *ids = larger;
        *capacity = count * 2;
    }
    n = count;
    for (int64_t k = t->last[text]; k >= 0; k = t->links[k].previous) {
        size_t ignored;
        (*ids)[--n] = id_of_key(tw_string_map_key(&t->images, t->links[k].image, &ignored));
    }
    const char *key = tw_string_map_key(&t->texts, text, &size);
    tw_id id = id_of_key(key);
    const char *words = id.text + id.size + 1;
    size_t words_size = size - 2 - id.size;
    char *line;
    TRY(tw_caption_to_json(&id, words, words_size, *ids, count, &line, &n));
    tw_status status = tw_import_text_line(m, line, n, words, words_size, count > 0);
    free(line);
    return status;
}

static tw_status write_texts(tw_import *m, const text_images *t) {
    tw_id *ids = NULL;
    size_t capacity = 0;
    tw_status status = TW_OK;
    for (int64_t i = 0; i < t->texts.count && status == TW_OK; i++)
        status = write_text(m, t, i, &ids, &capacity);
    free(ids);
    return status;
}

/* One pair: copied, or bad. */
static tw_status import_pair(tw_import *m, const tw_dataset *d, tw_reader *reader, int64_t i,
                             text_images *t) {
    const char *path = tw_dataset_path(d);
    tw_pair pair;
    bool known;
    tw_status status = tw_dataset_pair(reader, i, &pair);
    if (status == TW_ERR_FORMAT || status == TW_ERR_UNSUPPORTED) return tw_import_bad(m, TW_BAD_PAIR, status);
    if (status) return status;
    if (tw_lines_is_blank(pair.text, pair.text_bytes)) {
        status =
            FAIL(TW_ERR_FORMAT, "%s: pair %lld: text %s is empty", path, (long long)i, pair.text_id.text);
        return tw_import_bad(m, TW_BAD_EMPTY_TEXT, status);
    }
    TRY(tw_shard_writer_has_image(m->writer, &pair.image_id, &known));
    if (!known) {
        status =
            FAIL(TW_ERR_FORMAT, "%s: pair %lld: text %s names image %s, which is not among the good images",
                 path, (long long)i, pair.text_id.text, pair.image_id.text);
        return tw_import_bad(m, TW_BAD_UNKNOWN_IMAGE, status);
    }
    TRY(tw_import_pair(m, &pair.image_id, &pair.text_id, pair.text, pair.text_bytes));
    return t ? note_pair(t, &pair) : TW_OK;
}

static tw_status import_pairs(tw_import *m, const tw_dataset *d, tw_reader *reader, text_images *t) {
    for (int64_t i = 0; i < tw_dataset_pairs(d); i++) {
        TRY(import_pair(m, d, reader, i, t));
        TRY(tw_import_tick(m, tw_dataset_path(d), i + 1, tw_dataset_pairs(d), m->report->pairs));
    }
    return TW_OK;
}

static tw_status import_dataset(tw_import *m, const tw_dataset *d, tw_reader *reader) {
    char captions[4400];
    m->texts_optional = tw_dataset_pairs(d) == 0;
    TRY(import_images(m, d, reader));
    if (tw_captions_find(tw_dataset_path(d), captions, sizeof captions) == TW_OK) {
        TRY(import_pairs(m, d, reader, NULL));
        return tw_import_captions(m, captions, true);
    }
    text_images t = {0};
    tw_status status = import_pairs(m, d, reader, &t);
    if (status == TW_OK) status = write_texts(m, &t);
    tw_string_map_free(&t.texts);
    tw_string_map_free(&t.images);
    free(t.last);
    free(t.links);
    return status;
}

tw_status tw_prepare_lmdb(const char *split_dir, const char *output, const tw_prepare_options *options,
                          tw_prepare_report *report) {
    tw_import m;
    tw_dataset *d = NULL;
    tw_reader *reader = NULL;
    *report = (tw_prepare_report){0};
    TRY(tw_dataset_open(split_dir, &d));
    tw_status status = tw_import_begin(&m, output, options, report);
    if (status == TW_OK) status = tw_reader_open(d, &reader);
    if (status == TW_OK) status = import_dataset(&m, d, reader);
    tw_reader_close(reader);
    tw_dataset_close(d); /* before the end, which may replace it */
    return tw_import_end(&m, status);
}
