#include "autograd/gemm_cpu.h"

#include "autograd/device.h"
#include "autograd/matmul_dnnl.h"
#include "autograd/ops/activation_math.h"
#include "tw_test.h"

#include <float.h>
#include <math.h>
#include <omp.h>

static uint64_t state = 88172645463325252u;

static double uniform(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) * 0x1p-52 - 1;
}

/* A matrix of random values with gaps of NaN between its rows, as f32 or bf16, and its values. */
typedef struct stored {
    float *f32;
    uint16_t *bf16;
    double *value;
    int64_t rows, cols, stride;
} stored;

static stored make(int64_t rows, int64_t cols, int64_t gap) {
    stored s = {.rows = rows, .cols = cols, .stride = cols + gap};
    size_t n = (size_t)(rows * s.stride) + 1;
    s.f32 = malloc(n * 4), s.bf16 = malloc(n * 2), s.value = malloc(n * 8);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < s.stride; c++) {
            int64_t i = r * s.stride + c;
            s.bf16[i] = c < cols ? tw_to_bf16((float)uniform()) : 0xffff;
            s.f32[i] = tw_from_bf16(s.bf16[i]);
            s.value[i] = (double)s.f32[i];
        }
    return s;
}

static void drop(stored *s) {
    free(s->f32), free(s->bf16), free(s->value);
}

static tw_matrix view(const stored *s, tw_dtype dtype, bool transposed) {
    return (tw_matrix){dtype == TW_F32 ? (void *)s->f32 : (void *)s->bf16, dtype, s->stride, transposed};
}

static double at(const stored *s, bool transposed, int64_t i, int64_t j) {
    return s->value[transposed ? j * s->stride + i : i * s->stride + j];
}

typedef tw_status (*product)(int64_t, int64_t, int64_t, tw_matrix, tw_matrix, bool, void *, tw_dtype,
                             int64_t);

static void check(product multiply, int64_t m, int64_t n, int64_t k, tw_dtype type_a, tw_dtype type_b,
                  tw_dtype type_c, int flags) {
    bool ta = flags & 1, tb = flags & 2, add = flags & 4;
    stored a = make(ta ? k : m, ta ? m : k, 3), b = make(tb ? n : k, tb ? k : n, 1), c = make(m, n, 2);
    void *out = type_c == TW_F32 ? (void *)c.f32 : (void *)c.bf16;
    if (!add) memset(out, 0xff, (size_t)(m * c.stride) * tw_dtype_size(type_c));
    TW_ASSERT_OK(multiply(m, n, k, view(&a, type_a, ta), view(&b, type_b, tb), add, out, type_c, c.stride));
    double tolerance = type_c == TW_F32 ? 1e-6 : 4e-3;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < c.stride; j++) {
            int64_t e = i * c.stride + j;
            double got = type_c == TW_F32 ? (double)c.f32[e] : (double)tw_from_bf16(c.bf16[e]);
            if (j >= n) {
                ck_assert_msg(isnan(got), "wrote between rows");
                continue;
            }
            double expected = add ? c.value[e] : 0;
            for (int64_t p = 0; p < k; p++) expected += at(&a, ta, i, p) * at(&b, tb, p, j);
            ck_assert_msg(fabs(got - expected) <= tolerance * (1 + fabs(expected)) * sqrt((double)k + 1),
                          "(%d,%d,%d), flags %d, types %d %d %d: (%d,%d) is %g, not %g", (int)m, (int)n,
                          (int)k, flags, type_a, type_b, type_c, (int)i, (int)j, got, expected);
        }
    drop(&a), drop(&b), drop(&c);
}

static const int64_t sizes[][3] = {{1, 1, 1},    {3, 5, 7}, {17, 1, 9}, {1, 33, 4},
                                   {64, 48, 40}, {5, 4, 0}, {0, 4, 3}};

START_TEST(all_types_and_transpositions) {
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (int types = 0; types < 8; types++)
            for (int flags = 0; flags < 8; flags++)
                check(tw_gemm, sizes[s][0], sizes[s][1], sizes[s][2], types & 1 ? TW_BF16 : TW_F32,
                      types & 2 ? TW_BF16 : TW_F32, types & 4 ? TW_BF16 : TW_F32, flags);
}
END_TEST

START_TEST(larger_than_a_panel) {
    for (int flags = 0; flags < 8; flags++) {
        check(tw_gemm, 515, 3, 1030, TW_BF16, TW_BF16, TW_BF16, flags);
        check(tw_gemm, 515, 1026, 5, TW_BF16, TW_BF16, TW_F32, flags);
        check(tw_gemm, 3, 1026, 1025, TW_F32, TW_BF16, TW_BF16, flags);
    }
}
END_TEST

