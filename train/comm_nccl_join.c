#include "train/comm_nccl_private.h"

#ifdef TW_WITH_NCCL

#include "train/clock.h"
#include "train/machine.h"

#include <stdlib.h>
#include <string.h>

typedef struct introduction {
    int32_t version;
    unsigned char gpu[TW_NCCL_GPU];
    char host[TW_HOST_NAME];
} introduction;

static tw_status check_all(const introduction *all, int ranks) {
    for (int r = 0; r < ranks; r++) {
        if (all[r].version != all[0].version)
            return FAIL(TW_ERR_UNSUPPORTED,
                        "rank %d on %s has version %d of NCCL, rank 0 on %s has %d: all hosts need the same",
                        r, all[r].host, (int)all[r].version, all[0].host, (int)all[0].version);
        for (int q = 0; q < r; q++)
            if (memcmp(all[q].gpu, all[r].gpu, sizeof all[r].gpu) == 0)
                return FAIL(TW_ERR_CONFIG,
                            "ranks %d on %s and %d on %s have the same GPU: NCCL serves one rank a GPU; "
                            "start as many processes a host as it has GPUs",
                            q, all[q].host, r, all[r].host);
    }
    return TW_OK;
}

/* Every rank says what it has. Also: all are here, so that a rank which is not has been named by then. */
static tw_status introduce(tw_nccl_comm *c) {
    introduction mine = {.version = tw_nccl_version_code()};
    tw_host_name(mine.host, sizeof mine.host);
    TRY(tw_nccl_gpu(c->base.device, mine.gpu));
    introduction *all = calloc((size_t)c->base.ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->host->gather_all(c->host, &mine, sizeof mine, all);
    if (status == TW_OK) status = check_all(all, c->base.ranks);
    free(all);
    return status;
}

static tw_status wait_until_joined(tw_nccl_comm *c) {
    double end = tw_seconds() + c->timeout;
    for (bool busy = true;;) {
        TRY(tw_nccl_poll(c->nccl, &busy, &c->remote));
        if (!busy) return TW_OK;
        if (tw_comm_mpi_is_over(c->host)) return FAIL(TW_ERR_LIBRARY, "given up, as the run is over");
        if (tw_seconds() > end)
            return FAIL(TW_ERR_LIBRARY,
                        "%s has not joined the %d ranks within %.0f s: their hosts do not reach each other, "
                        "or not over the interface it chose (NCCL_DEBUG=INFO tells which; "
                        "NCCL_SOCKET_IFNAME sets it)",
                        tw_nccl_version(), c->base.ranks, c->timeout);
        tw_comm_nccl_nap(1e-3);
    }
}

static void set_joining(tw_nccl_comm *c, bool joining) {
    pthread_mutex_lock(&c->lock);
    c->joining = joining;
    pthread_mutex_unlock(&c->lock);
}

tw_status tw_comm_nccl_join(tw_nccl_comm *c) {
    unsigned char id[TW_NCCL_ID] = {0};
    char all_know = 1;
    TRY(introduce(c));
    if (c->base.rank == 0) TRY(tw_nccl_make_id(id));
    TRY(c->host->broadcast(c->host, id, sizeof id, 0));
    char *known = calloc((size_t)c->base.ranks, 1);
    if (!known) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = c->host->gather_all(c->host, &all_know, 1, known);
    free(known);
    TRY(status);
    TRY(tw_nccl_open(c->base.device, id, c->base.rank, c->base.ranks, &c->nccl));
    set_joining(c, true);
    tw_comm_mpi_serve(c->host, tw_comm_nccl_describe, c);
    status = wait_until_joined(c);
    if (status != TW_OK)
        return tw_comm_nccl_give_up(c, status); /* still joining to the watchdog, which has less to say */
    set_joining(c, false);
    return TW_OK;
}

void tw_comm_nccl_leave(tw_nccl_comm *c) {
    if (c->nccl && c->count) (void)!tw_comm_nccl_wait(c, 0, "sync");
    if (c->nccl && tw_nccl_leave(c->nccl) == TW_OK && tw_comm_nccl_wait(c, 0, "leave") == TW_OK) {
        tw_nccl_close(c->nccl);
        c->nccl = NULL;
    }
    tw_comm_nccl_end(c);
}

#endif
