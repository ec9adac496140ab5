/* A collective as rounds of messages: each round posts what may be sent and received at once, and is landed
 * when all of it is there. A round moves a bounded part of each piece, so that the buffer of sums stays small
 * and no count outgrows MPI's int. */
#ifndef TW_TRAIN_COMM_MPI_OP_H
#define TW_TRAIN_COMM_MPI_OP_H

#include "train/mpi_calls.h"

#include <stdint.h>

typedef enum tw_op_kind {
    TW_OP_ALL_REDUCE,
    TW_OP_ALL_GATHER,
    TW_OP_REDUCE_SCATTER,
    TW_OP_ALL_TO_ALL,
    TW_OP_BROADCAST,
    TW_OP_GATHER_ALL,
    TW_OP_GATHER,
    TW_OP_BARRIER,
    TW_OP_KINDS
} tw_op_kind;

/* "all_reduce", … for messages. */
const char *tw_op_name(tw_op_kind kind);

typedef struct tw_comm_op {
    struct tw_comm_op *next;
    tw_op_kind kind;
    const char *in;
    char *out;
    size_t bytes; /* of BROADCAST, GATHER_ALL and GATHER */
    int root;
    int phase, phases; /* ALL_REDUCE: 0 sums pieces, 1 gathers them */
    size_t at;         /* bytes of each piece done in this phase */
    bool summing;      /* this phase's received pieces are added up, in `sums` */
    /* Bytes, (ranks) each: what goes to and comes from each rank, and where it lies in `in` and `out`. */
    size_t *send, *send_at, *receive, *receive_at;
    uint64_t number; /* in its lane, from 1 */
} tw_comm_op;

/* What a lane's operations share. */
typedef struct tw_op_engine {
    tw_mpi_lane lane;
    int rank, ranks;
    tw_mpi_requests requests;
    char *sums; /* (ranks, sum_bytes): one part of everybody's piece */
    size_t sum_bytes;
    uint64_t sent; /* bytes sent by now */
} tw_op_engine;

void tw_op_engine_open(tw_op_engine *e, tw_mpi_lane lane, int rank, int ranks);
void tw_op_engine_close(tw_op_engine *e);

/* counts are elements of 4 bytes, (ranks); they are copied. NULL where the kind has none. */
tw_status tw_op_create(const tw_op_engine *e, tw_op_kind kind, const void *in, const int64_t *in_counts,
                       void *out, const int64_t *out_counts, tw_comm_op **result) TW_MUST_CHECK;
tw_status tw_op_create_reduce(const tw_op_engine *e, float *data, int64_t count,
                              tw_comm_op **result) TW_MUST_CHECK;
/* BROADCAST, GATHER_ALL, GATHER and BARRIER. */
tw_status tw_op_create_host(const tw_op_engine *e, tw_op_kind kind, const void *in, size_t bytes, void *out,
                            int root, tw_comm_op **result) TW_MUST_CHECK;
/* Posts the operation's next round; *finished: there was none left. */
tw_status tw_op_post(tw_op_engine *e, tw_comm_op *op, bool *finished) TW_MUST_CHECK;
/* After all of a round is there. */
void tw_op_land(tw_op_engine *e, tw_comm_op *op);
void tw_op_free(tw_comm_op *op);

#endif
