/* What of a parameter's moments a rank keeps: nothing else need be given to it, of a run that is resumed. */
#include "optim/adamw.h"
#include "thread_comm.h"
#include "tw_test.h"

static const struct {
    const char *name;
    int64_t count;
} shapes[] = {{"a.weight", 50 * 37}, {"a.bias", 1}, {"b.weight", 30000}, {"frozen", 4000}, {"c.bias", 5000}};
enum { N = 5, FROZEN = 3, BUCKET_BYTES = 5 * 4 * TW_PARTITION_UNIT };

typedef struct rig {
    tw_params *set;
    tw_param *p[N];
    tw_partition *partition;
    tw_adamw *adamw;
} rig;

static rig open_rig(tw_comm *c, bool sharded) {
    const tw_adamw_config config = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-6f};
    rig r;
    int matched;
    TW_ASSERT_OK(tw_params_create(&r.set));
    for (int i = 0; i < N; i++)
        TW_ASSERT_OK(tw_params_add(r.set, shapes[i].name, 1, &shapes[i].count, (tw_init){0}, &r.p[i]));
    TW_ASSERT_OK(tw_params_freeze(r.set, "frozen", &matched));
    TW_ASSERT_OK(tw_params_allocate(r.set, c->device, TW_F32, true));
    TW_ASSERT_OK(
        tw_partition_create(tw_params_trainable(r.set), c->rank, c->ranks, BUCKET_BYTES, &r.partition));
    TW_ASSERT_OK(tw_adamw_create_ranks(r.set, c->device, c, r.partition, sharded, &config, &r.adamw));
    return r;
}

static void close_rig(rig *r) {
    tw_adamw_free(r->adamw);
    tw_partition_free(r->partition);
    tw_params_free(r->set);
}

static float moment(bool second, int64_t at) {
    return (float)at + (second ? 0.5f : 0.25f);
}

/* Its runs are this rank's elements of the parameter, each once and from the first to the last. */
static void check_runs(const rig *r, const tw_comm *c, const tw_param *p, bool sharded) {
    int64_t first = 0, count, at = 0;
    while ((count = tw_adamw_next_kept(r->adamw, p, at, &first)) > 0) {
        ck_assert(first >= at && first + count <= p->count);
        for (int64_t k = at; k < first + count; k++) {
            bool own = !sharded || tw_partition_owner_of(r->partition, p->offset + k) == c->rank;
            ck_assert_int_eq(own, k >= first);
        }
        at = first + count;
    }
    for (; sharded && at < p->count; at++)
        ck_assert_int_ne(tw_partition_owner_of(r->partition, p->offset + at), c->rank);
    ck_assert_int_eq(tw_adamw_next_kept(r->adamw, p, p->count, &first), 0);
    if (!sharded) {
        ck_assert_int_eq(tw_adamw_next_kept(r->adamw, p, 0, &first), p->count);
        ck_assert_int_eq(first, 0);
    }
}

/* A rank is given its runs alone, each through a block of that size. */
static void give_own(const rig *r, const tw_param *p, bool second) {
    int64_t first = 0, count;
    for (int64_t at = 0; (count = tw_adamw_next_kept(r->adamw, p, at, &first)) > 0; at = first + count) {
        float *values = malloc((size_t)count * sizeof *values);
        for (int64_t k = 0; k < count; k++) values[k] = moment(second, p->offset + first + k);
        TW_ASSERT_OK(tw_adamw_set_moment_range(r->adamw, p, second, first, values, count));
        free(values);
    }
}

/* Every rank is given all, in parts that no piece begins or ends with. */
static void give_parts(const rig *r, const tw_param *p, bool second) {
    enum { PART = 1237 };
    float values[PART];
    for (int64_t first = 0; first < p->count; first += PART) {
        int64_t count = p->count - first < PART ? p->count - first : PART;
        for (int64_t k = 0; k < count; k++) values[k] = moment(second, p->offset + first + k);
        TW_ASSERT_OK(tw_adamw_set_moment_range(r->adamw, p, second, first, values, count));
    }
}

static void check_moments(const rig *r, const tw_comm *c) {
    float *all = c->rank == 0 ? malloc((size_t)tw_params_trainable(r->set) * sizeof *all) : NULL;
    for (int second = 0; second < 2; second++) {
        TW_ASSERT_OK(tw_adamw_get_moments(r->adamw, second, all));
        for (int i = 0; all && i < N; i++)
            for (int64_t k = r->p[i]->offset; i != FROZEN && k < r->p[i]->offset + r->p[i]->count; k++)
                ck_assert_float_eq(all[k], moment(second, k));
    }
    free(all);
}

static void check_rank(tw_comm *c, void *argument) {
    bool sharded = *(bool *)argument;
    for (int parts = 0; parts < 2; parts++) {
        rig r = open_rig(c, sharded);
        for (int i = 0; i < N; i++) {
            int64_t first;
            float value = 0;
            if (i == FROZEN) {
                ck_assert_int_eq(tw_adamw_next_kept(r.adamw, r.p[i], 0, &first), 0);
                TW_ASSERT_FAILS(tw_adamw_set_moment_range(r.adamw, r.p[i], false, 0, &value, 1),
                                TW_ERR_ARGUMENT, "frozen");
                continue;
            }
            check_runs(&r, c, r.p[i], sharded && c->ranks > 1);
            for (int second = 0; second < 2; second++) (parts ? give_parts : give_own)(&r, r.p[i], second);
            const int64_t n = r.p[i]->count,
                          beyond[][2] = {{-1, 1}, {n, 1}, {0, n + 1}, {1, n}, {0, -1}, {1, INT64_MAX}};
            for (size_t k = 0; k < sizeof beyond / sizeof beyond[0]; k++)
                TW_ASSERT_FAILS(
                    tw_adamw_set_moment_range(r.adamw, r.p[i], true, beyond[k][0], &value, beyond[k][1]),
                    TW_ERR_SHAPE, shapes[i].name);
        }
        check_moments(&r, c);
        close_rig(&r);
    }
}

START_TEST(a_rank_needs_its_own_moments_alone) {
    tw_device *device;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    for (int ranks = 1; ranks <= 7; ranks++)
        for (int how = 0; how < 2; how++) {
            bool sharded = how == 1;
            thread_comm_run(ranks, device, check_rank, &sharded);
        }
    tw_device_free(device);
}
END_TEST

TW_TEST_MAIN("adamw_kept", a_rank_needs_its_own_moments_alone)
