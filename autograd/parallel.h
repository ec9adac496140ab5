/* How the CPU operations share work: contiguous ranges in thread order, so that partial sums are always the
 * same ones. */
#ifndef TW_AUTOGRAD_PARALLEL_H
#define TW_AUTOGRAD_PARALLEL_H

#include <omp.h>
#include <stdint.h>

/* The number of threads a parallel region has; what per-thread scratch is sized by. */
static inline int tw_threads(void) {
    return omp_get_max_threads();
}

typedef struct tw_range {
    int64_t begin, end;
} tw_range;

/* This thread's share of [0, n) in the enclosing parallel region. */
static inline tw_range tw_my_share(int64_t n) {
    int64_t t = omp_get_thread_num(), threads = omp_get_num_threads();
    return (tw_range){n * t / threads, n * (t + 1) / threads};
}

#endif
