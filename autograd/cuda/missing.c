/* Operations that have no .cu file yet, as CMake found them (cuda_missing.def): they link, and say so when
 * they are run on a GPU. */
#include "autograd/op.h"

#define FORWARD(name)                                                                                        \
    tw_status tw_##name##_forward_cuda(const tw_call *call) {                                                \
        (void)call;                                                                                          \
        return FAIL(TW_ERR_UNSUPPORTED, "%s has no CUDA kernel yet", #name);                                 \
    }
#define KERNEL(name) FORWARD(name)
#define OP(name)                                                                                             \
    FORWARD(name)                                                                                            \
    tw_status tw_##name##_backward_cuda(const tw_call *call) {                                               \
        (void)call;                                                                                          \
        return FAIL(TW_ERR_UNSUPPORTED, "%s has no CUDA kernel yet", #name);                                 \
    }
#include <cuda_missing.def>

/* No empty translation unit once nothing is missing. */
extern const char tw_cuda_missing_kernels[];
const char tw_cuda_missing_kernels[] = "";
