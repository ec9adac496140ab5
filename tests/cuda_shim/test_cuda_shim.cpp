/* The shim itself, and launch.h's helpers on it: sums, maxima, 16-byte and single accesses, dropout; and that
 * faults of kernels end the program. */
#include "autograd/cuda/launch.h"

#include <csignal>
#include <vector>

extern "C" {
#include "tw_test.h"
}

static tw_device *cuda() {
    tw_device *d;
    TW_ASSERT_OK(tw_device_cuda(0, &d));
    return d;
}

static float number(int64_t i) {
    return (float)((i * 7919 + 13) % 1009) / 64.0f - 7.0f;
}

/* ---- reductions ---- */

__global__ void reduce_kernel(const float *x, int64_t n, float *out) {
    float v[2] = {0.0f, 0.0f}, largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        v[0] += x[i], v[1] += x[i] * x[i];
        largest = tw_larger::of(largest, x[i]);
    }
    tw_block_sum(v);
    largest = tw_block_max(largest);
    double count = tw_block_sum((double)threadIdx.x);
    if (threadIdx.x == blockDim.x - 1) { /* every thread has them */
        out[0] = v[0], out[1] = v[1], out[2] = largest, out[3] = (float)count;
    }
}

START_TEST(block_reductions) {
    tw_device *d = cuda();
    const unsigned blocks[] = {32, 96, 256, 1024};
    for (unsigned threads : blocks)
        for (int64_t n : {0, 1, 31, 33, 1000}) {
            std::vector<float> x((size_t)n);
            double sum = 0, square = 0;
            float largest = -INFINITY, out[4];
            for (int64_t i = 0; i < n; i++) {
                x[(size_t)i] = number(i);
                sum += number(i), square += number(i) * number(i), largest = fmaxf(largest, number(i));
            }
            TW_ASSERT_OK(TW_LAUNCH(d, reduce_kernel, 1, threads, 0, x.data(), n, out));
            ck_assert_double_eq_tol(out[0], sum, 1e-4 * (square + 1));
            ck_assert_double_eq_tol(out[1], square, 1e-6 * square + 1e-30);
            ck_assert(n == 0 ? isinf(out[2]) : out[2] == largest);
            ck_assert_double_eq(out[3], threads * (threads - 1) / 2.0);
        }
    std::vector<float> x(100, 1.0f);
    x[57] = NAN;
    float out[4];
    TW_ASSERT_OK(TW_LAUNCH(d, reduce_kernel, 1, 64, 0, x.data(), 100, out));
    ck_assert(isnan(out[2]));
    tw_device_free(d);
}
END_TEST

__global__ void shuffle_kernel(int *out) {
    int lane = (int)threadIdx.x % 32;
    int *mine = out + 6 * threadIdx.x;
    mine[0] = __shfl_sync(0xffffffffu, lane, 5);
    mine[1] = __shfl_xor_sync(0xffffffffu, lane, 3);
    mine[2] = __shfl_down_sync(0xffffffffu, lane, 4);
    mine[3] = __shfl_up_sync(0xffffffffu, lane, 4);
    mine[4] = __shfl_down_sync(0xffffffffu, lane, 4, 8);
    mine[5] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
}

START_TEST(shuffles) {
    tw_device *d = cuda();
    int out[64][6], votes = 0;
    TW_ASSERT_OK(TW_LAUNCH(d, shuffle_kernel, 1, 64, 0, &out[0][0]));
    for (int i = 0; i < 32; i += 3) votes |= 1 << i;
    for (int i = 0; i < 64; i++) {
        int lane = i % 32;
        ck_assert_int_eq(out[i][0], 5);
        ck_assert_int_eq(out[i][1], lane ^ 3);
        ck_assert_int_eq(out[i][2], lane + 4 < 32 ? lane + 4 : lane);
        ck_assert_int_eq(out[i][3], lane >= 4 ? lane - 4 : lane);
        ck_assert_int_eq(out[i][4], lane % 8 < 4 ? lane + 4 : lane);
        ck_assert_int_eq(out[i][5], votes);
    }
    tw_device_free(d);
}
END_TEST

/* ---- memory ---- */

template <class T>
__global__ void row_kernel(const T *x, int64_t cols, int64_t stride, bool wide, T *y, bool add) {
    const T *from = x + blockIdx.x * stride;
    T *to = y + blockIdx.x * cols;
    for (int64_t c = threadIdx.x * tw_width<T>; c < cols; c += blockDim.x * tw_width<T>) {
        float v[tw_width<T>];
        tw_load_part(from, c, cols, wide, v);
        for (float &f : v) f *= 2.0f;
        tw_store_part(to, c, cols, wide, v, add);
    }
}

template <class T> static void check_rows(int64_t cols, int64_t stride) {
    tw_device *d = cuda();
    const int64_t rows = 5;
    void *x, *y;
    TW_ASSERT_OK(d->alloc(d, (size_t)(rows * stride) * sizeof(T), &x));
    TW_ASSERT_OK(d->alloc(d, (size_t)(rows * cols) * sizeof(T), &y));
    T *from = static_cast<T *>(x), *to = static_cast<T *>(y);
    for (int64_t i = 0; i < rows * stride; i++) tw_put(from + i, number(i));
    bool wide = tw_wide<T>(x, cols, stride) && tw_wide<T>(y, cols, cols);
    for (int add = 0; add < 2; add++) {
        for (int64_t i = 0; add && i < rows * cols; i++) tw_put(to + i, 3.0f);
        TW_ASSERT_OK(
            TW_LAUNCH(d, row_kernel<T>, (unsigned)rows, 32, 0, from, cols, stride, wide, to, add != 0));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                T expected;
                tw_put(&expected, 2.0f * tw_get(from + r * stride + c) + (add ? 3.0f : 0.0f));
                ck_assert(tw_get(to + r * cols + c) == tw_get(&expected));
            }
    }
    d->release(d, x);
    d->release(d, y);
    tw_device_free(d);
}

