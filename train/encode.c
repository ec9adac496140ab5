#include "train/encode.h"

#include "train/encode_queue.h"
#include "train/encode_turns.h"
#include "train/image_list.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- images of a data set ---- */

/* A batch under way. */
typedef struct part {
    int64_t position, requested; /* of the images asked for */
    int64_t size, *rows;         /* (size) which of them the good ones are */
} part;

/* The batches under way, and the rows and flags of one that has arrived. */
typedef struct rows {
    int64_t embed;
    tw_encode_queue *queue;
    part parts[TW_ENCODE_DEPTH];
    int64_t begun, ended;
    float *features; /* (batch, embed) */
    bool *ok;        /* (batch) */
} rows;

static tw_status open_rows(rows *r, tw_towers *towers, int64_t batch, int64_t embed) {
    *r = (rows){.embed = embed,
                .features = malloc((size_t)(batch * embed) * sizeof *r->features),
                .ok = malloc((size_t)batch)};
    bool room = r->features && r->ok;
    for (int i = 0; i < TW_ENCODE_DEPTH; i++) {
        r->parts[i].rows = malloc((size_t)batch * sizeof *r->parts[i].rows);
        room = room && r->parts[i].rows;
    }
    return room ? tw_encode_queue_create(towers, batch, embed, &r->queue)
                : FAIL(TW_ERR_MEMORY, "out of memory");
}

static void close_rows(rows *r) {
    tw_encode_queue_free(r->queue);
    for (int i = 0; i < TW_ENCODE_DEPTH; i++) free(r->parts[i].rows);
    free(r->features);
    free(r->ok);
}

static tw_status begin_part(rows *r, const tw_batch *batch) {
    part *p = &r->parts[r->begun++ % TW_ENCODE_DEPTH];
    p->position = batch->position, p->requested = batch->requested, p->size = batch->size;
    for (int64_t i = 0; i < batch->size; i++) p->rows[i] = batch->items[i] - batch->position;
    return batch->size > 0 ? tw_encode_queue_put(r->queue, batch->pixels, batch->size) : TW_OK;
}

/* The oldest part: puts each feature where its image belongs. */
static tw_status end_part(rows *r, tw_turns *turns) {
    const part *p = &r->parts[r->ended++ % TW_ENCODE_DEPTH];
    const float *compact = NULL;
    size_t row = (size_t)r->embed * sizeof *r->features;
    memset(r->features, 0, (size_t)p->requested * row);
    memset(r->ok, 0, (size_t)p->requested);
    if (p->size > 0) TRY(tw_encode_queue_get(r->queue, &compact));
    for (int64_t i = 0; i < p->size; i++) {
        memcpy(r->features + p->rows[i] * r->embed, compact + i * r->embed, row);
        r->ok[p->rows[i]] = true;
    }
    return tw_turns_take(turns, &(tw_encoded){p->position, p->requested, r->features, r->ok, 0});
}

static tw_status drain(tw_loader *loader, rows *r, tw_turns *turns) {
    for (;;) {
        tw_batch batch;
        TRY(tw_loader_next(loader, &batch));
        if (batch.requested == 0) break;
        TRY(begin_part(r, &batch));
        if (r->begun - r->ended == tw_encode_queue_depth(r->queue)) TRY(end_part(r, turns));
        TRY(tw_encode_queue_read(r->queue)); /* the loader takes the batch back */
    }
    while (r->ended < r->begun) TRY(end_part(r, turns));
    return tw_turns_finish(turns);
}

