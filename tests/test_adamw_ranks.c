/* The optimizer over ranks: sharded, unsharded and on one rank. The ranks are threads. */
#include "adamw_threads.h"

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

TW_TEST_MAIN("adamw_ranks", ranks_give_the_bits_of_one, all_ranks_skip_together, several_ranks_at_fault,
             state_moves_between_numbers_of_ranks)
