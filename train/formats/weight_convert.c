#include "train/formats/weight_convert.h"

#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

/* A block is copied to aligned memory of its own first: then the loops below have no overlap and no
 * alignment to think of, and the copy stays in the first-level cache. */
enum { BLOCK = 1024 };

static float f32_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* ---- f16 (IEEE 754 binary16) ---- */

static void f16_to_f32_plain(const uint16_t *restrict src, float *restrict dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t sign = (uint32_t)(src[i] & 0x8000u) << 16, rest = (uint32_t)(src[i] & 0x7fffu) << 13;
        /* With the exponent's bias corrected by a multiplication, subnormal numbers come out right. */
        uint32_t value = bits_of(f32_of(rest) * 0x1p112f);
        if (rest >= 0x7c00u << 13) value = rest | 0x7f800000u; /* infinity, NaN */
        dst[i] = f32_of(value | sign);
    }
}

static void f32_to_f16_plain(const float *restrict src, uint16_t *restrict dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(src[i]), sign = bits >> 16 & 0x8000u, value;
        bits &= 0x7fffffffu;
        if (bits > 0x7f800000u)
            value = 0x7e00u | (bits >> 13 & 0x1ffu); /* NaN, quiet */
        else if (bits >= 0x477ff000u)
            value = 0x7c00u; /* rounds to 65536 or more */
        else if (bits < 0x38800000u)
            value = bits_of(f32_of(bits) + 0.5f) - bits_of(0.5f); /* subnormal: 0.5's last bit is 2^-24 */
        else
            value = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1)) >> 13;
        dst[i] = (uint16_t)(value | sign);
    }
}

#ifdef __x86_64__
__attribute__((target("avx,f16c"))) static void f16_to_f32_f16c(const uint16_t *src, float *dst, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)(src + i))));
    f16_to_f32_plain(src + i, dst + i, n - i);
}
__attribute__((target("avx,f16c"))) static void f32_to_f16_f16c(const float *src, uint16_t *dst, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i_u *)(dst + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    f32_to_f16_plain(src + i, dst + i, n - i);
}
static bool has_f16c(void) {
    return __builtin_cpu_supports(
        "avx2"); /* F16C came a generation earlier; not every compiler knows its name */
}
#else
#define f16_to_f32_f16c f16_to_f32_plain
#define f32_to_f16_f16c f32_to_f16_plain
static bool has_f16c(void) {
    return false;
}
#endif

static void f16_to_f32(const uint16_t *src, float *dst, size_t n) {
    if (has_f16c())
        f16_to_f32_f16c(src, dst, n);
    else
        f16_to_f32_plain(src, dst, n);
}

static void f32_to_f16(const float *src, uint16_t *dst, size_t n) {
    if (has_f16c())
        f32_to_f16_f16c(src, dst, n);
    else
        f32_to_f16_plain(src, dst, n);
}

/* ---- bf16: the upper half of a float ---- */

static void bf16_to_f32(const uint16_t *restrict src, float *restrict dst, size_t n) {
    for (size_t i = 0; i < n; i++) dst[i] = f32_of((uint32_t)src[i] << 16);
}

static void f32_to_bf16(const float *restrict src, uint16_t *restrict dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = bits_of(src[i]);
        bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        dst[i] = (uint16_t)(nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
}

/* ---- any type, a block at a time ---- */

typedef union block {
    double f64[BLOCK];
    int64_t i64[BLOCK];
    int32_t i32[BLOCK];
    int16_t i16[BLOCK];
    uint16_t u16[BLOCK];
    int8_t i8[BLOCK];
    uint8_t u8[BLOCK];
} block;

#define EACH(expression)                                                                                     \
    for (size_t i = 0; i < n; i++) dst[i] = (float)(expression)

static void block_to_f32(tw_weight_type type, const block *b, float *dst, size_t n) {
    switch (type) {
    case TW_WEIGHT_F32:
        memcpy(dst, b, n * sizeof *dst);
        break;
    case TW_WEIGHT_F16:
        f16_to_f32(b->u16, dst, n);
        break;
    case TW_WEIGHT_BF16:
        bf16_to_f32(b->u16, dst, n);
        break;
    case TW_WEIGHT_F64:
        EACH(b->f64[i]);
        break;
    case TW_WEIGHT_I64:
        EACH(b->i64[i]);
        break;
    case TW_WEIGHT_I32:
        EACH(b->i32[i]);
        break;
    case TW_WEIGHT_I16:
        EACH(b->i16[i]);
        break;
    case TW_WEIGHT_I8:
        EACH(b->i8[i]);
        break;
    case TW_WEIGHT_U8:
        EACH(b->u8[i]);
        break;
    case TW_WEIGHT_BOOL:
        EACH(b->u8[i] != 0);
        break;
    }
}

/* Forward, a block before its floats are written: also right when src is the end of dst's own memory, as
 * the floats of elements below i end at 4i <= (4 - size) n + size i for i <= n. */
static void convert(tw_weight_type type, const unsigned char *src, float *dst, int64_t n) {
    size_t size = tw_weight_type_size(type);
    block b;
    for (int64_t i = 0; i < n; i += BLOCK) {
        size_t part = n - i < BLOCK ? (size_t)(n - i) : BLOCK;
        memcpy(&b, src + (size_t)i * size, part * size);
        block_to_f32(type, &b, dst + i, part);
    }
}

void tw_weight_to_f32(tw_weight_type type, const void *src, float *dst, int64_t n) {
    if (n <= 0) return;
    if (type == TW_WEIGHT_F32)
        memcpy(dst, src, (size_t)n * sizeof *dst);
    else
        convert(type, src, dst, n);
}

void tw_weight_widen(tw_weight_type type, float *dst, int64_t n) {
    size_t size = tw_weight_type_size(type);
    if (n <= 0 || type == TW_WEIGHT_F32 || size > sizeof *dst) return;
    convert(type, (const unsigned char *)dst + (size_t)n * (sizeof *dst - size), dst, n);
}

tw_status tw_weight_from_f32(tw_weight_type type, const float *src, void *dst, int64_t n) {
    size_t size = tw_weight_type_size(type);
    block b;
    for (int64_t i = 0; i < n; i += BLOCK) {
        size_t part = n - i < BLOCK ? (size_t)(n - i) : BLOCK;
        switch (type) {
        case TW_WEIGHT_F32:
            memcpy(&b, src + i, part * size);
            break;
        case TW_WEIGHT_F16:
            f32_to_f16(src + i, b.u16, part);
            break;
        case TW_WEIGHT_BF16:
            f32_to_bf16(src + i, b.u16, part);
            break;
        case TW_WEIGHT_F64:
            for (size_t k = 0; k < part; k++) b.f64[k] = (double)src[i + (int64_t)k];
            break;
        default:
            return FAIL(TW_ERR_UNSUPPORTED, "floats are not stored as %s", tw_weight_type_name(type));
        }
        memcpy((unsigned char *)dst + (size_t)i * size, &b, part * size);
    }
    return TW_OK;
}
