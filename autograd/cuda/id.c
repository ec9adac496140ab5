#include "autograd/cuda/device_cuda.h"

#include <string.h>

tw_status tw_cuda_id(int index, unsigned char id[TW_CUDA_ID]) {
    struct cudaDeviceProp p;
    TW_CUDA_TRY(cudaGetDeviceProperties(&p, index), "asking for the device's properties");
    memcpy(id, p.uuid.bytes, TW_CUDA_ID);
    return TW_OK;
}