tw_status tw_encode_dataset(tw_towers *towers, const tw_dual_encoder *model, const tw_dataset *dataset,
                            int64_t first, const tw_encode_options *options, tw_encode_sink sink,
                            void *context) {
    int64_t n = tw_dataset_images(dataset);
    rows r;
    tw_turns turns;
    tw_loader *loader = NULL;
    tw_status status = tw_turns_open(&turns, options, model->config.embed, first, n, sink, context);
    tw_loader_config config = {.rank = turns.rank,
                               .ranks = turns.ranks,
                               .threads = options->threads,
                               .prefetch = options->prefetch,
                               .resolution = model->config.image.resolution,
                               .context = model->config.context,
                               .device = tw_towers_device(towers),
                               .on_bad = options->on_bad,
                               .on_bad_context = options->context};
    tw_status opened = open_rows(&r, towers, options->batch, model->config.embed);
    if (status == TW_OK) status = opened;
    if (status == TW_OK) status = tw_loader_open_images(&config, dataset, options->batch, first, n, &loader);
    if (status == TW_OK) status = drain(loader, &r, &turns);
    close_rows(&r); /* first: it may be reading the loader's memory */
    tw_loader_close(loader);
    tw_turns_close(&turns);
    return status;
}

/* ---- image files ---- */

enum { SPAN = 8 }; /* batches that one call of tw_encode_image_list gets */

typedef struct span {
    const tw_encode_options *options;
    int64_t delivered, embed; /* of the span */
    float *features;          /* (SPAN * batch, embed) */
    bool *ok;                 /* (SPAN * batch) */
    tw_turns turns;
    tw_status status; /* the sink's first error, with its message */
    char message[1024];
} span;

static tw_status file_is_bad(void *context, int64_t i, tw_status status, const char *message) {
    span *s = context;
    (void)status;
    s->ok[i] = false;
    if (s->options->on_bad) s->options->on_bad(s->options->context, message);
    return TW_OK;
}

static void files_are_done(void *context, int64_t done, int64_t total) {
    span *s = context;
    (void)total;
    if (s->status != TW_OK) return;
    int64_t at = s->delivered, n = done - at;
    s->delivered = done;
    s->status = tw_turns_take(&s->turns, &(tw_encoded){0, n, s->features + at * s->embed, s->ok + at, 0});
    if (s->status != TW_OK) snprintf(s->message, sizeof s->message, "%s", tw_last_error());
}

static tw_status encode_span(tw_towers *towers, const tw_dual_encoder *model, const char *const *paths,
                             int64_t n, span *s) {
    const tw_image_list list = {.n = n, .load = tw_image_list_load_file, .self = paths};
    const tw_image_list_options options = {.batch = s->options->batch,
                                           .threads = s->options->threads,
                                           .on_bad = file_is_bad,
                                           .on_progress = files_are_done,
                                           .context = s};
    memset(s->ok, 1, (size_t)n);
    s->delivered = 0;
    TRY(tw_encode_image_list(towers, model, &list, &options, s->features));
    return s->status == TW_OK ? TW_OK : FAIL(s->status, "%s", s->message);
}

/* The paths of this rank's batches, behind each other; returns their number. */
static int64_t own_paths(const span *s, const char *const *paths, const char **own) {
    const tw_turns *t = &s->turns;
    int64_t batch = s->options->batch, count = 0;
    for (int64_t at = t->first + t->rank * batch; at < t->total; at += t->ranks * batch)
        for (int64_t i = at; i < at + batch && i < t->total; i++) own[count++] = paths[i];
    return count;
}

tw_status tw_encode_files(tw_towers *towers, const tw_dual_encoder *model, const char *const *paths,
                          int64_t n, int64_t first, const tw_encode_options *options, tw_encode_sink sink,
                          void *context) {
    int64_t embed = model->config.embed, most = SPAN * options->batch, count = 0;
    if (most > n - first) most = n > first ? n - first : 1;
    span s = {.options = options,
              .embed = embed,
              .features = malloc((size_t)(most * embed) * sizeof *s.features),
              .ok = malloc((size_t)most)};
    const char **own = malloc((size_t)(n > first ? n - first : 1) * sizeof *own);
    tw_status status = tw_turns_open(&s.turns, options, embed, first, n, sink, context);
    if (status == TW_OK && !(s.features && s.ok && own)) status = FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) count = own_paths(&s, paths, own);
    for (int64_t at = 0; status == TW_OK && at < count; at += most)
        status = encode_span(towers, model, own + at, count - at < most ? count - at : most, &s);
    if (status == TW_OK) status = tw_turns_finish(&s.turns);
    tw_turns_close(&s.turns);
    free(own);
    free(s.features);
    free(s.ok);
    return status;
}

