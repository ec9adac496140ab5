/* How the stand-in carries out a group: what both of its files share. */
#ifndef TW_TESTS_NCCL_SHIM_NCCL_GROUP_H
#define TW_TESTS_NCCL_SHIM_NCCL_GROUP_H

#include "nccl.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { MOST_RANKS = 16, CHUNK = 64 << 10 };

/* From one rank to another: a chunk at a time, with what it belongs to. */
typedef struct mailbox {
    atomic_uint full;
    uint32_t bytes, kind;
    char data[CHUNK];
} mailbox;

/* Shared by the ranks of a communicator. */
typedef struct meeting {
    atomic_int arrived, leaving;
    struct {
        pid_t pid;
        int gpu;
    } rank[MOST_RANKS];
    mailbox box[]; /* (ranks, ranks): from, to */
} meeting;

typedef enum op_kind { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST, REDUCE, SEND, RECEIVE } op_kind;

typedef struct op {
    op_kind kind;
    const float *in;
    float *out;
    size_t count;
    int peer;      /* or root */
    float *staged; /* (ranks, piece) what is to be summed */
} op;

struct ncclComm {
    meeting *m;
    size_t bytes;
    int rank, ranks;
    atomic_int state;   /* ncclResult_t */
    atomic_bool ending; /* aborted */
    atomic_int active;  /* groups in the stream */
    int groups, late;   /* made; looks until the first is taken up */
    struct group *first;
    bool joined, leaves;
    char name[64], error[128];
};

typedef struct group {
    ncclComm_t comm;
    cudaStream_t stream;
    int number, n, capacity;
    op *ops;
} group;

/* Carries it out, in the stream's thread; returns early when the communicator is aborted. */
void nccl_shim_run(group *g);
/* Whether TW_SHIM_NCCL_FAULT is `kind` for this rank (and this group, where it names one). */
bool nccl_shim_fault(const char *kind, int rank, int number);
void nccl_shim_error(ncclComm_t comm, ncclResult_t result, const char *text);

#endif
