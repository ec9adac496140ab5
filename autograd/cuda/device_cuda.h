/* What the CUDA part of autograd/ sees of a CUDA device (tw_device_cuda in device.h makes one). Every
 * function takes a device of kind TW_CUDA. */
#ifndef TW_AUTOGRAD_CUDA_DEVICE_CUDA_H
#define TW_AUTOGRAD_CUDA_DEVICE_CUDA_H

#include "autograd/cuda/cuda.h"
#include "autograd/cuda/slot.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the device the calling thread's current one and returns its stream for a queue. */
cudaStream_t tw_cuda_stream(tw_device *d, tw_queue queue);

/* What a CUDA call returned, as a status; `what` says what was being done. Errors of earlier asynchronous
 * work come out of later calls. */
tw_status tw_cuda_status(cudaError_t error, const char *what) TW_MUST_CHECK;
/* Whether the launch just made was accepted. */
tw_status tw_cuda_launched(const char *kernel) TW_MUST_CHECK;
/* Lets a kernel have more than 48 KB of dynamic shared memory; what the device has is a clear error. */
tw_status tw_cuda_allow_shared(const void *kernel, const char *name, size_t bytes) TW_MUST_CHECK;

#define TW_CUDA_TRY(call, what) TRY(tw_cuda_status((call), (what)))

#ifdef __cplusplus
}
#endif

#endif
