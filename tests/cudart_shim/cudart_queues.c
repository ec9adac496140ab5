#include "cudart_private.h"

#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 512 };

typedef struct work {
    struct work *next;
    void (*run)(void *);
    cudaEvent_t records, awaits; /* or NULL */
    int number;                  /* of the record */
    double seconds;
    max_align_t context[CONTEXT / sizeof(max_align_t)];
} work;

typedef struct queue {
    work *first, *last;
} queue;

struct CUstream_st {
    struct CUstream_st *next;
    int device;
    queue works, captured;
    bool capturing, spoilt;
    double clock;
};

struct CUevent_st {
    bool timed;
    cudaStream_t stream; /* that it was recorded in last */
    int recorded, reached;
    double at;
};

struct CUgraph_st {
    queue works;
};

static int works_done, pageable;
static cudaStream_t streams;
static cudaStream_t capture; /* the stream that is being captured */

int cudart_works(void) {
    return works_done;
}

int cudart_pageable(void) {
    return pageable;
}

bool cudart_forbidden(void) {
    if (!capture) return false;
    capture->spoilt = true;
    return true;
}

/* ---- queues ---- */

static void append(queue *q, const work *w) {
    work *copy = malloc(sizeof *copy);
    if (!copy) abort();
    *copy = *w;
    copy->next = NULL;
    if (q->last)
        q->last->next = copy;
    else
        q->first = copy;
    q->last = copy;
}

static void clear(queue *q) {
    for (work *w = q->first, *next; w; w = next) {
        next = w->next;
        free(w);
    }
    *q = (queue){0};
}

static cudaError_t add(cudaStream_t s, const work *w) {
    if (!s || s->device != cudart_current()) return cudart_remember(cudaErrorInvalidResourceHandle);
    append(s->capturing ? &s->captured : &s->works, w);
    return cudaSuccess;
}

cudaError_t cudart_queue(cudaStream_t s, void (*run)(void *), const void *context, size_t bytes,
                         double seconds) {
    work w = {.run = run, .seconds = seconds};
    if (bytes > CONTEXT) abort();
    memcpy(w.context, context, bytes);
    return add(s, &w);
}

static bool step(cudaStream_t s);

/* Does what is queued before a record. */
static void reach(cudaEvent_t e, int number) {
    bool more = true;
    while (more && e->reached < number) more = step(e->stream);
}

/* Does the first work of a queue; false: there is none. */
static bool step(cudaStream_t s) {
    work *w = s ? s->works.first : NULL; /* an event that was never recorded is on no stream */
    if (!w) return false;
    s->works.first = w->next;
    if (!w->next) s->works.last = NULL;
    if (w->awaits) {
        reach(w->awaits, w->number);
        if (w->awaits->at > s->clock) s->clock = w->awaits->at;
    }
    if (w->run) w->run(w->context), works_done++;
    s->clock += w->seconds;
    if (w->records) w->records->reached = w->number, w->records->at = s->clock;
    free(w);
    return true;
}

static void drain(cudaStream_t s) {
    bool more = true;
    while (more) more = step(s);
}

void cudart_drain(void) {
    for (cudaStream_t s = streams; s; s = s->next) drain(s);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    MAY_FAIL;
    cudaStream_t s = *stream = calloc(1, sizeof *s);
    if (!s || flags != cudaStreamNonBlocking) abort(); /* queues must not wait for the default one */
    s->device = cudart_current();
    s->next = streams;
    streams = s;
    cudart_count(1);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
    cudaStream_t *at = &streams;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    clear(&s->works);
    clear(&s->captured);
    free(s);
    cudart_count(-1);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    MAY_FAIL;
    if (s->capturing) NOT_IN_CAPTURE;
    drain(s);
    return cudaSuccess;
}

typedef struct movement {
    void *to;
    const void *from;
    size_t bytes;
    int value;
} movement;

static void move(void *context) {
    const movement *m = context;
    memmove(m->to, m->from, m->bytes);
}

static void set(void *context) {
    const movement *m = context;
    memset(m->to, m->value, m->bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s) {
    MAY_FAIL;
    bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    const void *host = up ? from : to;
    if ((!down && !cudart_on_device(to, bytes)) || (!up && !cudart_on_device(from, bytes)))
        return cudart_remember(cudaErrorInvalidValue);
    bool waits = (up || down) && !cudart_knows(host);
    if (waits && s->capturing) NOT_IN_CAPTURE;
    movement m = {.to = to, .from = from, .bytes = bytes};
    cudaError_t error = cudart_queue(s, move, &m, sizeof m, 1e-6);
    pageable += waits;
    if (waits && error == cudaSuccess) drain(s);
    return error;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
    movement m = {.to = to, .bytes = bytes, .value = value};
    if (!cudart_on_device(to, bytes)) return cudart_remember(cudaErrorInvalidValue);
    return cudart_queue(s, set, &m, sizeof m, 1e-6);
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    MAY_FAIL;
    cudaEvent_t e = *event = calloc(1, sizeof *e);
    if (!e) abort();
    e->timed = flags != cudaEventDisableTiming;
    cudart_count(1);
    return cudaSuccess;
}

/* A queue may still name it: that is done first. */
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    reach(e, e->recorded);
    free(e);
    cudart_count(-1);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    MAY_FAIL;
    work w = {.records = e, .number = ++e->recorded};
    e->stream = s;
    return add(s, &w);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) {
    (void)flags;
    work w = {.awaits = e, .number = e->recorded};
    return add(s, &w);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    MAY_FAIL;
    if (e->stream && e->stream->capturing) NOT_IN_CAPTURE;
    reach(e, e->recorded);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    if (!from->timed || !to->timed || from->recorded == 0 || to->recorded == 0)
        return cudart_remember(cudaErrorInvalidResourceHandle);
    if (from->reached < from->recorded || to->reached < to->recorded)
        return cudart_remember(cudaErrorNotReady);
    *ms = (float)(1e3 * (to->at - from->at));
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
    MAY_FAIL;
    if (mode != cudaStreamCaptureModeThreadLocal) abort(); /* others would hinder the loader's thread */
    s->capturing = true, s->spoilt = false;
    capture = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    bool spoilt = s->spoilt;
    *graph = NULL;
    s->capturing = s->spoilt = false;
    capture = NULL;
    if (spoilt) {
        clear(&s->captured);
        return cudart_remember(cudaErrorStreamCaptureInvalidated);
    }
    cudaGraph_t g = *graph = calloc(1, sizeof *g);
    if (!g) abort();
    g->works = s->captured;
    s->captured = (queue){0};
    cudart_count(1);
    return cudaSuccess;
}

static void copy_works(queue *to, const queue *from) {
    for (const work *w = from->first; w; w = w->next) append(to, w);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags) {
    (void)flags;
    *made = NULL;
    MAY_FAIL;
    cudaGraph_t copy = calloc(1, sizeof *copy);
    if (!copy) abort();
    copy_works(&copy->works, &graph->works);
    *made = (cudaGraphExec_t)(void *)copy;
    cudart_count(1);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    clear(&graph->works);
    free(graph);
    cudart_count(-1);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    return cudaGraphDestroy((cudaGraph_t)(void *)graph);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s) {
    MAY_FAIL;
    if (!s || s->device != cudart_current()) return cudart_remember(cudaErrorInvalidResourceHandle);
    copy_works(&s->works, &((cudaGraph_t)(void *)graph)->works);
    return cudaSuccess;
}