/* The primitive that serves bf16 where the processor has it, driven with f32 everywhere. */
START_TEST(matmul_primitive) {
    for (int round = 0; round < 2; round++) /* made, then found */
        for (size_t s = 0; s < 5; s++)
            for (int flags = 0; flags < 8; flags++)
                check(tw_matmul_dnnl, sizes[s][0], sizes[s][1], sizes[s][2], TW_F32, TW_F32, TW_F32, flags);
    for (int64_t m = 1; m < 80; m++) check(tw_matmul_dnnl, m, 3, 4, TW_F32, TW_F32, TW_F32, 0);
    if (tw_gemm_has_bf16())
        for (int flags = 0; flags < 16; flags++)
            check(tw_matmul_dnnl, 64, 48, 40, TW_BF16, TW_BF16, flags & 8 ? TW_BF16 : TW_F32, flags & 7);
    tw_gemm_release();
    check(tw_matmul_dnnl, 3, 5, 7, TW_F32, TW_F32, TW_F32, 0);
    tw_gemm_release();
}
END_TEST

START_TEST(many_small_products_side_by_side) {
    enum { N = 24, TASKS = 64 };
    static float a[N * N], c[TASKS][N * N];
    for (int i = 0; i < N * N; i++) a[i] = (float)uniform();
    int teams = 0, failed = 0;
    omp_set_num_threads(2);
#pragma omp parallel for schedule(static) reduction(+ : teams, failed)
    for (int t = 0; t < TASKS; t++) {
        tw_status status = tw_gemm_f32(N, N, N, (float)t, a, N, false, a, N, true, 0, c[t], N);
        failed += status != TW_OK;
        teams += omp_get_num_threads() == 2;
    }
    ck_assert_int_eq(failed, 0);
    ck_assert_int_eq(teams, TASKS);
    for (int t = 0; t < TASKS; t++)
        for (int i = 0; i < N * N; i++)
            ck_assert(fabsf(c[t][i] - (float)t * c[1][i]) <= 1e-4f * (1 + (float)t));
}
END_TEST

static double ulps(float got, double expected) {
    int e;
    (void)frexp(expected, &e);
    return fabs((double)got - expected) / ldexp(1, e - 24);
}

START_TEST(exp_is_good_to_two_ulp) {
    double worst = 0;
    for (float x = -87.3f; x < 88.3f; x += 0.00037f) worst = fmax(worst, ulps(tw_expf(x), exp((double)x)));
    printf("tw_expf: %.2f ulp\n", worst);
    ck_assert(worst < 2);
    ck_assert(tw_expf(0) == 1);
    ck_assert(tw_expf(-INFINITY) < 1.3e-38f && tw_expf(-1e30f) < 1.3e-38f);
    ck_assert(tw_expf(1e30f) > 2e38f && isfinite(tw_expf(INFINITY)));
    ck_assert(isnan(tw_expf(NAN)));
}
END_TEST

START_TEST(activations_agree_with_libm) {
    double quick = 0, quick_slope = 0, gelu = 0, gelu_slope = 0, tail = 0;
    for (double x = -12; x < 12; x += 0.00013) {
        float f = (float)x, density;
        double v = (double)f, s = 1 / (1 + exp(-1.702 * v)), phi = erfc(-v / sqrt(2)) / 2;
        double pdf = exp(-v * v / 2) / sqrt(2 * acos(-1)), scale = 1 + fabs(v);
        quick = fmax(quick, fabs((double)tw_quick_gelu(f) - v * s) / scale);
        quick_slope = fmax(quick_slope, fabs((double)tw_quick_gelu_slope(f) - s * (1 + 1.702 * v * (1 - s))));
        gelu = fmax(gelu, fabs((double)tw_erf_gelu(f) - v * phi) / scale);
        gelu_slope = fmax(gelu_slope, fabs((double)tw_erf_gelu_slope(f) - (phi + v * pdf)));
        if (x < 0) tail = fmax(tail, fabs((double)tw_normal(f, &density) / phi - 1));
    }
    printf("QuickGELU %.2g, slope %.2g; erf GELU %.2g, slope %.2g, relative in the tail %.2g\n", quick,
           quick_slope, gelu, gelu_slope, tail);
    ck_assert(quick < 1.5e-7 && quick_slope < 4e-7 && gelu < 1.5e-7 && gelu_slope < 4e-7 && tail < 1e-5);
    ck_assert(isnan(tw_erf_gelu(NAN)) && isnan(tw_quick_gelu(NAN)));
    ck_assert(tw_erf_gelu(0) == 0 && tw_quick_gelu(0) == 0);
}
END_TEST

TW_TEST_MAIN("gemm_cpu", all_types_and_transpositions, larger_than_a_panel, matmul_primitive,
             many_small_products_side_by_side, exp_is_good_to_two_ulp, activations_agree_with_libm)