/* ---- texts ---- */

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

/* What one batch of texts needs. */
typedef struct text_rows {
    int32_t *ids, *lengths; /* (batch, context), (batch) */
    float *features;        /* (batch, embed) */
} text_rows;

static tw_status encode_text_batch(tw_towers *towers, const tw_dual_encoder *model, const tw_vocab *vocab,
                                   const tw_text *texts, const tw_encode_options *options, const text_rows *r,
                                   tw_encoded *out) {
    const tw_tower_tape *t;
    TRY(tokenize_batch(vocab, texts, out->first, out->n, options->as_is, model->config.context, r->ids,
                       r->lengths, &out->truncated));
    TRY(tw_towers_get_texts(towers, TW_TOWER_TEXT, out->n, r->lengths, &t));
    TRY(tw_tape_upload(t->tape, t->ids, r->ids));
    TRY(tw_tape_upload(t->tape, t->lengths, r->lengths));
    TRY(tw_tape_forward(t->tape, NULL));
    return tw_tape_download(t->tape, t->text, r->features);
}

tw_status tw_encode_some_texts(tw_towers *towers, const tw_dual_encoder *model, const tw_vocab *vocab,
                               const tw_text *texts, int64_t n, int64_t first,
                               const tw_encode_options *options, tw_encode_sink sink, void *context) {
    int64_t embed = model->config.embed, batch = options->batch;
    tw_turns turns;
    tw_status status = tw_turns_open(&turns, options, embed, first, n, sink, context);
    text_rows r = {.ids = malloc((size_t)(batch * model->config.context) * sizeof *r.ids),
                   .lengths = malloc((size_t)batch * sizeof *r.lengths),
                   .features = malloc((size_t)(batch * embed) * sizeof *r.features)};
    if (status == TW_OK && !(r.ids && r.lengths && r.features)) status = FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t at = first + turns.rank * batch; status == TW_OK && at < n; at += turns.ranks * batch) {
        tw_encoded out = {.first = at, .n = n - at < batch ? n - at : batch, .features = r.features};
        status = encode_text_batch(towers, model, vocab, texts, options, &r, &out);
        if (status == TW_OK) status = tw_turns_take(&turns, &out);
    }
    if (status == TW_OK) status = tw_turns_finish(&turns);
    tw_turns_close(&turns);
    free(r.ids);
    free(r.lengths);
    free(r.features);
    return status;
}

/* ---- all in memory ---- */

typedef struct memory {
    int64_t embed;
    float *features;
    bool *ok;
    int64_t bad, truncated;
} memory;

static tw_status keep(void *context, const tw_encoded *batch) {
    memory *m = context;
    memcpy(m->features + batch->first * m->embed, batch->features,
           (size_t)(batch->n * m->embed) * sizeof *m->features);
    for (int64_t i = 0; batch->ok && i < batch->n; i++) {
        m->bad += !batch->ok[i];
        if (m->ok) m->ok[batch->first + i] = batch->ok[i];
    }
    m->truncated += batch->truncated;
    return TW_OK;
}

tw_status tw_encode_all_images(tw_towers *towers, const tw_dual_encoder *model, const tw_dataset *dataset,
                               const tw_encode_options *options, float *features, bool *ok, int64_t *bad) {
    memory m = {.embed = model->config.embed, .features = features, .ok = ok};
    tw_status status = tw_encode_dataset(towers, model, dataset, 0, options, keep, &m);
    *bad = m.bad;
    return status;
}

tw_status tw_encode_texts(tw_towers *towers, const tw_dual_encoder *model, const tw_vocab *vocab,
                          const tw_text *texts, int64_t n, const tw_encode_options *options, float *features,
                          int64_t *truncated) {
    memory m = {.embed = model->config.embed, .features = features};
    tw_status status = tw_encode_some_texts(towers, model, vocab, texts, n, 0, options, keep, &m);
    *truncated = m.truncated;
    return status;
}
