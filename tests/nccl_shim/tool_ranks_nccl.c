/* tool_ranks_nccl FOLDER TIMEOUT cuda|auto|cpu [hang RANK | spin RANK | fail RANK | host RANK | differ RANK |
 * stop RANK]: as tool_ranks, on GPUs. host: that rank makes a call of the host group, which the others do
 * not; differ: another call on the device; stop: it asks all to end well. Rank 0 prints the device, and at
 * the end "sums are right". */
#include "train/comm_open.h"

#include "autograd/progress.h"
#include "tests/announce.h"
#include "train/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 20000 };

static tw_status misbehave(tw_comm *c, const char *how, float *x) {
    int64_t *counts = calloc((size_t)c->ranks, sizeof *counts);
    if (!counts) return FAIL(TW_ERR_MEMORY, "out of memory");
    counts[0] = N;
    if (strcmp(how, "hang") == 0)
        for (;;) pause();
    for (volatile double sum = 0; strcmp(how, "spin") == 0;) sum = sum + 1;
    if (strcmp(how, "fail") == 0) return FAIL(TW_ERR_IO, "checkpoint.h5: no space left on device");
    static char host[100000]; /* more than a root can send unasked */
    if (strcmp(how, "host") == 0) TRY(c->broadcast(c, host, sizeof host, c->rank));
    TRY(c->all_gather(c, x, x, counts));
    TRY(c->sync(c));
    free(counts);
    return FAIL(TW_ERR_ARGUMENT, "%s is not known", how);
}

/* One exchange of ones; its sum, read back, must be the number of ranks. */
static tw_status exchange(tw_comm *c, float *x) {
    tw_device *d = c->device;
    float ones[N], found;
    for (int i = 0; i < N; i++) ones[i] = 1;
    TRY(d->upload(d, TW_QUEUE_COMPUTE, x, ones, sizeof ones));
    TRY(c->all_reduce(c, x, N));
    TRY(c->sync(c));
    TRY(d->download(d, TW_QUEUE_COMPUTE, &found, x + N - 1, sizeof found));
    TRY(d->sync(d, TW_QUEUE_COMPUTE));
    return found == (float)c->ranks ? TW_OK
                                    : FAIL(TW_ERR_NUMERIC, "a sum of %d ones is %g", c->ranks, (double)found);
}

static tw_status run(tw_comm *c, int argc, char **argv, float *x) {
    const char *how = argc > 5 ? argv[4] : "";
    char stops, all[64];
    TRY(tw_announce(argv[1], c->rank));
    double start = tw_seconds();
    for (;;) {
        TRY(exchange(c, x));
        bool now = argc > 5 && atoi(argv[5]) == c->rank && tw_seconds() - start > 1;
        stops = now && strcmp(how, "stop") == 0;
        TRY(c->gather_all(c, &stops, 1, all));
        if (memchr(all, 1, (size_t)c->ranks)) return TW_OK;
        if (now) return misbehave(c, how, x);
        tw_progress_settle();
        usleep(2000);
    }
}

static tw_status compute(tw_comm *c, int argc, char **argv) {
    void *x;
    if (c->rank == 0) printf("on %s\n", c->device->name);
    fflush(stdout);
    TRY(c->device->alloc(c->device, N * sizeof(float), &x));
    tw_status status = run(c, argc, argv, x);
    if (status == TW_OK) c->device->release(c->device, x);
    return status;
}

int main(int argc, char **argv) {
    tw_device *device;
    tw_comm *c;
    if (argc < 4) return 2;
    enum tw_config_device choice = strcmp(argv[3], "cuda") == 0   ? TW_CONFIG_DEVICE_CUDA
                                   : strcmp(argv[3], "auto") == 0 ? TW_CONFIG_DEVICE_AUTO
                                                                  : TW_CONFIG_DEVICE_CPU;
    tw_status status = tw_comm_open_device(choice, 1, atof(argv[2]), &device, &c);
    if (status == TW_OK) {
        status = tw_comm_fail(c, compute(c, argc, argv));
        if (status == TW_OK && c->rank == 0) printf("sums are right\n");
        tw_comm_free(c);
        tw_device_free(device);
    }
    if (status != TW_OK) fprintf(stderr, "tool_ranks_nccl: %s\n", tw_last_error());
    return status != TW_OK;
}
