/* The optimizer over ranks: sharded, unsharded and on one rank. The ranks are threads. */
#include "optim/adamw.h"
#include "thread_comm.h"
#include "tw_test.h"

#include <math.h>

static const char *const no_decay[] = {"bias", "logit_scale"};
static const struct {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector; both 0: a scalar */
} shapes[] = {{"a.weight", 50, 37}, {"a.bias", 1500, 0},  {"b.weight", 3, 1111}, {"frozen", 9, 9},
              {"b.bias", 3, 0},     {"c.weight", 7, 300}, {"logit_scale", 0, 0}};
enum { N = 7, FROZEN = 3, STEPS = 4 };
static const int rank_counts[] = {1, 2, 3, 4, 7};

/* One run of a few steps, and what every rank must end with. */
typedef struct job {
    tw_device *device;
    tw_dtype type;
    bool sharded;
    int bad_step; /* a step at which rank bad_rank's own gradient of b.weight is not finite; -1: none */
    int bad_rank;
    double norms[STEPS];   /* of rank 0 */
    float *values, *m, *v; /* of rank 0 at the end; (trainable) */
    size_t bytes[THREAD_COMM_MOST], moments[THREAD_COMM_MOST];
} job;

static tw_params *make_params(const job *j, tw_param **p) {
    tw_params *set;
    int matched;
    TW_ASSERT_OK(tw_params_create(&set));
    for (int i = 0; i < N; i++) {
        int64_t shape[] = {shapes[i].rows, shapes[i].cols};
        int ndim = !shapes[i].rows ? 0 : shapes[i].cols ? 2 : 1;
        TW_ASSERT_OK(tw_params_add(set, shapes[i].name, ndim, shape, (tw_init){TW_INIT_NORMAL, 0.3f}, &p[i]));
    }
    TW_ASSERT_OK(tw_params_freeze(set, "frozen", &matched));
    TW_ASSERT_OK(tw_params_allocate(set, j->device, j->type, true));
    TW_ASSERT_OK(tw_params_initialise(set, 11));
    return set;
}

/* What a rank trains. */
typedef struct trainee {
    tw_param *p[N];
    tw_params *set;
    tw_partition *partition;
    tw_adamw *adamw;
    int64_t trainable;
} trainee;

/* Parts whose sum over the ranks is the same for any number of ranks, to the bit: rank 0 has all of it, the
 * others have numbers that cancel. */
static void set_gradients(const tw_comm *c, tw_params *set, tw_param *const *p, int step) {
    TW_ASSERT_OK(tw_params_zero_gradients(set));
    for (int i = 0; i < N; i++)
        for (int64_t k = 0; i != FROZEN && k < p[i]->count; k++) {
            float whole = 0.25f * (float)((i * 31 + (int)k * 7 + step * 3) % 17 - 8);
            float g = c->rank == 0 ? whole : 0.0f;
            if (c->ranks > 1 && c->rank == 0) g -= (float)(c->ranks - 1);
            if (c->rank > 0) g = 1.0f;
            ((float *)p[i]->grad.data)[k] = g;
        }
}

static void one_step(tw_comm *c, const job *j, const trainee *all, int t, double *norm) {
    tw_step step = {0};
    tw_gradient_report report;
    set_gradients(c, all->set, all->p, t);
    bool bad = t == j->bad_step;
    if (bad && c->rank == j->bad_rank)
        for (int64_t k = 5; k < all->p[2]->count; k++)
            ((float *)all->p[2]->grad.data)[k] = k % 2 ? NAN : -INFINITY;
    for (int b = 0; b < all->partition->count; b++)
        TW_ASSERT_OK(tw_partition_reduce(all->partition, c, b, tw_params_gradients(all->set)));
    TW_ASSERT_OK(c->sync(c));
    TW_ASSERT_OK(tw_adamw_inspect(all->adamw, &report));
    ck_assert_int_eq(report.offender != NULL, bad);
    ck_assert_int_eq(!isfinite(report.norm), bad);
    if (bad) ck_assert_str_eq(report.offender, "b.weight");
    if (bad) ck_assert_int_eq(report.rank, j->bad_rank);
    int64_t steps = tw_adamw_steps(all->adamw);
    TW_ASSERT_OK(tw_adamw_step(all->adamw, &report, 1e-2, &step));
    ck_assert_int_eq(tw_adamw_steps(all->adamw), steps + !bad);
    *norm = report.norm;
}

