#include "train/step_results.h"

#include <stdlib.h>
#include <string.h>

enum { RING = 4 };

/* Pinned. The tallies follow. */
typedef struct page {
    tw_gradient_found found;
} page;

typedef struct entry {
    int64_t step, pairs;
    bool follows;                    /* directly behind the step before it */
    tw_event *begin, *ready, *ended; /* stamps of the compute queue */
    page *page;
    float *tallies;
} entry;

struct tw_step_results {
    tw_device *device;
    int ranks;
    entry ring[RING];
    int64_t made, taken;
    bool paused;
    char *pinned;
};

static size_t tally_bytes(const tw_step_results *r) {
    return (size_t)r->ranks * TW_CONTRASTIVE_TALLY * sizeof(float);
}

tw_status tw_step_results_create(tw_device *d, int ranks, tw_step_results **out) {
    tw_step_results *r = *out = calloc(1, sizeof *r);
    if (!r) return FAIL(TW_ERR_MEMORY, "out of memory");
    *r = (tw_step_results){.device = d, .ranks = ranks, .paused = true};
    size_t bytes = (sizeof(page) + tally_bytes(r) + 63) / 64 * 64;
    tw_status status = d->pinned_alloc(d, RING * bytes, (void **)&r->pinned);
    if (status != TW_OK) {
        free(r);
        *out = NULL;
        return status;
    }
    for (int i = 0; i < RING; i++) {
        r->ring[i].page = (void *)(r->pinned + (size_t)i * bytes);
        r->ring[i].tallies = (void *)(r->ring[i].page + 1);
    }
    return TW_OK;
}

void tw_step_results_free(tw_step_results *r) {
    if (!r) return;
    tw_device *d = r->device;
    for (int i = 0; i < RING; i++) {
        tw_event *events[] = {r->ring[i].begin, r->ring[i].ready, r->ring[i].ended};
        for (int k = 0; k < 3; k++) d->event_release(d, events[k]);
    }
    d->pinned_release(d, r->pinned);
    free(r);
}

static entry *present(tw_step_results *r) {
    return &r->ring[r->made % RING];
}

tw_status tw_step_results_begin(tw_step_results *r) {
    entry *e = present(r);
    if (r->made - r->taken >= RING - 1)
        return FAIL(TW_ERR_ARGUMENT, "%lld steps' results were not taken", (long long)(r->made - r->taken));
    e->follows = !r->paused;
    r->paused = false;
    return r->device->stamp(r->device, TW_QUEUE_COMPUTE, &e->begin);
}

tw_status tw_step_results_ready(tw_step_results *r) {
    return r->device->stamp(r->device, TW_QUEUE_COMPUTE, &present(r)->ready);
}

tw_status tw_step_results_end(tw_step_results *r, int64_t step, int64_t pairs, const float *tallies,
                              const tw_gradient_found *found) {
    tw_device *d = r->device;
    entry *e = present(r);
    e->step = step;
    e->pairs = pairs;
    TRY(d->download(d, TW_QUEUE_COMPUTE, e->tallies, tallies, tally_bytes(r)));
    if (found)
        TRY(d->download(d, TW_QUEUE_COMPUTE, &e->page->found, found, sizeof *found));
    else
        e->page->found = (tw_gradient_found){.unit = -1};
    TRY(d->stamp(d, TW_QUEUE_COMPUTE, &e->ended));
    r->made++;
    return TW_OK;
}

void tw_step_results_pause(tw_step_results *r) {
    r->paused = true;
}

tw_status tw_step_results_take(tw_step_results *r, bool all, tw_step_result *out, bool *taken) {
    tw_device *d = r->device;
    *taken = r->made - r->taken > (all ? 0 : 1);
    if (!*taken) return TW_OK;
    const entry *e = &r->ring[r->taken % RING], *before = &r->ring[(r->taken + RING - 1) % RING];
    TRY(d->await(d, e->ended));
    *out = (tw_step_result){.step = e->step,
                            .pairs = e->pairs,
                            .loss = tw_contrastive_result_of(e->tallies, r->ranks, e->pairs),
                            .found = e->page->found};
    TRY(d->seconds(d, e->follows ? before->ended : e->begin, e->ready, &out->waited));
    r->taken++;
    return TW_OK;
}
