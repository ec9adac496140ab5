/* The contrastive loss over ranks (threads) against the formula in f64: loss, gradients, hits, for even and
 * uneven shares, ranks without pairs, ties, and more than a tile. */
#include "late_comm.h"
#include "layers/contrastive.h"
#include "test_device.h"
#include "thread_comm.h"
#include "train/device_open.h"
#include "tw_test.h"

#include "autograd/gemm_cpu.h"
#include "autograd/random.h"

#include <math.h>
#include <omp.h>

/* A batch, and what its loss must be. */
typedef struct batch {
    int64_t n, e;
    float *x[2];         /* image and text features (n,e) */
    double *gradient[2]; /* of them */
    double scale;        /* logit_scale */
    double loss, slope, hits[2];
    double near; /* hits that rounding may decide otherwise, for what is expected is rounded too */
    /* what the ranks made of it */
    const int64_t *counts;
    tw_device *device;
    float *got[2], *slopes; /* gradients (n,e); each rank's part of logit_scale's */
    tw_contrastive_result result[THREAD_COMM_MOST];
} batch;

/* Gradient of the logits, hits and loss of one direction; x[i * rs + j * cs] is logit j of item i. */
static void one_direction(const batch *b, const double *x, double *g, int64_t rs, int64_t cs, double *loss,
                          double *hits) {
    for (int64_t i = 0; i < b->n; i++) {
        int64_t best = 0;
        double sum = 0;
        for (int64_t j = 1; j < b->n; j++)
            if (x[i * rs + j * cs] > x[i * rs + best * cs]) best = j;
        for (int64_t j = 0; j < b->n; j++) sum += exp(x[i * rs + j * cs] - x[i * rs + best * cs]);
        double lse = x[i * rs + best * cs] + log(sum), half = 0.5 / (double)b->n;
        for (int64_t j = 0; j < b->n; j++) g[i * rs + j * cs] += half * exp(x[i * rs + j * cs] - lse);
        g[i * (rs + cs)] -= half;
        *loss += half * (lse - x[i * (rs + cs)]);
        *hits += best == i;
    }
}

static void solve(batch *b) {
    int64_t n = b->n, e = b->e;
    double *x = calloc((size_t)(n * n), sizeof *x), *g = calloc((size_t)(n * n), sizeof *g),
           scale = exp((double)(float)b->scale);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t c = 0; c < e; c++)
                x[i * n + j] += scale * (double)b->x[0][i * e + c] * (double)b->x[1][j * e + c];
    one_direction(b, x, g, n, 1, &b->loss, &b->hits[0]);
    one_direction(b, x, g, 1, n, &b->loss, &b->hits[1]);
    for (int k = 0; k < 2; k++) b->gradient[k] = calloc((size_t)(n * e), sizeof(double));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            b->slope += g[i * n + j] * x[i * n + j];
            for (int64_t c = 0; c < e; c++) {
                b->gradient[0][i * e + c] += scale * g[i * n + j] * (double)b->x[1][j * e + c];
                b->gradient[1][j * e + c] += scale * g[i * n + j] * (double)b->x[0][i * e + c];
            }
        }
    free(x);
    free(g);
}

static batch make_batch(tw_device *device, int64_t n, int64_t e, double scale) {
    batch b = {.n = n, .e = e, .scale = scale, .device = device};
    for (int k = 0; k < 2; k++) {
        b.x[k] = malloc((size_t)(n * e) * sizeof(float));
        b.got[k] = malloc((size_t)(n * e) * sizeof(float));
        tw_draw draw = {.seed = 3, .purpose = TW_DRAW_TEST, .layer = (uint32_t)k};
        tw_random_normal(&draw, 0, 1, b.x[k], n * e);
        for (int64_t i = 0; i < n; i++) {
            double square = 0;
            float *row = b.x[k] + i * e;
            if (k == 1) /* texts are like their images, so that some hit */
                for (int64_t c = 0; c < e; c++) row[c] = b.x[0][i * e + c] + 0.8f * row[c];
            for (int64_t c = 0; c < e; c++) square += (double)row[c] * (double)row[c];
            for (int64_t c = 0; c < e; c++) row[c] /= (float)sqrt(square);
        }
    }
    b.slopes = calloc(THREAD_COMM_MOST, sizeof *b.slopes);
    return b;
}

static void free_batch(batch *b) {
    for (int k = 0; k < 2; k++) free(b->x[k]), free(b->got[k]), free(b->gradient[k]);
    free(b->slopes);
}

