#include "data/resize_kernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

static uint8_t clip_weighted(int32_t sum) {
    sum >>= TW_RESIZE_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static const int32_t half = 1 << (TW_RESIZE_BITS - 1);

static void horizontal_portable(const tw_resize_taps *taps, int channels, const uint8_t *in, size_t in_stride,
                                int width, int rows, uint8_t *out, size_t out_stride) {
    (void)width;
    for (int y = 0; y < rows; y++, in += in_stride, out += out_stride)
        for (int o = 0; o < taps->outputs; o++) {
            const int32_t *w = taps->weights + (size_t)o * (size_t)taps->stride;
            const uint8_t *p = in + (size_t)taps->first[o] * (size_t)channels;
            for (int c = 0; c < channels; c++) {
                int32_t sum = half;
                for (int t = 0; t < taps->count[o]; t++) sum += p[t * channels + c] * w[t];
                out[o * channels + c] = clip_weighted(sum);
            }
        }
}

static void vertical_portable(const int32_t *weights, int count, const uint8_t *in, size_t stride,
                              size_t bytes, uint8_t *out) {
    enum { BLOCK = 64 };
    for (size_t i = 0; i < bytes; i += BLOCK) {
        size_t n = bytes - i < BLOCK ? bytes - i : BLOCK;
        int32_t sum[BLOCK];
        for (size_t j = 0; j < n; j++) sum[j] = half;
        for (int t = 0; t < count; t++) {
            const uint8_t *p = in + (size_t)t * stride + i;
            for (size_t j = 0; j < n; j++) sum[j] += p[j] * weights[t];
        }
        for (size_t j = 0; j < n; j++) out[i + j] = clip_weighted(sum[j]);
    }
}

const tw_resize_kernels tw_resize_portable = {"portable", horizontal_portable, vertical_portable};

#if defined(__x86_64__)

/* A weight w is hi * 4096 + lo with 0 <= lo < 4096, so that vpmaddwd can multiply 8-bit pixels by it in two
 * halves. Sums may wrap: all is modulo 2^32 and the true sum fits. */
enum { LOW_BITS = 12, GROUP = 4, ROWS = 4, MAX_GROUPS = 1024, LOAD = 16 };

typedef struct group_weights {
    int16_t low[GROUP], high[GROUP];
} group_weights;

AVX2 static inline __m256i load_group(const uint8_t *p, __m256i spread) {
    __m128i pixels;
    memcpy(&pixels, p, LOAD);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pixels), spread);
}

/* One output pixel of `rows` (1..ROWS, a constant) rows. Reads LOAD bytes at each group's first pixel. */
AVX2 static inline __attribute__((always_inline)) void
output_pixel(const group_weights *w, int groups, int channels, const uint8_t *in, size_t in_stride,
             __m256i spread, const int rows, uint8_t *out, size_t out_stride) {
    const __m256i take_low = _mm256_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4,
                                              5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    const __m256i take_high = _mm256_add_epi8(take_low, _mm256_set1_epi8(8));
    __m256i low[ROWS], high[ROWS];
    for (int r = 0; r < rows; r++) low[r] = high[r] = _mm256_setzero_si256();
    for (int g = 0; g < groups; g++, in += GROUP * channels) {
        __m128i packed;
        memcpy(&packed, &w[g], sizeof packed);
        __m256i both = _mm256_broadcastsi128_si256(packed);
        __m256i w_low = _mm256_shuffle_epi8(both, take_low), w_high = _mm256_shuffle_epi8(both, take_high);
        for (int r = 0; r < rows; r++) {
            __m256i pixels = load_group(in + (size_t)r * in_stride, spread);
            low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(pixels, w_low));
            high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(pixels, w_high));
        }
    }
    for (int r = 0; r < rows; r++) {
        __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high[r], LOW_BITS), low[r]);
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        s = _mm_srai_epi32(_mm_add_epi32(s, _mm_set1_epi32(half)), TW_RESIZE_BITS);
        s = _mm_packs_epi32(s, s);
        int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(s, s));
        if (channels == 4)
            memcpy(out + (size_t)r * out_stride, &bytes, 4);
        else
            memcpy(out + (size_t)r * out_stride, &bytes, 3);
    }
}

/* Pixels p0 p1 p2 p3 of `channels` bytes become 16-bit pairs (p0, p1) a channel in the lower half, (p2, p3)
 * in the upper; 0x80 makes a zero byte. */
static void make_spread(int channels, uint8_t spread[32]) {
    memset(spread, 0x80, 32);
    for (int lane = 0; lane < 2; lane++)
        for (int c = 0; c < channels; c++)
            for (int k = 0; k < 2; k++)
                spread[16 * lane + 4 * c + 2 * k] = (uint8_t)((2 * lane + k) * channels + c);
}

