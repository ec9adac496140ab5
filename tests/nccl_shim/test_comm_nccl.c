/* The communicator's contract over NCCL. Without CUDA: over the stand-ins beside this file, whose streams are
 * threads, with 1, 2, 3, 4 and 7 ranks. In a build with CUDA: over NCCL itself, with as many ranks as there
 * are GPUs, up to 4 (and with one, where there is one). */
#include "autograd/cuda/cuda.h"
#include "comm_contract.h"
#include "train/comm_nccl.h"
#include "train/comm_open.h"
#include "train/mpi_calls.h"
#include "train/nccl_calls.h"

START_TEST(times_are_kept) {
    tw_comm_times times = tw_comm_times_of(comm);
    if (comm->ranks > 1) ck_assert_uint_gt(times.bytes, 1000000);
    ck_assert_double_gt(times.busy, 0);
    ck_assert_double_gt(times.waited, 0);
}
END_TEST

/* One rank alone would not take NCCL. */
static tw_status open_one(void) {
    tw_comm *host;
    TRY(tw_device_cuda(0, &device));
    TRY(tw_comm_mpi(device, 1, 60, &host));
    return tw_comm_nccl(device, host, 60, &comm);
}

static int run_rank(void) {
    const TTest *const tests[] = {COMM_CONTRACT, times_are_kept};
    int expected = atoi(getenv("TW_TEST_RANKS"));
    setenv("CK_FORK", "no", 1); /* a rank is one process */
    tw_status status =
        expected == 1 ? open_one() : tw_comm_open_device(TW_CONFIG_DEVICE_CUDA, 1, 60, &device, &comm);
    if (status != TW_OK) {
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

static bool is_to_run(int ranks) {
#ifdef TW_NCCL_SHIM
    return ranks > 0;
#else
    int gpus = tw_cuda_devices();
    if (ranks > gpus) printf("SKIP comm_nccl on %d ranks: %d GPUs are seen\n", ranks, gpus);
    return ranks <= gpus;
#endif
}

int main(int argc, char **argv) {
    (void)argc;
    if (getenv("TW_TEST_RANKS")) return run_rank();
    if (!tw_mpi_version() || !tw_nccl_version()) {
        printf("SKIP comm_nccl: this build has no MPI or no NCCL\n");
        return EXIT_SUCCESS;
    }
    static const int ranks[] = {1, 2, 3, 4, 7};
    int failed = 0;
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        char command[4096];
        if (!is_to_run(ranks[i])) continue;
        snprintf(command, sizeof command, "TW_TEST_RANKS=%d '%s/tests/mpirun.sh' %d '%s'", ranks[i],
                 TW_SOURCE_DIR, ranks[i], argv[0]);
        failed |= system(command) != 0;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
