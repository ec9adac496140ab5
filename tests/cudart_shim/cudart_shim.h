/* CUDA's runtime without a GPU, for tests: one thread, and nothing runs before the host must have it. A
 * queue's work is done when it, or an event in it, is waited for, in its order; it sees what other queues did
 * only through events. Time is counted by queue: a work takes what it says. */
#ifndef TW_TESTS_CUDART_SHIM_H
#define TW_TESTS_CUDART_SHIM_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

/* The machine; what is set here holds from the next call on. */
typedef struct cudart_machine {
    int devices, driver, runtime; /* versions as CUDA tells them: 13000 */
    int major;                    /* of the compute capability */
    size_t memory;                /* bytes of a device */
} cudart_machine;
extern cudart_machine machine;

/* The next call of this function fails so; only one can wait for its call. */
void cudart_fail(const char *function, cudaError_t error);
/* What is there of streams, events, graphs and blocks of memory: 0 where all was given back. */
int cudart_alive(void);
/* Works done so far, and copies of host memory that was not pinned. */
int cudart_works(void);
int cudart_pageable(void);
int cudart_current(void);

/* ---- for libraries on it ---- */

/* Whether all of this is memory of the device. */
bool cudart_on_device(const void *p, size_t bytes);
/* Queues run(context), a copy of `bytes` bytes, which takes so long; or captures it. */
cudaError_t cudart_queue(cudaStream_t stream, void (*run)(void *), const void *context, size_t bytes,
                         double seconds);

#endif
