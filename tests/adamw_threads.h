/* A few steps of the optimizer on ranks that are threads: a set of parameters with everything that ranks must
 * agree on, gradients whose sum does not depend on the number of ranks, and what every rank must end with. */
#ifndef TW_TESTS_ADAMW_THREADS_H
#define TW_TESTS_ADAMW_THREADS_H

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
enum { N = 7, FROZEN = 3, STEPS = 4, STATISTIC = 37 };
static const int rank_counts[] = {1, 2, 3, 4, 7};

/* One run of a few steps, and what every rank must end with. */
typedef struct job {
    tw_device *device;
    tw_dtype type;
    bool sharded;
    bool queued;          /* inspection and step in one, as on a device that the host does not wait for */
    int64_t bucket_bytes; /* 0: 9000 */
    int bad_step; /* a step at which rank bad_rank's own gradient of b.weight is not finite; -1: none */
    int bad_rank;
    const char *first;     /* the parameter at the slab's start */
    double norms[STEPS];   /* of rank 0 */
    float *values, *m, *v; /* of rank 0 at the end; (trainable) */
    float statistic[STATISTIC];
    size_t bytes[THREAD_COMM_MOST], moments[THREAD_COMM_MOST];
} job;

/* What a rank trains. */
typedef struct trainee {
    tw_param *p[N], *statistic, *still;
    tw_params *set;
    tw_partition *partition;
    tw_adamw *adamw;
    int64_t trainable;
} trainee;

static inline trainee make_params(const job *j) {
    trainee t = {0};
    int matched;
    TW_ASSERT_OK(tw_params_create(&t.set));
    for (int i = 0; i < N; i++) {
        int64_t shape[] = {shapes[i].rows, shapes[i].cols};
        int ndim = !shapes[i].rows ? 0 : shapes[i].cols ? 2 : 1;
        TW_ASSERT_OK(
            tw_params_add(t.set, shapes[i].name, ndim, shape, (tw_init){TW_INIT_NORMAL, 0.3f}, &t.p[i]));
    }
    TW_ASSERT_OK(tw_params_add_statistic(t.set, "running_mean", STATISTIC, 0.5f, &t.statistic));
    TW_ASSERT_OK(tw_params_add_statistic(t.set, "frozen.running_mean", 5, 0.25f, &t.still));
    TW_ASSERT_OK(tw_params_freeze(t.set, "frozen*", &matched));
    TW_ASSERT_OK(tw_params_lay_out(t.set, j->type));
    t.trainable = tw_params_trainable(t.set);
    return t;
}

/* A set of one rank. */
static inline trainee make_whole(const job *j) {
    trainee t = make_params(j);
    TW_ASSERT_OK(tw_params_allocate(t.set, j->device, j->type, true));
    TW_ASSERT_OK(tw_params_initialise(t.set, 11));
    return t;
}

/* Parts whose sum over the ranks is the same for any number of ranks, to the bit: rank 0 has all of it, the
 * others have numbers that cancel. */
