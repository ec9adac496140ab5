/* A Check program of GPU ranks: it starts itself under mpirun, once with each number of ranks
 * (ranks_start.h); a rank is one process that runs all tests, in the same order, on a device of its own. */
#ifndef TW_TESTS_NCCL_SHIM_RANKS_PROGRAM_H
#define TW_TESTS_NCCL_SHIM_RANKS_PROGRAM_H

#include "ranks_start.h"
#include "tw_test.h"

static tw_device *device;
static tw_comm *comm;

static inline int ranks_program_run(int expected, const char *name, const TTest *const *tests, size_t count) {
    setenv("CK_FORK", "no", 1);
    if (ranks_open(expected, &device, &comm) != TW_OK) {
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

/* On 1, 2 and 3 ranks, where ranks are not GPUs. */
static inline int ranks_program(const char *program, const char *name, const TTest *const *tests,
                                size_t count) {
    static const int on[] = {1, 2, 3};
    if (ranks_started()) return ranks_program_run(ranks_started(), name, tests, count);
    return ranks_start(program, name, on, sizeof on / sizeof *on);
}

#define RANKS_PROGRAM(name, ...)                                                                             \
    int main(int argc, char **argv) {                                                                        \
        const TTest *const tests_[] = {__VA_ARGS__};                                                         \
        (void)argc;                                                                                          \
        return ranks_program(argv[0], name, tests_, sizeof tests_ / sizeof tests_[0]);                       \
    }

#endif