/* All ranks have the same values and copies. */
static void check_equal(tw_comm *c, tw_params *set) {
    size_t bytes = (size_t)tw_params_trainable(set) * 4;
    char *first = malloc(bytes);
    memcpy(first, tw_params_values(set), bytes);
    TW_ASSERT_OK(c->broadcast(c, first, bytes, 0));
    ck_assert_mem_eq(first, tw_params_values(set), bytes);
    for (int64_t i = 0; tw_params_copies(set) && i < tw_params_trainable(set); i++)
        ck_assert_uint_eq(tw_params_copies(set)[i], tw_to_bf16(tw_params_values(set)[i]));
    free(first);
}

static trainee make_trainee(tw_comm *c, const job *j, int64_t bucket_bytes) {
    const tw_adamw_config config = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 2, 1.0f, 4.6052f};
    trainee t;
    t.set = make_params(j, t.p);
    t.trainable = tw_params_trainable(t.set);
    TW_ASSERT_OK(tw_partition_create(t.trainable, c->rank, c->ranks, bucket_bytes, &t.partition));
    TW_ASSERT_OK(tw_adamw_create_ranks(t.set, j->device, c, t.partition, j->sharded, &config, &t.adamw));
    return t;
}

static void free_trainee(trainee *t) {
    tw_adamw_free(t->adamw);
    tw_partition_free(t->partition);
    tw_params_free(t->set);
}

static void work(tw_comm *c, void *argument) {
    job *j = argument;
    trainee one = make_trainee(c, j, 9000);
    ck_assert_int_ge(one.partition->count, 3);
    for (int t = 0; t < STEPS; t++) {
        double norm;
        one_step(c, j, &one, t, &norm);
        if (c->rank == 0) j->norms[t] = norm;
    }
    check_equal(c, one.set);
    j->bytes[c->rank] = tw_adamw_bytes(one.adamw);
    j->moments[c->rank] = (size_t)(j->sharded ? one.partition->state : one.trainable) * 8;
    float *out = c->rank == 0 ? calloc((size_t)one.trainable * 3, sizeof *out) : NULL;
    if (out) memcpy(j->values = out, tw_params_values(one.set), (size_t)one.trainable * sizeof *out);
    TW_ASSERT_OK(tw_adamw_get_moments(one.adamw, false, out ? j->m = out + one.trainable : NULL));
    TW_ASSERT_OK(tw_adamw_get_moments(one.adamw, true, out ? j->v = out + 2 * one.trainable : NULL));
    free_trainee(&one);
}

static int64_t trainable_of(const job *j) {
    tw_param *p[N];
    tw_params *set = make_params(j, p);
    int64_t n = tw_params_trainable(set);
    tw_params_free(set);
    return n;
}

/* Norms, values and moments have the bits of one rank, for any number of ranks, sharded or not. */
static void compare_with_one_rank(tw_dtype type, int bad_step) {
    tw_device *device;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    job one = {.device = device, .type = type, .bad_step = bad_step};
    thread_comm_run(1, device, work, &one);
    size_t bytes = (size_t)trainable_of(&one) * 3 * sizeof(float);
    for (size_t k = 1; k < sizeof rank_counts / sizeof *rank_counts; k++)
        for (int sharded = 0; sharded < 2; sharded++) {
            job j = {.device = device,
                     .type = type,
                     .sharded = sharded,
                     .bad_step = bad_step,
                     .bad_rank = rank_counts[k] - 1};
            thread_comm_run(rank_counts[k], device, work, &j);
            for (int t = 0; t < STEPS; t++)
                ck_assert(t == bad_step ? !isfinite(j.norms[t]) : j.norms[t] == one.norms[t]);
            ck_assert_mem_eq(one.values, j.values, bytes);
            size_t sum = 0;
            for (int r = 0; r < rank_counts[k]; r++) {
                ck_assert_uint_eq(j.bytes[r], j.moments[r]);
                sum += j.bytes[r];
            }
            ck_assert_uint_eq(sum, bytes / 3 * 2 * (sharded ? 1 : (size_t)rank_counts[k]));
            free(j.values);
        }
    free(one.values);
    tw_device_free(device);
}

START_TEST(ranks_give_the_bits_of_one) {
    compare_with_one_rank(TW_F32, -1);
    compare_with_one_rank(TW_BF16, -1);
}
END_TEST

START_TEST(all_ranks_skip_together) {
    compare_with_one_rank(TW_F32, 2);
    compare_with_one_rank(TW_BF16, 0);
}
END_TEST

/* What is queued and read later says the same. */
static void check_queued(tw_gradient_norm *norm, const tw_gradient_report *expected) {
    tw_gradient_report report;
    TW_ASSERT_OK(tw_gradient_norm_queue(norm, &(tw_gradient_rule_config){0}, NULL));
    tw_gradient_found found = *tw_gradient_norm_found(norm); /* the CPU's memory */
    TW_ASSERT_OK(tw_gradient_norm_report(norm, &found, &report));
    ck_assert_str_eq(report.offender, expected->offender);
    ck_assert_int_eq(report.rank, expected->rank);
}

