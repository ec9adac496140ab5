#include "autograd/expected.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Linux 5.14; an older one refuses it, and pages come in when they are used. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { HUGE_PAGE = 2 << 20, LEAST = 64 << 20, STEP = 16 << 20 };

struct tw_expected {
    char *piece;
    size_t bytes;
    bool taken, running;
    atomic_bool stop;
    pthread_t thread;
};

tw_expected *tw_expected_create(void) {
    return calloc(1, sizeof(tw_expected));
}

/* Unlike a write of zeros this changes nothing that the piece's user has written already. */
static void *bring_in(void *argument) {
    tw_expected *e = argument;
    for (size_t at = 0; at < e->bytes && !atomic_load(&e->stop); at += STEP) {
        size_t left = e->bytes - at;
        if (madvise(e->piece + at, left < STEP ? left : STEP, MADV_POPULATE_WRITE) != 0) break;
    }
    return NULL;
}

static void end(tw_expected *e) {
    atomic_store(&e->stop, true);
    if (e->running) pthread_join(e->thread, NULL);
    free(e->piece);
    e->piece = NULL;
    e->taken = e->running = false;
}

static bool fits(const tw_expected *e, size_t bytes) {
    return e->piece && bytes <= e->bytes && bytes >= e->bytes / 4 * 3;
}

void tw_expected_begin(tw_expected *e, size_t bytes) {
    if (!e || e->taken || fits(e, bytes)) return;
    end(e);
    if (bytes < LEAST) return;
    e->bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    e->piece = e->bytes < bytes ? NULL : aligned_alloc(HUGE_PAGE, e->bytes);
    if (!e->piece) return;
    (void)madvise(e->piece, e->bytes, MADV_HUGEPAGE); /* only a hint */
    atomic_store(&e->stop, false);
    e->running = pthread_create(&e->thread, NULL, bring_in, e) == 0;
}

void *tw_expected_take(tw_expected *e, size_t bytes) {
    if (!e || e->taken || !fits(e, bytes)) return NULL;
    e->taken = true;
    return e->piece;
}

bool tw_expected_release(tw_expected *e, void *p) {
    if (!e || !p || !e->taken || p != e->piece) return false;
    end(e);
    return true;
}

void tw_expected_free(tw_expected *e) {
    if (e) end(e);
    free(e);
}
