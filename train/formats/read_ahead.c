#include "train/formats/read_ahead.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

/* WINDOW: far enough that a disk of some GB/s is never idle, and little beside a computer's memory. */
enum { LEAST = 16 << 20, STEP = 4 << 20, WINDOW = 256 << 20, NAP_US = 500 };

struct tw_read_ahead {
    int fd;
    uint64_t size, asked; /* asked: up to here */
    _Atomic uint64_t at;
    atomic_bool stop;
    pthread_t thread;
};

static void *ask(void *argument) {
    tw_read_ahead *r = argument;
    while (!atomic_load(&r->stop)) {
        uint64_t at = atomic_load(&r->at);
        if (r->asked < at || r->asked - at > 2 * (uint64_t)WINDOW) r->asked = at; /* a jump */
        if (r->asked >= r->size || r->asked - at >= WINDOW) {
            usleep(NAP_US);
            continue;
        }
        uint64_t left = r->size - r->asked, n = left < STEP ? left : STEP;
        if (posix_fadvise(r->fd, (off_t)r->asked, (off_t)n, POSIX_FADV_WILLNEED) != 0) break;
        r->asked += n;
    }
    return NULL;
}

tw_read_ahead *tw_read_ahead_start(int fd, uint64_t from, uint64_t size) {
    if (fd < 0 || from >= size || size - from < LEAST) return NULL;
    tw_read_ahead *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    *r = (tw_read_ahead){.fd = fd, .size = size, .asked = from};
    atomic_store(&r->at, from);
    if (pthread_create(&r->thread, NULL, ask, r) != 0) {
        free(r);
        return NULL;
    }
    return r;
}

void tw_read_ahead_at(tw_read_ahead *r, uint64_t at) {
    if (r) atomic_store(&r->at, at);
}

void tw_read_ahead_stop(tw_read_ahead *r) {
    if (!r) return;
    atomic_store(&r->stop, true);
    pthread_join(r->thread, NULL);
    free(r);
}
