/* CUDA's streams and events, each stream a thread that does its work in order, some of it late. */
#include "stream_threads.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct stream_work {
    struct stream_work *next;
    void (*run)(void *);
    max_align_t context[];
};

struct CUevent_st {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t recorded, reached;
    double at;
    atomic_int users; /* its owner and the works that name it */
};

/* ---- streams ---- */

static void rest(struct CUstream_st *s) {
    s->random = s->random * 1664525u + 1013904223u;
    if (s->delay && s->random >> 30 == 0) usleep((s->random >> 8) % s->delay);
}

static void *stream_main(void *argument) {
    struct CUstream_st *s = argument;
    pthread_mutex_lock(&s->lock);
    while (!s->closing || s->first) {
        stream_work *w = s->first;
        if (!w) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        s->first = w->next;
        if (!s->first) s->last = NULL;
        pthread_mutex_unlock(&s->lock);
        rest(s);
        w->run(w->context);
        free(w);
        pthread_mutex_lock(&s->lock);
        s->done++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void tw_stream_open(struct CUstream_st *s, unsigned seed) {
    const char *delay = getenv("TW_SHIM_DELAY");
    *s = (struct CUstream_st){.random = seed, .delay = delay ? (unsigned)atoi(delay) : 200};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (pthread_create(&s->thread, NULL, stream_main, s) != 0) abort();
}

void tw_stream_drain(struct CUstream_st *s) {
    pthread_mutex_lock(&s->lock);
    uint64_t until = s->queued;
    while (s->done < until) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

void tw_stream_close(struct CUstream_st *s) {
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

cudaError_t tw_stream_work(cudaStream_t s, void (*run)(void *), const void *context, size_t bytes) {
    stream_work *w = malloc(sizeof *w + bytes);
    if (!w) return cudaErrorMemoryAllocation;
    w->next = NULL;
    w->run = run;
    memcpy(w->context, context, bytes);
    pthread_mutex_lock(&s->lock);
    if (s->last)
        s->last->next = w;
    else
        s->first = w;
    s->last = w;
    s->queued++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return cudaSuccess;
}

/* ---- events ---- */

typedef struct event_work {
    struct CUevent_st *event;
    uint64_t number;
} event_work;

static void event_let_go(struct CUevent_st *e) {
    if (atomic_fetch_sub(&e->users, 1) > 1) return;
    pthread_cond_destroy(&e->changed);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static void event_reach(void *context) {
    const event_work *w = context;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    pthread_mutex_lock(&w->event->lock);
    w->event->reached = w->number;
    w->event->at = (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
    pthread_cond_broadcast(&w->event->changed);
    pthread_mutex_unlock(&w->event->lock);
    event_let_go(w->event);
}

static void event_await(void *context) {
    const event_work *w = context;
    pthread_mutex_lock(&w->event->lock);
    while (w->event->reached < w->number) pthread_cond_wait(&w->event->changed, &w->event->lock);
    pthread_mutex_unlock(&w->event->lock);
    event_let_go(w->event);
}

static cudaError_t event_work_add(cudaEvent_t e, cudaStream_t s, bool record) {
    pthread_mutex_lock(&e->lock);
    e->recorded += record;
    event_work w = {e, e->recorded};
    pthread_mutex_unlock(&e->lock);
    atomic_fetch_add(&e->users, 1);
    return tw_stream_work(s, record ? event_reach : event_await, &w, sizeof w);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    (void)flags;
    cudaEvent_t e = *event = calloc(1, sizeof *e);
    if (!e) return cudaErrorMemoryAllocation;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->changed, NULL);
    e->users = 1;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return event_work_add(event, stream, true);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    return event_work_add(event, stream, false);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    pthread_mutex_lock(&event->lock);
    bool reached = event->reached == event->recorded;
    pthread_mutex_unlock(&event->lock);
    return reached ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    *ms = 0;
    if (cudaEventQuery(start) != cudaSuccess || cudaEventQuery(end) != cudaSuccess) return cudaErrorNotReady;
    *ms = (float)(end->at - start->at);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    event_let_go(event);
    return cudaSuccess;
}
