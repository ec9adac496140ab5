/* Threads of ranks that share hosts, and who is bound beside idle cores: on made-up hosts, and what this
 * machine says of itself. */
#include "train/cores.h"

#include "tests/thread_comm.h"
#include "tests/tw_test.h"

enum { MOST = 64 };

/* A rank on `machine` that may run on the cores from first on, `count` of them. */
static tw_cores rank_on(const char *machine, int first, int count) {
    tw_cores c = {0};
    snprintf(c.machine.id, sizeof c.machine.id, "%s", machine);
    snprintf(c.machine.host, sizeof c.machine.host, "%s", machine);
    for (int i = 0; i < count; i++) tw_affinity_add(&c.mine, first + i);
    return c;
}

START_TEST(ranks_share_what_they_have_in_common) {
    tw_cores all[MOST];
    for (int n = 1; n <= 12; n++) { /* as with --bind-to none on 12 cores */
        for (int r = 0; r < n; r++) all[r] = rank_on("a", 0, 12);
        ck_assert_int_eq(tw_cores_share(all, n), 12 / n);
    }
    for (int r = 0; r < 30; r++) all[r] = rank_on("a", 0, 12);
    ck_assert_int_eq(tw_cores_share(all, 30), 1);
    /* Open MPI's binding of four ranks to two sockets of 16 cores, in turn. */
    for (int r = 0; r < 4; r++) all[r] = rank_on("a", r % 2 * 16, 16);
    ck_assert_int_eq(tw_cores_share(all, 4), 8);
    /* Disjoint shares, as rank.sh's: nothing to divide. The rank that gets least decides: 2, 3 and 3 of 8. */
    all[0] = rank_on("a", 0, 2), all[1] = rank_on("a", 2, 3), all[2] = rank_on("a", 5, 3);
    ck_assert_int_eq(tw_cores_share(all, 3), 2);
    /* 0-5 and 4-9: two are shared. */
    all[0] = rank_on("a", 0, 6), all[1] = rank_on("a", 4, 6);
    ck_assert_int_eq(tw_cores_share(all, 2), 5);
}
END_TEST

START_TEST(hosts_do_not_share) {
    tw_cores all[MOST];
    for (int r = 0; r < 6; r++) all[r] = rank_on(r < 4 ? "a" : "b", 0, 16);
    ck_assert_int_eq(tw_cores_share(all, 6), 4); /* 4 of a, 8 of b */
    /* Two containers of one machine, by other names. */
    for (int r = 0; r < 2; r++)
        all[r] = rank_on("a", 0, 16), snprintf(all[r].machine.host, sizeof all[r].machine.host, "pod-%d", r);
    ck_assert_int_eq(tw_cores_share(all, 2), 8);
    /* Ranks whose number is given take no part in it, but their cores do. */
    all[1].threads = 3;
    ck_assert_int_eq(tw_cores_share(all, 2), 8);
    all[1].threads = 0, all[0].threads = 3, all[1] = rank_on("b", 0, 5);
    ck_assert_int_eq(tw_cores_share(all, 2), 5);
    all[0] = rank_on("a", 0, 0); /* the system did not say */
    ck_assert_int_eq(tw_cores_share(all, 1), 1);
}
END_TEST

/* Containers of `cores` cores' time on a machine of 64. */
static tw_cores rank_in(uint64_t group, double cores) {
    tw_cores c = rank_on("a", 0, 64);
    c.quota = (tw_cgroup_limit){.group = group, .amount = cores};
    return c;
}

START_TEST(quotas_are_shared_by_those_in_the_group) {
    tw_cores all[MOST];
    all[0] = rank_in(1, 4);
    ck_assert_int_eq(tw_cores_share(all, 1), 4);
    all[0].quota.amount = 2.25; /* two threads would leave some of it */
    ck_assert_int_eq(tw_cores_share(all, 1), 3);
    all[0].quota.amount = 0.5;
    ck_assert_int_eq(tw_cores_share(all, 1), 1);
    all[0].quota.amount = 1e12;
    ck_assert_int_eq(tw_cores_share(all, 1), 64);
    /* One container of four ranks; four containers of one; of which the smallest decides. */
    for (int r = 0; r < 4; r++) all[r] = rank_in(1, 8);
    ck_assert_int_eq(tw_cores_share(all, 4), 2);
    for (int r = 0; r < 4; r++) all[r] = rank_in(1 + (uint64_t)r, 8);
    ck_assert_int_eq(tw_cores_share(all, 4), 8);
    all[2].quota.amount = 3;
    ck_assert_int_eq(tw_cores_share(all, 4), 3);
    for (int r = 0; r < 4; r++) all[r] = rank_in(1 + (uint64_t)r, 20); /* more than there is */
    ck_assert_int_eq(tw_cores_share(all, 4), 16);
    for (int r = 0; r < 4; r++) all[r] = rank_in(1, 2); /* more ranks than cores */
    ck_assert_int_eq(tw_cores_share(all, 4), 1);
    /* The same number on another machine is another group. */
    for (int r = 0; r < 2; r++) all[r] = rank_in(1, 6), all[r].machine.id[0] = (char)('a' + r);
    ck_assert_int_eq(tw_cores_share(all, 2), 6);
    /* Bound by mpirun beside cores whose time the quota does not allow. */
    int32_t idle = 0;
    for (int r = 0; r < 2; r++)
        all[r] = rank_on("a", r, 1), all[r].launchers = 64, all[r].quota = rank_in(1, 2).quota;
    ck_assert_int_eq(tw_cores_find_bound(all, 2, &idle), -1);
    for (int r = 0; r < 2; r++) all[r].quota.amount = 6;
    ck_assert_int_eq(tw_cores_find_bound(all, 2, &idle), 0);
    ck_assert_int_eq(idle, 4);
}
END_TEST

