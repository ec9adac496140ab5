/* What every .cu file of autograd/ops/ includes: how a kernel is launched, and the device functions kernels
 * share. Such a file compiles two ways: by nvcc, and as C++ against tests/cuda_shim/, where each thread of a
 * block is a fiber of the CPU and the operation is checked against its reference without a GPU. For that,
 *
 *   - kernels are started by TW_LAUNCH only and use no tensor-core instructions, no inline PTX and no
 * library;
 *   - products and cuDNN are called through the headers of autograd/cuda/, which the shim has its own
 * versions of;
 *   - exponentials are tw_expf (activation_math.h) or expf, not __expf, which the C library has a function
 * of;
 *   - dynamic shared memory is declared with TW_DYNAMIC_SHARED;
 *   - results do not depend on the order of threads: no floating-point atomics, sums in a fixed order.
 *
 * A file <op>.cu defines tw_<op>_forward_cuda and, for an OP, tw_<op>_backward_cuda. The shape rule in <op>.c
 * serves both devices: scratch it asks for must suffice for either (or look at tw_on_cpu(call->device)). A
 * size of 0 launches nothing.
 *
 *     template <class T> __global__ void scale_kernel(const T *x, int64_t n, float by, T *y) {
 *         int64_t i = tw_global_thread();
 *         if (i < n) tw_put(y + i, tw_get(x + i) * by);
 *     }
 *     ...
 *     return tw_by_type(x->dtype, [&](auto type) {
 *         using T = decltype(type);
 *         return TW_LAUNCH(call->device, scale_kernel<T>, tw_blocks(n, 256), 256, 0, (const T *)x->data, n,
 * by, (T *)y->data);
 *     }); */
#ifndef TW_AUTOGRAD_CUDA_LAUNCH_H
#define TW_AUTOGRAD_CUDA_LAUNCH_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "autograd/op.h"
#include "autograd/random.h"
}
#include "autograd/ops/activation_math.h"
#include "autograd/ops/dropout_math.h"

#ifdef __CUDACC__
#include "autograd/cuda/device_cuda.h"
#include <cuda_runtime.h>
#else
#include <cuda_shim.h>
#endif

#define TW_DEVICE static __device__ __forceinline__

/* ---- launching ---- */

#ifdef __CUDACC__
#define TW_DYNAMIC_SHARED(type, name)                                                                        \
    extern __shared__ __align__(16) unsigned char tw_dynamic_shared[];                                       \
    type *name = reinterpret_cast<type *>(tw_dynamic_shared)
#else
#define TW_DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(tw_shim_dynamic_shared())
#endif

/* TW_LAUNCH(device, kernel, grid, block, bytes of dynamic shared memory, arguments...) queues the kernel
 * behind the device's compute queue and gives a tw_status. A kernel template with two parameters stands in
 * parentheses: TW_LAUNCH(d, (norm_kernel<T, 4>), ...). */
#define TW_LAUNCH(device, kernel, grid, block, shared, ...)                                                  \
    tw_launch((device), #kernel, (kernel), (grid), (block), (shared), __VA_ARGS__)

template <class... P, class... A>
static inline tw_status tw_launch(tw_device *device, const char *name, void (*kernel)(P...), dim3 grid,
                                  dim3 block, size_t shared, A... args) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return TW_OK;
#ifdef __CUDACC__
    cudaStream_t stream = tw_cuda_stream(device, TW_QUEUE_COMPUTE);
    if (shared > 48 << 10) TRY(tw_cuda_allow_shared(reinterpret_cast<const void *>(kernel), name, shared));
    kernel<<<grid, block, shared, stream>>>(static_cast<P>(args)...);
    return tw_cuda_launched(name);
#else
    return tw_shim_launch(device, name, kernel, grid, block, shared, args...);
#endif
}

/* Blocks that cover n things, `per` a block; at most 2^31 - 1, so a kernel for more strides over the grid. */
static inline unsigned tw_blocks(int64_t n, int64_t per) {
    int64_t blocks = (n + per - 1) / per;
    return (unsigned)(blocks < 0x7fffffff ? blocks : 0x7fffffff);
}

