/* A fixed piece of work on so many cores at a time, to notice what else goes on: a machine that others share
 * is not always as fast, and says so by nothing else. */
#ifndef TW_BENCH_REFERENCE_H
#define TW_BENCH_REFERENCE_H

#include "train/clock.h"

#include <pthread.h>

enum { REFERENCE_FLOATS = 8192, REFERENCE_REPEATS = 6000, REFERENCE_CORES = 16 };

/* Loads, stores and multiply-adds in the second-level cache: two threads of one core halve each other. */
static inline void *reference_work(void *unused) {
    float x[REFERENCE_FLOATS], y[REFERENCE_FLOATS];
    for (int i = 0; i < REFERENCE_FLOATS; i++) x[i] = 1e-3f * (float)i, y[i] = 0;
    for (int k = 0; k < REFERENCE_REPEATS; k++) {
        volatile float *last = &y[k % REFERENCE_FLOATS]; /* so that no repeat is left out */
        float a = *last * 1e-9f + 1e-3f;
#pragma omp simd
        for (int i = 0; i < REFERENCE_FLOATS; i++) y[i] = 0.5f * y[i] + a * x[i];
    }
    (void)unused;
    return NULL;
}

/* Seconds until the slowest of `cores` threads (at most REFERENCE_CORES) is done. */
static inline double reference_seconds(int cores) {
    pthread_t threads[REFERENCE_CORES];
    int started = 0;
    double start = tw_seconds();
    while (started < cores - 1 && started < REFERENCE_CORES &&
           pthread_create(&threads[started], NULL, reference_work, NULL) == 0)
        started++;
    reference_work(NULL);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    return tw_seconds() - start;
}

#endif
