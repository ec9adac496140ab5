/* A stream of a device of threads (device_threads.h): stream_threads.c runs it. */
#ifndef TW_TESTS_NCCL_SHIM_STREAM_THREADS_H
#define TW_TESTS_NCCL_SHIM_STREAM_THREADS_H

#include "device_threads.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct stream_work stream_work;

struct CUstream_st {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    stream_work *first, *last;
    uint64_t queued, done;
    unsigned random, delay;
    bool closing;
};

/* `seed`: of the pauses before some of its work, up to TW_SHIM_DELAY microseconds (200). */
void tw_stream_open(struct CUstream_st *s, unsigned seed);
/* Waits for the work that is queued now. */
void tw_stream_drain(struct CUstream_st *s);
/* The same, and ends the thread. */
void tw_stream_close(struct CUstream_st *s);

#endif
