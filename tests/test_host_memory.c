/* Shares of memory that ranks may take, on made-up hosts, and what this one says. */
#include "train/host_memory.h"

#include "tests/fake_system.h"
#include "tests/thread_comm.h"

#include <sys/sysinfo.h>

static tw_host_memory rank_on(const char *machine, double available, uint64_t group, double left) {
    tw_host_memory m = {.available = available, .group = {.group = group, .amount = left}};
    snprintf(m.machine.id, sizeof m.machine.id, "%s", machine);
    return m;
}

static void expect_share(const tw_host_memory *all, int ranks, int r, double expected) {
    double share;
    ck_assert(tw_host_memory_share(all, ranks, r, &share));
    ck_assert_double_eq(share, expected);
}

START_TEST(ranks_of_a_machine_share) {
    tw_host_memory all[6];
    double share;
    for (int r = 0; r < 6; r++) all[r] = rank_on(r < 4 ? "a" : "b", 96, 0, 0);
    expect_share(all, 6, 0, 24);
    expect_share(all, 6, 5, 48);
    /* Of containers, each rank has its own limit, and its share of the machine. */
    for (int r = 0; r < 4; r++) all[r].group = (tw_cgroup_limit){.group = 7 + (uint64_t)r, .amount = 20};
    expect_share(all, 6, 0, 20);
    all[0].group.amount = 50;
    expect_share(all, 6, 0, 24);
    /* Two in one container share its limit; a number on another machine is another group. */
    all[0].group = all[1].group = all[4].group = (tw_cgroup_limit){.group = 7, .amount = 30};
    expect_share(all, 6, 1, 15);
    expect_share(all, 6, 4, 30);
    expect_share(all, 6, 5, 48);
    /* Nothing left is known, nothing said is not. */
    all[0].group.amount = 0;
    expect_share(all, 6, 0, 0);
    all[0].available = 0;
    ck_assert(!tw_host_memory_share(all, 6, 0, &share));
}
END_TEST

START_TEST(reads_what_the_system_says) {
    fake_system s;
    tw_host_memory m;
    fake_open(&s);
    tw_host_memory_look(s.root, &m);
    ck_assert_double_eq(m.available, 0);
    fake_file(&s, "/proc/meminfo",
              "MemTotal:  9000 kB\nMemFree:  1 kB\nMemAvailable:    5000 kB\nCached: 2 kB\n");
    fake_file(&s, "/proc/self/cgroup", "0::/\n");
    fake_file(&s, "/proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    fake_file(&s, "/sys/fs/cgroup/memory.max", "3000000\n");
    fake_file(&s, "/sys/fs/cgroup/memory.current", "1000000\n");
    tw_host_memory_look(s.root, &m);
    ck_assert_double_eq(m.available, 5000 * 1024);
    expect_share(&m, 1, 0, 2000000);
    fake_close(&s);
}
END_TEST

static void agree(tw_comm *c, void *context) {
    bool known;
    TW_ASSERT_OK(tw_host_memory_agree(c, &known, (double *)context + c->rank));
    ck_assert(known);
}

START_TEST(ranks_of_this_machine_agree) {
    double share[3], alone;
    struct sysinfo info;
    ck_assert_int_eq(sysinfo(&info), 0);
    thread_comm_run(3, NULL, agree, share);
    for (int r = 0; r < 3; r++) {
        ck_assert_double_gt(share[r], 1 << 20);
        ck_assert_double_lt(share[r], (double)info.totalram * info.mem_unit / 3);
    }
    ck_assert(tw_memory_free(&alone));
    ck_assert_double_gt(alone, share[0]); /* a third */
}
END_TEST

TW_TEST_MAIN("host_memory", ranks_of_a_machine_share, reads_what_the_system_says, ranks_of_this_machine_agree)
