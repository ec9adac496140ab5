/* The communicator's contract over MPI. Started as one process, it starts itself under
 * mpirun with 1, 2, 3, 4 and 7 ranks; each rank runs all tests, in the same order and in one process. */
#include "comm_contract.h"
#include "train/comm_mpi.h"
#include "train/comm_open.h"
#include "train/mpi_calls.h"

/* Were the order another one, the sums of the contract could not tell unless the bits depend on it. */
START_TEST(the_order_matters_to_these_values) {
    if (comm->ranks < 3) TW_SKIP("two values have one sum");
    int64_t differ = 0;
    for (int64_t i = 0; i < 1000; i++) {
        float back = value(comm->ranks - 1, i);
        for (int r = comm->ranks - 2; r >= 0; r--) back += value(r, i);
        differ += back != sum_in_order(i);
    }
    ck_assert_int_gt(differ, 10);
}
END_TEST

START_TEST(times_are_kept) {
    tw_comm_times times = tw_comm_mpi_times(comm);
    if (comm->ranks == 1) {
        ck_assert_uint_eq(times.bytes, 0);
        return;
    }
    ck_assert_uint_gt(times.bytes, 1000000);
    ck_assert_double_gt(times.busy, 0);
    ck_assert_double_gt(times.waited, 0);
}
END_TEST

static int run_rank(void) {
    const TTest *const tests[] = {COMM_CONTRACT, the_order_matters_to_these_values, times_are_kept};
    setenv("CK_FORK", "no", 1); /* a rank is one process */
    if (tw_device_cpu(1, &device) != TW_OK || tw_comm_open(device, 60, &comm) != TW_OK) {
        fprintf(stderr, "test_comm_mpi: %s\n", tw_last_error());
        return EXIT_FAILURE;
    }
    sums_in_order = true;
    int expected = atoi(getenv("TW_TEST_RANKS")), failed = comm->ranks != expected;
    if (failed) fprintf(stderr, "%d ranks, not %d\n", comm->ranks, expected);
    failed |= tw_test_run("comm_mpi", tests, sizeof tests / sizeof *tests);
    tw_comm_free(comm);
    tw_device_free(device);
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    if (getenv("TW_TEST_RANKS")) return run_rank();
    if (!tw_mpi_version()) {
        printf("SKIP comm_mpi: this build has no MPI\n");
        return EXIT_SUCCESS;
    }
    static const int ranks[] = {1, 2, 3, 4, 7};
    int failed = 0;
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        char command[4096];
        snprintf(command, sizeof command, "TW_TEST_RANKS=%d '%s/tests/mpirun.sh' %d '%s'", ranks[i],
                 TW_SOURCE_DIR, ranks[i], argv[0]);
        failed |= system(command) != 0;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
