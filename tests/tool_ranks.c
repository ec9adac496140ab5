/* tool_ranks FOLDER TIMEOUT [hang RANK | fail RANK | differ RANK]: ranks that reduce without end, for the
 * fault suite. Each writes its process number to FOLDER/RANK when it has begun. hang: after a second that
 * rank stops calling, and sleeps; fail: it fails; differ: it makes another call than the others. Signals that
 * ask to stop are noted, as in a training run, and change nothing. */
#include "train/comm_open.h"

#include "tests/announce.h"
#include "train/clock.h"
#include "train/signals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 100000 };

static tw_status misbehave(tw_comm *c, const char *how, float *x) {
    if (strcmp(how, "hang") == 0)
        for (;;) pause();
    if (strcmp(how, "fail") == 0) return FAIL(TW_ERR_IO, "checkpoint.h5: no space left on device");
    TRY(c->broadcast(c, x, N, c->rank));
    return FAIL(TW_ERR_ARGUMENT, "%s is not known", how);
}

static tw_status run(tw_comm *c, int argc, char **argv) {
    float *x = calloc(N, sizeof *x);
    if (!x) return FAIL(TW_ERR_MEMORY, "out of memory");
    TRY(tw_announce(argv[1], c->rank));
    double start = tw_seconds();
    for (int after = 0; after == 0;) {
        TRY(c->all_reduce(c, x, N));
        TRY(c->sync(c));
        TRY(c->broadcast(c, x, 1000, 0));
        after = argc > 4 && atoi(argv[4]) == c->rank && tw_seconds() - start > 1;
        usleep(2000);
    }
    return misbehave(c, argv[3], x);
}

int main(int argc, char **argv) {
    tw_device *device;
    tw_comm *c;
    if (argc < 3) return 2;
    tw_status status = tw_signals_install();
    if (status == TW_OK) status = tw_device_cpu(1, &device);
    if (status == TW_OK) status = tw_comm_open(device, atof(argv[2]), &c);
    if (status == TW_OK) status = tw_comm_fail(c, run(c, argc, argv));
    if (status != TW_OK) fprintf(stderr, "tool_ranks: %s\n", tw_last_error());
    return status != TW_OK;
}