/* More than the 1,024 of a cpu_set_t, and up to the last. */
START_TEST(large_machines_have_all_their_cores) {
    tw_cores all[MOST];
    for (int r = 0; r < 2; r++) all[r] = rank_on("a", 0, 1500);
    ck_assert_int_eq(tw_cores_share(all, 1), 1500);
    ck_assert_int_eq(tw_cores_share(all, 2), 750);
    all[0] = rank_on("a", 1000, 100), all[1] = rank_on("a", 1050, 100);
    ck_assert_int_eq(tw_cores_share(all, 2), 75);
    all[0] = rank_on("a", TW_AFFINITY_MOST - 3, 3);
    ck_assert_int_eq(tw_cores_share(all, 1), 3);
    all[0] = rank_on("a", 2000, 1), all[1] = rank_on("a", 2001, 1);
    for (int r = 0; r < 2; r++) all[r].launchers = 1200;
    int32_t idle = 0;
    ck_assert_int_eq(tw_cores_find_bound(all, 2, &idle), 0);
    ck_assert_int_eq(idle, 1198);
    /* What the system says is what sched_getaffinity says, where a cpu_set_t is enough. */
    cpu_set_t set;
    tw_affinity read;
    if (sched_getaffinity(0, sizeof set, &set) != 0) TW_SKIP("this machine has more cores than a cpu_set_t");
    tw_affinity_read(0, &read);
    ck_assert_int_eq(tw_affinity_count(&read), CPU_COUNT(&set));
    for (int cpu = 0; cpu < TW_AFFINITY_MOST; cpu++)
        ck_assert(tw_affinity_has(&read, cpu) == (cpu < CPU_SETSIZE && CPU_ISSET((size_t)cpu, &set)));
    ck_assert(read.end > 0 && tw_affinity_has(&read, read.end - 1));
}
END_TEST

START_TEST(bound_ranks_are_found) {
    tw_cores all[MOST];
    int32_t idle = 0;
    /* mpirun -n 2 on 64 cores: a core each. */
    for (int r = 0; r < 2; r++) all[r] = rank_on("a", r, 1), all[r].launchers = 64;
    ck_assert_int_eq(tw_cores_find_bound(all, 2, &idle), 0);
    ck_assert_int_eq(idle, 62);
    /* On two cores none is left over; and where nobody is bound, nothing is said. */
    for (int r = 0; r < 2; r++) all[r].launchers = 2;
    ck_assert_int_eq(tw_cores_find_bound(all, 2, &idle), -1);
    for (int r = 0; r < 2; r++) all[r] = rank_on("a", 0, 16);
    ck_assert_int_eq(tw_cores_find_bound(all, 2, &idle), -1);
    /* Of several hosts, the one with idle cores. */
    for (int r = 0; r < 4; r++)
        all[r] = rank_on(r < 2 ? "a" : "b", r % 2, 1), all[r].launchers = r < 2 ? 2 : 4;
    ck_assert_int_eq(tw_cores_find_bound(all, 4, &idle), 2);
    ck_assert_int_eq(idle, 2);
}
END_TEST

typedef struct outcome {
    int asked[3], got[3];
} outcome;

static void agree(tw_comm *c, void *context) {
    outcome *o = context;
    o->got[c->rank] = o->asked[c->rank];
    TW_ASSERT_OK(tw_cores_agree(c, &o->got[c->rank]));
}

START_TEST(ranks_of_this_machine_agree) {
    int cores = tw_cores_here(), share = cores / 3;
    ck_assert_int_ge(cores, 1);
    outcome o = {.asked = {0, 0, 0}};
    thread_comm_run(3, NULL, agree, &o);
    for (int r = 0; r < 3; r++) ck_assert_int_eq(o.got[r], share > 1 ? share : 1);
    o = (outcome){.asked = {4, 0, 7}};
    thread_comm_run(3, NULL, agree, &o);
    ck_assert(o.got[0] == 4 && o.got[2] == 7 && o.got[1] == (share > 1 ? share : 1));
    tw_comm *alone;
    int threads = 0;
    TW_ASSERT_OK(tw_comm_self(NULL, &alone));
    TW_ASSERT_OK(tw_cores_agree(alone, &threads));
    ck_assert_int_eq(threads, cores);
    tw_comm_free(alone);
}
END_TEST

TW_TEST_MAIN("cores", ranks_share_what_they_have_in_common, hosts_do_not_share,
             quotas_are_shared_by_those_in_the_group, large_machines_have_all_their_cores,
             bound_ranks_are_found, ranks_of_this_machine_agree)
