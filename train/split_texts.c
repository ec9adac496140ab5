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

static tw_status from_captions(tw_split_texts *t, const char *path, tw_log *log) {
    const tw_captions_options options = {.on_bad = report_bad, .context = log};
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
    snprintf(t->source, sizeof t->source, "%s", path);
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
    if (path && *path) return from_captions(out, path, log);
    tw_status status = tw_captions_find(tw_dataset_path(dataset), found, sizeof found);
    if (status == TW_OK) return from_captions(out, found, log);
    if (status == TW_ERR_NOT_FOUND && tw_dataset_pairs(dataset) > 0) return from_pairs(out, dataset);
    return status;
}

tw_status tw_split_texts_load(const tw_dataset *dataset, const char *path, tw_log *log, tw_split_texts *out) {
    *out = (tw_split_texts){0};
    tw_status status = load(dataset, path, log, out);
    if (status != TW_OK) tw_split_texts_free(out);
    return status;
}

void tw_split_texts_free(tw_split_texts *texts) {
    tw_captions_free(texts->captions);
    tw_pool_free(texts->pool);
    free(texts->owned_ids);
    free(texts->owned_images);
    free(texts->owned_texts);
    *texts = (tw_split_texts){0};
}
