/* What the files of the shim's device share: device_shim.c is its life and what CUDA is asked beside it,
 * device_shim_memory.c its memory and copies, device_shim_queues.c its queues, events and graphs. */
#ifndef TW_TESTS_CUDA_SHIM_DEVICE_SHIM_PRIVATE_H
#define TW_TESTS_CUDA_SHIM_DEVICE_SHIM_PRIVATE_H

#include "device_shim.h"

#include "autograd/cuda/cuda.h"
#include "autograd/cuda/slot.h"

enum { BLOCKS = 1 << 14 };
#define TW_SHIM_REGION ((size_t)2 << 30)

typedef struct task {
    void (*run)(void *context);
    void *context; /* a copy of its own */
    int queue;     /* without `run`: waits until this queue has done `at` tasks */
    int64_t at;
} task;

typedef struct task_list {
    task *tasks;
    int64_t first, count, capacity; /* task i of all, first <= i < count, is tasks[i - first] */
    int64_t done;                   /* tasks of all that have run */
} task_list;

struct tw_event {
    int queue;
    int64_t at;
    double time;
};

struct tw_graph {
    task_list list;
};

typedef struct block {
    char *at;
    size_t bytes;
    bool pinned;
} block;

typedef struct shim_device {
    tw_device base;
    bool fuses, late, deterministic, capturing, broken; /* broken: the capture */
    task_list queues[TW_QUEUES];
    tw_graph *graph; /* being captured */
    char *region;    /* of a late device */
    block blocks[BLOCKS];
    int count;
    int open; /* depth of running tasks: the region can be touched */
    void *library[TW_CUDA_LIBRARIES];
    void (*release[TW_CUDA_LIBRARIES])(void *);
} shim_device;

static inline shim_device *tw_shim_of(const tw_device *d) {
    return d->state; /* d may be a copy: train/memory_need.c plans on one */
}

/* ---- device_shim_queues.c ---- */

/* What CUDA refuses while a queue is captured: it spoils the capture. */
tw_status tw_shim_refused(shim_device *s, const char *what);
/* From here to tw_shim_leave the region can be touched. */
void tw_shim_enter(shim_device *s);
void tw_shim_leave(shim_device *s);
/* Everything that waits is done. */
void tw_shim_run_all(shim_device *s);
/* Runs it when `queue` comes to it, with a copy of the context, or puts it into the graph being captured. */
tw_status tw_shim_add_work(shim_device *s, int queue, void (*run)(void *), const void *context, size_t bytes);
void tw_shim_free_list(task_list *l);

/* Slots of the device (autograd/device.h). */
tw_status tw_shim_sync(tw_device *d, tw_queue q);
tw_status tw_shim_record(tw_device *d, tw_queue q, tw_event **event);
tw_status tw_shim_wait(tw_device *d, tw_queue q, tw_event *event);
tw_status tw_shim_await(tw_device *d, tw_event *event);
tw_status tw_shim_stamp(tw_device *d, tw_queue q, tw_event **event);
tw_status tw_shim_seconds(tw_device *d, tw_event *from, tw_event *to, double *out);
void tw_shim_event_release(tw_device *d, tw_event *event);
void tw_shim_graph_release(tw_device *d, tw_graph *graph);
tw_status tw_shim_capture_begin(tw_device *d);
tw_status tw_shim_capture_end(tw_device *d, tw_graph **out);
tw_status tw_shim_launch_graph(tw_device *d, tw_graph *graph);

/* ---- device_shim_memory.c ---- */

tw_status tw_shim_alloc(tw_device *d, size_t bytes, void **out);
void tw_shim_release(tw_device *d, void *p);
void tw_shim_expect(tw_device *d, size_t bytes);
size_t tw_shim_room(tw_device *d);
tw_status tw_shim_pinned_alloc(tw_device *d, size_t bytes, void **out);
void tw_shim_pinned_release(tw_device *d, void *p);
tw_status tw_shim_copy(tw_device *d, tw_queue q, void *dst, const void *src, size_t bytes);
tw_status tw_shim_upload(tw_device *d, tw_queue q, void *dst, const void *host, size_t bytes);
tw_status tw_shim_zero(tw_device *d, tw_queue q, void *dst, size_t bytes);

#endif
