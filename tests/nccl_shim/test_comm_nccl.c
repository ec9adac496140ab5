/* The communicator's contract over NCCL. Without CUDA: over the stand-ins beside this file, whose streams are
 * threads, with 1, 2, 3, 4 and 7 ranks. In a build with CUDA: over NCCL itself, with 1, 2, 3 and as many
 * ranks as there are GPUs. */
#include "comm_contract.h"
#include "ranks_start.h"

START_TEST(times_are_kept) {
    tw_comm_times times = tw_comm_times_of(comm);
    if (comm->ranks > 1) ck_assert_uint_gt(times.bytes, 1000000);
    ck_assert_double_gt(times.busy, 0);
    ck_assert_double_gt(times.waited, 0);
}
END_TEST

static int run_rank(int expected) {
    const TTest *const tests[] = {COMM_CONTRACT, times_are_kept};
    setenv("CK_FORK", "no", 1); /* a rank is one process */
    if (ranks_open(expected, &device, &comm) != TW_OK) {
        fprintf(stderr, "test_comm_nccl: %s\n", tw_last_error());
        return EXIT_FAILURE;
    }
    int failed = comm->ranks != expected || tw_on_cpu(comm->device);
    if (failed) fprintf(stderr, "%d ranks on %s, not %d\n", comm->ranks, comm->device->name, expected);
    failed |= tw_test_run("comm_nccl", tests, sizeof tests / sizeof *tests);
    tw_comm_free(comm);
    tw_device_free(device);
    return failed;
}

int main(int argc, char **argv) {
    static const int on[] = {1, 2, 3, 4, 7};
    (void)argc;
    if (ranks_started()) return run_rank(ranks_started());
    return ranks_start(argv[0], "comm_nccl", on, sizeof on / sizeof *on);
}
