/* The optimizer over ranks: sharded, unsharded and on one rank. The ranks are threads. */
#include "optim/adamw.h"
#include "thread_comm.h"
#include "train/params_hash.h"
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

static trainee make_params(const job *j) {
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
static trainee make_whole(const job *j) {
    trainee t = make_params(j);
    TW_ASSERT_OK(tw_params_allocate(t.set, j->device, j->type, true));
    TW_ASSERT_OK(tw_params_initialise(t.set, 11));
    return t;
}

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

/* Statistics' gradients are summed already; the step moves the values by them. */
static void set_statistic(const trainee *t, int step) {
    for (int k = 0; k < STATISTIC; k++) ((float *)t->statistic->grad.data)[k] = 0.125f * (float)(k + step);
}

static void one_step(tw_comm *c, const job *j, const trainee *all, int t, double *norm) {
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
static float *masters_of(tw_comm *c, const trainee *t) {
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
static void check_equal(tw_comm *c, const trainee *t) {
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

static trainee make_trainee(tw_comm *c, const job *j, tw_device *device, int64_t bucket_bytes) {
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

static void free_trainee(trainee *t) {
    tw_adamw_free(t->adamw);
    tw_partition_free(t->partition);
    tw_params_free(t->set);
}

static void work(tw_comm *c, void *argument) {
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

static int64_t trainable_of(const job *j) {
    trainee t = make_params(j);
    tw_params_free(t.set);
    return t.trainable;
}

/* Norms, values and moments have the bits of one rank, for any number of ranks, sharded or not. */
static void compare_with_one_rank(tw_dtype type, int bad_step, bool queued) {
    tw_device *device;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    job one = {.device = device, .type = type, .queued = queued, .bad_step = bad_step};
    thread_comm_run(1, device, work, &one);
    size_t bytes = (size_t)trainable_of(&one) * 3 * sizeof(float);
    for (size_t k = 1; k < sizeof rank_counts / sizeof *rank_counts; k++)
        for (int how = 0; how < 3; how++) {
            bool sharded = how > 0;
            job j = {.device = device,
                     .type = type,
                     .sharded = sharded,
                     .queued = queued,
                     .bucket_bytes = how == 2 ? 4096 : 0, /* the vectors lie in several buckets */
                     .bad_step = bad_step,
                     .bad_rank = rank_counts[k] - 1};
            thread_comm_run(rank_counts[k], device, work, &j);
            for (int t = 0; t < STEPS; t++)
                ck_assert(t == bad_step ? !isfinite(j.norms[t]) : j.norms[t] == one.norms[t]);
            ck_assert_mem_eq(one.values, j.values, bytes);
            ck_assert_mem_eq(one.statistic, j.statistic, sizeof j.statistic);
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
    for (int queued = 0; queued < 2; queued++) compare_with_one_rank(TW_F32, -1, queued);
    for (int queued = 0; queued < 2; queued++) compare_with_one_rank(TW_BF16, -1, queued);
}
END_TEST

START_TEST(all_ranks_skip_together) {
    for (int queued = 0; queued < 2; queued++) compare_with_one_rank(TW_F32, 2, queued);
    for (int queued = 0; queued < 2; queued++) compare_with_one_rank(TW_BF16, 0, queued);
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
    ck_assert_int_eq(report.ranks, expected->ranks);
}

/* A loss that is not finite spoils every rank's part. */
static void spoil_all(tw_comm *c, void *argument) {
    job *j = argument;
    trainee t = make_whole(j);
    tw_params *set = t.set;
    tw_partition *partition;
    tw_gradient_norm *norm;
    tw_gradient_report report;
    TW_ASSERT_OK(tw_partition_create(tw_params_trainable(set), c->rank, c->ranks, 9000, &partition));
    TW_ASSERT_OK(tw_gradient_norm_create(set, j->device, c, partition, &norm));
    for (int64_t i = 0; i < tw_params_trainable(set); i++) tw_params_gradients(set)[i] = NAN;
    TW_ASSERT_OK(tw_gradient_norm_measure(norm, &report));
    ck_assert_str_eq(report.offender, j->first);
    ck_assert_int_eq(report.rank, 0);
    ck_assert_int_eq(report.ranks, c->ranks);
    check_queued(norm, &report);
    /* Finite, but its square is not: only the sum shows it, and the largest element's owner is named. */
    for (int64_t i = 0; i < tw_params_trainable(set); i++) tw_params_gradients(set)[i] = 0;
    int64_t large = t.p[1]->offset + 700;
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
    ck_assert_int_eq(report.ranks, 1);
    check_queued(norm, &report);
    tw_gradient_norm_free(norm);
    tw_partition_free(partition);
    tw_params_free(set);
}

START_TEST(several_ranks_at_fault) {
    job j = {.type = TW_F32, .first = "a.weight"};
    TW_ASSERT_OK(tw_device_cpu(1, &j.device));
    for (size_t k = 0; k < sizeof rank_counts / sizeof *rank_counts; k++)
        thread_comm_run(rank_counts[k], j.device, spoil_all, &j);
    j.type = TW_BF16, j.first = "a.bias"; /* vectors come first */
    thread_comm_run(3, j.device, spoil_all, &j);
    tw_device_free(j.device);
}
END_TEST

/* Moments and masters that one number of ranks kept go into another number of ranks. */
static void restore(tw_comm *c, void *argument) {
    const job *saved = argument;
    trainee t = make_trainee(c, saved, saved->device, 5000);
    for (int i = 0; i < N; i++) {
        if (i == FROZEN) continue;
        TW_ASSERT_OK(tw_params_set(t.set, t.p[i], saved->values + t.p[i]->offset));
        TW_ASSERT_OK(tw_adamw_set_moment(t.adamw, t.p[i], false, saved->m + t.p[i]->offset));
        TW_ASSERT_OK(tw_adamw_set_moment(t.adamw, t.p[i], true, saved->v + t.p[i]->offset));
    }
    float *out = c->rank == 0 ? calloc((size_t)t.trainable, sizeof *out) : NULL;
    for (int second = 0; second < 2; second++) {
        TW_ASSERT_OK(tw_adamw_get_moments(t.adamw, second, out));
        if (out) ck_assert_mem_eq(out, second ? saved->v : saved->m, (size_t)t.trainable * sizeof *out);
    }
    free(out);
    out = masters_of(c, &t);
    ck_assert_mem_eq(out, saved->values, (size_t)t.trainable * sizeof *out);
    free(out);
    check_equal(c, &t);
    free_trainee(&t);
}

START_TEST(state_moves_between_numbers_of_ranks) {
    for (int type = TW_F32; type <= TW_BF16; type++) {
        job j = {.type = (tw_dtype)type, .sharded = true, .bad_step = -1};
        TW_ASSERT_OK(tw_device_cpu(1, &j.device));
        thread_comm_run(3, j.device, work, &j);
        for (size_t k = 0; k < sizeof rank_counts / sizeof *rank_counts; k++)
            thread_comm_run(rank_counts[k], j.device, restore, &j);
        free(j.values);
        tw_device_free(j.device);
    }
}
END_TEST

/* A device that counts what is allocated on it; it has no memory but the other's. */
typedef struct counter {
    tw_device device; /* first, so that a tw_device * is one */
    tw_device *real;
    size_t bytes;
} counter;

static tw_status count_alloc(tw_device *d, size_t bytes, void **out) {
    counter *n = (counter *)d;
    n->bytes += bytes;
    return n->real->alloc(n->real, bytes, out);
}

/* A rank is a thread: what its all_gathers move in all, in elements of f32, and the real one. */
static _Thread_local int64_t gathered;
static _Thread_local tw_status (*real_all_gather)(tw_comm *, const float *, float *, const int64_t *);

static tw_status count_all_gather(tw_comm *c, const float *in, float *out, const int64_t *counts) {
    for (int r = 0; r < c->ranks; r++) gathered += counts[r];
    return real_all_gather(c, in, out, counts);
}

/* What a step's all_gathers move, if there is another rank: a number a unit for the norm, and of the new
 * values what is computed with. */
static void count_traffic(tw_comm *c, const job *j, const trainee *t) {
    int64_t units = (t->trainable + TW_PARTITION_UNIT - 1) / TW_PARTITION_UNIT;
    bool copies = j->sharded && j->type == TW_BF16;
    int64_t wanted = copies ? t->trainable / 2 + tw_params_vectors(t->set) : t->trainable;
    double norm;
    real_all_gather = c->all_gather;
    c->all_gather = count_all_gather;
    gathered = 0;
    one_step(c, j, t, 0, &norm);
    c->all_gather = real_all_gather;
    ck_assert_int_eq(gathered, c->ranks > 1 ? units + wanted : 0); /* not sharded: the gradients */
}

static void count_memory(tw_comm *c, void *argument) {
    const job *j = argument;
    counter n = {.device = *j->device, .real = j->device};
    n.device.alloc = count_alloc;
    trainee t = make_trainee(c, j, &n.device, 4096);
    size_t p = (size_t)t.trainable, v = (size_t)tw_params_vectors(t.set), own = (size_t)t.partition->state;
    bool shares = j->sharded && c->ranks > 1, half = j->type == TW_BF16;
    size_t frozen = half ? 4 * (16 + 48) + 2 * (16 + 48 + 96) : 4 * (16 + 48 + 96),
           statistics = 4 * 48; /* frozen.*; a gradient */
    size_t masters = half && shares ? 4 * v + 4 * own : 4 * p;
    size_t weights = (half ? 6 : 4) * p + masters + frozen + statistics, moments = 8 * (shares ? own : p);
    ck_assert_uint_eq(tw_params_bytes(t.set), weights);
    ck_assert_uint_eq(tw_adamw_bytes(t.adamw), moments);
    ck_assert_uint_ge(n.bytes, weights + moments);
    ck_assert_uint_lt(n.bytes, weights + moments + 2048); /* segments, norms */
    count_traffic(c, j, &t);
    free_trainee(&t);
}

START_TEST(memory_and_traffic_fall) {
    job j = {.bad_step = -1};
    TW_ASSERT_OK(tw_device_cpu(1, &j.device));
    for (int how = 0; how < 4; how++)
        for (size_t k = 0; k < sizeof rank_counts / sizeof *rank_counts; k++) {
            j.type = how < 2 ? TW_F32 : TW_BF16;
            j.sharded = how % 2;
            thread_comm_run(rank_counts[k], j.device, count_memory, &j);
        }
    tw_device_free(j.device);
}
END_TEST

/* Ranks compare the f32 values that they were given, also those that they did not keep and that bf16 does not
 * tell apart. */
static void compare_hashes(tw_comm *c, void *argument) {
    const job *j = argument;
    trainee t = make_trainee(c, j, j->device, 9000);
    uint64_t hash[2] = {1, 1}, all[2 * THREAD_COMM_MOST];
    const tw_param *weight = t.p[5];
    float *values = malloc((size_t)weight->count * sizeof *values);
    TW_ASSERT_OK(tw_params_hash(t.set, &hash[0]));
    for (int64_t k = 0; k < weight->count; k++) values[k] = 1.0f;
    if (c->rank == 1) values[weight->count - 1] = nextafterf(1.0f, 2.0f);
    ck_assert_uint_eq(tw_to_bf16(values[weight->count - 1]), tw_to_bf16(1.0f));
    TW_ASSERT_OK(tw_params_set(t.set, t.p[5], values));
    TW_ASSERT_OK(tw_params_hash(t.set, &hash[1]));
    TW_ASSERT_OK(c->gather_all(c, hash, sizeof hash, all));
    for (int r = 0; r < c->ranks; r++) {
        ck_assert_uint_eq(all[2 * r], all[0]);
        ck_assert_int_eq(all[2 * r + 1] == all[1], r != 1);
    }
    TW_ASSERT_FAILS(tw_params_get(t.set, weight, values), TW_ERR_ARGUMENT, "c.weight: its f32 values");
    ck_assert_ptr_null(tw_params_host(t.set, weight));
    TW_ASSERT_OK(tw_params_get(t.set, t.p[6], values)); /* a scalar is whole */
    ck_assert_float_eq(values[0], ((const float *)t.p[6]->value.data)[0]);
    free(values);
    free_trainee(&t);
}

static void refuse_whole_masters(tw_comm *c, void *argument) {
    const job *j = argument;
    const tw_adamw_config config = {0};
    trainee t = make_whole(j);
    TW_ASSERT_OK(tw_partition_create(t.trainable, c->rank, c->ranks, 9000, &t.partition));
    TW_ASSERT_FAILS(tw_adamw_create_ranks(t.set, j->device, c, t.partition, true, &config, &t.adamw),
                    TW_ERR_ARGUMENT, "masters are in shares if and only if");
    TW_ASSERT_FAILS(tw_partition_share(t.partition, t.set), TW_ERR_ARGUMENT, "put in shares once, in bf16");
    TW_ASSERT_OK(tw_adamw_create_ranks(t.set, j->device, c, t.partition, false, &config, &t.adamw));
    TW_ASSERT_FAILS(tw_adamw_get_masters(t.adamw, NULL), TW_ERR_ARGUMENT, "every rank has all of them");
    free_trainee(&t);
}

START_TEST(shares_are_compared_and_kept_apart) {
    job j = {.type = TW_BF16, .sharded = true, .bad_step = -1};
    TW_ASSERT_OK(tw_device_cpu(1, &j.device));
    thread_comm_run(3, j.device, compare_hashes, &j);
    thread_comm_run(2, j.device, refuse_whole_masters, &j);
    tw_device_free(j.device);
}
END_TEST

TW_TEST_MAIN("adamw_ranks", ranks_give_the_bits_of_one, all_ranks_skip_together, several_ranks_at_fault,
             state_moves_between_numbers_of_ranks, memory_and_traffic_fall,
             shares_are_compared_and_kept_apart)
