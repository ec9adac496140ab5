#include "train/nccl_calls.h"

#ifdef TW_WITH_NCCL

#include "autograd/cuda/device_cuda.h"

#include <assert.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first with ncclCommInitRankConfig, ncclCommFinalize and non-blocking communicators that keep their
 * word. */
enum { LEAST = NCCL_VERSION(2, 18, 1) };
static_assert(NCCL_VERSION_CODE >= LEAST, "NCCL 2.18.1 or later is needed");
static_assert(sizeof(ncclUniqueId) == TW_NCCL_ID, "ids travel as bytes");

struct tw_nccl {
    ncclComm_t comm;
    tw_device *device;
};

static cudaStream_t stream_of(tw_nccl *n) {
    return tw_cuda_stream(n->device, TW_QUEUE_COMM);
}

/* ---- errors ---- */

static bool is_remote(ncclResult_t result) {
    return result == ncclRemoteError || result == ncclSystemError;
}

static tw_status fail(ncclComm_t comm, ncclResult_t result, const char *call) {
    const char *more = ncclGetLastError(comm);
    size_t n = more ? strcspn(more, "\n") : 0;
    return FAIL(TW_ERR_LIBRARY, "%s: %s says %s%s%.*s (NCCL_DEBUG=WARN tells more)", call, tw_nccl_version(),
                ncclGetErrorString(result), n ? ": " : "", (int)n, n ? more : "");
}

static tw_status check(ncclComm_t comm, ncclResult_t result, const char *call) {
    return result == ncclSuccess || result == ncclInProgress ? TW_OK : fail(comm, result, call);
}

/* ---- the library ---- */

static void print_version(int code, char *text, size_t size) {
    int major = code >= 10000 ? code / 10000 : code / 1000;
    int minor = code >= 10000 ? code / 100 % 100 : code / 100 % 10;
    snprintf(text, size, "NCCL %d.%d.%d", major, minor, code % 100);
}

int tw_nccl_version_code(void) {
    int code = 0;
    return ncclGetVersion(&code) == ncclSuccess ? code : 0;
}

const char *tw_nccl_version(void) {
    static _Thread_local char text[32];
    print_version(tw_nccl_version_code(), text, sizeof text);
    return text;
}

/* Major and minor number: what an interface is known by. */
static int generation(int code) {
    return code / 100;
}

tw_status tw_nccl_usable(void) {
    char built[32];
    int code = tw_nccl_version_code();
    /* An older library reads a configuration it does not know the end of. */
    if (code >= LEAST && generation(code) >= generation(NCCL_VERSION_CODE)) return TW_OK;
    print_version(NCCL_VERSION_CODE, built, sizeof built);
    return FAIL(TW_ERR_UNSUPPORTED,
                "the library that is loaded is %s, but this build needs %s or later: let LD_LIBRARY_PATH "
                "name its folder first, or build with the older one's header",
                tw_nccl_version(), built);
}

/* ---- opening and closing ---- */

tw_status tw_nccl_gpu(tw_device *device, unsigned char gpu[TW_NCCL_GPU]) {
    int index;
    static_assert((int)TW_NCCL_GPU == (int)TW_CUDA_ID, "both are the GPU's");
    (void)tw_cuda_stream(device, TW_QUEUE_COMM);
    TW_CUDA_TRY(cudaGetDevice(&index), "asking for the device");
    return tw_cuda_id(index, gpu);
}

tw_status tw_nccl_make_id(unsigned char id[TW_NCCL_ID]) {
    ncclUniqueId made;
    TRY(check(NULL, ncclGetUniqueId(&made), "ncclGetUniqueId"));
    memcpy(id, &made, sizeof made);
    return TW_OK;
}

tw_status tw_nccl_open(tw_device *device, const unsigned char id[TW_NCCL_ID], int rank, int ranks,
                       tw_nccl **out) {
    tw_nccl *n = *out = calloc(1, sizeof *n);
    if (!n) return FAIL(TW_ERR_MEMORY, "out of memory");
    n->device = device;
    ncclUniqueId with;
    memcpy(&with, id, sizeof with);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    (void)stream_of(n); /* its device becomes this thread's, which NCCL takes */
    tw_status status =
        check(NULL, ncclCommInitRankConfig(&n->comm, ranks, with, rank, &config), "ncclCommInitRankConfig");
    if (status == TW_OK) return TW_OK;
    tw_nccl_abort(n);
    *out = NULL;
    return status;
}

tw_status tw_nccl_poll(tw_nccl *n, bool *busy, bool *remote) {
    ncclResult_t state = ncclSuccess;
    ncclResult_t result = ncclCommGetAsyncError(n->comm, &state);
    if (result == ncclSuccess) result = state;
    *busy = result == ncclInProgress;
    if (remote) *remote = is_remote(result);
    return check(n->comm, result, "in the background");
}

