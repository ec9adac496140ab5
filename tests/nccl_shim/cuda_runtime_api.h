/* What train/nccl_calls.c and autograd/cuda/device_cuda.h need of CUDA's runtime, for tests without it: a
 * stream is a thread that does its work in order and in its own time (device_threads.c). Names and meanings
 * are CUDA's. */
#ifndef TW_TESTS_NCCL_SHIM_CUDA_RUNTIME_API_H
#define TW_TESTS_NCCL_SHIM_CUDA_RUNTIME_API_H

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNotReady = 600,
    cudaErrorUnknown = 999
} cudaError_t;
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;

enum { cudaEventDefault = 0, cudaEventDisableTiming = 2 };

cudaError_t cudaGetDevice(int *device);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);

#endif
