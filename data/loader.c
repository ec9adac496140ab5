#include "data/loader_internal.h"

#include "autograd/progress.h"
#include "data/image.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef tw_loader_slot slot;

/* ---- opening and closing ---- */

/* What goes to the device. */
static void *take_pinned(const tw_loader *l, size_t bytes) {
    tw_device *d = l->config.device;
    void *p = NULL;
    if (!d) return malloc(bytes);
    return d->pinned_alloc(d, bytes, &p) == TW_OK ? p : NULL;
}

static void free_pinned(const tw_loader *l, void *p) {
    tw_device *d = l->config.device;
    if (d)
        d->pinned_release(d, p);
    else
        free(p);
}

static bool allocate_slot(const tw_loader *l, slot *s) {
    size_t n = (size_t)l->capacity;
    bool texts = l->sampler != NULL;
    s->pixels = take_pinned(l, n * l->image_bytes);
    s->items = malloc(n * sizeof *s->items);
    s->image_hash = malloc(n * sizeof *s->image_hash);
    s->bad = calloc(n, 1);
    s->cut = calloc(n, 1);
    s->message = calloc(n, sizeof *s->message);
    if (texts) {
        s->ids = take_pinned(l, n * (size_t)l->config.context * sizeof *s->ids);
        s->lengths = take_pinned(l, n * sizeof *s->lengths);
        s->text_hash = malloc(n * sizeof *s->text_hash);
    }
    return s->pixels && s->items && s->image_hash && s->bad && s->cut && s->message &&
           (!texts || (s->ids && s->lengths && s->text_hash));
}

static void free_slot(const tw_loader *l, slot *s) {
    for (int64_t i = 0; s->message && i < l->capacity; i++) free(s->message[i]);
    free_pinned(l, s->pixels);
    free(s->items);
    free(s->image_hash);
    free(s->bad);
    free(s->cut);
    free(s->message);
    free_pinned(l, s->ids);
    free_pinned(l, s->lengths);
    free(s->text_hash);
}

static tw_status start(tw_loader *l) {
    sigset_t all, before;
    int code = 0;
    /* Signals are the program's: its own thread must be the one that they interrupt. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < l->config.threads && code == 0; i++) {
        code = pthread_create(&l->workers[i].thread, NULL, tw_loader_work, &l->workers[i]);
        l->workers[i].started = code == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code)
        return FAIL(TW_ERR_MEMORY, "the system refuses %d loader threads (%s): use fewer", l->config.threads,
                    strerror(code));
    return TW_OK;
}

static tw_status check_config(const tw_loader_config *c) {
    if (c->rank < 0 || c->rank >= (c->ranks ? c->ranks : 1))
        return FAIL(TW_ERR_ARGUMENT, "a loader of rank %d of %d", c->rank, c->ranks);
    if (c->threads < 1 || c->prefetch < 1 || c->resolution < 1 || c->resolution > TW_IMAGE_MAX_SIDE)
        return FAIL(TW_ERR_ARGUMENT, "a loader of %d threads, %d batches ahead, %d pixels a side", c->threads,
                    c->prefetch, c->resolution);
    return TW_OK;
}

/* `model` has what tells pairs from images; the rest is filled in here. */
static tw_status open_loader(const tw_loader *model, tw_loader **out) {
    tw_loader *l = malloc(sizeof *l);
    if (!l) return FAIL(TW_ERR_MEMORY, "out of memory: a loader");
    *l = *model;
    if (l->config.ranks == 0) l->config.ranks = 1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    size_t side = (size_t)l->config.resolution;
    l->image_bytes = side * side * 3;
    l->slot_count = l->config.prefetch + 1;
    tw_status status = TW_OK;
    l->slots = calloc((size_t)l->slot_count, sizeof *l->slots);
    l->workers = calloc((size_t)l->config.threads, sizeof *l->workers);
    bool enough = l->slots && l->workers;
    for (int i = 0; enough && i < l->slot_count; i++) enough = allocate_slot(l, &l->slots[i]);
    if (!enough)
        status = FAIL(TW_ERR_MEMORY,
                      "out of memory: %d batches of %lld images of %zu bytes; lower the batch or prefetch",
                      l->slot_count, (long long)l->capacity, l->image_bytes);
    for (int i = 0; status == TW_OK && i < l->config.threads; i++) {
        l->workers[i].loader = l;
        status = tw_reader_open(l->dataset, &l->workers[i].reader);
    }
    if (status == TW_OK) status = start(l);
    if (status) {
        tw_loader_close(l);
        return status;
    }
    *out = l;
    return TW_OK;
}

tw_status tw_loader_open_pairs(const tw_loader_config *config, const tw_dataset *dataset,
                               const tw_vocab *vocab, tw_sampler *sampler, int64_t epoch, int64_t position,
                               tw_loader **out) {
    *out = NULL;
    TRY(check_config(config));
    if (config->context < 2) return FAIL(TW_ERR_ARGUMENT, "a loader of %d tokens a text", config->context);
    const int64_t *items;
    int64_t largest, count;
    /* At the start of an epoch the sampler gives its largest batch. */
    TRY(tw_sampler_batch(sampler, epoch, 0, &items, &largest));
    if (config->ranks > 1) largest = (largest + config->ranks - 1) / config->ranks;
    TRY(tw_sampler_batch(sampler, epoch, position, &items, &count));
    const tw_loader model = {.config = *config,
                             .dataset = dataset,
                             .vocab = vocab,
                             .sampler = sampler,
                             .epoch = epoch,
                             .position = position,
                             .capacity = largest};
    return open_loader(&model, out);
}

tw_status tw_loader_open_images(const tw_loader_config *config, const tw_dataset *dataset, int64_t batch,
                                int64_t first, int64_t end, tw_loader **out) {
    *out = NULL;
    TRY(check_config(config));
    if (batch < 1 || first < 0 || first > end || end > tw_dataset_images(dataset))
        return FAIL(TW_ERR_ARGUMENT, "%s: images %lld to %lld, %lld at a time, of %lld",
                    tw_dataset_path(dataset), (long long)first, (long long)end, (long long)batch,
                    (long long)tw_dataset_images(dataset));
    int64_t capacity = end - first < batch ? end - first : batch;
    const tw_loader model = {.config = *config,
                             .dataset = dataset,
                             .position = first + config->rank * batch,
                             .batch = batch,
                             .end = end,
                             .capacity = capacity > 0 ? capacity : 1};
    return open_loader(&model, out);
}

void tw_loader_close(tw_loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; l->workers && i < l->config.threads; i++)
        if (l->workers[i].started) pthread_join(l->workers[i].thread, NULL);
    for (int i = 0; l->workers && i < l->config.threads; i++) tw_reader_close(l->workers[i].reader);
    for (int i = 0; l->slots && i < l->slot_count; i++) free_slot(l, &l->slots[i]);
    free(l->workers);
    free(l->slots);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- the consumer ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Releases the batch in use and waits for the next; NULL at the end. */
static slot *wait_for_batch(tw_loader *l, double *waited) {
    slot *s = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->released < l->delivered) {
        l->released++;
        pthread_cond_broadcast(&l->work);
    }
    for (double since = 0;;) {
        bool planned = l->delivered < l->planned;
        s = planned ? &l->slots[l->delivered % l->slot_count] : NULL;
        if (planned ? s->pending == 0 : l->ended) break;
        if (since == 0) since = now();
        pthread_cond_wait(&l->ready, &l->lock);
        *waited = now() - since;
    }
    if (s) l->delivered++;
    pthread_mutex_unlock(&l->lock);
    return s;
}

