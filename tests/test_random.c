#include "autograd/random.h"
#include "tw_test.h"

#include <math.h>

/* Known answers of Random123's kat_vectors for philox4x32-10. */
START_TEST(agrees_with_the_published_vectors) {
    uint32_t w[4];
    tw_draw zero = {0};
    tw_random4(&zero, 0, w);
    ck_assert_uint_eq(w[0], 0x6627e8d5u);
    ck_assert_uint_eq(w[1], 0xe169c58du);
    ck_assert_uint_eq(w[2], 0xbc57ac4cu);
    ck_assert_uint_eq(w[3], 0x9b00dbd8u);
    tw_draw ones = {
        .seed = UINT64_MAX, .purpose = 255, .layer = 0xffffff, .step = UINT32_MAX, .sample = UINT32_MAX};
    tw_random4(&ones, UINT32_MAX, w);
    ck_assert_uint_eq(w[0], 0x408f276du);
    ck_assert_uint_eq(w[1], 0x41c83b0eu);
    ck_assert_uint_eq(w[2], 0xa20bc7c6u);
    ck_assert_uint_eq(w[3], 0x6d5451fdu);
}
END_TEST

START_TEST(runs_of_words_are_the_single_words) {
    uint32_t run[4 * 37], w[4];
    tw_draw d = {.seed = 1234567890123ull, .purpose = TW_DRAW_TEST, .layer = 3, .step = 9, .sample = 77};
    tw_random_words(&d, UINT32_MAX - 10, 37, run);
    for (uint32_t i = 0; i < 37; i++) {
        tw_random4(&d, UINT32_MAX - 10 + i, w);
        ck_assert_mem_eq(w, run + 4 * i, sizeof w);
    }
}
END_TEST

START_TEST(moments_and_ranges) {
    enum { N = 100001 };
    static float x[N];
    tw_draw d = {.seed = 7, .purpose = TW_DRAW_TEST};
    tw_random_normal(&d, 1.0f, 2.0f, x, N);
    double sum = 0, square = 0;
    for (int i = 0; i < N; i++) sum += x[i], square += (double)x[i] * x[i];
    double mean = sum / N;
    ck_assert(fabs(mean - 1.0) < 0.03);
    ck_assert(fabs(sqrt(square / N - mean * mean) - 2.0) < 0.03);
    tw_random_uniform(&d, -1.0f, 1.0f, x, N);
    for (int i = 0; i < N; i++) ck_assert(x[i] >= -1.0f && x[i] < 1.0f);
    int seen[7] = {0};
    for (uint32_t i = 0; i < 7000; i++) seen[tw_random_below(&d, i, 7)]++;
    for (int i = 0; i < 7; i++) ck_assert(seen[i] > 850 && seen[i] < 1150);
    for (uint32_t i = 0; i < 1000; i++) {
        double u = tw_random_double(&d, i);
        ck_assert(u >= 0 && u < 1);
    }
}
END_TEST

TW_TEST_MAIN("random", agrees_with_the_published_vectors, runs_of_words_are_the_single_words,
             moments_and_ranges)
