/* Elapsed time for logs and summaries. */
#ifndef TW_TRAIN_CLOCK_H
#define TW_TRAIN_CLOCK_H

#include <time.h>

/* Seconds of a clock that only goes forward; differences are what it is for. */
static inline double tw_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
