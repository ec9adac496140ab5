/* Kernels, products and graphs of tests/cuda_shim as work of a device of threads: this instead of the shim's
 * own device (device_shim.c). One device a process computes at a time. */
#include "device_shim.h"
#include "device_threads.h"

#include <stdio.h>

bool tw_shim_device_fuses(const tw_device *d) {
    (void)d;
    return true;
}

tw_status tw_shim_work(tw_device *d, void (*run)(void *context), const void *context, size_t bytes) {
    return tw_cuda_status(tw_stream_work(tw_cuda_stream(d, TW_QUEUE_COMPUTE), run, context, bytes),
                          "launching a kernel");
}

bool tw_cuda_tf32(const tw_device *d) {
    (void)d;
    return false;
}

void tw_cuda_report(char *text, size_t size) {
    if (size) snprintf(text, size, "GPU: threads\n");
}
