/* Batches encoded by ranks in turn: rank 0 gets them in order, and a rank that is asked to stop ends the work
 * of all in the same round. The ranks are threads here, the features made up. */
#include "thread_comm.h"
#include "train/encode_turns.h"
#include "train/signals.h"
#include "tw_test.h"

#include <signal.h>

enum { BATCH = 4, EMBED = 3, FIRST = 8, TOTAL = 61 };

typedef struct job {
    int stop_rank, stop_call; /* that rank says true at its so many-th call; 0: nobody does */
    int64_t delivered, bad, truncated;
    int64_t rounds[THREAD_COMM_MOST]; /* in which each rank took part */
} job;

typedef struct one_rank {
    job *job;
    int rank, calls;
} one_rank;

static bool should_stop(void *context) {
    one_rank *r = context;
    return ++r->calls == r->job->stop_call && r->rank == r->job->stop_rank;
}

static tw_status sink(void *context, const tw_encoded *b) {
    job *j = context;
    ck_assert_int_eq(b->first, FIRST + j->delivered);
    for (int64_t i = 0; i < b->n; i++) {
        for (int64_t k = 0; k < EMBED; k++)
            ck_assert(b->features[i * EMBED + k] == (float)((b->first + i) * 10 + k));
        j->bad += b->ok && !b->ok[i];
    }
    j->delivered += b->n;
    j->truncated += b->truncated;
    return TW_OK;
}

/* Item 7 k is bad; an item's features say its number. */
static tw_status encode(tw_turns *t) {
    float features[BATCH * EMBED];
    bool ok[BATCH];
    for (int64_t at = FIRST + t->rank * BATCH; at < TOTAL; at += t->ranks * BATCH) {
        int64_t n = TOTAL - at < BATCH ? TOTAL - at : BATCH, bad = 0;
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; k < EMBED; k++) features[i * EMBED + k] = (float)((at + i) * 10 + k);
            ok[i] = (at + i) % 7 != 0;
            bad += !ok[i];
        }
        TRY(tw_turns_take(
            t, &(tw_encoded){.n = n, .features = features, .ok = bad ? ok : NULL, .truncated = 1}));
    }
    return tw_turns_finish(t);
}

static void work(tw_comm *c, void *argument) {
    job *j = argument;
    one_rank own = {j, c->rank, 0};
    tw_turns t;
    tw_encode_options options = {.comm = c, .batch = BATCH, .should_stop = should_stop, .context = &own};
    TW_ASSERT_OK(tw_turns_open(&t, &options, EMBED, FIRST, TOTAL, sink, j));
    tw_status status = encode(&t);
    ck_assert_int_eq(status, j->stop_call ? TW_ERR_INTERRUPTED : TW_OK);
    j->rounds[c->rank] = t.round;
    tw_turns_close(&t);
}

static const int rank_counts[] = {1, 2, 3, 5};

START_TEST(rank_0_gets_all_in_order) {
    for (int k = 0; k < 4; k++) {
        job j = {.stop_rank = -1};
        thread_comm_run(rank_counts[k], NULL, work, &j);
        ck_assert_int_eq(j.delivered, TOTAL - FIRST);
        ck_assert_int_eq(j.bad, 7); /* 14, 21 ... 56 */
        ck_assert_int_eq(j.truncated, (TOTAL - FIRST + BATCH - 1) / BATCH);
    }
}
END_TEST

START_TEST(one_rank_stops_all_in_the_same_round) {
    for (int k = 0; k < 4; k++)
        for (int call = 1; call <= 3; call++) {
            int ranks = rank_counts[k];
            job j = {.stop_rank = ranks - 1, .stop_call = call};
            tw_stop_reset();
            thread_comm_run(ranks, NULL, work, &j);
            for (int r = 0; r < ranks; r++) ck_assert_int_eq(j.rounds[r], call - 1);
            ck_assert_int_eq(j.delivered, (call - 1) * BATCH * ranks);
            if (ranks > 1) ck_assert_str_eq(tw_stop_reason(), "the stop file");
        }
}
END_TEST

/* What asked one rank decides how the program ends on all; it travels though nobody else got it. */
START_TEST(the_signal_travels) {
    job j = {.stop_rank = 0, .stop_call = 2};
    tw_stop_reset();
    tw_stop_note(SIGTERM);
    thread_comm_run(3, NULL, work, &j);
    ck_assert_int_eq(tw_stop_exit_code(), 143);
}
END_TEST

TW_TEST_MAIN("encode_turns", rank_0_gets_all_in_order, one_rank_stops_all_in_the_same_round,
             the_signal_travels)
