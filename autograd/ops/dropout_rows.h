/* Inverted dropout on runs of a sample's elements (dropout_math.h). The draw depends on what the element is,
 * so forward, recomputation and backward agree. */
#ifndef TW_AUTOGRAD_OPS_DROPOUT_ROWS_H
#define TW_AUTOGRAD_OPS_DROPOUT_ROWS_H

#include "autograd/ops/dropout_math.h"

/* out[i] = in[i] * mask(first + i) / (1 - p), i < n; in may be out. */
static inline void tw_dropout_run(const tw_draw *draw, float p, int64_t first, int64_t n, const float *in,
                                  float *out) {
    enum { CHUNK = 256 };
    uint32_t threshold = tw_dropout_threshold(p);
    float scale = 1.0f / (1.0f - p);
    uint32_t words[CHUNK + 4];
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t count = n - at < CHUNK ? n - at : CHUNK, element = first + at, skip = element % 4;
        tw_random_words(draw, (uint32_t)(element / 4), (count + skip + 3) / 4, words);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            out[at + i] = words[skip + i] >= threshold ? in[at + i] * scale : 0.0f;
    }
}

#endif
