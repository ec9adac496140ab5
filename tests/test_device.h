/* The device of tests that any device must pass: the CPU, or with TW_DEVICE=cuda in a CUDA build the first
 * GPU (scripts/gpu_check.sh). */
#ifndef TW_TESTS_TEST_DEVICE_H
#define TW_TESTS_TEST_DEVICE_H

#include "autograd/device.h"

#include <stdlib.h>
#include <string.h>

static inline tw_status tw_test_device(int threads, tw_device **out) {
    const char *wanted = getenv("TW_DEVICE");
    if (!wanted || strcmp(wanted, "cpu") == 0) return tw_device_cpu(threads, out);
#ifdef TW_WITH_CUDA
    if (strcmp(wanted, "cuda") == 0) return tw_device_cuda(0, out);
#endif
    *out = NULL;
    return FAIL(TW_ERR_UNSUPPORTED, "TW_DEVICE=%s: this build has no such device", wanted);
}

/* Device memory out and in; what tw_test_take returns is the caller's to free. Either ends the program where
 * it cannot be. */
static inline void *tw_test_take(tw_device *d, const void *from, size_t bytes) {
    void *host = malloc(bytes + 1);
    if (!host || d->download(d, TW_QUEUE_COMPUTE, host, from, bytes) != TW_OK ||
        d->sync(d, TW_QUEUE_COMPUTE) != TW_OK)
        abort();
    return host;
}

static inline void tw_test_give(tw_device *d, void *to, const void *host, size_t bytes) {
    if (d->upload(d, TW_QUEUE_COMPUTE, to, host, bytes) != TW_OK || d->sync(d, TW_QUEUE_COMPUTE) != TW_OK)
        abort();
}

#endif
