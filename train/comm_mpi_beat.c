#include "train/comm_mpi_beat.h"

#include "train/clock.h"
#include "train/mpi_calls.h"

#include <stdlib.h>

enum { BEAT_TAG = 2, VERDICT_TAG = 3 };

/* A message under way to one rank: not sent again before it is gone, so that a rank which takes none costs no
 * more than one. */
typedef struct outbox {
    tw_mpi_requests requests;
    union {
        tw_beat beat;
        tw_verdict verdict;
    } message;
} outbox;

struct tw_beat_line {
    int rank, ranks;
    tw_watchdog *watchdog;
    double next;
    outbox *to; /* (ranks) on rank 0; elsewhere to[0] alone */
};

tw_status tw_beat_line_open(int rank, int ranks, tw_watchdog *watchdog, tw_beat_line **out) {
    tw_beat_line *line = *out = calloc(1, sizeof *line);
    if (!line) return FAIL(TW_ERR_MEMORY, "out of memory");
    *line = (tw_beat_line){.rank = rank, .ranks = ranks, .watchdog = watchdog};
    line->to = calloc((size_t)ranks, sizeof *line->to);
    if (line->to) return TW_OK;
    free(line);
    *out = NULL;
    return FAIL(TW_ERR_MEMORY, "out of memory");
}

static bool is_free(outbox *box) {
    bool done;
    return tw_mpi_test(&box->requests, &done) == TW_OK && done;
}

static void send_beat(tw_beat_line *line, const tw_beat *beat) {
    outbox *box = &line->to[0];
    if (!is_free(box)) return;
    box->message.beat = *beat;
    if (tw_mpi_send(&box->requests, TW_MPI_BEAT, 0, BEAT_TAG, &box->message.beat, sizeof *beat) != TW_OK)
        box->requests.n = 0;
}

static void send_verdicts(tw_beat_line *line) {
    tw_verdict verdict = tw_watchdog_verdict(line->watchdog);
    bool told = verdict.rank >= 0;
    for (int r = 1; r < line->ranks; r++) {
        outbox *box = &line->to[r];
        if (is_free(box)) {
            bool new = box->message.verdict.rank != verdict.rank;
            box->message.verdict = verdict;
            if (tw_mpi_send(&box->requests, TW_MPI_BEAT, r, VERDICT_TAG, &box->message.verdict,
                            sizeof verdict) != TW_OK)
                box->requests.n = 0;
            told &= !new || is_free(box) || (r == verdict.rank && !verdict.reported);
        } else {
            told &= r == verdict.rank && !verdict.reported;
        }
    }
    if (told) tw_watchdog_delivered(line->watchdog);
}

static void take_beats(tw_beat_line *line) {
    tw_beat beat;
    int peer;
    while (tw_mpi_poll(TW_MPI_BEAT, BEAT_TAG, &beat, sizeof beat, &peer) == TW_OK && peer >= 0)
        tw_watchdog_heard(line->watchdog, peer, &beat);
}

static void take_verdicts(tw_beat_line *line) {
    tw_verdict verdict;
    int peer;
    while (tw_mpi_poll(TW_MPI_BEAT, VERDICT_TAG, &verdict, sizeof verdict, &peer) == TW_OK && peer >= 0)
        tw_watchdog_told(line->watchdog, &verdict);
}

void tw_beat_line_turn(tw_beat_line *line, const tw_beat *beat) {
    double now = tw_seconds();
    /* Looks are many while messages are awaited, beats few. */
    double interval = tw_watchdog_interval(line->watchdog);
    if (now < line->next) return;
    line->next = now + interval / 2;
    tw_beat mine = *beat;
    tw_watchdog_make_beat(line->watchdog, &mine);
    if (line->rank == 0) {
        take_beats(line);
        send_verdicts(line);
    } else {
        take_verdicts(line);
        send_beat(line, &mine);
    }
}

void tw_beat_line_end(tw_beat_line *line) {
    if (!line) return;
    tw_watchdog_close(line->watchdog);
    /* Of rank 0's last words some may be under way: their memory stays, the process is about to end. */
    for (int r = 0; r < line->ranks; r++)
        if (line->to[r].requests.n) return;
    for (int r = 0; r < line->ranks; r++) tw_mpi_requests_free(&line->to[r].requests);
    free(line->to);
    free(line);
}
