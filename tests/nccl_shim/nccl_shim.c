#include "device_threads.h"
#include "nccl_group.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- errors and faults ---- */

bool nccl_shim_fault(const char *kind, int rank, int number) {
    const char *text = getenv("TW_SHIM_NCCL_FAULT");
    char found[16];
    int of_rank, of_number = -1;
    if (!text || sscanf(text, "%15[a-z]:%d:%d", found, &of_rank, &of_number) < 2) return false;
    return strcmp(found, kind) == 0 && rank == of_rank && number == of_number;
}

void nccl_shim_error(ncclComm_t comm, ncclResult_t result, const char *text) {
    snprintf(comm->error, sizeof comm->error, "%s", text);
    atomic_store(&comm->state, result);
}

static ncclResult_t misuse(ncclComm_t comm, const char *text) {
    snprintf(comm->error, sizeof comm->error, "%s", text);
    return ncclInvalidUsage;
}

ncclResult_t ncclGetVersion(int *version) {
    const char *text = getenv("TW_SHIM_NCCL_VERSION");
    *version = text ? atoi(text) : NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return texts[result];
}

const char *ncclGetLastError(ncclComm_t comm) {
    return comm ? comm->error : "";
}

/* ---- communicators ---- */

static size_t meeting_bytes(int ranks) {
    return sizeof(meeting) + (size_t)ranks * (size_t)ranks * sizeof(mailbox);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static int count;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/tw_nccl_shim_%d_%d", (int)getpid(), count++);
    (void)shm_unlink(id->internal); /* of a killed process that had this number */
    int file = shm_open(id->internal, O_CREAT | O_EXCL | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, (off_t)meeting_bytes(MOST_RANKS)) != 0) return ncclSystemError;
    close(file);
    return ncclSuccess;
}

static void let_go(ncclComm_t c) {
    if (c->m) munmap(c->m, c->bytes);
    if (c->rank == 0) shm_unlink(c->name);
    free(c);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    if (config->magic != 0xcafebeef || config->blocking != 0 || ranks > MOST_RANKS)
        return ncclInvalidArgument;
    int file = shm_open(id.internal, O_RDWR, 0);
    if (file < 0) return ncclSystemError;
    ncclComm_t c = calloc(1, sizeof *c);
    if (!c) abort();
    c->rank = rank;
    c->ranks = ranks;
    c->bytes = meeting_bytes(ranks);
    memcpy(c->name, id.internal, sizeof c->name - 1);
    c->m = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (c->m == MAP_FAILED) abort();
    c->m->rank[rank].pid = getpid();
    c->m->rank[rank].gpu = tw_current_gpu();
    atomic_store(&c->state, ncclInProgress);
    /* When all have it open it needs no name any more, and no killed rank leaves it behind. */
    if (!nccl_shim_fault("init", rank, -1) && atomic_fetch_add(&c->m->arrived, 1) + 1 == ranks)
        (void)shm_unlink(c->name);
    *comm = c;
    return ncclInProgress;
}

static void look_for_ranks(ncclComm_t c) {
    if (atomic_load(&c->m->arrived) < c->ranks) return;
    c->joined = true;
    atomic_store(&c->state, ncclSuccess);
    for (int r = 0; r < c->ranks; r++)
        if (r != c->rank && c->m->rank[r].gpu == c->m->rank[c->rank].gpu)
            nccl_shim_error(c, ncclInvalidUsage, "Duplicate GPU detected");
}

static void run(void *context) {
    group *g;
    memcpy(&g, context, sizeof g);
    ncclComm_t c = g->comm;
    nccl_shim_run(g);
    for (int i = 0; i < g->n; i++) free(g->ops[i].staged);
    free(g->ops);
    free(g);
    atomic_fetch_sub(&c->active, 1);
}

