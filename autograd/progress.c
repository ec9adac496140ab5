#include "autograd/progress.h"

#include <stdatomic.h>

static _Atomic uint64_t units, aside;
static const char *_Atomic doing = "its start";
static _Atomic int firsts;
static _Atomic bool settled;
static _Atomic uint64_t queued_ms;

void tw_progress_tick(void) {
    atomic_fetch_add_explicit(&units, 1, memory_order_relaxed);
}

void tw_progress_begin(const char *what) {
    atomic_store_explicit(&doing, what, memory_order_relaxed);
    tw_progress_tick();
}

void tw_progress_aside(void) {
    atomic_fetch_add_explicit(&aside, 1, memory_order_relaxed);
}

void tw_progress_first(bool begins) {
    atomic_fetch_add_explicit(&firsts, begins ? 1 : -1, memory_order_relaxed);
}

void tw_progress_settle(void) {
    atomic_store_explicit(&settled, true, memory_order_relaxed);
}

void tw_progress_queued(double seconds) {
    uint64_t ms = seconds > 0 ? (uint64_t)(seconds * 1e3) : 0, most = atomic_load(&queued_ms);
    while (ms > most && !atomic_compare_exchange_weak(&queued_ms, &most, ms)) {
    }
}

tw_progress tw_progress_look(void) {
    return (tw_progress){.units = atomic_load_explicit(&units, memory_order_relaxed),
                         .aside = atomic_load_explicit(&aside, memory_order_relaxed),
                         .what = atomic_load_explicit(&doing, memory_order_relaxed),
                         .first = !atomic_load_explicit(&settled, memory_order_relaxed) ||
                                  atomic_load_explicit(&firsts, memory_order_relaxed) > 0,
                         .queued = (double)atomic_load(&queued_ms) * 1e-3};
}
