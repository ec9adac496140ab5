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

#endif
