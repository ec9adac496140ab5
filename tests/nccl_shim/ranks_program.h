/* A Check program of GPU ranks: it starts itself under mpirun, once with each number of ranks; a rank is one
 * process that runs all tests, in the same order, on a device of its own. */
#ifndef TW_TESTS_NCCL_SHIM_RANKS_PROGRAM_H
#define TW_TESTS_NCCL_SHIM_RANKS_PROGRAM_H

#include "train/comm_open.h"
#include "tw_test.h"

static tw_device *device;
static tw_comm *comm;

static inline int ranks_program_run(int expected, const char *name, const TTest *const *tests, size_t count) {
    setenv("CK_FORK", "no", 1);
    if (tw_comm_open_device(TW_CONFIG_DEVICE_CUDA, 1, 60, &device, &comm) != TW_OK) {
        fprintf(stderr, "%s: %s\n", name, tw_last_error());
        return EXIT_FAILURE;
    }
    int failed = comm->ranks != expected || tw_on_cpu(device);
    if (failed) fprintf(stderr, "%d ranks on %s, not %d\n", comm->ranks, device->name, expected);
    if (!failed) failed = tw_test_run(name, tests, count);
    if (failed) comm->abort(comm, "a test failed"); /* the others wait for this rank in theirs */
    tw_comm_free(comm);
    tw_device_free(device);
    return failed;
}

/* On 2 and on 3 ranks. */
static inline int ranks_program(const char *program, const char *name, const TTest *const *tests,
                                size_t count) {
    const char *rank_of = getenv("TW_TEST_RANKS");
    int failed = 0;
    if (rank_of) return ranks_program_run(atoi(rank_of), name, tests, count);
    for (int ranks = 2; ranks <= 3; ranks++) {
        char command[4096];
        snprintf(command, sizeof command, "TW_TEST_RANKS=%d '%s/tests/mpirun.sh' %d '%s'", ranks,
                 TW_SOURCE_DIR, ranks, program);
        failed |= system(command) != 0;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define RANKS_PROGRAM(name, ...)                                                                             \
    int main(int argc, char **argv) {                                                                        \
        const TTest *const tests_[] = {__VA_ARGS__};                                                         \
        (void)argc;                                                                                          \
        return ranks_program(argv[0], name, tests_, sizeof tests_ / sizeof tests_[0]);                       \
    }

#endif