static void run_rank(tw_comm *c, batch *b) {
    tw_device *d = c->device;
    tw_params *params;
    tw_param *scale;
    tw_contrastive *loss;
    omp_set_num_threads(1);
    TW_ASSERT_OK(tw_params_create(&params));
    tw_init init = {TW_INIT_CONSTANT, (float)b->scale};
    TW_ASSERT_OK(tw_params_add(params, "logit_scale", 0, NULL, init, &scale));
    TW_ASSERT_OK(tw_params_allocate(params, c->device, TW_F32, true));
    TW_ASSERT_OK(tw_params_initialise(params, 1));
    TW_ASSERT_OK(tw_contrastive_create(c->device, c, scale, b->e, &loss));
    int64_t first = 0, own = b->counts[c->rank];
    for (int r = 0; r < c->rank; r++) first += b->counts[r];
    size_t at = (size_t)(first * b->e), bytes = (size_t)(own * b->e) * sizeof(float);
    for (int again = 0; again < 2; again++) { /* the second time with what the first one left in memory */
        TW_ASSERT_OK(tw_params_zero_gradients(params));
        TW_ASSERT_OK(tw_contrastive_begin(loss, b->counts));
        if (own) tw_test_give(d, tw_contrastive_image(loss), b->x[0] + at, bytes);
        if (own) tw_test_give(d, tw_contrastive_text(loss), b->x[1] + at, bytes);
        TW_ASSERT_OK(tw_contrastive_run(loss));
        TW_ASSERT_OK(tw_contrastive_read(loss, &b->result[c->rank]));
    }
    const float *const from[2] = {tw_contrastive_image_gradient(loss), tw_contrastive_text_gradient(loss)};
    for (int k = 0; k < 2; k++) {
        if (!own) break;
        float *got = tw_test_take(d, from[k], bytes);
        memcpy(b->got[k] + at, got, bytes);
        free(got);
    }
    float *slope = tw_test_take(d, scale->grad.data, sizeof *slope);
    b->slopes[c->rank] = *slope;
    free(slope);
    tw_contrastive_free(loss);
    tw_params_free(params);
    tw_comm_free(c);
    tw_gemm_release();
}

static void work(tw_comm *now, void *argument) {
    run_rank(late_comm_of(now), argument);
}

static double distance(const float *a, const double *b, int64_t n, double *norm) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) d += pow((double)a[i] - b[i], 2), s += b[i] * b[i];
    *norm = sqrt(s);
    return sqrt(d);
}

static void check(batch *b, const int64_t *counts, int ranks, double tolerance) {
    b->counts = counts;
    if (!tw_on_cpu(b->device) && ranks > 1) return; /* ranks that are threads share the host's memory */
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < b->n * b->e; i++) b->got[k][i] = NAN;
    if (tw_on_cpu(b->device)) {
        thread_comm_run(ranks, b->device, work, b);
    } else {
        tw_comm *self;
        TW_ASSERT_OK(tw_comm_self(b->device, &self));
        run_rank(self, b);
    }
    double slope = 0, norm;
    for (int r = 0; r < ranks; r++) {
        const tw_contrastive_result *got = &b->result[r];
        ck_assert_msg(fabs(got->loss - b->loss) <= tolerance * b->loss, "%d ranks: loss %.12g, is %.12g",
                      ranks, got->loss, b->loss);
        ck_assert_double_eq(got->loss, b->result[0].loss);
        ck_assert_int_eq(got->bad_ranks, 0);
        double near = 1e-12 + b->near / (double)b->n;
        ck_assert_double_eq_tol(got->image_to_text, b->hits[0] / (double)b->n, near);
        ck_assert_double_eq_tol(got->text_to_image, b->hits[1] / (double)b->n, near);
        slope += (double)b->slopes[r];
    }
    ck_assert_msg(fabs(slope - b->slope) <= 10 * tolerance * fabs(b->slope) + tolerance,
                  "%d ranks: logit_scale's gradient %.9g, is %.9g", ranks, slope, b->slope);
    for (int k = 0; k < 2; k++) {
        double d = distance(b->got[k], b->gradient[k], b->n * b->e, &norm);
        ck_assert_msg(d <= 10 * tolerance * norm, "%d ranks: gradient %d is %g away from %g", ranks, k, d,
                      norm);
    }
}

