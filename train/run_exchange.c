#include "train/run_exchange.h"

#include "train/signals.h"

#include <stdlib.h>

/* A rank's message: this, then `capacity` records. */
typedef struct head {
    int64_t size, bad, truncated;
    double waited;
    int64_t stop, signal;
} head;

typedef struct record {
    int64_t item;
    uint64_t image_hash, text_hash;
} record;

struct tw_exchange {
    tw_comm *comm;
    int64_t capacity;
    size_t bytes; /* of one message */
    char *mine, *all;
    int64_t *items, *first;
    uint64_t *image_hash, *text_hash; /* (ranks * capacity) */
};

tw_status tw_exchange_create(tw_comm *comm, int64_t capacity, tw_exchange **out) {
    tw_exchange *x = *out = calloc(1, sizeof *x);
    if (!x) return FAIL(TW_ERR_MEMORY, "out of memory");
    size_t n = (size_t)(capacity * comm->ranks) + 1;
    *x = (tw_exchange){.comm = comm, .capacity = capacity};
    x->bytes = sizeof(head) + (size_t)capacity * sizeof(record);
    x->mine = calloc(1, x->bytes);
    x->all = calloc((size_t)comm->ranks, x->bytes);
    x->items = calloc(n, sizeof *x->items);
    x->image_hash = calloc(n, sizeof *x->image_hash);
    x->text_hash = calloc(n, sizeof *x->text_hash);
    x->first = calloc((size_t)comm->ranks, sizeof *x->first);
    if (x->mine && x->all && x->first && x->items && x->image_hash && x->text_hash) return TW_OK;
    tw_exchange_free(x);
    *out = NULL;
    return FAIL(TW_ERR_MEMORY, "out of memory: the numbers of a batch's samples");
}

void tw_exchange_free(tw_exchange *x) {
    if (!x) return;
    free(x->mine);
    free(x->all);
    free(x->items);
    free(x->first);
    free(x->image_hash);
    free(x->text_hash);
    free(x);
}

static void add_rank(tw_exchange *x, const char *message, tw_global_batch *out) {
    const head *h = (const void *)message;
    const record *records = (const void *)(message + sizeof *h);
    for (int64_t i = 0; i < h->size; i++) {
        x->items[out->size + i] = records[i].item;
        x->image_hash[out->size + i] = records[i].image_hash;
        x->text_hash[out->size + i] = records[i].text_hash;
    }
    out->size += h->size;
    out->bad += h->bad;
    out->truncated += h->truncated;
    if (h->waited > out->waited) out->waited = h->waited;
    if (h->stop) tw_stop_note((int)h->signal);
    out->stop |= h->stop != 0;
}

tw_status tw_exchange_batch(tw_exchange *x, const tw_batch *batch, bool stop, tw_global_batch *out) {
    if (batch->size > x->capacity)
        return FAIL(TW_ERR_ARGUMENT, "%lld samples for a rank that gets at most %lld", (long long)batch->size,
                    (long long)x->capacity);
    head *h = (void *)x->mine;
    record *records = (void *)(x->mine + sizeof *h);
    *h = (head){.size = batch->size,
                .bad = batch->requested - batch->size,
                .truncated = batch->truncated,
                .waited = batch->waited,
                .stop = stop,
                .signal = tw_stop_signal()};
    for (int64_t i = 0; i < batch->size; i++)
        records[i] = (record){batch->items[i], batch->image_hash[i], batch->text_hash[i]};
    TRY(x->comm->gather_all(x->comm, x->mine, x->bytes, x->all));
    *out = (tw_global_batch){.items = x->items, .image_hash = x->image_hash, .text_hash = x->text_hash};
    out->first = x->first;
    for (int r = 0; r < x->comm->ranks; r++) {
        x->first[r] = out->size;
        add_rank(x, x->all + (size_t)r * x->bytes, out);
    }
    return TW_OK;
}
