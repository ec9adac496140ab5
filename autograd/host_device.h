/* Functions that kernels share with the CPU's code. */
#ifndef TW_AUTOGRAD_HOST_DEVICE_H
#define TW_AUTOGRAD_HOST_DEVICE_H

#ifdef __CUDACC__
#define TW_HOST_DEVICE static __host__ __device__ __forceinline__
#else
#define TW_HOST_DEVICE static inline
#endif

#endif
