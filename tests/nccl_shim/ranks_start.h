/* Starts a test program of GPU ranks under mpirun, once with each number of ranks, and opens device and
 * communicator in a rank. On the stand-ins beside this file any number of ranks will do; in a build with CUDA
 * ranks are as many as there are GPUs, and fewer, down to one. */
#ifndef TW_TESTS_NCCL_SHIM_RANKS_START_H
#define TW_TESTS_NCCL_SHIM_RANKS_START_H

#include "autograd/cuda/cuda.h"
#include "train/comm_nccl.h"
#include "train/comm_open.h"
#include "train/mpi_calls.h"
#include "train/nccl_calls.h"

#include <stdio.h>
#include <stdlib.h>

enum { RANKS_STARTED = 8 }; /* at most */

/* The ranks that this process is one of, as ranks_start has asked for; 0: it is none. */
static inline int ranks_started(void) {
    const char *ranks = getenv("TW_TEST_RANKS");
    return ranks ? atoi(ranks) : 0;
}

/* One rank alone would not take NCCL. */
static inline tw_status ranks_open(int ranks, tw_device **on, tw_comm **out) {
    tw_comm *host;
    if (ranks > 1) return tw_comm_open_device(TW_CONFIG_DEVICE_CUDA, 1, 60, on, out);
    TRY(tw_device_cuda(0, on));
    TRY(tw_comm_mpi(*on, 1, 60, &host));
    return tw_comm_nccl(*on, host, 60, out);
}

static inline bool ranks_run(const char *program, int ranks) {
    char command[4096];
    snprintf(command, sizeof command, "TW_TEST_RANKS=%d '%s/tests/mpirun.sh' %d '%s'", ranks, TW_SOURCE_DIR,
             ranks, program);
    return system(command) == 0;
}

#ifdef TW_NCCL_SHIM
/* on[0 .. n): the numbers of ranks. */
static inline int ranks_start(const char *program, const char *name, const int *on, size_t n) {
    int failed = 0;
    (void)name;
    for (size_t i = 0; i < n; i++) failed += !ranks_run(program, on[i]);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
#else
/* Why ranks of GPUs cannot be tried here; NULL: they can. Fails where a driver is there that does not serve.
 */
static inline tw_status ranks_lack(const char **why) {
    *why = NULL;
    TRY(tw_cuda_check_driver());
    if (!tw_mpi_version() || !tw_nccl_version())
        *why = "this build has no MPI or no NCCL";
    else if (tw_cuda_devices() == 0)
        *why = "no GPU is seen";
    else if (system("command -v mpirun >/dev/null") != 0)
        *why = "mpirun is not installed (openmpi-bin)";
    return TW_OK;
}

/* On 1, 2 and 3 ranks and on one a GPU; `on` is for the stand-ins. */
static inline int ranks_start(const char *program, const char *name, const int *on, size_t n) {
    const char *why;
    int passed = 0, failed = 0;
    (void)on, (void)n;
    if (ranks_lack(&why) != TW_OK) {
        fprintf(stderr, "%s: %s\n", name, tw_last_error());
        return EXIT_FAILURE;
    }
    int gpus = why ? 0 : tw_cuda_devices(), most = gpus < RANKS_STARTED ? gpus : RANKS_STARTED;
    if (why) printf("SKIP %s: %s\n", name, why);
    if (gpus == 1) printf("SKIP %s on several ranks: one GPU is seen\n", name);
    fflush(stdout);
    for (int ranks = 1; ranks <= most; ranks++) {
        if (ranks > 3 && ranks < most) continue;
        if (ranks_run(program, ranks))
            passed++;
        else
            failed++;
    }
    printf("tests: %d passed, %d failed\n", passed, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
#endif

#endif
