/* Limits of control groups as they look on a machine, in containers that see their own groups or the
 * machine's, and in nested groups; files that are damaged, and none. */
#include "train/cgroup.h"

#include "tests/fake_system.h"

static const char V2_MOUNT[] =
    "24 30 0:22 / /proc rw,nosuid - proc proc rw\n"
    "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";

static void expect_cpus(const fake_system *s, double amount, const char *group) {
    tw_cgroup_limit limit = tw_cgroup_cpus(s->root);
    ck_assert_double_eq_tol(limit.amount, amount, 1e-9);
    ck_assert_uint_eq(limit.group, group ? fake_inode(s, group) : 0);
}

static void expect_memory(const fake_system *s, double amount, const char *group) {
    tw_cgroup_limit limit = tw_cgroup_memory(s->root);
    ck_assert_double_eq(limit.amount, amount);
    ck_assert_uint_eq(limit.group, group ? fake_inode(s, group) : 0);
}

/* docker run --cpus 2.5 --memory 4g, version 2: the container sees its group as the outermost. */
START_TEST(a_container_of_version_2) {
    fake_system s;
    fake_open(&s);
    fake_file(&s, "/proc/self/cgroup", "0::/\n");
    fake_file(&s, "/proc/self/mountinfo", V2_MOUNT);
    fake_file(&s, "/sys/fs/cgroup/cpu.max", "250000 100000\n");
    fake_file(&s, "/sys/fs/cgroup/memory.max", "4294967296\n");
    fake_file(&s, "/sys/fs/cgroup/memory.current", "3221225472\n");
    fake_file(&s, "/sys/fs/cgroup/memory.stat",
              "anon 1073741824\nfile 2147483648\ninactive_anon 5\ninactive_file 1073741824\nactive_file 7\n");
    expect_cpus(&s, 2.5, "/sys/fs/cgroup");
    expect_memory(&s, 2147483648.0, "/sys/fs/cgroup"); /* 4 GiB, 3 taken, 1 of them for files */
    fake_file(&s, "/sys/fs/cgroup/cpu.max", "max 100000\n");
    fake_file(&s, "/sys/fs/cgroup/memory.max", "max\n");
    expect_cpus(&s, 0, NULL);
    expect_memory(&s, 0, NULL);
    fake_close(&s);
}
END_TEST

/* The tightest of all groups above counts, and of equal ones the outermost, whose processes are most. */
START_TEST(groups_in_groups) {
    fake_system s;
    fake_open(&s);
    fake_file(&s, "/proc/self/cgroup", "0::/job.slice/step/task_0\n");
    fake_file(&s, "/proc/self/mountinfo", V2_MOUNT);
    fake_file(&s, "/sys/fs/cgroup/job.slice/cpu.max", "800000 100000\n");
    fake_file(&s, "/sys/fs/cgroup/job.slice/step/cpu.max", "300000 100000\n");
    fake_file(&s, "/sys/fs/cgroup/job.slice/step/task_0/cpu.max", "max 100000\n");
    expect_cpus(&s, 3, "/sys/fs/cgroup/job.slice/step");
    fake_file(&s, "/sys/fs/cgroup/job.slice/step/task_0/cpu.max", "50000 50000\n");
    expect_cpus(&s, 1, "/sys/fs/cgroup/job.slice/step/task_0");
    fake_file(&s, "/sys/fs/cgroup/job.slice/cpu.max", "100000 100000\n");
    expect_cpus(&s, 1, "/sys/fs/cgroup/job.slice");
    /* What is left counts, not what is allowed; more taken than allowed is nothing left. */
    fake_file(&s, "/sys/fs/cgroup/job.slice/memory.max", "1000000\n");
    fake_file(&s, "/sys/fs/cgroup/job.slice/memory.current", "900000\n");
    fake_file(&s, "/sys/fs/cgroup/job.slice/step/memory.max", "500000\n");
    fake_file(&s, "/sys/fs/cgroup/job.slice/step/memory.current", "100000\n");
    expect_memory(&s, 100000, "/sys/fs/cgroup/job.slice");
    fake_file(&s, "/sys/fs/cgroup/job.slice/step/memory.current", "500001\n");
    expect_memory(&s, 0, "/sys/fs/cgroup/job.slice/step");
    fake_close(&s);
}
END_TEST