static int split_weights(const int32_t *weights, int count, group_weights *out) {
    int groups = (count + GROUP - 1) / GROUP;
    for (int t = 0; t < groups * GROUP; t++) {
        int32_t w = t < count ? weights[t] : 0;
        int32_t low = w & ((1 << LOW_BITS) - 1);
        out[t / GROUP].low[t % GROUP] = (int16_t)low;
        out[t / GROUP].high[t % GROUP] = (int16_t)((w - low) >> LOW_BITS);
    }
    return groups;
}

/* Outputs [first, end) of `rows` rows, ROWS at a time. The split weights of these outputs fit the first-level
 * cache and are used again for each group of rows, whose pixels are then read in order. */
AVX2 static void horizontal_block(const tw_resize_taps *taps, int first, int end, int channels,
                                  const uint8_t *in, size_t in_stride, int rows, uint8_t *out,
                                  size_t out_stride) {
    uint8_t spread_bytes[32];
    make_spread(channels, spread_bytes);
    __m256i spread;
    memcpy(&spread, spread_bytes, sizeof spread);
    group_weights weights[MAX_GROUPS];
    group_weights *w = weights;
    for (int o = first; o < end; o++)
        w += split_weights(taps->weights + (size_t)o * (size_t)taps->stride, taps->count[o], w);
    for (int y = 0; y < rows; y += ROWS, in += ROWS * in_stride, out += ROWS * out_stride) {
        w = weights;
        for (int o = first; o < end; o++) {
            int groups = (taps->count[o] + GROUP - 1) / GROUP;
            output_pixel(w, groups, channels, in + (size_t)taps->first[o] * (size_t)channels, in_stride,
                         spread, ROWS, out + (size_t)o * (size_t)channels, out_stride);
            w += groups;
        }
    }
}

/* For 3 and 4 channels and up to MAX_GROUPS * GROUP taps; the rest is rare and left to the plain loop. A
 * group's load may reach beyond the row's end: harmless in all rows but the last ones, which the plain loop
 * does. */
AVX2 static void horizontal_avx2(const tw_resize_taps *taps, int channels, const uint8_t *in,
                                 size_t in_stride, int width, int rows, uint8_t *out, size_t out_stride) {
    size_t reach = (GROUP - 1) * 4 + LOAD; /* a safe bound of the bytes read beyond a row's end */
    int groups = (taps->stride + GROUP - 1) / GROUP;
    int fast = rows - 1 - (int)(reach / in_stride);
    if (channels < 3 || groups > MAX_GROUPS || fast < 0) fast = 0;
    fast -= fast % ROWS;
    int block = MAX_GROUPS / groups; /* outputs whose weights are split at a time */
    for (int o = 0; fast && o < taps->outputs; o += block)
        horizontal_block(taps, o, o + block < taps->outputs ? o + block : taps->outputs, channels, in,
                         in_stride, fast, out, out_stride);
    horizontal_portable(taps, channels, in + (size_t)fast * in_stride, in_stride, width, rows - fast,
                        out + (size_t)fast * out_stride, out_stride);
}

AVX2 static void vertical_avx2(const int32_t *weights, int count, const uint8_t *in, size_t stride,
                               size_t bytes, uint8_t *out) {
    enum { LANES = 8, VECTORS = 4, STEP = LANES * VECTORS };
    size_t i = 0;
    for (; i + STEP <= bytes; i += STEP) {
        __m256i sum[VECTORS];
        for (int v = 0; v < VECTORS; v++) sum[v] = _mm256_set1_epi32(half);
        const uint8_t *p = in + i;
        for (int t = 0; t < count; t++, p += stride) {
            __m256i w = _mm256_set1_epi32(weights[t]);
            for (int v = 0; v < VECTORS; v++) {
                __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p + LANES * v)));
                sum[v] = _mm256_add_epi32(sum[v], _mm256_mullo_epi32(x, w));
            }
        }
        for (int v = 0; v < VECTORS; v++) sum[v] = _mm256_srai_epi32(sum[v], TW_RESIZE_BITS);
        __m256i a = _mm256_packs_epi32(sum[0], sum[1]), b = _mm256_packs_epi32(sum[2], sum[3]);
        __m256i packed =
            _mm256_packus_epi16(a, b); /* both packs work on halves: put the words back in order */
        packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        memcpy(out + i, &packed, STEP);
    }
    vertical_portable(weights, count, in + i, stride, bytes - i, out + i);
}

static const tw_resize_kernels avx2 = {"avx2", horizontal_avx2, vertical_avx2};

const tw_resize_kernels *tw_resize_best(void) {
    return __builtin_cpu_supports("avx2") ? &avx2 : &tw_resize_portable;
}

#else

const tw_resize_kernels *tw_resize_best(void) {
    return &tw_resize_portable;
}

#endif
