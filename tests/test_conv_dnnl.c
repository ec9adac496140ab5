/* What op_check cannot see of conv_dnnl: gradients made in several pieces of the batch, more shapes than are
 * cached, release and reuse, several threads at once. That results are right is test_ops's business
 * (op_cases/conv2d.c). */
#include "autograd/conv_dnnl.h"
#include "tw_test.h"

#include <math.h>
#include <pthread.h>

static float *pattern(int64_t n, int64_t period) {
    float *v = malloc((size_t)n * sizeof *v + 1);
    ck_assert_ptr_nonnull(v);
    for (int64_t i = 0; i < n; i++) v[i] = (float)(i * 7 % period) / (float)period - 0.45f;
    return v;
}

static int64_t x_count(const tw_conv *c) {
    return c->height * c->width * c->in;
}

static int64_t y_count(const tw_conv *c) {
    return tw_conv_side(c, c->height) * tw_conv_side(c, c->width) * c->out;
}

/* 20 images of 1 MB and their results: more than one piece, the last one shorter. */
START_TEST(weights_gradient_of_a_batch_is_the_sum_of_its_images) {
    tw_conv c = {20, 64, 64, 32, 32, 3, 1, 1, TW_F32}, one = c;
    one.batch = 1;
    int64_t nw = c.in * c.out * 9, nx = x_count(&c), ny = y_count(&c);
    float *x = pattern(c.batch * nx, 101), *dy = pattern(c.batch * ny, 103);
    float *whole = pattern(nw, 11), *sum = pattern(nw, 11), *alone = pattern(nw, 11);
    TW_ASSERT_OK(tw_conv_backward_w(&c, x, dy, true, whole));
    for (int64_t i = 0; i < c.batch; i++)
        TW_ASSERT_OK(tw_conv_backward_w(&one, x + i * nx, dy + i * ny, true, sum));
    TW_ASSERT_OK(tw_conv_backward_w(&c, x, dy, false, alone));
    float *before = pattern(nw, 11);
    double d = 0, e = 0, s = 0;
    for (int64_t i = 0; i < nw; i++) {
        d += pow((double)whole[i] - (double)sum[i], 2);
        e += pow((double)whole[i] - (double)before[i] - (double)alone[i], 2);
        s += pow((double)sum[i], 2);
    }
    ck_assert_msg(d <= 1e-10 * s && e <= 1e-10 * s && s > 0, "distances %g and %g of %g", sqrt(d), sqrt(e),
                  sqrt(s));
    float *again = pattern(nw, 11);
    TW_ASSERT_OK(tw_conv_backward_w(&c, x, dy, true, again));
    ck_assert_mem_eq(whole, again, (size_t)nw * sizeof *again);
    float *all[] = {x, dy, whole, sum, alone, before, again};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    tw_conv_release();
}
END_TEST

/* 150 shapes, twice around the cache, in both orders of x; a release in between. */
static void *many_shapes(void *unused) {
    (void)unused;
    float *w = pattern(8 * 8 * 9, 17), *first[150] = {NULL};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 150; i++) {
            tw_conv c = {1 + i % 3, 3 + i / 3, 4, 8, 8, 3, 1, 1, TW_F32};
            int64_t n = c.batch * y_count(&c);
            float *x = pattern(c.batch * x_count(&c), 19), *y = pattern(n, 2);
            TW_ASSERT_OK(tw_conv_forward(&c, x, w, y));
            if (first[i]) ck_assert_mem_eq(first[i], y, (size_t)n * sizeof *y);
            free(x);
            if (round == 0)
                first[i] = y;
            else
                free(y);
        }
        tw_conv_release();
    }
    for (int i = 0; i < 150; i++) free(first[i]);
    free(w);
    tw_conv_release(); /* twice is no harm */
    return NULL;
}

START_TEST(more_shapes_than_the_cache_holds) {
    (void)many_shapes(NULL);
    tw_conv c = {1, 8, 8, 8, 8, 3, 1, 1, TW_F32};
    for (int way = 0; way < 3; way++) ck_assert_str_ne(tw_conv_implementation(&c, way), "");
    tw_conv_release();
}
END_TEST

START_TEST(threads_do_not_share) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, many_shapes, NULL), 0);
    for (int i = 0; i < 3; i++) ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}
END_TEST

TW_TEST_MAIN("conv_dnnl", weights_gradient_of_a_batch_is_the_sum_of_its_images,
             more_shapes_than_the_cache_holds, threads_do_not_share)