TW_DEVICE int64_t tw_global_thread() {
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* ---- elements ---- */

struct tw_bf16 {
    uint16_t bits;
};

/* f(float()) or f(tw_bf16()). */
template <class F> static inline tw_status tw_by_type(tw_dtype dtype, F f) {
    if (dtype == TW_F32) return f(float());
    if (dtype == TW_BF16) return f(tw_bf16());
    return FAIL(TW_ERR_UNSUPPORTED, "no CUDA kernel for %s", tw_dtype_name(dtype));
}

TW_DEVICE float tw_get(const float *p) {
    return *p;
}
TW_DEVICE float tw_get(const tw_bf16 *p) {
    return __uint_as_float((unsigned)p->bits << 16);
}
/* To nearest even, as tw_to_bf16 of tensor.h; NaN stays NaN. */
TW_DEVICE uint16_t tw_bf16_bits(float f) {
    unsigned u = __float_as_uint(f);
    unsigned rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, nan = (u >> 16) | 0x40u;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}
TW_DEVICE void tw_put(float *p, float v) {
    *p = v;
}
TW_DEVICE void tw_put(tw_bf16 *p, float v) {
    p->bits = tw_bf16_bits(v);
}
/* Writes v, or adds it to what is there. */
template <class T> TW_DEVICE void tw_deliver_one(T *p, float v, bool add) {
    tw_put(p, add ? tw_get(p) + v : v);
}

/* ---- 16 bytes at a time ---- */

/* Elements of T in 16 bytes: 4 or 8. */
template <class T> constexpr int tw_width = 16 / (int)sizeof(T);

/* p is aligned to 16 bytes. */
TW_DEVICE void tw_load16(const float *p, float (&v)[4]) {
    float4 q = *reinterpret_cast<const float4 *>(p);
    v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}
TW_DEVICE void tw_load16(const tw_bf16 *p, float (&v)[8]) {
    uint4 q = *reinterpret_cast<const uint4 *>(p);
    unsigned w[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(w[i] << 16);
        v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
}
TW_DEVICE void tw_store16(float *p, const float (&v)[4]) {
    *reinterpret_cast<float4 *>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
TW_DEVICE void tw_store16(tw_bf16 *p, const float (&v)[8]) {
    unsigned w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = tw_bf16_bits(v[2 * i]) | (unsigned)tw_bf16_bits(v[2 * i + 1]) << 16;
    *reinterpret_cast<uint4 *>(p) = make_uint4(w[0], w[1], w[2], w[3]);
}

/* Host: whether rows of `cols` elements of T, `stride` apart, can be read 16 bytes at a time. */
template <class T> static inline bool tw_wide(const void *p, int64_t cols, int64_t stride) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0 && cols % tw_width<T> == 0 && stride % tw_width<T> == 0;
}

/* Elements [c, c + tw_width) of a row of `cols`, c a multiple of tw_width: in one access if `wide`, else one
 * by one; what lies behind the row's end is `fill`. */
template <class T>
TW_DEVICE void tw_load_part(const T *row, int64_t c, int64_t cols, bool wide, float (&v)[tw_width<T>],
                            float fill = 0.0f) {
    if (wide) {
        tw_load16(row + c, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < tw_width<T>; i++) v[i] = c + i < cols ? tw_get(row + c + i) : fill;
}
/* The same way back; adds to what is there if `add`. */
template <class T>
TW_DEVICE void tw_store_part(T *row, int64_t c, int64_t cols, bool wide, const float (&v)[tw_width<T>],
                             bool add = false) {
    if (wide && add) {
        float sum[tw_width<T>];
        tw_load16(row + c, sum);
#pragma unroll
        for (int i = 0; i < tw_width<T>; i++) sum[i] += v[i];
        tw_store16(row + c, sum);
        return;
    }
    if (wide) {
        tw_store16(row + c, v);
        return;
    }
#pragma unroll
    for (int i = 0; i < tw_width<T>; i++)
        if (c + i < cols) tw_deliver_one(row + c + i, v[i], add);
}

/* ---- sums and maxima, always in the same order ---- */

struct tw_plus {
    template <class T> static __device__ __forceinline__ T of(T a, T b) {
        return a + b;
    }
};
struct tw_larger { /* NaN wins */
    template <class T> static __device__ __forceinline__ T of(T a, T b) {
        return a > b || a != a ? a : b;
    }
};

/* Over the 32 lanes, which all take part; every lane has the result. */
template <class Op, class T> TW_DEVICE T tw_warp_reduce(T v) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) v = Op::of(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
}
template <class T> TW_DEVICE T tw_warp_sum(T v) {
    return tw_warp_reduce<tw_plus>(v);
}
template <class T> TW_DEVICE T tw_warp_max(T v) {
    return tw_warp_reduce<tw_larger>(v);
}

/* N values at once over the block: blockDim.x is a multiple of 32, up to 1024, y and z are 1; all threads
 * take part and have the results. T is float or double. */
template <class Op, class T, int N> TW_DEVICE void tw_block_reduce(T (&v)[N]) {
    __shared__ T parts[N][32];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = tw_warp_reduce<Op>(v[i]);
        if (lane == 0) parts[i][warp] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = parts[i][0];
        for (int w = 1; w < warps; w++) v[i] = Op::of(v[i], parts[i][w]);
    }
    __syncthreads(); /* before parts is used again */
}
template <class T, int N> TW_DEVICE void tw_block_sum(T (&v)[N]) {
    tw_block_reduce<tw_plus>(v);
}
template <class T> TW_DEVICE T tw_block_sum(T v) {
    T one[1] = {v};
    tw_block_reduce<tw_plus>(one);
    return one[0];
}
template <class T> TW_DEVICE T tw_block_max(T v) {
    T one[1] = {v};
    tw_block_reduce<tw_larger>(one);
    return one[0];
}

/* ---- dropout ---- */

/* v[i] = 0 or v[i] / (1 - p) for elements [first, first + N) of a sample; N and first are multiples of 4. The
 * draw and the threshold are those of dropout_math.h. */
template <int N>
TW_DEVICE void tw_dropout_part(const tw_draw &draw, uint32_t threshold, float scale, int64_t first,
                               float (&v)[N]) {
    static_assert(N % 4 == 0, "a block of the draw has 4 words");
#pragma unroll
    for (int k = 0; k < N; k += 4) {
        uint32_t words[4];
        tw_random4(&draw, (uint32_t)(first / 4) + k / 4, words);
#pragma unroll
        for (int i = 0; i < 4; i++) v[k + i] = words[i] >= threshold ? v[k + i] * scale : 0.0f;
    }
}
/* One element, wherever it is. (Indexed by a variable, the words would lie in memory.) */
TW_DEVICE float tw_dropout_one(const tw_draw &draw, uint32_t threshold, float scale, int64_t element,
                               float v) {
    uint32_t words[4];
    tw_random4(&draw, (uint32_t)(element / 4), words);
    int at = (int)(element % 4);
    uint32_t word = at == 0 ? words[0] : at == 1 ? words[1] : at == 2 ? words[2] : words[3];
    return word >= threshold ? v * scale : 0.0f;
}

#endif
