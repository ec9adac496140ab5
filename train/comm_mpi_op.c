#include "train/comm_mpi_op.h"

#include <stdlib.h>
#include <string.h>

/* SUM_MEMORY is what all parts of a sum may take together, as long as a part is not too small to be sent
 * well. WHOLE: where all ranks' data together is less, everybody gets everything and adds it up: one round
 * instead of two. */
enum { SUM_MEMORY = 64 << 20, SUM_PART_MAX = 4 << 20, SUM_PART_MIN = 64 << 10, WHOLE = 256 << 10 };
/* Up to here the library's own algorithm, with fewer messages, gathers host data. */
enum { GATHER_SMALL = 16 << 10 };

const char *tw_op_name(tw_op_kind kind) {
    static const char *const names[TW_OP_KINDS] = {[TW_OP_ALL_REDUCE] = "all_reduce",
                                                   [TW_OP_ALL_GATHER] = "all_gather",
                                                   [TW_OP_REDUCE_SCATTER] = "reduce_scatter",
                                                   [TW_OP_ALL_TO_ALL] = "all_to_all",
                                                   [TW_OP_BROADCAST] = "broadcast",
                                                   [TW_OP_GATHER_ALL] = "gather_all",
                                                   [TW_OP_GATHER] = "gather",
                                                   [TW_OP_BARRIER] = "barrier"};
    return names[kind];
}

static tw_status allocate(const tw_op_engine *e, tw_op_kind kind, const void *in, void *out,
                          tw_comm_op **result) {
    size_t n = (size_t)e->ranks;
    tw_comm_op *op = *result = calloc(1, sizeof *op + 4 * n * sizeof(size_t));
    if (!op) return FAIL(TW_ERR_MEMORY, "out of memory");
    size_t *tables = (size_t *)(op + 1);
    *op = (tw_comm_op){.kind = kind,
                       .in = in,
                       .out = out,
                       .phases = 1,
                       .send = tables,
                       .send_at = tables + n,
                       .receive = tables + 2 * n,
                       .receive_at = tables + 3 * n};
    return TW_OK;
}

static void add_up(const size_t *bytes, size_t *at, int n) {
    size_t sum = 0;
    for (int r = 0; r < n; r++) at[r] = sum, sum += bytes[r];
}

static void fill(size_t *bytes, int n, size_t value) {
    for (int r = 0; r < n; r++) bytes[r] = value;
}

static void copy_counts(const int64_t *counts, size_t *bytes, int n) {
    for (int r = 0; r < n; r++) bytes[r] = (size_t)counts[r] * sizeof(float);
}

/* Everybody sends `own` bytes at own_at to everybody, and gets bytes[r] of rank r. */
static void set_gather(const tw_op_engine *e, tw_comm_op *op, const size_t *bytes, size_t own_at) {
    size_t own = bytes[e->rank];
    memmove(op->receive, bytes, (size_t)e->ranks * sizeof *bytes);
    add_up(op->receive, op->receive_at, e->ranks);
    fill(op->send, e->ranks, own);
    fill(op->send_at, e->ranks, own_at);
    op->summing = false;
}

/* Everybody sends bytes[r] to rank r, and gets as much as its own piece is from each. */
static void set_scatter(const tw_op_engine *e, tw_comm_op *op, const size_t *bytes) {
    memmove(op->send, bytes, (size_t)e->ranks * sizeof *bytes);
    add_up(op->send, op->send_at, e->ranks);
    fill(op->receive, e->ranks, op->send[e->rank]);
    op->summing = true;
}

tw_status tw_op_create(const tw_op_engine *e, tw_op_kind kind, const void *in, const int64_t *in_counts,
                       void *out, const int64_t *out_counts, tw_comm_op **result) {
    for (int r = 0; r < e->ranks; r++)
        if ((in_counts && in_counts[r] < 0) || (out_counts && out_counts[r] < 0))
            return FAIL(TW_ERR_ARGUMENT, "%s: a count of rank %d is negative", tw_op_name(kind), r);
    TRY(allocate(e, kind, in, out, result));
    tw_comm_op *op = *result;
    if (kind == TW_OP_REDUCE_SCATTER) {
        copy_counts(in_counts, op->send, e->ranks);
        set_scatter(e, op, op->send);
    } else if (kind == TW_OP_ALL_GATHER) {
        copy_counts(out_counts, op->receive, e->ranks);
        set_gather(e, op, op->receive, 0);
    } else {
        copy_counts(in_counts, op->send, e->ranks);
        copy_counts(out_counts, op->receive, e->ranks);
        add_up(op->send, op->send_at, e->ranks);
        add_up(op->receive, op->receive_at, e->ranks);
        if (op->send[e->rank] == op->receive[e->rank]) return TW_OK;
        tw_op_free(op);
        return FAIL(TW_ERR_ARGUMENT, "all_to_all: rank %d sends itself another count than it receives",
                    e->rank);
    }
    return TW_OK;
}

