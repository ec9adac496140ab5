/* A device is where tensors live and operations run. The vtable has no optional slots: what a device does not
 * need (the CPU's queues, for example) is a plain call that does the obvious. Layers and the trainer never
 * ask which one it is. */
#ifndef TW_AUTOGRAD_DEVICE_H
#define TW_AUTOGRAD_DEVICE_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tw_device_kind {
    TW_CPU,
#ifdef TW_WITH_CUDA
    TW_CUDA,
#endif
    TW_DEVICE_KINDS
} tw_device_kind;

typedef enum tw_queue { TW_QUEUE_COMPUTE, TW_QUEUE_COPY, TW_QUEUE_COMM, TW_QUEUES } tw_queue;

typedef struct tw_device tw_device;
typedef struct tw_event tw_event; /* a point in a queue's work */
typedef struct tw_graph tw_graph; /* captured work, launched as one */

struct tw_device {
    tw_device_kind kind;
    const char *name;
    void *state; /* the device's own; a copy of this struct has it too, its address says nothing */
    struct tw_op_timer *timer; /* of operations, op_timer.h; NULL: nobody asks */
    /* Device memory, aligned to 64 bytes or more; contents undefined. bytes may be 0. release accepts NULL.
     */
    tw_status (*alloc)(tw_device *d, size_t bytes, void **out) TW_MUST_CHECK;
    void (*release)(tw_device *d, void *p);
    /* Bytes of device memory that could still be allocated; 0: the device does not know. */
    size_t (*room)(tw_device *d);
    /* Host memory that the device can copy from and to asynchronously. */
    tw_status (*pinned_alloc)(tw_device *d, size_t bytes, void **out) TW_MUST_CHECK;
    void (*pinned_release)(tw_device *d, void *p);
    /* Copies ordered after earlier work of `queue`. Pinned host memory is read or written when the queue gets
     * there: it must stay as it is until then (an event, or sync). Other memory may be changed once an upload
     * has returned; what a download writes is there after sync. */
    tw_status (*upload)(tw_device *d, tw_queue queue, void *dst, const void *host,
                        size_t bytes) TW_MUST_CHECK;
    tw_status (*download)(tw_device *d, tw_queue queue, void *host, const void *src,
                          size_t bytes) TW_MUST_CHECK;
    tw_status (*copy)(tw_device *d, tw_queue queue, void *dst, const void *src, size_t bytes) TW_MUST_CHECK;
    tw_status (*zero)(tw_device *d, tw_queue queue, void *dst, size_t bytes) TW_MUST_CHECK;
    /* Waits until all work of the queue is done; reports errors that happened in it. */
    tw_status (*sync)(tw_device *d, tw_queue queue) TW_MUST_CHECK;
    /* record: *event (created when NULL) marks the end of the queue's present work. wait: the queue's later
     * work starts after the event. event_release accepts NULL. */
    tw_status (*record)(tw_device *d, tw_queue queue, tw_event **event) TW_MUST_CHECK;
    tw_status (*wait)(tw_device *d, tw_queue queue, tw_event *event) TW_MUST_CHECK;
    /* The host waits for the event; NULL is past. Errors of the work before it may come out. */
    tw_status (*await)(tw_device *d, tw_event *event) TW_MUST_CHECK;
    /* As record, with the time at which the queue gets there; seconds: between two of them, both awaited. */
    tw_status (*stamp)(tw_device *d, tw_queue queue, tw_event **event) TW_MUST_CHECK;
    tw_status (*seconds)(tw_device *d, tw_event *from, tw_event *to, double *out) TW_MUST_CHECK;
    void (*event_release)(tw_device *d, tw_event *event);
    /* What the host queues from here on is named so in a profiler's time line, until it is called with NULL.
     * Names nest. */
    void (*range)(tw_device *d, const char *name);
    /* Between begin and end the compute queue's work is captured rather than run, where the device can; *out
     * is NULL where it ran at once instead, and launching NULL is an error. Captured work must not allocate,
     * wait for the device or copy from memory that is not pinned: begin .. end then fail and nothing ran. */
    tw_status (*capture_begin)(tw_device *d) TW_MUST_CHECK;
    tw_status (*capture_end)(tw_device *d, tw_graph **out) TW_MUST_CHECK;
    tw_status (*launch)(tw_device *d, tw_graph *graph) TW_MUST_CHECK;
    void (*graph_release)(tw_device *d, tw_graph *graph);
    /* Frees the device; everything allocated on it must have been released. */
    void (*destroy)(tw_device *d);
};

/* The CPU with `threads` compute threads (0: one a core this process may use). One CPU device a process at a
 * time: the thread count is the process's. The caller frees it with tw_device_free. */
tw_status tw_device_cpu(int threads, tw_device **out) TW_MUST_CHECK;
#ifdef TW_WITH_CUDA
/* CUDA device `index` (0 the first). TW_ERR_UNSUPPORTED where there is none, or the driver or a library is
 * too old: the message says what is needed. The caller frees it with tw_device_free. */
tw_status tw_device_cuda(int index, tw_device **out) TW_MUST_CHECK;
#endif
void tw_device_free(tw_device *d);

/* Whether the host can read and write the device's memory, and operations use OpenMP's threads. */
static inline bool tw_on_cpu(const tw_device *d) {
    return d->kind == TW_CPU;
}

#endif
