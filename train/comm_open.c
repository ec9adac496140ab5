#include "train/comm_open.h"

#include "train/comm_guard.h"
#include "train/comm_nccl.h"
#include "train/device_open.h"
#include "train/launch.h"
#include "train/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool opened; /* once a process, see tw_comm_open */

bool tw_comm_was_opened(void) {
    return opened;
}

/* device may be NULL: set later. */
static tw_status open_host(const tw_launch *launch, tw_device *device, double timeout, tw_comm **out) {
    tw_guard *guard;
    TRY(tw_launch_follow());
    TRY(tw_guard_open(TW_STAGE_JOINING, timeout, &guard));
    tw_status status = tw_comm_mpi(device, launch->ranks, timeout, out);
    tw_guard_close(guard);
    opened = status == TW_OK;
    if (opened) return TW_OK;
    return tw_fail_context(status, "%s started %d processes", launch->launcher, launch->ranks);
}

/* The communicator of the device's memory, on top of the host's, which is its own from here on: after an
 * error it has told the other ranks and is gone. */
static tw_status open_on(tw_device *device, tw_comm *host, double timeout, tw_comm **out) {
    host->device = device;
    *out = host;
    if (tw_on_cpu(device)) return TW_OK;
    tw_status status = tw_comm_nccl(device, host, timeout, out);
    if (status == TW_OK) return TW_OK;
    status = tw_comm_fail(host, status);
    tw_comm_free(host);
    return status;
}

tw_status tw_comm_open(tw_device *device, double rank_timeout, tw_comm **out) {
    tw_launch launch = tw_launch_find();
    tw_comm *host;
    if (launch.ranks == 1) return tw_comm_self(device, out);
    *out = NULL;
    TRY(open_host(&launch, device, rank_timeout, &host));
    return open_on(device, host, rank_timeout, out);
}

static tw_status open_alone(enum tw_config_device choice, int threads, tw_device **device, tw_comm **comm) {
    TRY(tw_device_open(choice, threads, 0, device));
    return tw_comm_self(*device, comm);
}

static tw_status open_among(const tw_launch *launch, enum tw_config_device choice, int threads,
                            double timeout, tw_device **device, tw_comm **comm) {
    tw_comm *host;
    TRY(open_host(launch, NULL, timeout, &host));
    tw_status status = tw_device_open_rank(choice, threads, host, device);
    if (status == TW_OK) return open_on(*device, host, timeout, comm);
    status = tw_comm_fail(host, status);
    tw_comm_free(host);
    return status;
}

tw_status tw_comm_open_device(enum tw_config_device choice, int threads, double rank_timeout,
                              tw_device **device, tw_comm **comm) {
    tw_launch launch = tw_launch_find();
    *device = NULL;
    *comm = NULL;
    tw_status status = launch.ranks == 1 ? open_alone(choice, threads, device, comm)
                                         : open_among(&launch, choice, threads, rank_timeout, device, comm);
    if (status == TW_OK) return TW_OK;
    tw_device_free(*device);
    *device = NULL;
    *comm = NULL;
    return status;
}

tw_status tw_comm_agree(tw_comm *c, tw_status status) {
    char message[1024];
    snprintf(message, sizeof message, "%s", tw_last_error());
    bool failed = status != TW_OK, *all = calloc((size_t)c->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status gathered = c->gather_all(c, &failed, sizeof failed, all);
    int first = 0;
    while (gathered == TW_OK && first < c->ranks && !all[first]) first++;
    bool others = gathered == TW_OK && first < c->ranks && first != c->rank;
    if (others) gathered = c->gather_all(c, &failed, sizeof failed, all); /* until the watchdog ends it */
    free(all);
    if (!failed) return gathered;
    return FAIL(status, "%s", message);
}

tw_status tw_comm_fail(tw_comm *c, tw_status status) {
    if (status == TW_OK || status == TW_ERR_INTERRUPTED || c->ranks == 1) return status;
    char host[256];
    tw_host_name(host, sizeof host);
    tw_fail_context(status, "rank %d of %d on %s", c->rank, c->ranks, host);
    char message[1024];
    snprintf(message, sizeof message, "%s", tw_last_error());
    c->abort(c, message); /* says it, where the program has said how: last_word.h */
    return FAIL(status, "%s", message);
}

tw_comm_times tw_comm_times_of(const tw_comm *c) {
    tw_comm_times times = tw_comm_nccl_times(c);
    return times.busy > 0 || times.bytes > 0 ? times : tw_comm_mpi_times(c);
}
