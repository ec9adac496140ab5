#include "train/encode.h"

#include <stdlib.h>

static void progress(const tw_encode_options *options, int64_t done, int64_t total) {
    if (options->on_progress) options->on_progress(options->context, done, total);
}

/* Runs one batch of images and puts each feature where its image belongs. */
static tw_status encode_batch(tw_towers *towers, const tw_batch *batch, int64_t embed, float *buffer,
                              float *features, bool *ok) {
    const tw_tower_tape *t;
    TRY(tw_towers_get(towers, TW_TOWER_IMAGE, batch->size, &t));
    TRY(tw_tape_upload(t->tape, t->pixels, batch->pixels));
    TRY(tw_tape_forward(t->tape, NULL));
    TRY(tw_tape_download(t->tape, t->image, buffer));
    for (int64_t i = 0; i < batch->size; i++) {
        memcpy(features + batch->items[i] * embed, buffer + i * embed, (size_t)embed * sizeof *features);
        if (ok) ok[batch->items[i]] = true;
    }
    return TW_OK;
}

static tw_status drain(tw_towers *towers, tw_loader *loader, const tw_encode_options *options, int64_t embed,
                       int64_t n, float *buffer, float *features, bool *ok, int64_t *bad) {
    for (int64_t done = 0;;) {
        tw_batch batch;
        TRY(tw_loader_next(loader, &batch));
        if (batch.requested == 0) return TW_OK;
        if (batch.size > 0) TRY(encode_batch(towers, &batch, embed, buffer, features, ok));
        *bad += batch.requested - batch.size;
        done += batch.requested;
        progress(options, done, n);
    }
}

tw_status tw_encode_all_images(tw_towers *towers, const tw_dual_encoder *model, const tw_dataset *dataset,
                               const tw_encode_options *options, float *features, bool *ok, int64_t *bad) {
    int64_t n = tw_dataset_images(dataset), embed = model->config.embed;
    *bad = 0;
    memset(features, 0, (size_t)(n * embed) * sizeof *features);
    if (ok) memset(ok, 0, (size_t)n * sizeof *ok);
    tw_loader_config config = {.threads = options->threads,
                               .prefetch = options->prefetch,
                               .resolution = model->config.image.resolution,
                               .context = model->config.context,
                               .on_bad = options->on_bad,
                               .on_bad_context = options->context};
    float *buffer = malloc((size_t)(options->batch * embed) * sizeof *buffer);
    if (!buffer) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_loader *loader = NULL;
    tw_status status = tw_loader_open_images(&config, dataset, options->batch, 0, n, &loader);
    if (status == TW_OK) status = drain(towers, loader, options, embed, n, buffer, features, ok, bad);
    tw_loader_close(loader);
    free(buffer);
    return status;
}

static tw_status tokenize_batch(const tw_vocab *vocab, const tw_text *texts, int64_t first, int64_t n,
                                bool as_is, int context, int32_t *ids, int32_t *lengths, int64_t *truncated) {
    for (int64_t i = 0; i < n; i++) {
        int length, full;
        const tw_text *t = &texts[first + i];
        tw_status status =
            tw_tokenize(vocab, t->text, t->bytes, !as_is, context, ids + i * context, &length, &full);
        if (status != TW_OK) return tw_fail_context(status, "text number %lld", (long long)(first + i + 1));
        lengths[i] = length;
        *truncated += full > context;
    }
    return TW_OK;
}

tw_status tw_encode_texts(tw_towers *towers, const tw_dual_encoder *model, const tw_vocab *vocab,
                          const tw_text *texts, int64_t n, const tw_encode_options *options, float *features,
                          int64_t *truncated) {
    int64_t embed = model->config.embed, batch = options->batch;
    int context = model->config.context;
    *truncated = 0;
    int32_t *ids = malloc((size_t)(batch * (context + 1)) * sizeof *ids);
    if (!ids) return FAIL(TW_ERR_MEMORY, "out of memory");
    int32_t *lengths = ids + batch * context;
    tw_status status = TW_OK;
    for (int64_t at = 0; status == TW_OK && at < n; at += batch) {
        int64_t count = n - at < batch ? n - at : batch;
        const tw_tower_tape *t = NULL;
        status = tokenize_batch(vocab, texts, at, count, options->as_is, context, ids, lengths, truncated);
        if (status == TW_OK) status = tw_towers_get(towers, TW_TOWER_TEXT, count, &t);
        if (status == TW_OK) status = tw_tape_upload(t->tape, t->ids, ids);
        if (status == TW_OK) status = tw_tape_upload(t->tape, t->lengths, lengths);
        if (status == TW_OK) status = tw_tape_forward(t->tape, NULL);
        if (status == TW_OK) status = tw_tape_download(t->tape, t->text, features + at * embed);
        if (status == TW_OK) progress(options, at + count, n);
    }
    free(ids);
    return status;
}
