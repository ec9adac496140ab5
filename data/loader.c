#include "data/loader.h"

#include "data/augment.h"
#include "data/shard_layout.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One batch of the ring. `pending`, `taken` and the error are guarded by the loader's lock; sample i of the
 * arrays belongs to the thread that took it until it has given it back, then to the consumer. */
typedef struct slot {
    int64_t requested, epoch, position;
    int64_t taken, pending; /* samples handed out; not finished yet */
    uint8_t *pixels;        /* (capacity, R, R, 3) */
    int32_t *ids, *lengths; /* (capacity, context), (capacity); NULL for images only */
    int64_t *items;         /* (capacity) */
    uint64_t *image_hash, *text_hash;
    uint8_t *cut;   /* (capacity) text was longer than the context */
    uint8_t *bad;   /* (capacity) */
    char **message; /* (capacity) why sample i is bad; NULL otherwise */
    tw_status error;
    int64_t error_at; /* the first sample that failed for good */
    char error_message[1024];
} slot;

typedef struct worker {
    tw_loader *loader;
    tw_reader *reader;
    pthread_t thread;
    bool started;
} worker;

struct tw_loader {
    tw_loader_config config;
    const tw_dataset *dataset;
    const tw_vocab *vocab; /* NULL: images only */
    tw_sampler *sampler;   /* NULL: images only */
    int64_t epoch, position, end;
    int64_t capacity; /* samples of the largest batch */
    size_t image_bytes;

    pthread_mutex_t lock;
    pthread_cond_t work;  /* a slot was released, or stop */
    pthread_cond_t ready; /* a batch is finished, or there are no more */
    /* Batch k lies in slot k % slot_count; released <= delivered <= planned <= released + slot_count. Only
     * the last planned batch may have samples that nobody took yet. */
    int64_t planned, delivered, released;
    bool ended, stop;
    slot *slots;
    int slot_count;
    worker *workers; /* (config.threads) */
    tw_status failed;
    char failure[1024];
};

/* ---- one sample ---- */

/* A record's own fault leaves the sample out; anything else (input/output, memory) ends the loader. */
static bool is_bad_record(tw_status status) {
    return status == TW_ERR_FORMAT || status == TW_ERR_NOT_FOUND || status == TW_ERR_UNSUPPORTED;
}

static tw_status load_pixels(const tw_loader *l, slot *s, int64_t i, const tw_id *id, tw_bytes file) {
    uint8_t *rgb = s->pixels + (size_t)i * l->image_bytes;
    int resolution = l->config.resolution;
    tw_status status = l->sampler && l->config.augment
                           ? tw_image_augment(file.data, file.size, resolution, l->config.seed,
                                              (uint32_t)s->epoch, (uint32_t)(s->position + i), rgb)
                           : tw_image_load(file.data, file.size, resolution, rgb);
    if (status) return tw_fail_context(status, "%s: image %s", tw_dataset_path(l->dataset), id->text);
    s->image_hash[i] = tw_shard_hash(id->text, id->size);
    return TW_OK;
}

static tw_status load_image(const tw_loader *l, tw_reader *reader, slot *s, int64_t i) {
    tw_id id;
    tw_bytes file;
    TRY(tw_dataset_image_at(reader, s->items[i], &id, &file));
    return load_pixels(l, s, i, &id, file);
}

static tw_status load_pair(const tw_loader *l, tw_reader *reader, slot *s, int64_t i) {
    const int context = l->config.context;
    tw_pair pair;
    tw_bytes file;
    int length, full;
    TRY(tw_dataset_pair(reader, s->items[i], &pair));
    /* The text first: it is cheap, and a bad one spares decoding the image. */
    tw_status status = tw_tokenize(l->vocab, pair.text, pair.text_bytes, true, context, s->ids + i * context,
                                   &length, &full);
    if (status) return tw_fail_context(status, "%s: text %s", tw_dataset_path(l->dataset), pair.text_id.text);
    s->lengths[i] = length;
    s->cut[i] = full > context;
    s->text_hash[i] = tw_shard_hash(pair.text, pair.text_bytes);
    status = tw_dataset_image(reader, pair.image_id.text, pair.image_id.size, &file);
    if (status) return tw_fail_context(status, "pair %lld", (long long)s->items[i]);
    return load_pixels(l, s, i, &pair.image_id, file);
}

static void load_sample(const tw_loader *l, tw_reader *reader, slot *s, int64_t i, tw_status *error) {
    tw_status status = l->sampler ? load_pair(l, reader, s, i) : load_image(l, reader, s, i);
    *error = TW_OK;
    s->bad[i] = status != TW_OK;
    if (status == TW_OK) return;
    if (is_bad_record(status))
        s->message[i] = strdup(tw_last_error()); /* NULL is reported as a bad sample without its reason */
    else
        *error = status;
}

