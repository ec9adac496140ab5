/* The prefetching loader: threads read, decode, resize (or augment) and tokenize the batches ahead of the one
 * in use. What it delivers does not depend on the number of threads or their timing. */
#ifndef TW_DATA_LOADER_H
#define TW_DATA_LOADER_H

#include "autograd/device.h"
#include "data/augment.h"
#include "data/sampler.h"
#include "data/shards.h"
#include "data/tokenizer.h"

typedef struct tw_loader_config {
    int rank, ranks;          /* the loader delivers this rank's part; 0, 0: one rank */
    int threads;              /* >= 1 */
    int prefetch;             /* batches ready or in work ahead of the one in use, >= 1 */
    int resolution;           /* pixels a side */
    int context;              /* tokens a text */
    bool augment;             /* training transforms, drawn for (seed, epoch, position in the epoch) */
    tw_augment_policy policy; /* theirs */
    uint64_t seed;
    tw_device *device; /* whose pinned memory holds pixels, ids and lengths; NULL: plain memory. Must outlive
                          the loader */
    /* Called on the consumer's thread, in order, for every sample left out because it is bad, with a sentence
     * that names it ("image 1076345: truncated JPEG ..."). May be NULL. */
    void (*on_bad)(void *context, const char *message);
    void *on_bad_context;
} tw_loader_config;

/* One batch, in host memory of the loader, valid until the next tw_loader_next or tw_loader_close. Bad
 * samples (an image that is missing or cannot be decoded, a text that is not UTF-8) are left out: the others
 * move up, in order. */
typedef struct tw_batch {
    int64_t size;            /* samples delivered */
    int64_t requested;       /* samples asked for; requested - size were bad */
    int64_t epoch, position; /* of the first sample asked for */
    int64_t first,
        global; /* pairs: where in the global batch the part begins, and what all ranks asked for */
    const uint8_t *pixels;  /* (size, R, R, 3) */
    const int32_t *ids;     /* (size, context), zero-padded; NULL for images only */
    const int32_t *lengths; /* (size) tokens before the padding; NULL for images only */
    const int64_t *items;   /* (size) pair index, or image index for images only */
    /* (size) hashes of the image id and of the text's bytes: equal for repeats. text_hash is NULL for images
     * only. */
    const uint64_t *image_hash, *text_hash;
    int64_t truncated; /* texts longer than the context */
    double waited;     /* seconds the consumer waited for this batch */
} tw_batch;

typedef struct tw_loader tw_loader;

/* Pairs in the sampler's order, from `position` of `epoch` on, epoch after epoch without end. Of each of the
 * sampler's batches rank r of R gets the samples from count * r / R to before count * (r + 1) / R: parts
 * differ by at most one, and may be empty. Everything given must outlive the loader; the sampler is used by
 * the loader alone from here on. */
tw_status tw_loader_open_pairs(const tw_loader_config *config, const tw_dataset *dataset,
                               const tw_vocab *vocab, tw_sampler *sampler, int64_t epoch, int64_t position,
                               tw_loader **out) TW_MUST_CHECK;
/* All images of the set once, by index, `batch` at a time from image `first` to before `end`; no
 * augmentation. Rank r of R gets the batches r, R + r, 2 R + r ... */
tw_status tw_loader_open_images(const tw_loader_config *config, const tw_dataset *dataset, int64_t batch,
                                int64_t first, int64_t end, tw_loader **out) TW_MUST_CHECK;
/* Stops the threads and frees all; accepts NULL. */
void tw_loader_close(tw_loader *loader);

/* Waits for the next batch. batch->requested is 0 at the end (images only). A batch may have size 0 when all
 * of its samples were bad, or none were this rank's. Errors are those of reading the data set (TW_ERR_IO) and
 * memory; they are final.
 */
tw_status tw_loader_next(tw_loader *loader, tw_batch *batch) TW_MUST_CHECK;

#endif
