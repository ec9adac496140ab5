#include "train/mpi_calls.h"

#ifdef TW_WITH_MPI

#include <assert.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

struct tw_mpi_request {
    MPI_Request handle;
};
static_assert(sizeof(struct tw_mpi_request) == sizeof(MPI_Request), "lists are given to MPI as they are");

/* MPI is the process's: initialised once, by one thread. */
static MPI_Comm lanes[TW_MPI_LANES];
static bool opened;

static tw_status check(int code, const char *call) {
    if (code == MPI_SUCCESS) return TW_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) strcpy(text, "unknown error");
    return FAIL(TW_ERR_LIBRARY, "%s: %s", call, text);
}

const char *tw_mpi_version(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    if (!text[0] && MPI_Get_library_version(text, &length) != MPI_SUCCESS) strcpy(text, "unknown version");
    text[strcspn(text, ",\n")] = '\0';
    return text;
}

static tw_status make_lanes(int *rank, int *ranks) {
    TRY(check(MPI_Comm_rank(MPI_COMM_WORLD, rank), "MPI_Comm_rank"));
    TRY(check(MPI_Comm_size(MPI_COMM_WORLD, ranks), "MPI_Comm_size"));
    TRY(check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    for (int i = 0; i < TW_MPI_LANES; i++) {
        TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, &lanes[i]), "MPI_Comm_dup"));
        TRY(check(MPI_Comm_set_errhandler(lanes[i], MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    }
    return TW_OK;
}

tw_status tw_mpi_open(int *rank, int *ranks) {
    if (opened) return FAIL(TW_ERR_ARGUMENT, "MPI can be started once a process only");
    opened = true;
    int provided;
    TRY(check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s was built without threads (MPI_THREAD_FUNNELED): use another build of it",
                    tw_mpi_version());
    return make_lanes(rank, ranks);
}

tw_status tw_mpi_close(void) {
    for (int i = 0; i < TW_MPI_LANES; i++) TRY(check(MPI_Comm_free(&lanes[i]), "MPI_Comm_free"));
    return check(MPI_Finalize(), "MPI_Finalize");
}

static tw_status add(tw_mpi_requests *r, MPI_Request **out) {
    if (r->n == r->capacity) {
        int capacity = r->capacity ? 2 * r->capacity : 16;
        struct tw_mpi_request *list = realloc(r->list, (size_t)capacity * sizeof *list);
        if (!list) return FAIL(TW_ERR_MEMORY, "out of memory");
        r->list = list;
        r->capacity = capacity;
    }
    *out = &r->list[r->n++].handle;
    **out = MPI_REQUEST_NULL;
    return TW_OK;
}

tw_status tw_mpi_send(tw_mpi_requests *r, tw_mpi_lane lane, int peer, int tag, const void *data,
                      size_t bytes) {
    MPI_Request *request;
    TRY(add(r, &request));
    return check(MPI_Isend(data, (int)bytes, MPI_BYTE, peer, tag, lanes[lane], request), "MPI_Isend");
}

tw_status tw_mpi_receive(tw_mpi_requests *r, tw_mpi_lane lane, int peer, int tag, void *data, size_t bytes) {
    MPI_Request *request;
    TRY(add(r, &request));
    return check(MPI_Irecv(data, (int)bytes, MPI_BYTE, peer, tag, lanes[lane], request), "MPI_Irecv");
}

tw_status tw_mpi_broadcast(tw_mpi_requests *r, tw_mpi_lane lane, int root, void *data, size_t bytes) {
    MPI_Request *request;
    TRY(add(r, &request));
    return check(MPI_Ibcast(data, (int)bytes, MPI_BYTE, root, lanes[lane], request), "MPI_Ibcast");
}

tw_status tw_mpi_gather_all(tw_mpi_requests *r, tw_mpi_lane lane, void *data, size_t bytes) {
    MPI_Request *request;
    TRY(add(r, &request));
    return check(
        MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, (int)bytes, MPI_BYTE, lanes[lane], request),
        "MPI_Iallgather");
}

tw_status tw_mpi_barrier(tw_mpi_requests *r, tw_mpi_lane lane) {
    MPI_Request *request;
    TRY(add(r, &request));
    return check(MPI_Ibarrier(lanes[lane], request), "MPI_Ibarrier");
}

tw_status tw_mpi_test(tw_mpi_requests *r, bool *done) {
    int flag = 1;
    *done = false;
    if (r->n) TRY(check(MPI_Testall(r->n, &r->list[0].handle, &flag, MPI_STATUSES_IGNORE), "MPI_Testall"));
    *done = flag != 0;
    if (flag) r->n = 0;
    return TW_OK;
}

void tw_mpi_requests_free(tw_mpi_requests *r) {
    free(r->list);
    *r = (tw_mpi_requests){0};
}

tw_status tw_mpi_poll(tw_mpi_lane lane, int tag, void *data, size_t bytes, int *peer) {
    int flag;
    MPI_Message message;
    MPI_Status status;
    *peer = -1;
    TRY(check(MPI_Improbe(MPI_ANY_SOURCE, tag, lanes[lane], &flag, &message, &status), "MPI_Improbe"));
    if (!flag) return TW_OK;
    TRY(check(MPI_Mrecv(data, (int)bytes, MPI_BYTE, &message, MPI_STATUS_IGNORE), "MPI_Mrecv"));
    *peer = status.MPI_SOURCE;
    return TW_OK;
}

#else

#define NONE                                                                                                 \
    FAIL(TW_ERR_UNSUPPORTED,                                                                                 \
         "this build has no MPI: install libopenmpi-dev and openmpi-bin, then configure "                    \
         "and build again")

const char *tw_mpi_version(void) {
    return NULL;
}

tw_status tw_mpi_open(int *rank, int *ranks) {
    *rank = 0, *ranks = 1;
    return NONE;
}

tw_status tw_mpi_close(void) {
    return NONE;
}

tw_status tw_mpi_send(tw_mpi_requests *r, tw_mpi_lane lane, int peer, int tag, const void *data,
                      size_t bytes) {
    (void)r, (void)lane, (void)peer, (void)tag, (void)data, (void)bytes;
    return NONE;
}

tw_status tw_mpi_receive(tw_mpi_requests *r, tw_mpi_lane lane, int peer, int tag, void *data, size_t bytes) {
    (void)r, (void)lane, (void)peer, (void)tag, (void)data, (void)bytes;
    return NONE;
}

tw_status tw_mpi_broadcast(tw_mpi_requests *r, tw_mpi_lane lane, int root, void *data, size_t bytes) {
    (void)r, (void)lane, (void)root, (void)data, (void)bytes;
    return NONE;
}

tw_status tw_mpi_gather_all(tw_mpi_requests *r, tw_mpi_lane lane, void *data, size_t bytes) {
    (void)r, (void)lane, (void)data, (void)bytes;
    return NONE;
}

tw_status tw_mpi_barrier(tw_mpi_requests *r, tw_mpi_lane lane) {
    (void)r, (void)lane;
    return NONE;
}

tw_status tw_mpi_test(tw_mpi_requests *r, bool *done) {
    (void)r;
    *done = false;
    return NONE;
}

void tw_mpi_requests_free(tw_mpi_requests *r) {
    (void)r;
}

tw_status tw_mpi_poll(tw_mpi_lane lane, int tag, void *data, size_t bytes, int *peer) {
    (void)lane, (void)tag, (void)data, (void)bytes;
    *peer = -1;
    return NONE;
}

#endif
