/* A device of kind TW_CUDA whose queues are threads: what is queued runs later, each queue on its own, so
 * that an order that nothing enforces is not kept. Device memory is the host's, NaN at first. Before some
 * works a queue rests for up to TW_SHIM_DELAY microseconds (environment; 200). It moves memory alone
 * (device_alone.c), or runs the kernels of tests/cuda_shim too (device_kernels.c); it captures nothing.
 *
 * TW_SHIM_GPUS is how many GPUs the host has (16); CUDA_VISIBLE_DEVICES counts as CUDA counts it. */
#ifndef TW_TESTS_NCCL_SHIM_DEVICE_THREADS_H
#define TW_TESTS_NCCL_SHIM_DEVICE_THREADS_H

#include "autograd/cuda/device_cuda.h"

/* Queues run(a copy of the `bytes` at context). */
cudaError_t tw_stream_work(cudaStream_t stream, void (*run)(void *), const void *context, size_t bytes);
/* The GPU that the calling thread's device is. */
int tw_current_gpu(void);

#endif