static inline void set_gradients(const tw_comm *c, tw_params *set, tw_param *const *p, int step) {
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

/* Statistics' gradients are summed already; the step moves the values by them. */
static inline void set_statistic(const trainee *t, int step) {
    for (int k = 0; k < STATISTIC; k++) ((float *)t->statistic->grad.data)[k] = 0.125f * (float)(k + step);
}

static inline void one_step(tw_comm *c, const job *j, const trainee *all, int t, double *norm) {
    tw_step step = {0};
    tw_gradient_report report;
    set_gradients(c, all->set, all->p, t);
    set_statistic(all, t);
    bool bad = t == j->bad_step;
    if (bad && c->rank == j->bad_rank)
        for (int64_t k = 5; k < all->p[2]->count; k++)
            ((float *)all->p[2]->grad.data)[k] = k % 2 ? NAN : -INFINITY;
    for (int b = 0; b < all->partition->count; b++)
        TW_ASSERT_OK(tw_partition_reduce(all->partition, c, b, tw_params_gradients(all->set)));
    TW_ASSERT_OK(c->sync(c));
    int64_t steps = tw_adamw_steps(all->adamw);
    step.lr = 1e-2f;
    if (j->queued) {
        TW_ASSERT_OK(tw_adamw_queue(all->adamw, &step));
        TW_ASSERT_OK(tw_adamw_collect(all->adamw, tw_adamw_found(all->adamw), &report));
    } else {
        TW_ASSERT_OK(tw_adamw_inspect(all->adamw, &report));
    }
    ck_assert_int_eq(report.offender != NULL, bad);
    ck_assert_int_eq(!isfinite(report.norm), bad);
    if (bad) ck_assert_str_eq(report.offender, "b.weight");
    if (bad) ck_assert_int_eq(report.rank, j->bad_rank);
    if (!j->queued) TW_ASSERT_OK(tw_adamw_step(all->adamw, &report, 1e-2, &step));
    ck_assert_int_eq(tw_adamw_steps(all->adamw), steps + !bad);
    *norm = report.norm;
}

/* All masters, on every rank: (trainable), to be freed. */
static inline float *masters_of(tw_comm *c, const trainee *t) {
    size_t bytes = (size_t)t->trainable * sizeof(float);
    float *all = malloc(bytes);
    if (tw_params_in_shares(t->set))
        TW_ASSERT_OK(tw_adamw_get_masters(t->adamw, c->rank == 0 ? all : NULL));
    else
        memcpy(all, tw_params_values(t->set), bytes);
    TW_ASSERT_OK(c->broadcast(c, all, bytes, 0));
    return all;
}

/* All ranks compute with the same values and copies, and keep of the masters what they should. */
static inline void check_equal(tw_comm *c, const trainee *t) {
    float *all = masters_of(c, t);
    const uint16_t *copies = tw_params_copies(t->set);
    bool shares = tw_params_in_shares(t->set);
    int64_t whole = shares ? tw_params_vectors(t->set) : t->trainable;
    ck_assert_mem_eq(all, tw_params_values(t->set), (size_t)whole * sizeof *all);
    for (int64_t i = tw_params_vectors(t->set); copies && i < t->trainable; i++)
        ck_assert_uint_eq(copies[i], tw_to_bf16(all[i]));
    for (int i = 0; shares && i < t->partition->count; i++) {
        const tw_bucket *b = &t->partition->buckets[i];
        ck_assert_mem_eq(all + b->own, tw_params_masters(t->set) + b->state,
                         (size_t)b->own_count * sizeof *all);
    }
    free(all);
    for (int k = 0; k < 5; k++) ck_assert_float_eq(((const float *)t->still->value.data)[k], 0.25f);
}

static inline trainee make_trainee(tw_comm *c, const job *j, tw_device *device, int64_t bucket_bytes) {
    const tw_adamw_config config = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 2, 1.0f, 4.6052f};
    trainee t = make_params(j);
    bool shares = j->sharded && j->type == TW_BF16 && c->ranks > 1;
    TW_ASSERT_OK(tw_partition_create(t.trainable, c->rank, c->ranks, bucket_bytes, &t.partition));
    if (shares) TW_ASSERT_OK(tw_partition_share(t.partition, t.set));
    TW_ASSERT_OK(tw_params_allocate(t.set, device, j->type, true));
    TW_ASSERT_OK(tw_params_initialise(t.set, 11));
    ck_assert_int_eq(tw_params_in_shares(t.set), shares);
    TW_ASSERT_OK(tw_adamw_create_ranks(t.set, device, c, t.partition, j->sharded, &config, &t.adamw));
    return t;
}

static inline void free_trainee(trainee *t) {
    tw_adamw_free(t->adamw);
    tw_partition_free(t->partition);
    tw_params_free(t->set);
}

static inline void work(tw_comm *c, void *argument) {
    job *j = argument;
    trainee one = make_trainee(c, j, j->device, j->bucket_bytes ? j->bucket_bytes : 9000);
    ck_assert_int_ge(one.partition->count, 3);
    for (int t = 0; t < STEPS; t++) {
        double norm;
        one_step(c, j, &one, t, &norm);
        if (c->rank == 0) j->norms[t] = norm;
    }
    check_equal(c, &one);
    j->bytes[c->rank] = tw_adamw_bytes(one.adamw);
    j->moments[c->rank] = (size_t)(j->sharded ? one.partition->state : one.trainable) * 8;
    float *out = c->rank == 0 ? calloc((size_t)one.trainable * 3, sizeof *out) : NULL;
    float *masters = masters_of(c, &one);
    if (out) memcpy(j->values = out, masters, (size_t)one.trainable * sizeof *out);
    if (out) memcpy(j->statistic, one.statistic->value.data, sizeof j->statistic);
    free(masters);
    TW_ASSERT_OK(tw_adamw_get_moments(one.adamw, false, out ? j->m = out + one.trainable : NULL));
    TW_ASSERT_OK(tw_adamw_get_moments(one.adamw, true, out ? j->v = out + 2 * one.trainable : NULL));
    free_trainee(&one);
}

#endif
