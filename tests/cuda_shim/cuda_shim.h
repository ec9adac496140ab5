/* CUDA's language on the CPU: enough of it that the kernels of autograd/ops/ compile as C++ and run, a block
 * at a time, each thread a fiber. No CUDA header is needed.
 *
 * Blocks run one after the other, and a block's threads until each waits or ends: in ascending order in one
 * launch, in descending order in the next, so that a missing barrier, or a result that hangs on which block
 * comes first, shows as other results. A barrier or shuffle that not all
 * threads it needs reach (from the same line, for __syncthreads), or a shuffle from a lane that is not there,
 * ends the program with a message. Dynamic shared memory is NaN at the start of each block. */
#ifndef TW_TESTS_CUDA_SHIM_H
#define TW_TESTS_CUDA_SHIM_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

extern "C" {
#include "device_shim.h"
}

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static /* blocks run one after the other */
#define __align__(n) alignas(n)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

#define TW_SHIM_VECTORS(type, base)                                                                          \
    struct alignas(2 * sizeof(base)) type##2 {                                                               \
        base x, y;                                                                                           \
    };                                                                                                       \
    struct alignas(4 * sizeof(base) > 16 ? 16 : 4 * sizeof(base)) type##4 {                                  \
        base x, y, z, w;                                                                                     \
    };                                                                                                       \
    static inline type##2 make_##type##2(base x, base y) {                                                   \
        return {x, y};                                                                                       \
    }                                                                                                        \
    static inline type##4 make_##type##4(base x, base y, base z, base w) {                                   \
        return {x, y, z, w};                                                                                 \
    }
TW_SHIM_VECTORS(float, float)
TW_SHIM_VECTORS(int, int)
TW_SHIM_VECTORS(uint, unsigned)
TW_SHIM_VECTORS(uchar, unsigned char)
#undef TW_SHIM_VECTORS

void tw_shim_sync_block(const char *file, int line);
void tw_shim_sync_warp(unsigned mask);
/* All lanes of `mask` give 8 bytes; returns what lane `from` gave. */
uint64_t tw_shim_exchange(unsigned mask, uint64_t mine, int from);
/* The lanes of `mask` that gave a true predicate. */
unsigned tw_shim_ballot(unsigned mask, bool mine);
unsigned char *tw_shim_dynamic_shared(void);
int tw_shim_lane(void);

#define __syncthreads() tw_shim_sync_block(__FILE__, __LINE__)
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    tw_shim_sync_warp(mask);
}

template <class T> static inline T tw_shim_shuffle(unsigned mask, T v, int from) {
    static_assert(sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = tw_shim_exchange(mask, bits, from);
    memcpy(&v, &bits, sizeof v);
    return v;
}
/* width: a power of 2; lanes shuffle within groups of that many. */
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return tw_shim_shuffle(mask, v, (tw_shim_lane() & ~(width - 1)) | (lane & (width - 1)));
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    int lane = tw_shim_lane(), from = lane ^ x;
    return tw_shim_shuffle(mask, v, (from & ~(width - 1)) > (lane & ~(width - 1)) ? lane : from);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int lane = tw_shim_lane(), from = lane + (int)by;
    return tw_shim_shuffle(mask, v, from / width == lane / width ? from : lane);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int lane = tw_shim_lane(), from = lane - (int)by;
    return tw_shim_shuffle(mask, v, from >= 0 && from / width == lane / width ? from : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return tw_shim_ballot(mask, predicate != 0);
}
static inline int __any_sync(unsigned mask, int predicate) {
    return tw_shim_ballot(mask, predicate != 0) != 0;
}
static inline int __all_sync(unsigned mask, int predicate) {
    return tw_shim_ballot(mask, predicate == 0) == 0;
}

/* Atomic because no other fiber runs in between. */
template <class T> static inline T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
template <class T> static inline T atomicMax(T *p, T v) {
    T old = *p;
    *p = old < v ? v : old;
    return old;
}
template <class T> static inline T atomicMin(T *p, T v) {
    T old = *p;
    *p = v < old ? v : old;
    return old;
}
template <class T> static inline T atomicOr(T *p, T v) {
    T old = *p;
    *p = old | v;
    return old;
}
template <class T> static inline T atomicExch(T *p, T v) {
    T old = *p;
    *p = v;
    return old;
}
template <class T> static inline T atomicCAS(T *p, T compare, T v) {
    T old = *p;
    if (old == compare) *p = v;
    return old;
}
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}

template <class T> static inline T __ldg(const T *p) {
    return *p;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline int __float_as_int(float f) {
    return (int)__float_as_uint(f);
}
static inline float __int_as_float(int i) {
    return __uint_as_float((unsigned)i);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}

/* Runs body(context) once a thread, now. */
void tw_shim_run(const char *name, dim3 grid, dim3 block, size_t shared, void (*body)(void *), void *context);

/* Queues the kernel on the device's compute queue. */
template <class... P, class... A>
static tw_status tw_shim_launch(tw_device *device, const char *name, void (*kernel)(P...), dim3 grid,
                                dim3 block, size_t shared, A... args) {
    static_assert((std::is_trivially_copyable<P>::value && ...), "a kernel's arguments are copied as bytes");
    struct work {
        const char *name;
        dim3 grid, block;
        size_t shared;
        void (*kernel)(P...);
        std::tuple<P...> args;
        static void body(void *context) {
            work *w = static_cast<work *>(context);
            std::apply(w->kernel, w->args);
        }
        static void run(void *context) {
            work *w = static_cast<work *>(context);
            tw_shim_run(w->name, w->grid, w->block, w->shared, body, w);
        }
    } w = {name, grid, block, shared, kernel, std::tuple<P...>(static_cast<P>(args)...)};
    return tw_shim_work(device, work::run, &w, sizeof w);
}

#endif