START_TEST(any_ranks_give_the_formula) {
    static const int64_t counts[][7] = {{23}, {12, 11}, {8, 8, 7}, {6, 6, 6, 5}, {4, 4, 3, 3, 3, 3, 3}};
    static const int ranks[] = {1, 2, 3, 4, 7};
    static const double scales[] = {0, 2.6592, 4.6052};
    tw_device *d;
    TW_ASSERT_OK(tw_test_device(1, &d));
    for (int s = 0; s < 3; s++) {
        batch b = make_batch(d, 23, 6, scales[s]);
        solve(&b);
        ck_assert(b.hits[0] > 0 && b.hits[0] < 23 && b.hits[1] > 0 && b.hits[1] < 23);
        for (int i = 0; i < 5; i++) check(&b, counts[i], ranks[i], scales[s] > 4 ? 2e-6 : 5e-7);
        free_batch(&b);
    }
    tw_device_free(d);
}
END_TEST

START_TEST(uneven_and_empty_shares_are_exact) {
    static const int64_t counts[][4] = {{0, 23, 0, 0}, {22, 0, 0, 1}, {1, 2, 0, 20}, {0, 0, 3, 20}};
    tw_device *d;
    TW_ASSERT_OK(tw_device_cpu(1, &d));
    batch b = make_batch(d, 23, 6, 2.6592);
    solve(&b);
    for (int i = 0; i < 4; i++) check(&b, counts[i], 4, 5e-7);
    free_batch(&b);
    tw_device_free(d);
}
END_TEST

/* The first of equal ones is the hit, wherever it lies. */
START_TEST(ties_are_those_of_one_rank) {
    static const int64_t counts[][4] = {{12}, {6, 6}, {3, 3, 3, 3}, {1, 0, 5, 6}};
    static const int ranks[] = {1, 2, 4, 4};
    tw_device *d;
    TW_ASSERT_OK(tw_test_device(1, &d));
    batch b = make_batch(d, 12, 4, 1);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < 12; i++)
            for (int64_t c = 0; c < 4; c++) b.x[k][i * 4 + c] = c == i % (k ? 4 : 3); /* many repeats */
    solve(&b);
    ck_assert(b.hits[0] > 0 && b.hits[0] < 12 && b.hits[1] > 0 && b.hits[1] < 12);
    for (int i = 0; i < 4; i++) check(&b, counts[i], ranks[i], 5e-7);
    free_batch(&b);
    tw_device_free(d);
}
END_TEST

START_TEST(several_tiles_over_ranks_are_exact) {
#ifdef TW_CUDA_SHIM
    TW_SKIP("a million logits, thread by thread");
#endif
    static const int64_t counts[][3] = {{1100}, {1030, 0, 70}, {367, 367, 366}};
    tw_device *d;
    TW_ASSERT_OK(tw_test_device(1, &d));
    batch b = make_batch(d, 1100, 8, 2.6592);
    solve(&b);
    for (int i = 0; i < 3; i++) check(&b, counts[i], i ? 3 : 1, 1e-6);
    free_batch(&b);
    tw_device_free(d);
}
END_TEST

/* What the CPU makes of the batch, which the tests above hold to the formula, as what is expected of b. */
static void solve_on_cpu(batch *b, const int64_t *counts) {
    tw_device *cpu;
    tw_comm *self;
    TW_ASSERT_OK(tw_device_cpu(1, &cpu));
    TW_ASSERT_OK(tw_comm_self(cpu, &self));
    batch c = make_batch(cpu, b->n, b->e, b->scale);
    c.counts = counts;
    run_rank(self, &c);
    b->loss = c.result[0].loss, b->slope = (double)c.slopes[0];
    b->hits[0] = c.result[0].image_to_text * (double)b->n,
    b->hits[1] = c.result[0].text_to_image * (double)b->n;
    for (int k = 0; k < 2; k++) {
        b->gradient[k] = malloc((size_t)(b->n * b->e) * sizeof(double));
        for (int64_t i = 0; i < b->n * b->e; i++) b->gradient[k][i] = (double)c.got[k][i];
    }
    free_batch(&c);
    tw_device_free(cpu);
}

/* A GPU's tiles are 4096 a side (autograd/cuda/scratch.h): three of them here, the last one of 9, in f32 and
 * with products in TF32. */
START_TEST(several_tiles_of_a_gpu_agree_with_the_cpu) {
#ifdef TW_CUDA_SHIM
    TW_SKIP("67 million logits, thread by thread");
#endif
    static const int64_t counts[THREAD_COMM_MOST] = {2 * 4096 + 9}; /* of one rank */
    tw_device *d;
    TW_ASSERT_OK(tw_test_device(1, &d));
    if (tw_on_cpu(d)) {
        tw_device_free(d);
        TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    }
    batch b = make_batch(d, counts[0], 8, 2.6592);
    solve_on_cpu(&b, counts);
    ck_assert(b.hits[0] > 0 && b.hits[1] > 0);
    b.near = 2;
    check(&b, counts, 1, 2e-6);
    tw_device_allow_tf32(d, true);
    b.near = 0.01 * (double)b.n;
    check(&b, counts, 1, 1e-3); /* of logits up to 14 */
    free_batch(&b);
    tw_device_free(d);
}
END_TEST