/* A loss that is not finite spoils every rank's part: no rank is named. */
static void spoil_all(tw_comm *c, void *argument) {
    job *j = argument;
    tw_param *p[N];
    tw_params *set = make_params(j, p);
    tw_partition *partition;
    tw_gradient_norm *norm;
    tw_gradient_report report;
    TW_ASSERT_OK(tw_partition_create(tw_params_trainable(set), c->rank, c->ranks, 9000, &partition));
    TW_ASSERT_OK(tw_gradient_norm_create(set, j->device, c, partition, &norm));
    for (int64_t i = 0; i < tw_params_trainable(set); i++) tw_params_gradients(set)[i] = NAN;
    TW_ASSERT_OK(tw_gradient_norm_measure(norm, &report));
    ck_assert_str_eq(report.offender, "a.weight");
    ck_assert_int_eq(report.rank, c->ranks == 1 ? 0 : -1);
    check_queued(norm, &report);
    /* Finite, but its square is not: only the sum shows it, and the largest element's owner is named. */
    for (int64_t i = 0; i < tw_params_trainable(set); i++) tw_params_gradients(set)[i] = 0;
    int64_t large = p[1]->offset + 700;
    for (int k = 0; k < 4; k++) tw_params_gradients(set)[large + k] = 3e38f;
    TW_ASSERT_OK(tw_gradient_norm_measure(norm, &report));
    ck_assert_str_eq(report.offender, "a.bias");
    ck_assert_int_eq(report.rank, tw_partition_owner_of(partition, large));
    check_queued(norm, &report);
    /* One rank's part alone, as it is behind the reduction: the sum with its owner, its own part with it. */
    int bad = c->ranks - 1, owner = tw_partition_owner_of(partition, large);
    for (int64_t i = 0; i < tw_params_trainable(set); i++) tw_params_gradients(set)[i] = 0;
    if (c->rank == bad || c->rank == owner) tw_params_gradients(set)[large] = NAN;
    TW_ASSERT_OK(tw_gradient_norm_measure(norm, &report));
    ck_assert_str_eq(report.offender, "a.bias");
    ck_assert_int_eq(report.rank, bad);
    check_queued(norm, &report);
    tw_gradient_norm_free(norm);
    tw_partition_free(partition);
    tw_params_free(set);
}

START_TEST(several_ranks_at_fault) {
    job j = {.type = TW_F32};
    TW_ASSERT_OK(tw_device_cpu(1, &j.device));
    for (size_t k = 0; k < sizeof rank_counts / sizeof *rank_counts; k++)
        thread_comm_run(rank_counts[k], j.device, spoil_all, &j);
    tw_device_free(j.device);
}
END_TEST

/* Moments that one number of ranks kept go into another number of ranks. */
static void restore(tw_comm *c, void *argument) {
    const job *saved = argument;
    trainee t = make_trainee(c, saved, 5000);
    for (int i = 0; i < N; i++) {
        if (i == FROZEN) continue;
        TW_ASSERT_OK(tw_adamw_set_moment(t.adamw, t.p[i], false, saved->m + t.p[i]->offset));
        TW_ASSERT_OK(tw_adamw_set_moment(t.adamw, t.p[i], true, saved->v + t.p[i]->offset));
    }
    float *out = c->rank == 0 ? calloc((size_t)t.trainable, sizeof *out) : NULL;
    for (int second = 0; second < 2; second++) {
        TW_ASSERT_OK(tw_adamw_get_moments(t.adamw, second, out));
        if (out) ck_assert_mem_eq(out, second ? saved->v : saved->m, (size_t)t.trainable * sizeof *out);
    }
    free(out);
    free_trainee(&t);
}

START_TEST(moments_move_between_numbers_of_ranks) {
    job j = {.type = TW_F32, .sharded = true, .bad_step = -1};
    TW_ASSERT_OK(tw_device_cpu(1, &j.device));
    thread_comm_run(3, j.device, work, &j);
    for (size_t k = 0; k < sizeof rank_counts / sizeof *rank_counts; k++)
        thread_comm_run(rank_counts[k], j.device, restore, &j);
    free(j.values);
    tw_device_free(j.device);
}
END_TEST

TW_TEST_MAIN("adamw_ranks", ranks_give_the_bits_of_one, all_ranks_skip_together, several_ranks_at_fault,
             moments_move_between_numbers_of_ranks)