tw_status tw_nccl_leave(tw_nccl *n) {
    return check(n->comm, ncclCommFinalize(n->comm), "ncclCommFinalize");
}

void tw_nccl_close(tw_nccl *n) {
    if (!n) return;
    (void)stream_of(n);
    if (n->comm) (void)ncclCommDestroy(n->comm);
    free(n);
}

void tw_nccl_abort(tw_nccl *n) {
    (void)stream_of(n);
    if (n->comm) (void)ncclCommAbort(n->comm);
    free(n);
}

/* ---- operations ---- */

tw_status tw_nccl_group_begin(tw_nccl *n) {
    if (tw_cuda_capturing(n->device))
        return FAIL(TW_ERR_ARGUMENT, "collectives cannot be called while work is captured");
    return check(n->comm, ncclGroupStart(), "ncclGroupStart");
}

tw_status tw_nccl_group_end(tw_nccl *n) {
    return check(n->comm, ncclGroupEnd(), "ncclGroupEnd");
}

tw_status tw_nccl_all_reduce(tw_nccl *n, float *data, int64_t count) {
    return check(n->comm,
                 ncclAllReduce(data, data, (size_t)count, ncclFloat32, ncclSum, n->comm, stream_of(n)),
                 "ncclAllReduce");
}

tw_status tw_nccl_all_gather(tw_nccl *n, const float *in, float *out, int64_t count) {
    return check(n->comm, ncclAllGather(in, out, (size_t)count, ncclFloat32, n->comm, stream_of(n)),
                 "ncclAllGather");
}

tw_status tw_nccl_reduce_scatter(tw_nccl *n, const float *in, float *out, int64_t count) {
    return check(n->comm,
                 ncclReduceScatter(in, out, (size_t)count, ncclFloat32, ncclSum, n->comm, stream_of(n)),
                 "ncclReduceScatter");
}

tw_status tw_nccl_broadcast(tw_nccl *n, const float *in, float *out, int64_t count, int root) {
    return check(n->comm, ncclBroadcast(in, out, (size_t)count, ncclFloat32, root, n->comm, stream_of(n)),
                 "ncclBroadcast");
}

tw_status tw_nccl_reduce(tw_nccl *n, const float *in, float *out, int64_t count, int root) {
    return check(n->comm,
                 ncclReduce(in, out, (size_t)count, ncclFloat32, ncclSum, root, n->comm, stream_of(n)),
                 "ncclReduce");
}

tw_status tw_nccl_send(tw_nccl *n, const float *in, int64_t count, int peer) {
    return check(n->comm, ncclSend(in, (size_t)count, ncclFloat32, peer, n->comm, stream_of(n)), "ncclSend");
}

tw_status tw_nccl_receive(tw_nccl *n, float *out, int64_t count, int peer) {
    return check(n->comm, ncclRecv(out, (size_t)count, ncclFloat32, peer, n->comm, stream_of(n)), "ncclRecv");
}

/* ---- marks: events that know their time ---- */

tw_status tw_nccl_put_mark(tw_device *device, tw_nccl_mark **mark) {
    cudaStream_t stream = tw_cuda_stream(device, TW_QUEUE_COMM);
    cudaEvent_t event = (cudaEvent_t)*mark;
    if (!event) TW_CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDefault), "making an event");
    *mark = (tw_nccl_mark *)event;
    return tw_cuda_status(cudaEventRecord(event, stream), "recording an event");
}

tw_status tw_nccl_reached(tw_device *device, tw_nccl_mark *mark, bool *reached) {
    (void)tw_cuda_stream(device, TW_QUEUE_COMM);
    cudaError_t error = cudaEventQuery((cudaEvent_t)mark);
    *reached = error == cudaSuccess;
    return error == cudaErrorNotReady ? TW_OK : tw_cuda_status(error, "waiting for the communication queue");
}

double tw_nccl_between(tw_nccl_mark *from, tw_nccl_mark *to) {
    float ms = 0;
    return cudaEventElapsedTime(&ms, (cudaEvent_t)from, (cudaEvent_t)to) == cudaSuccess ? (double)ms / 1e3
                                                                                        : 0;
}

void tw_nccl_mark_free(tw_nccl_mark *mark) {
    if (mark) (void)cudaEventDestroy((cudaEvent_t)mark);
}

#else

const char *tw_nccl_version(void) {
    return NULL;
}

int tw_nccl_version_code(void) {
    return 0;
}

tw_status tw_nccl_usable(void) {
    return FAIL(TW_ERR_UNSUPPORTED,
                "several ranks on GPUs need NCCL, which this build does not have: install libnccl-dev, then "
                "configure and build again; or start one process");
}

#endif