START_TEST(an_empty_batch_is_nothing) {
    static const int64_t counts[3] = {0};
    tw_device *d;
    TW_ASSERT_OK(tw_device_cpu(1, &d));
    batch b = make_batch(d, 0, 4, 1);
    b.counts = counts;
    thread_comm_run(3, d, work, &b);
    for (int r = 0; r < 3; r++) ck_assert(b.result[r].loss == 0 && b.result[r].image_to_text == 0);
    free_batch(&b);
    tw_device_free(d);
}
END_TEST

/* Pair 10's text and pair 20's image are not finite: the loss of all is not, and the first rank with such and
 * its pair are known to all. */
START_TEST(the_rank_with_bad_features_is_named) {
    static const int64_t counts[][4] = {{23}, {12, 11}, {8, 8, 7}, {0, 11, 12, 0}};
    static const int ranks[] = {1, 2, 3, 4}, bad_ranks[] = {1, 2, 2, 2}, bad_rank[] = {0, 0, 1, 1},
                     bad_pair[] = {10, 10, 2, 10};
    tw_device *d;
    TW_ASSERT_OK(tw_test_device(1, &d));
    batch b = make_batch(d, 23, 6, 2.6592);
    b.x[1][10 * 6 + 5] = NAN;
    for (int c = 0; c < 6; c++) b.x[0][20 * 6 + c] = INFINITY;
    for (int i = 0; i < 4; i++) {
        b.counts = counts[i];
        if (tw_on_cpu(d)) thread_comm_run(ranks[i], d, work, &b);
        tw_comm *self;
        TW_ASSERT_OK(tw_comm_self(d, &self));
        if (!tw_on_cpu(d)) run_rank(self, &b);
        if (tw_on_cpu(d)) tw_comm_free(self);
        for (int r = 0; r < ranks[i]; r++) {
            ck_assert(!isfinite(b.result[r].loss));
            ck_assert_int_eq(b.result[r].bad_ranks, bad_ranks[i]);
            ck_assert_int_eq(b.result[r].bad_rank, bad_rank[i]);
            ck_assert_int_eq(b.result[r].bad_pair, bad_pair[i]);
        }
        if (!tw_on_cpu(d)) break; /* ranks that are threads share the host's memory */
    }
    free_batch(&b);
    tw_device_free(d);
}
END_TEST

/* What a rank keeps: its features, all texts and their gradient, and nothing of N x N or R x N. */
START_TEST(memory_grows_with_the_pairs) {
    tw_device *d;
    tw_comm *self;
    tw_params *params;
    tw_param *scale;
    TW_ASSERT_OK(tw_device_cpu(1, &d));
    TW_ASSERT_OK(tw_comm_self(d, &self));
    TW_ASSERT_OK(tw_params_create(&params));
    TW_ASSERT_OK(tw_params_add(params, "logit_scale", 0, NULL, (tw_init){0}, &scale));
    TW_ASSERT_OK(tw_params_allocate(params, d, TW_F32, true));
    enum { RANKS = 4, E = 64 };
    int64_t before = 0;
    for (int64_t n = 16384; n <= 65536; n *= 2) {
        tw_comm four = *self; /* only asked for its size here */
        four.ranks = RANKS;
        tw_contrastive *loss;
        int64_t counts[RANKS] = {n / 4, n / 4, n / 4, n / 4};
        TW_ASSERT_OK(tw_contrastive_create(d, &four, scale, E, &loss));
        TW_ASSERT_OK(tw_contrastive_begin(loss, counts));
        int64_t bytes = (int64_t)tw_contrastive_bytes(loss), features = n * E * (int64_t)sizeof(float);
        ck_assert_int_le(bytes, 2 * features + features / 2 + n * 64 + (8 << 20));
        if (before) ck_assert_int_le(bytes, 2 * before);
        before = bytes;
        tw_contrastive_free(loss);
    }
    tw_params_free(params);
    tw_comm_free(self);
    tw_device_free(d);
}
END_TEST

TW_TEST_MAIN("contrastive", any_ranks_give_the_formula, uneven_and_empty_shares_are_exact,
             ties_are_those_of_one_rank, several_tiles_over_ranks_are_exact,
             several_tiles_of_a_gpu_agree_with_the_cpu, an_empty_batch_is_nothing,
             the_rank_with_bad_features_is_named, memory_grows_with_the_pairs)
