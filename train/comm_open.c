#include "train/comm_open.h"

#include "train/comm_mpi.h"
#include "train/launch.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

tw_status tw_comm_open(tw_device *device, double rank_timeout, tw_comm **out) {
    tw_launch launch = tw_launch_find();
    if (launch.ranks == 1) return tw_comm_self(device, out);
    tw_status status = tw_comm_mpi(device, launch.ranks, rank_timeout, out);
    if (status == TW_OK) return TW_OK;
    return tw_fail_context(status, "%s started %d processes", launch.launcher, launch.ranks);
}

tw_status tw_comm_fail(tw_comm *c, tw_status status) {
    if (status == TW_OK || status == TW_ERR_INTERRUPTED || c->ranks == 1) return status;
    char host[256] = "unknown host";
    (void)gethostname(host, sizeof host - 1);
    tw_fail_context(status, "rank %d of %d on %s", c->rank, c->ranks, host);
    char message[1024];
    snprintf(message, sizeof message, "%s", tw_last_error());
    c->abort(c, message);
    return FAIL(status, "%s", message);
}
