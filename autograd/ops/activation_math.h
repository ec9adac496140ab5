/* exp, QuickGELU and erf GELU with their derivatives, once for both compilers. Branch-free, so that the C
 * compiler vectorises loops over them. */
#ifndef TW_AUTOGRAD_OPS_ACTIVATION_MATH_H
#define TW_AUTOGRAD_OPS_ACTIVATION_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define TW_MATH static __host__ __device__ __forceinline__
#else
#define TW_MATH static inline __attribute__((always_inline))
#endif

/* One rounding where the processor can; two where fmaf would be a library call. */
#if defined(__CUDACC__) || defined(__FMA__)
#define TW_FMA(a, b, c) fmaf((a), (b), (c))
#else
#define TW_FMA(a, b, c) ((a) * (b) + (c))
#endif

/* e^x to 2 ulp for x in [-87.3, 88.3]; constant outside of it (1.2e-38, 2.2e38); NaN stays NaN. Own minimax
 * polynomial of degree 6 on |r| <= ln(2)/2. */
TW_MATH float tw_expf(float x) {
    x = x < -87.33f ? -87.33f : x;
    x = x > 88.3f ? 88.3f : x;
    float shifted = TW_FMA(x, 1.44269504f, 12582912.0f); /* 1.5 * 2^23: the integer part in the low bits */
    float n = shifted - 12582912.0f;
    float r = TW_FMA(n, -0.693145752f, x); /* ln 2 in two pieces, the first with 12 zero bits */
    r = TW_FMA(n, -1.42860677e-6f, r);
    float p = TW_FMA(0.00138146018f, r, 0.00836871522f);
    p = TW_FMA(p, r, 0.0416683879f);
    p = TW_FMA(p, r, 0.166665206f);
    p = TW_FMA(p, r, 0.499999934f);
    p = TW_FMA(p * r, r, r) + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3f800000u;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

TW_MATH float tw_sigmoidf(float x) {
    return 1.0f / (1.0f + tw_expf(-x));
}

/* x sigmoid(1.702 x). */
TW_MATH float tw_quick_gelu(float x) {
    return x * tw_sigmoidf(1.702f * x);
}

/* s (1 + 1.702 x (1 - s)); 1 - s = e s without cancellation. */
TW_MATH float tw_quick_gelu_slope(float x) {
    float e = tw_expf(-1.702f * x), s = 1.0f / (1.0f + e);
    return TW_FMA(1.702f * x * s, e * s, s);
}

/* The normal distribution: *density = exp(-x^2/2) / sqrt(2 pi); returns its integral up to x. The tail is
 * exp(-x^2/2) times an own minimax polynomial in 1 / (1 + 0.33 |x|), to 5e-8 of its value before rounding. */
TW_MATH float tw_normal(float x, float *density) {
    float u = x < 0 ? -x : x;
    float e = tw_expf(-0.5f * x * x);
    float t = 1.0f / TW_FMA(0.33f, u, 1.0f);
    float p = TW_FMA(-0.0215694893f, t, 0.126715984f);
    p = TW_FMA(p, t, -0.274541213f);
    p = TW_FMA(p, t, 0.232842145f);
    p = TW_FMA(p, t, -0.0620434774f);
    p = TW_FMA(p, t, 0.124095612f);
    p = TW_FMA(p, t, 0.110504192f);
    p = TW_FMA(p, t, 0.132378346f);
    p = TW_FMA(p, t, 0.131617923f);
    float tail = p * t * e;
    *density = 0.398942280f * e;
    return x < 0 ? tail : 1.0f - tail;
}

/* x (1 + erf(x / sqrt 2)) / 2. */
TW_MATH float tw_erf_gelu(float x) {
    float density;
    return x * tw_normal(x, &density);
}

TW_MATH float tw_erf_gelu_slope(float x) {
    float density, integral = tw_normal(x, &density);
    return TW_FMA(x, density, integral);
}

#endif
