#include "nccl_group.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct transfer {
    bool sends;
    int peer;
    char *data;
    size_t bytes, at;
    uint32_t kind;
    bool done;
} transfer;

typedef struct plan {
    const group *g;
    transfer *list;
    int n, capacity;
} plan;

static void add(plan *p, bool sends, int peer, const void *data, size_t count, uint32_t kind) {
    if (count == 0) return;
    if (p->n == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 64;
        p->list = realloc(p->list, (size_t)p->capacity * sizeof *p->list);
        if (!p->list) abort();
    }
    p->list[p->n++] = (transfer){sends, peer, (char *)(uintptr_t)data, count * sizeof(float), 0, kind, false};
}

/* Rank r's piece of an all_reduce. */
static size_t piece(const op *o, int ranks, int r, size_t *at) {
    size_t each = o->count / (size_t)ranks, rest = o->count % (size_t)ranks;
    *at = each * (size_t)r + ((size_t)r < rest ? (size_t)r : rest);
    return each + ((size_t)r < rest);
}

static void stage(op *o, int ranks, size_t count) {
    if (!o->staged) o->staged = malloc((size_t)ranks * count * sizeof *o->staged + 1);
    if (!o->staged) abort();
}

/* out = the sum over ranks, beginning behind the owner: as round a ring. */
static void sum_ring(const op *o, int owner, int ranks, const float *own, size_t count, float *out) {
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int k = 1; k <= ranks; k++) {
            int r = (owner + k) % ranks;
            float x = r == owner ? own[i] : o->staged[(size_t)r * count + i];
            sum = k == 1 ? x : sum + x;
        }
        out[i] = sum;
    }
}

/* Pieces to their owners. */
static void plan_pieces(plan *p, op *o) {
    const ncclComm_t c = p->g->comm;
    size_t own_at, own = o->count, at;
    if (o->kind == ALL_REDUCE) own = piece(o, c->ranks, c->rank, &own_at);
    stage(o, c->ranks, own);
    for (int r = 0; r < c->ranks; r++) {
        size_t count = o->count;
        at = (size_t)r * o->count;
        if (o->kind == ALL_REDUCE) count = piece(o, c->ranks, r, &at);
        if (r == c->rank) continue;
        add(p, true, r, o->in + at, count, o->kind);
        add(p, false, r, o->staged + (size_t)r * own, own, o->kind);
    }
}

/* phase 0: what the input goes to; 1: the second half of ALL_REDUCE. */
static void plan_op(plan *p, op *o, int phase) {
    const ncclComm_t c = p->g->comm;
    size_t own_at = 0, own = o->count, at;
    if (phase == 1 && o->kind != ALL_REDUCE) return;
    if (o->kind == SEND) add(p, true, o->peer, o->in, o->count, SEND);
    if (o->kind == RECEIVE) add(p, false, o->peer, o->out, o->count, SEND);
    if (o->kind == REDUCE_SCATTER || (o->kind == ALL_REDUCE && phase == 0)) plan_pieces(p, o);
    if (o->kind == REDUCE && o->peer != c->rank) add(p, true, o->peer, o->in, o->count, REDUCE);
    if (o->kind == REDUCE && o->peer == c->rank) stage(o, c->ranks, o->count);
    if (o->kind == BROADCAST && o->peer != c->rank) add(p, false, o->peer, o->out, o->count, BROADCAST);
    if (phase == 1) own = piece(o, c->ranks, c->rank, &own_at);
    for (int r = 0; r < c->ranks; r++) {
        if (r == c->rank) continue;
        if (o->kind == REDUCE && o->peer == c->rank)
            add(p, false, r, o->staged + (size_t)r * o->count, o->count, REDUCE);
        if (o->kind == BROADCAST && o->peer == c->rank) add(p, true, r, o->in, o->count, BROADCAST);
        if (o->kind == ALL_GATHER) {
            add(p, true, r, o->in, o->count, ALL_GATHER);
            add(p, false, r, o->out + (size_t)r * o->count, o->count, ALL_GATHER);
        }
        if (phase == 1) {
            size_t count = piece(o, c->ranks, r, &at);
            add(p, true, r, o->out + own_at, own, ALL_REDUCE + 100);
            add(p, false, r, o->out + at, count, ALL_REDUCE + 100);
        }
    }
}