tw_status tw_op_create_reduce(const tw_op_engine *e, float *data, int64_t count, tw_comm_op **result) {
    if (count < 0) return FAIL(TW_ERR_ARGUMENT, "all_reduce: %lld elements", (long long)count);
    TRY(allocate(e, TW_OP_ALL_REDUCE, data, data, result));
    tw_comm_op *op = *result;
    size_t bytes = (size_t)count * sizeof *data;
    if (bytes * (size_t)e->ranks <= WHOLE && bytes <= e->sum_bytes) {
        fill(op->send, e->ranks, bytes);
        fill(op->receive, e->ranks, bytes);
        op->summing = true;
        return TW_OK;
    }
    for (int r = 0; r < e->ranks; r++)
        op->send[r] = (size_t)(count / e->ranks + (r < count % e->ranks)) * sizeof *data;
    set_scatter(e, op, op->send);
    op->phases = 2;
    return TW_OK;
}

tw_status tw_op_create_host(const tw_op_engine *e, tw_op_kind kind, const void *in, size_t bytes, void *out,
                            int root, tw_comm_op **result) {
    if (root < 0 || root >= e->ranks)
        return FAIL(TW_ERR_ARGUMENT, "%s rank %d of %d",
                    kind == TW_OP_GATHER ? "gather to" : "broadcast from", root, e->ranks);
    TRY(allocate(e, kind, in, out, result));
    tw_comm_op *op = *result;
    op->bytes = bytes;
    op->root = root;
    if (kind == TW_OP_GATHER) {
        op->send[root] = bytes;
        if (e->rank == root) fill(op->receive, e->ranks, bytes);
        add_up(op->receive, op->receive_at, e->ranks);
    }
    if (kind != TW_OP_GATHER_ALL) return TW_OK;
    fill(op->receive, e->ranks, bytes);
    set_gather(e, op, op->receive, 0);
    return TW_OK;
}

void tw_op_free(tw_comm_op *op) {
    free(op);
}

/* ---- rounds ---- */

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t largest(const size_t *bytes, int n) {
    size_t most = 0;
    for (int r = 0; r < n; r++)
        if (bytes[r] > most) most = bytes[r];
    return most;
}

/* The part [at, at + most) of a piece. */
static size_t part_of(size_t bytes, size_t at, size_t most) {
    return bytes > at ? smaller(bytes - at, most) : 0;
}

static tw_status need_sums(tw_op_engine *e) {
    if (e->sums) return TW_OK;
    e->sums = malloc((size_t)e->ranks * e->sum_bytes);
    return e->sums ? TW_OK
                   : FAIL(TW_ERR_MEMORY, "out of memory: %.1f MB to sum over %d ranks",
                          (double)e->ranks * (double)e->sum_bytes / 1e6, e->ranks);
}

/* Receives are posted first, so that messages land where they belong; neighbours first, so that not all begin
 * with the same rank. */
static tw_status post_exchange(tw_op_engine *e, tw_comm_op *op) {
    enum { TAG = 1 };
    size_t most = op->summing ? e->sum_bytes : (size_t)TW_MPI_MESSAGE;
    if (op->summing) TRY(need_sums(e));
    for (int i = 1; i < e->ranks; i++) {
        int from = (e->rank + e->ranks - i) % e->ranks;
        size_t bytes = part_of(op->receive[from], op->at, most);
        char *place =
            op->summing ? e->sums + (size_t)from * e->sum_bytes : op->out + op->receive_at[from] + op->at;
        if (bytes) TRY(tw_mpi_receive(&e->requests, e->lane, from, TAG, place, bytes));
    }
    for (int i = 1; i < e->ranks; i++) {
        int to = (e->rank + i) % e->ranks;
        size_t bytes = part_of(op->send[to], op->at, most);
        const char *place = op->in + op->send_at[to] + op->at;
        if (bytes) TRY(tw_mpi_send(&e->requests, e->lane, to, TAG, place, bytes));
        e->sent += bytes;
    }
    return TW_OK;
}