static void report_bad(const tw_loader *l, slot *s, int64_t i) {
    char other[128];
    (void)snprintf(other, sizeof other, "%s number %lld is bad; there is no memory to say why",
                   l->sampler ? "pair" : "image", (long long)s->items[i]);
    if (l->config.on_bad) l->config.on_bad(l->config.on_bad_context, s->message[i] ? s->message[i] : other);
    free(s->message[i]);
    s->message[i] = NULL;
}

/* Sample `from` becomes sample `to` <= from. */
static void move_sample(const tw_loader *l, slot *s, int64_t to, int64_t from) {
    if (to == from) return;
    memcpy(s->pixels + (size_t)to * l->image_bytes, s->pixels + (size_t)from * l->image_bytes,
           l->image_bytes);
    s->items[to] = s->items[from];
    s->image_hash[to] = s->image_hash[from];
    s->cut[to] = s->cut[from];
    if (!l->sampler) return;
    size_t context = (size_t)l->config.context;
    memcpy(s->ids + (size_t)to * context, s->ids + (size_t)from * context, context * sizeof *s->ids);
    s->lengths[to] = s->lengths[from];
    s->text_hash[to] = s->text_hash[from];
}

tw_status tw_loader_next(tw_loader *l, tw_batch *batch) {
    *batch = (tw_batch){.position = l->end};
    if (l->failed) return FAIL(l->failed, "%s", l->failure);
    double waited = 0;
    tw_progress_begin("waiting for the loader's samples");
    slot *s = wait_for_batch(l, &waited);
    batch->waited = waited;
    if (!s) return TW_OK;
    if (s->error) {
        l->failed = s->error;
        memcpy(l->failure, s->error_message, sizeof l->failure);
        return FAIL(l->failed, "%s", l->failure);
    }
    int64_t size = 0, truncated = 0;
    for (int64_t i = 0; i < s->requested; i++) {
        if (s->bad[i]) {
            report_bad(l, s, i);
        } else {
            move_sample(l, s, size, i);
            truncated += l->sampler && s->cut[size];
            size++;
        }
    }
    *batch = (tw_batch){.size = size,
                        .requested = s->requested,
                        .epoch = s->epoch,
                        .position = s->position + s->first,
                        .first = s->first,
                        .global = s->global,
                        .pixels = s->pixels,
                        .ids = s->ids,
                        .lengths = s->lengths,
                        .items = s->items,
                        .image_hash = s->image_hash,
                        .text_hash = s->text_hash,
                        .truncated = truncated,
                        .waited = waited};
    return TW_OK;
}
