/* What parts of autograd/cuda/ keep on a device, and whether it is being captured; no CUDA header is needed.
 * device_cuda.c has both, tests/cuda_shim/device_shim.c its own. */
#ifndef TW_AUTOGRAD_CUDA_SLOT_H
#define TW_AUTOGRAD_CUDA_SLOT_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/device.h"

/* What a library's wrapper, or choice.c, keeps a device: *slot is NULL at first; when it is not NULL any
 * more, `release` gets it before the device goes away. */
typedef enum tw_cuda_library {
    TW_CUDA_CUBLAS,
    TW_CUDA_CUDNN,
    TW_CUDA_CHOICES,
    TW_CUDA_LIBRARIES
} tw_cuda_library;
void **tw_cuda_slot(tw_device *d, tw_cuda_library library, void (*release)(void *));
/* Whether the compute queue is being captured: what must not be captured (allocation, building plans,
 * waiting) should have happened before. */
bool tw_cuda_capturing(const tw_device *d);
/* The device itself, whose memory is real, where `d` is a copy to plan on (train/memory_need.c). */
tw_device *tw_cuda_itself(const tw_device *d);

#ifdef __cplusplus
}
#endif

#endif
