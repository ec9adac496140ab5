/* The k best scores so far and their places, once for both compilers. */
#ifndef TW_AUTOGRAD_OPS_TOP_K_HEAP_H
#define TW_AUTOGRAD_OPS_TOP_K_HEAP_H

#include "autograd/ops/activation_math.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* The k best so far as a binary heap whose root is the worst of them. */
typedef struct tw_heap {
    int32_t *index;
    float *score;
    int64_t size;
} tw_heap;

/* Lower scores are worse, NaN is worst; among equals, the later in the gallery. */
TW_MATH bool tw_heap_worse(float a, int32_t a_index, float b, int32_t b_index) {
    bool a_nan = isnan(a), b_nan = isnan(b);
    if (a_nan != b_nan) return a_nan;
    if (!a_nan && a != b) return a < b;
    return a_index > b_index;
}

TW_MATH void tw_heap_swap(tw_heap *h, int64_t i, int64_t j) {
    int32_t index = h->index[i];
    float score = h->score[i];
    h->index[i] = h->index[j], h->score[i] = h->score[j];
    h->index[j] = index, h->score[j] = score;
}

TW_MATH void tw_heap_sift_down(tw_heap *h, int64_t i) {
    for (;;) {
        int64_t worst = i;
        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < h->size; child++)
            if (tw_heap_worse(h->score[child], h->index[child], h->score[worst], h->index[worst]))
                worst = child;
        if (worst == i) return;
        tw_heap_swap(h, i, worst);
        i = worst;
    }
}

TW_MATH void tw_heap_push(tw_heap *h, float score, int32_t index) {
    int64_t i = h->size++;
    h->score[i] = score, h->index[i] = index;
    for (int64_t parent; i > 0; i = parent) {
        parent = (i - 1) / 2;
        if (!tw_heap_worse(score, index, h->score[parent], h->index[parent])) return;
        tw_heap_swap(h, i, parent);
    }
}

/* Best first: the worst goes to the end, again and again. */
TW_MATH void tw_heap_sort(tw_heap *h) {
    while (h->size > 1) {
        tw_heap_swap(h, 0, --h->size);
        tw_heap_sift_down(h, 0);
    }
}

/* Takes a score if it is among the k best. */
TW_MATH void tw_heap_offer(tw_heap *h, int64_t k, float score, int32_t index) {
    if (h->size < k) {
        tw_heap_push(h, score, index);
    } else if (!(score <= h->score[0]) && tw_heap_worse(h->score[0], h->index[0], score, index)) {
        h->score[0] = score, h->index[0] = index;
        tw_heap_sift_down(h, 0);
    }
}

#endif