START_TEST(wide_and_single_accesses) {
    for (int64_t cols : {1, 3, 8, 64, 257})
        for (int64_t gap : {0, 1, 8}) {
            check_rows<float>(cols, cols + gap);
            check_rows<tw_bf16>(cols, cols + gap);
        }
}
END_TEST

START_TEST(bf16_is_the_hosts) {
    int wrong = 0;
    for (uint32_t i = 0; i < 1u << 20; i++) {
        uint32_t bits = i * 4093u + (i << 13);
        float f = __uint_as_float(bits);
        wrong += tw_bf16_bits(f) != tw_to_bf16(f);
        tw_bf16 h = {(uint16_t)(bits >> 16)};
        wrong += __float_as_uint(tw_get(&h)) != (bits & 0xffff0000u);
    }
    ck_assert_int_eq(wrong, 0);
}
END_TEST

/* ---- dropout ---- */

__global__ void drop_kernel(const tw_step *step, uint32_t threshold, float scale, int64_t n, float *parts,
                            float *ones) {
    tw_draw draw = tw_dropout_draw(step, 7, 3);
    int64_t first = 4 * tw_global_thread();
    if (first >= n) return;
    float v[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    tw_dropout_part(draw, threshold, scale, first, v);
    for (int i = 0; i < 4 && first + i < n; i++) {
        parts[first + i] = v[i];
        ones[first + i] = tw_dropout_one(draw, threshold, scale, first + i, 1.0f);
    }
}

START_TEST(dropout_draws_the_hosts_words) {
    tw_device *d = cuda();
    const int64_t n = 1001;
    tw_step step = {};
    step.seed = 0x123456789abcdefull, step.step = 17, step.sample = 40;
    std::vector<float> parts(n), ones(n);
    TW_ASSERT_OK(TW_LAUNCH(d, drop_kernel, tw_blocks(n, 4 * 64), 64, 0, &step, tw_dropout_threshold(0.3f),
                           1.0f / 0.7f, n, parts.data(), ones.data()));
    tw_draw draw = {step.seed, TW_DRAW_DROPOUT, 7, 17, 43};
    int kept = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t words[4];
        tw_random4(&draw, (uint32_t)(i / 4), words);
        float expected = words[i % 4] >= tw_dropout_threshold(0.3f) ? 1.0f / 0.7f : 0.0f;
        ck_assert(parts[(size_t)i] == expected && ones[(size_t)i] == expected);
        kept += expected > 0.0f;
    }
    ck_assert_int_gt(kept, 620);
    ck_assert_int_lt(kept, 780);
    tw_device_free(d);
}
END_TEST

/* ---- faults ---- */

/* Sums its neighbour's value through shared memory, with a barrier or without. */
template <bool barrier> __global__ void neighbour_kernel(float *out) {
    TW_DYNAMIC_SHARED(float, values);
    values[threadIdx.x] = (float)threadIdx.x;
    if (barrier) __syncthreads();
    out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

START_TEST(a_missing_barrier_shows) {
    tw_device *d = cuda();
    float out[64];
    int wrong[2] = {0, 0};
    for (int launch = 0; launch < 2; launch++) {
        TW_ASSERT_OK(TW_LAUNCH(d, neighbour_kernel<true>, 1, 64, sizeof out, out));
        for (int i = 0; i < 64; i++) wrong[0] += !(out[i] == (float)((i + 1) % 64));
        TW_ASSERT_OK(TW_LAUNCH(d, neighbour_kernel<false>, 1, 64, sizeof out, out));
        for (int i = 0; i < 64; i++) wrong[1] += !(out[i] == (float)((i + 1) % 64));
    }
    ck_assert_int_eq(wrong[0], 0);
    ck_assert_int_gt(wrong[1], 0);
    tw_device_free(d);
}
END_TEST

__global__ void divergent_kernel(int fault) {
    if (fault == 0) {
        if (threadIdx.x == 3) return;
        __syncthreads();
    } else if (fault == 1) {
        if (threadIdx.x % 2)
            __syncthreads();
        else
            __syncthreads();
    } else if (fault == 2) {
        if (threadIdx.x < 20) (void)__shfl_xor_sync(0xffffffffu, 1, 1);
    } else {
        (void)__shfl_sync(0xffffffffu, 1, 31); /* in a block of 16 threads */
    }
}

START_TEST(divergence_aborts) {
    tw_device *d = cuda();
    (void)TW_LAUNCH(d, divergent_kernel, 1, _i == 3 ? 16 : 64, 0, _i);
}
END_TEST

START_TEST(an_empty_grid_launches_nothing) {
    tw_device *d = cuda();
    TW_ASSERT_OK(TW_LAUNCH(d, divergent_kernel, tw_blocks(0, 64), 64, 0, 0));
    tw_device_free(d);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cuda_shim");
    TCase *tcase = tcase_create("cuda_shim");
    tcase_set_timeout(tcase, 900);
    for (const TTest *test :
         {block_reductions, shuffles, wide_and_single_accesses, bf16_is_the_hosts,
          dropout_draws_the_hosts_words, a_missing_barrier_shows, an_empty_grid_launches_nothing})
        tcase_add_test(tcase, test);
    tcase_add_loop_test_raise_signal(tcase, divergence_aborts, SIGABRT, 0, 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
