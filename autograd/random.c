#include "autograd/random.h"

#include <math.h>

enum { PARALLEL_FROM = 1 << 16 }; /* elements that pay for waking threads */

void tw_random_words(const tw_draw *d, uint32_t first, int64_t blocks, uint32_t *out) {
    const tw_draw draw = *d;
#pragma omp simd
    for (int64_t i = 0; i < blocks; i++) tw_random4(&draw, first + (uint32_t)i, out + 4 * i);
}

static uint64_t words(const tw_draw *d, uint32_t pair) {
    uint32_t w[4];
    tw_random4(d, pair / 2, w);
    const uint32_t *p = w + 2 * (pair % 2);
    return (uint64_t)p[0] << 32 | p[1];
}

uint32_t tw_random_u32(const tw_draw *d, uint32_t element) {
    uint32_t w[4];
    tw_random4(d, element / 4, w);
    return w[element % 4];
}

double tw_random_double(const tw_draw *d, uint32_t element) {
    return (double)(words(d, element) >> 11) * 0x1p-53;
}

uint64_t tw_random_below(const tw_draw *d, uint32_t element, uint64_t n) {
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)words(d, element) * n >> 64);
}

void tw_random_normal(const tw_draw *d, float mean, float std, float *out, int64_t n) {
    const double two_pi = 6.283185307179586;
    /* Elements do not depend on each other: the bits are the same for any number of threads. */
#pragma omp parallel for if (n >= PARALLEL_FROM)
    for (int64_t i = 0; i < n; i += 2) {
        uint32_t w[4];
        tw_random4(d, (uint32_t)(i / 2), w);
        double u = ((double)w[0] + 1.0) * 0x1p-32, v = (double)w[1] * 0x1p-32;
        double r = sqrt(-2.0 * log(u));
        out[i] = mean + std * (float)(r * cos(two_pi * v));
        if (i + 1 < n) out[i + 1] = mean + std * (float)(r * sin(two_pi * v));
    }
}

void tw_random_uniform(const tw_draw *d, float low, float high, float *out, int64_t n) {
#pragma omp parallel for if (n >= PARALLEL_FROM)
    for (int64_t i = 0; i < n; i++)
        out[i] = low + (high - low) * (float)(tw_random_u32(d, (uint32_t)i) >> 8) * 0x1p-24f;
}
