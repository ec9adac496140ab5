#include "data/sampler.h"

#include "autograd/random.h"

#include <stdlib.h>

struct tw_sampler {
    int64_t n, batch, samples; /* samples of an epoch */
    uint64_t seed;
    int64_t epoch;    /* whose order `order` holds; -1: none yet */
    int64_t shuffled; /* length of order */
    int64_t *order;
};

tw_status tw_sampler_create(int64_t n, int64_t batch, tw_last_batch last, uint64_t seed, tw_sampler **out) {
    *out = NULL;
    if (n < 1 || batch < 1)
        return FAIL(TW_ERR_ARGUMENT, "a sampler of %lld samples in batches of %lld", (long long)n,
                    (long long)batch);
    int64_t samples = n, shuffled = n;
    if (last == TW_LAST_DROP) samples = n / batch * batch;
    if (last == TW_LAST_PAD) samples = shuffled = (n + batch - 1) / batch * batch;
    if (samples == 0)
        return FAIL(TW_ERR_CONFIG,
                    "the batch of %lld is larger than the data set of %lld samples and last_batch is drop: "
                    "no step is left",
                    (long long)batch, (long long)n);
    tw_sampler *s = malloc(sizeof *s);
    int64_t *order = malloc((size_t)shuffled * sizeof *order);
    if (!s || !order) {
        free(s);
        free(order);
        return FAIL(TW_ERR_MEMORY, "out of memory: the order of %lld samples", (long long)shuffled);
    }
    *s = (tw_sampler){.n = n,
                      .batch = batch,
                      .samples = samples,
                      .seed = seed,
                      .epoch = -1,
                      .shuffled = shuffled,
                      .order = order};
    *out = s;
    return TW_OK;
}

void tw_sampler_free(tw_sampler *s) {
    if (!s) return;
    free(s->order);
    free(s);
}

int64_t tw_sampler_epoch_samples(const tw_sampler *s) {
    return s->samples;
}

int64_t tw_sampler_epoch_batches(const tw_sampler *s) {
    return (s->samples + s->batch - 1) / s->batch;
}

static void shuffle(tw_sampler *s, int64_t epoch) {
    tw_draw draw = {.seed = s->seed, .purpose = TW_DRAW_SHUFFLE, .step = (uint32_t)epoch};
    for (int64_t i = 0; i < s->shuffled; i++) s->order[i] = i % s->n;
    for (int64_t i = s->shuffled - 1; i > 0; i--) {
        int64_t k = (int64_t)tw_random_below(&draw, (uint32_t)i, (uint64_t)i + 1);
        int64_t swap = s->order[i];
        s->order[i] = s->order[k];
        s->order[k] = swap;
    }
    s->epoch = epoch;
}

tw_status tw_sampler_batch(tw_sampler *s, int64_t epoch, int64_t position, const int64_t **items,
                           int64_t *count) {
    if (position < 0 || position > s->samples)
        return FAIL(TW_ERR_ARGUMENT, "position %lld of an epoch of %lld samples", (long long)position,
                    (long long)s->samples);
    if (s->epoch != epoch) shuffle(s, epoch);
    *items = s->order + position;
    *count = s->samples - position < s->batch ? s->samples - position : s->batch;
    return TW_OK;
}