/* Sums and this rank's own part; outputs are written only now, so that inputs in their place were sent. */
static void land(const group *g, op *o) {
    const ncclComm_t c = g->comm;
    size_t at;
    if (o->kind == REDUCE && o->peer == c->rank) sum_ring(o, c->rank, c->ranks, o->in, o->count, o->out);
    if (o->kind == REDUCE_SCATTER)
        sum_ring(o, c->rank, c->ranks, o->in + (size_t)c->rank * o->count, o->count, o->out);
    if (o->kind == ALL_REDUCE) {
        size_t own = piece(o, c->ranks, c->rank, &at);
        sum_ring(o, c->rank, c->ranks, o->in + at, own, o->out + at);
    }
    float *own_place = o->kind == ALL_GATHER ? o->out + (size_t)c->rank * o->count : o->out;
    if ((o->kind == ALL_GATHER || (o->kind == BROADCAST && o->peer == c->rank)) && own_place != o->in)
        memmove(own_place, o->in, o->count * sizeof(float));
}

static bool step(const group *g, transfer *t) {
    const ncclComm_t c = g->comm;
    int from = t->sends ? c->rank : t->peer, to = t->sends ? t->peer : c->rank;
    mailbox *b = &c->m->box[from * c->ranks + to];
    size_t part = t->bytes - t->at < CHUNK ? t->bytes - t->at : CHUNK;
    if (atomic_load(&b->full) == (unsigned)t->sends) return false;
    if (t->sends) {
        memcpy(b->data, t->data + t->at, part);
        b->bytes = (uint32_t)part;
        b->kind = t->kind;
    } else {
        if (b->kind != t->kind || b->bytes != part) return false; /* another call's: it never fits */
        memcpy(t->data + t->at, b->data, part);
    }
    atomic_store(&b->full, t->sends);
    t->at += part;
    t->done = t->at == t->bytes;
    return true;
}

/* One look at what may move: of each peer and direction, the first that is not done. */
static bool turn(plan *p, bool *finished) {
    bool held[2][MOST_RANKS] = {{false}}, moved = false;
    *finished = true;
    for (int i = 0; i < p->n; i++) {
        transfer *t = &p->list[i];
        if (t->done) continue;
        if (!held[t->sends][t->peer]) moved |= step(p->g, t);
        held[t->sends][t->peer] |= !t->done;
        *finished &= t->done;
    }
    return moved;
}

static void look_for_lost(ncclComm_t c) {
    for (int r = 0; r < c->ranks; r++)
        if (r != c->rank && kill(c->m->rank[r].pid, 0) != 0 && errno == ESRCH)
            nccl_shim_error(c, ncclRemoteError, "a remote process exited");
}

/* Until all is done; like a kernel, it waits for ever unless it is aborted. */
static void move(plan *p, bool stalled) {
    ncclComm_t c = p->g->comm;
    bool finished = false;
    for (unsigned looks = 0; !atomic_load(&c->ending); looks++) {
        if (!stalled && turn(p, &finished)) looks = 0;
        if (finished) return;
        if (looks < 50) {
            sched_yield();
            continue;
        }
        struct timespec nap = {.tv_nsec = 50000};
        nanosleep(&nap, NULL);
        if (looks % 2000 == 1999) look_for_lost(c);
    }
}

void nccl_shim_run(group *g) {
    ncclComm_t c = g->comm;
    bool stalls = nccl_shim_fault("stall", c->rank, g->number) ||
                  (nccl_shim_fault("abort", c->rank, -1) && g->number == 5);
    if (nccl_shim_fault("error", c->rank, g->number))
        nccl_shim_error(c, ncclSystemError, "a cable was pulled"), stalls = true;
    if (nccl_shim_fault("lost", c->rank, g->number))
        nccl_shim_error(c, ncclRemoteError, "a remote process exited"), stalls = true;
    for (int phase = 0; phase < 2; phase++) {
        plan p = {.g = g};
        for (int i = 0; i < g->n; i++) plan_op(&p, &g->ops[i], phase);
        move(&p, stalls);
        for (int i = 0; i < g->n && phase == 0 && !atomic_load(&c->ending); i++) land(g, &g->ops[i]);
        free(p.list);
    }
}