/* Version 1, where each controller may be another hierarchy's; version 2 beside it has none of them. */
START_TEST(version_1) {
    fake_system s;
    fake_open(&s);
    fake_file(&s, "/proc/self/cgroup",
              "9:cpuset:/\n4:cpu,cpuacct:/batch/17\n3:memory:/batch/17\n1:name=systemd:/x\n0::/batch/17\n");
    fake_file(&s, "/proc/self/mountinfo",
              "33 32 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
              "34 32 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n"
              "35 32 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
              "41 32 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    fake_file(&s, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    fake_file(&s, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    fake_file(&s, "/sys/fs/cgroup/cpu,cpuacct/batch/17/cpu.cfs_quota_us", "40000\n");
    fake_file(&s, "/sys/fs/cgroup/cpu,cpuacct/batch/17/cpu.cfs_period_us", "80000\n");
    fake_file(&s, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    fake_file(&s, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "123456\n");
    expect_cpus(&s, 0.5, "/sys/fs/cgroup/cpu,cpuacct/batch/17");
    expect_memory(&s, 0, NULL); /* that number is no limit */
    fake_file(&s, "/sys/fs/cgroup/memory/batch/17/memory.limit_in_bytes", "2000000\n");
    fake_file(&s, "/sys/fs/cgroup/memory/batch/17/memory.usage_in_bytes", "1500000\n");
    fake_file(&s, "/sys/fs/cgroup/memory/batch/17/memory.stat",
              "inactive_file 1\ntotal_inactive_file 250000\n");
    expect_memory(&s, 750000, "/sys/fs/cgroup/memory/batch/17");
    fake_close(&s);
}
END_TEST

/* A container of version 1 knows its group by the machine's name, and has it mounted where all are else. */
START_TEST(a_container_of_version_1) {
    fake_system s;
    fake_open(&s);
    fake_file(&s, "/proc/self/cgroup", "5:cpu:/docker/c0ffee/inner\n");
    fake_file(&s, "/proc/self/mountinfo",
              "34 32 0:31 /docker/c0ffee /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
    fake_file(&s, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
    fake_file(&s, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    fake_file(&s, "/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "700000\n");
    fake_file(&s, "/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n");
    expect_cpus(&s, 4, "/sys/fs/cgroup/cpu");
    fake_file(&s, "/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "100000\n");
    expect_cpus(&s, 1, "/sys/fs/cgroup/cpu/inner");
    /* Of a group that the mount does not show, what it shows counts: it begins alike, or lies outside. */
    fake_file(&s, "/proc/self/cgroup", "5:cpu:/docker/c0ffee5\n");
    expect_cpus(&s, 4, "/sys/fs/cgroup/cpu");
    fake_file(&s, "/proc/self/cgroup", "5:cpu:/../c0ffee\n");
    expect_cpus(&s, 4, "/sys/fs/cgroup/cpu");
    fake_close(&s);
}
END_TEST

START_TEST(what_cannot_be_read_is_no_limit) {
    static const char *const bad[] = {"",         "\n",         "max",  "0 100000\n", "-5 100000\n",
                                      "100000\n", "100000 0\n", "x y\n"};
    fake_system s;
    fake_open(&s);
    expect_cpus(&s, 0, NULL);
    fake_file(&s, "/proc/self/cgroup", "\n0:\n0::\n::\nno colon\n0::/\n");
    expect_cpus(&s, 0, NULL); /* nothing is mounted */
    fake_file(&s, "/proc/self/mountinfo", "\n - \n1 2 3 - cgroup2 cgroup2 rw\n - cgroup2\n");
    expect_cpus(&s, 0, NULL);
    char *line = malloc(20000); /* an overlay of many folders, longer than any buffer */
    memset(line, 'x', 20000);
    memcpy(line, "25 1 0:9 / / rw - overlay overlay lower=", 40);
    snprintf(line + 20000 - sizeof V2_MOUNT - 1, sizeof V2_MOUNT + 1, "\n%s", V2_MOUNT);
    fake_file(&s, "/proc/self/mountinfo", line);
    free(line);
    expect_cpus(&s, 0, NULL); /* the group has no files */
    fake_file(&s, "/sys/fs/cgroup/cpu.max", "200000 100000\n");
    expect_cpus(&s, 2, "/sys/fs/cgroup");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fake_file(&s, "/sys/fs/cgroup/cpu.max", bad[i]);
        expect_cpus(&s, 0, NULL);
    }
    fake_file(&s, "/sys/fs/cgroup/memory.max", "100\n"); /* without what is in use */
    expect_memory(&s, 0, NULL);
    fake_close(&s);
}
END_TEST

TW_TEST_MAIN("cgroup", a_container_of_version_2, groups_in_groups, version_1, a_container_of_version_1,
             what_cannot_be_read_is_no_limit)