static void take_up(group *g) {
    atomic_fetch_add(&g->comm->active, 1);
    if (tw_stream_work(g->stream, run, &g, sizeof g) != cudaSuccess) abort();
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state) {
    if (!c->joined) look_for_ranks(c);
    if (c->first && --c->late == 0) {
        take_up(c->first);
        c->first = NULL;
        atomic_store(&c->state, ncclSuccess);
    }
    if (c->leaves && atomic_load(&c->active) == 0 && atomic_load(&c->m->leaving) == c->ranks)
        atomic_store(&c->state, ncclSuccess);
    *state = (ncclResult_t)atomic_load(&c->state);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c) {
    if (atomic_load(&c->state) != ncclSuccess) return misuse(c, "finalized with something under way");
    c->leaves = true;
    atomic_store(&c->state, ncclInProgress);
    atomic_fetch_add(&c->m->leaving, 1);
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t c) {
    if (!c->leaves || atomic_load(&c->state) != ncclSuccess) {
        fprintf(stderr, "nccl_shim: destroyed before it was finalized\n");
        abort();
    }
    let_go(c);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
    if (nccl_shim_fault("abort", c->rank, -1))
        for (;;) pause();
    atomic_store(&c->ending, true);
    while (atomic_load(&c->active)) usleep(100);
    if (c->first) {
        free(c->first->ops);
        free(c->first);
    }
    let_go(c);
    return ncclSuccess;
}

/* ---- groups ---- */

static _Thread_local struct {
    int depth;
    group *g;
} now;

ncclResult_t ncclGroupStart(void) {
    now.depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    if (--now.depth > 0 || !now.g) return ncclSuccess;
    group *g = now.g;
    ncclComm_t c = g->comm;
    now.g = NULL;
    g->number = ++c->groups;
    if (g->number > 1) {
        take_up(g);
        return ncclSuccess;
    }
    c->first = g;
    c->late = 4;
    atomic_store(&c->state, ncclInProgress);
    return ncclInProgress;
}

static ncclResult_t add(ncclComm_t comm, cudaStream_t stream, op o) {
    if (atomic_load(&comm->state) != ncclSuccess) return misuse(comm, "called with something under way");
    if (o.count == 0 || o.peer < 0 || o.peer >= comm->ranks) return ncclInvalidArgument;
    (void)ncclGroupStart();
    if (!now.g) {
        now.g = calloc(1, sizeof *now.g);
        if (!now.g) abort();
        now.g->comm = comm;
        now.g->stream = stream;
    }
    group *g = now.g;
    if (g->n == g->capacity) {
        g->capacity = g->capacity ? 2 * g->capacity : 16;
        g->ops = realloc(g->ops, (size_t)g->capacity * sizeof *g->ops);
        if (!g->ops) abort();
    }
    g->ops[g->n++] = o;
    return ncclGroupEnd();
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op_,
                           ncclComm_t comm, cudaStream_t stream) {
    (void)type, (void)op_;
    return add(comm, stream, (op){.kind = ALL_REDUCE, .in = in, .out = out, .count = count});
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    (void)type;
    return add(comm, stream, (op){.kind = ALL_GATHER, .in = in, .out = out, .count = count});
}

ncclResult_t ncclReduceScatter(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op_,
                               ncclComm_t comm, cudaStream_t stream) {
    (void)type, (void)op_;
    return add(comm, stream, (op){.kind = REDUCE_SCATTER, .in = in, .out = out, .count = count});
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    (void)type;
    return add(comm, stream, (op){.kind = BROADCAST, .in = in, .out = out, .count = count, .peer = root});
}

ncclResult_t ncclReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op_,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    (void)type, (void)op_;
    return add(comm, stream, (op){.kind = REDUCE, .in = in, .out = out, .count = count, .peer = root});
}

ncclResult_t ncclSend(const void *in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    (void)type;
    return add(comm, stream, (op){.kind = SEND, .in = in, .count = count, .peer = peer});
}

ncclResult_t ncclRecv(void *out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    (void)type;
    return add(comm, stream, (op){.kind = RECEIVE, .out = out, .count = count, .peer = peer});
}