/* ---- the threads ---- */

/* Begins the next batch in a free slot, or sets `ended`. The lock is held. */
static void plan_batch(tw_loader *l) {
    slot *s = &l->slots[l->planned % l->slot_count];
    int64_t count = l->end - l->position < l->capacity ? l->end - l->position : l->capacity;
    s->error = TW_OK;
    if (l->sampler) {
        const int64_t *items = NULL;
        if (l->position >= tw_sampler_epoch_samples(l->sampler)) l->epoch++, l->position = 0;
        s->error = tw_sampler_batch(l->sampler, l->epoch, l->position, &items, &count);
        if (s->error) {
            (void)snprintf(s->error_message, sizeof s->error_message, "%s", tw_last_error());
            count = 0;
        } else {
            memcpy(s->items, items, (size_t)count * sizeof *items);
        }
    } else {
        for (int64_t i = 0; i < count; i++) s->items[i] = l->position + i;
    }
    s->epoch = l->epoch, s->position = l->position;
    s->requested = s->pending = count;
    s->taken = s->error_at = 0;
    l->position += count;
    if (count > 0 || s->error) l->planned++;
    l->ended = count == 0;
    if (l->ended) pthread_cond_signal(&l->ready);
}

/* The next sample for a thread; false when there is none any more. The lock is held. */
static bool take(tw_loader *l, slot **s, int64_t *i) {
    while (!l->stop) {
        if (l->planned > 0) {
            *s = &l->slots[(l->planned - 1) % l->slot_count];
            if ((*s)->taken < (*s)->requested) {
                *i = (*s)->taken++;
                return true;
            }
        }
        if (l->ended) return false;
        if (l->planned - l->released < l->slot_count)
            plan_batch(l);
        else
            pthread_cond_wait(&l->work, &l->lock);
    }
    return false;
}

/* Gives a finished sample back. The lock is held. */
static void give_back(tw_loader *l, slot *s, int64_t i, tw_status error) {
    /* The first one in the batch's order, so that the error does not depend on the threads' timing. */
    if (error && (!s->error || i < s->error_at)) {
        s->error = error;
        s->error_at = i;
        (void)snprintf(s->error_message, sizeof s->error_message, "%s", tw_last_error());
    }
    if (--s->pending == 0) pthread_cond_signal(&l->ready);
}

static void *work(void *argument) {
    worker *w = argument;
    tw_loader *l = w->loader;
    slot *s;
    int64_t i;
    pthread_mutex_lock(&l->lock);
    while (take(l, &s, &i)) {
        tw_status error;
        pthread_mutex_unlock(&l->lock);
        load_sample(l, w->reader, s, i, &error);
        pthread_mutex_lock(&l->lock);
        give_back(l, s, i, error);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- opening and closing ---- */

static bool allocate_slot(const tw_loader *l, slot *s) {
    size_t n = (size_t)l->capacity;
    bool texts = l->sampler != NULL;
    s->pixels = malloc(n * l->image_bytes);
    s->items = malloc(n * sizeof *s->items);
    s->image_hash = malloc(n * sizeof *s->image_hash);
    s->bad = calloc(n, 1);
    s->cut = calloc(n, 1);
    s->message = calloc(n, sizeof *s->message);
    if (texts) {
        s->ids = malloc(n * (size_t)l->config.context * sizeof *s->ids);
        s->lengths = malloc(n * sizeof *s->lengths);
        s->text_hash = malloc(n * sizeof *s->text_hash);
    }
    return s->pixels && s->items && s->image_hash && s->bad && s->cut && s->message &&
           (!texts || (s->ids && s->lengths && s->text_hash));
}

static void free_slot(const tw_loader *l, slot *s) {
    for (int64_t i = 0; s->message && i < l->capacity; i++) free(s->message[i]);
    free(s->pixels);
    free(s->items);
    free(s->image_hash);
    free(s->bad);
    free(s->cut);
    free(s->message);
    free(s->ids);
    free(s->lengths);
    free(s->text_hash);
}

static tw_status start(tw_loader *l) {
    sigset_t all, before;
    int code = 0;
    /* Signals are the program's: its own thread must be the one that they interrupt. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < l->config.threads && code == 0; i++) {
        code = pthread_create(&l->workers[i].thread, NULL, work, &l->workers[i]);
        l->workers[i].started = code == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code)
        return FAIL(TW_ERR_MEMORY, "the system refuses %d loader threads (%s): use fewer", l->config.threads,
                    strerror(code));
    return TW_OK;
}

static tw_status check_config(const tw_loader_config *c) {
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
                             .position = first,
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
                        .position = s->position,
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
