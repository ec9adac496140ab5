#include "data/loader_internal.h"

#include "autograd/progress.h"
#include "data/augment.h"
#include "data/shard_layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef tw_loader_slot slot;

/* ---- one sample ---- */

/* A record's own fault leaves the sample out; anything else (input/output, memory) ends the loader. */
static bool is_bad_record(tw_status status) {
    return status == TW_ERR_FORMAT || status == TW_ERR_NOT_FOUND || status == TW_ERR_UNSUPPORTED;
}

static tw_status load_pixels(const tw_loader *l, slot *s, int64_t i, const tw_id *id, tw_bytes file) {
    uint8_t *rgb = s->pixels + (size_t)i * l->image_bytes;
    int resolution = l->config.resolution;
    tw_status status =
        l->sampler && l->config.augment
            ? tw_image_augment(file.data, file.size, resolution, &l->config.policy, l->config.seed,
                               (uint32_t)s->epoch, (uint32_t)(s->position + s->first + i), rgb)
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
    tw_progress_aside();
    if (status == TW_OK) return;
    if (is_bad_record(status))
        s->message[i] = strdup(tw_last_error()); /* NULL is reported as a bad sample without its reason */
    else
        *error = status;
}

/* ---- the threads ---- */

/* This rank's part of the sampler's next batch. */
static void plan_pairs(tw_loader *l, slot *s) {
    const int64_t *items = NULL;
    int64_t rank = l->config.rank, ranks = l->config.ranks;
    if (l->position >= tw_sampler_epoch_samples(l->sampler)) l->epoch++, l->position = 0;
    s->error = tw_sampler_batch(l->sampler, l->epoch, l->position, &items, &s->global);
    if (s->error) {
        (void)snprintf(s->error_message, sizeof s->error_message, "%s", tw_last_error());
        s->global = 0;
    }
    s->epoch = l->epoch, s->position = l->position;
    s->first = s->global * rank / ranks;
    s->requested = s->global * (rank + 1) / ranks - s->first;
    if (s->requested) memcpy(s->items, items + s->first, (size_t)s->requested * sizeof *items);
    l->position += s->global;
}

static void plan_images(tw_loader *l, slot *s) {
    int64_t left = l->end - l->position;
    s->epoch = s->first = 0, s->position = l->position;
    s->global = s->requested = left < 0 ? 0 : left < l->batch ? left : l->batch;
    for (int64_t i = 0; i < s->requested; i++) s->items[i] = l->position + i;
    l->position += l->batch * l->config.ranks;
}

/* Begins the next batch in a free slot, or sets `ended`. The lock is held. */
static void plan_batch(tw_loader *l) {
    slot *s = &l->slots[l->planned % l->slot_count];
    s->error = TW_OK;
    if (l->sampler)
        plan_pairs(l, s);
    else
        plan_images(l, s);
    s->pending = s->requested;
    s->taken = s->error_at = 0;
    if (s->global > 0 || s->error) l->planned++;
    l->ended = s->global == 0;
    if (s->requested == 0) pthread_cond_signal(&l->ready); /* nobody will give back a sample of it */
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

void *tw_loader_work(void *argument) {
    tw_loader_worker *w = argument;
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
