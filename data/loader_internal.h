/* What the loader's two halves share: the ring of batches, guarded by one lock, that the threads fill
 * (loader_work.c) and the consumer empties (loader.c). */
#ifndef TW_DATA_LOADER_INTERNAL_H
#define TW_DATA_LOADER_INTERNAL_H

#include "data/loader.h"

#include <pthread.h>

/* One batch of the ring. `pending`, `taken` and the error are guarded by the loader's lock; sample i of the
 * arrays belongs to the thread that took it until it has given it back, then to the consumer. */
typedef struct tw_loader_slot {
    int64_t requested, epoch, position, first, global;
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
} tw_loader_slot;

typedef struct tw_loader_worker {
    tw_loader *loader;
    tw_reader *reader;
    pthread_t thread;
    bool started;
} tw_loader_worker;

struct tw_loader {
    tw_loader_config config;
    const tw_dataset *dataset;
    const tw_vocab *vocab; /* NULL: images only */
    tw_sampler *sampler;   /* NULL: images only */
    int64_t epoch, position, end;
    int64_t batch;    /* images only: of one rank */
    int64_t capacity; /* samples of this rank's largest part */
    size_t image_bytes;

    pthread_mutex_t lock;
    pthread_cond_t work;  /* a slot was released, or stop */
    pthread_cond_t ready; /* a batch is finished, or there are no more */
    /* Batch k lies in slot k % slot_count; released <= delivered <= planned <= released + slot_count. Only
     * the last planned batch may have samples that nobody took yet. */
    int64_t planned, delivered, released;
    bool ended, stop;
    tw_loader_slot *slots;
    int slot_count;
    tw_loader_worker *workers; /* (config.threads) */
    tw_status failed;
    char failure[1024];
};

/* A thread of the loader, given its tw_loader_worker; ends when there is nothing more to load, or at `stop`.
 */
void *tw_loader_work(void *worker);

#endif
