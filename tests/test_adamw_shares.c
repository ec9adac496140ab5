/* What sharding the optimizer over ranks saves, and masters that lie in shares. */
#include "adamw_threads.h"
#include "train/params_hash.h"

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

TW_TEST_MAIN("adamw_shares", memory_and_traffic_fall, shares_are_compared_and_kept_apart)