static tw_status post_broadcast(tw_op_engine *e, tw_comm_op *op) {
    size_t bytes = part_of(op->bytes, op->at, TW_MPI_MESSAGE);
    e->sent += op->root == e->rank ? bytes : 0;
    return tw_mpi_broadcast(&e->requests, e->lane, op->root, op->out + op->at, bytes);
}

static bool is_small_gather(const tw_comm_op *op) {
    return op->kind == TW_OP_GATHER_ALL && op->bytes <= GATHER_SMALL;
}

/* How long the longest piece of this phase is: rounds go on until it is done. */
static size_t phase_bytes(const tw_op_engine *e, const tw_comm_op *op) {
    if (op->kind == TW_OP_BARRIER) return 1;
    if (op->kind == TW_OP_BROADCAST) return op->bytes;
    size_t send = largest(op->send, e->ranks), receive = largest(op->receive, e->ranks);
    return send > receive ? send : receive;
}

static void copy_own(const tw_op_engine *e, tw_comm_op *op) {
    size_t bytes = op->send[e->rank];
    if (bytes == 0) return; /* and perhaps nowhere to go */
    const char *from = op->in + op->send_at[e->rank];
    char *to = op->out + op->receive_at[e->rank];
    if (from != to) memmove(to, from, bytes);
}

static void next_phase(const tw_op_engine *e, tw_comm_op *op) {
    op->at = 0;
    if (++op->phase == op->phases) return;
    /* Of a sum in pieces, everybody's piece goes to everybody. */
    size_t own_at = op->send_at[e->rank];
    set_gather(e, op, op->send, own_at);
}

tw_status tw_op_post(tw_op_engine *e, tw_comm_op *op, bool *finished) {
    *finished = false;
    while (op->phase < op->phases && op->at >= phase_bytes(e, op)) next_phase(e, op);
    *finished = op->phase >= op->phases;
    if (*finished) return TW_OK;
    if (op->kind == TW_OP_BARRIER) return tw_mpi_barrier(&e->requests, e->lane);
    if (op->kind == TW_OP_BROADCAST) return post_broadcast(e, op);
    if (op->at == 0 && !op->summing) copy_own(e, op);
    if (is_small_gather(op)) {
        e->sent += op->bytes * (size_t)(e->ranks - 1);
        return tw_mpi_gather_all(&e->requests, e->lane, op->out, op->bytes);
    }
    return post_exchange(e, op);
}

/* out[i] = the sum over ranks of part[i], in their order. A block at a time, so that the sums stay in the
 * cache; `own` is read before `out` is written, they may be the same. */
static void sum_part(const tw_op_engine *e, const char *own, char *out, size_t bytes) {
    enum { BLOCK = 2048 };
    float acc[BLOCK];
    for (size_t at = 0; at < bytes; at += sizeof acc) {
        size_t part = smaller(bytes - at, sizeof acc), n = part / sizeof(float);
        for (int r = 0; r < e->ranks; r++) {
            const char *from = r == e->rank ? own : e->sums + (size_t)r * e->sum_bytes;
            const float *x = (const float *)(const void *)(from + at);
            if (r == 0) memcpy(acc, x, part);
            for (size_t i = 0; r && i < n; i++) acc[i] += x[i];
        }
        memcpy(out + at, acc, part);
    }
}

void tw_op_land(tw_op_engine *e, tw_comm_op *op) {
    if (op->summing) {
        size_t bytes = part_of(op->receive[e->rank], op->at, e->sum_bytes);
        char *out = op->out + op->at;
        /* all_reduce sums in place; reduce_scatter's output is the piece alone. */
        if (op->kind == TW_OP_ALL_REDUCE) out += op->send_at[e->rank];
        sum_part(e, op->in + op->send_at[e->rank] + op->at, out, bytes);
        op->at += e->sum_bytes;
    } else {
        op->at += TW_MPI_MESSAGE;
    }
}

/* ---- the engine ---- */

void tw_op_engine_open(tw_op_engine *e, tw_mpi_lane lane, int rank, int ranks) {
    size_t part = SUM_MEMORY / (size_t)ranks / sizeof(float) * sizeof(float);
    if (part > SUM_PART_MAX) part = SUM_PART_MAX;
    if (part < SUM_PART_MIN) part = SUM_PART_MIN;
    *e = (tw_op_engine){.lane = lane, .rank = rank, .ranks = ranks, .sum_bytes = part};
}

void tw_op_engine_close(tw_op_engine *e) {
    tw_mpi_requests_free(&e->requests);
    free(e->sums);
    *e = (tw_op_engine){0};
}
