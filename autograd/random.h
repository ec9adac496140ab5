/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011).
 *
 * A draw is a function of (seed, purpose, layer, step, sample, element) and of nothing else: not of threads,
 * ranks, micro-batches or the order of calls. `step` is the optimizer step for dropout and masks, the epoch
 * for augmentation and sampling. `sample` is the sample's index in the global batch (dropout) or in the epoch
 * (augmentation). */
#ifndef TW_AUTOGRAD_RANDOM_H
#define TW_AUTOGRAD_RANDOM_H

#include "autograd/host_device.h"

#include <stdint.h>

typedef enum tw_purpose {
    TW_DRAW_INIT = 1, /* parameter initialisation; layer = index of the parameter */
    TW_DRAW_SHUFFLE,  /* order of an epoch */
    TW_DRAW_AUGMENT,  /* crop, flip, AutoAugment */
    TW_DRAW_DROPOUT,  /* layer = id of the dropout place */
    TW_DRAW_MASK,     /* patches kept (FLIP) */
    TW_DRAW_DATA,     /* generated data sets */
    TW_DRAW_TEST,
} tw_purpose;

typedef struct tw_draw {
    uint64_t seed;
    uint32_t purpose; /* tw_purpose, < 256 */
    uint32_t layer;   /* < 2^24 */
    uint32_t step;
    uint32_t sample;
} tw_draw;

/* Four independent uniform 32-bit words for block `block` of the draw; element e is word e % 4 of block e
 * / 4. */
TW_HOST_DEVICE void tw_random4(const tw_draw *d, uint32_t block, uint32_t out[4]) {
    uint32_t c0 = block, c1 = d->sample, c2 = d->step, c3 = (d->purpose << 24) | d->layer;
    uint32_t k0 = (uint32_t)d->seed, k1 = (uint32_t)(d->seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* out[0 .. 4 blocks): the words of blocks first .. first + blocks - 1. */
void tw_random_words(const tw_draw *d, uint32_t first, int64_t blocks, uint32_t *out);
/* One 32-bit word: element `element` of the draw. */
uint32_t tw_random_u32(const tw_draw *d, uint32_t element);
/* Uniform in [0, 1) with 53 bits; element e uses words 2e and 2e + 1 of the draw. */
double tw_random_double(const tw_draw *d, uint32_t element);
/* Uniform integer in [0, n), n > 0, without modulo bias worth mentioning (64-bit multiply); uses words 2e and
 * 2e + 1. */
uint64_t tw_random_below(const tw_draw *d, uint32_t element, uint64_t n);
/* out[0..n) ~ N(mean, std^2), Box-Muller on words 2i and 2i + 1. */
void tw_random_normal(const tw_draw *d, float mean, float std, float *out, int64_t n);
/* out[0..n) ~ U[low, high). */
void tw_random_uniform(const tw_draw *d, float low, float high, float *out, int64_t n);

#endif
