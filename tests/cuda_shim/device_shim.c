/* tw_device_cuda for the shim: device memory is the host's.
 *
 * By default everything is done when a call returns. With TW_SHIM_LATE=1 in the environment the device is
 * as unhelpful as a GPU may be: work waits in its queue until the host must have it, copies from and to
 * pinned memory happen no sooner than that, what a queue does is not seen by another one without an event,
 * device memory cannot be touched by the host (SIGSEGV), and what CUDA refuses while a queue is captured is
 * refused. */
#include "device_shim.h"

#include "autograd/cuda/cuda.h"
#include "autograd/cuda/slot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCKS = 1 << 14 };
static const size_t REGION = (size_t)2 << 30, GRAIN = 256;

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

static shim_device *of(const tw_device *d) {
    return d->state; /* d may be a copy: train/memory_need.c plans on one */
}

static tw_status refused(shim_device *s, const char *what) {
    s->broken = true;
    return FAIL(TW_ERR_LIBRARY, "%s: not permitted while the queue is being captured", what);
}

/* ---- queues ---- */

static void enter(shim_device *s) {
    if (s->late && s->open++ == 0 && mprotect(s->region, REGION, PROT_READ | PROT_WRITE) != 0) abort();
}

static void leave(shim_device *s) {
    if (s->late && --s->open == 0 && mprotect(s->region, REGION, PROT_NONE) != 0) abort();
}

static tw_status append(task_list *l, task t) {
    int64_t held = l->count - l->first;
    if (held == l->capacity) {
        int64_t larger = held ? 2 * held : 256;
        task *grown = realloc(l->tasks, (size_t)larger * sizeof *grown);
        if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
        l->tasks = grown;
        l->capacity = larger;
    }
    l->tasks[held] = t;
    l->count++;
    return TW_OK;
}

static int64_t tasks_done; /* of all devices: one thread runs them */

static void run_until(shim_device *s, int queue, int64_t at) {
    task_list *l = &s->queues[queue];
    while (l->done < at) {
        task t = l->tasks[l->done++ - l->first];
        tasks_done++;
        if (t.run)
            t.run(t.context);
        else
            run_until(s, t.queue, t.at);
        free(t.context);
    }
    if (l->done == l->count) l->first = l->count;
}

static void run_all(shim_device *s) {
    enter(s);
    for (int q = 0; q < TW_QUEUES; q++) run_until(s, q, s->queues[q].count);
    leave(s);
}

static tw_status add_work(shim_device *s, int queue, void (*run)(void *), const void *context, size_t bytes) {
    bool captured = s->capturing && queue == TW_QUEUE_COMPUTE;
    if (!s->late && !captured) {
        void *copy = (void *)(uintptr_t)context; /* run at once, it may use the original */
        tasks_done++;
        run(copy);
        return TW_OK;
    }
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy) return FAIL(TW_ERR_MEMORY, "out of memory");
    memcpy(copy, context, bytes);
    return append(captured ? &s->graph->list : &s->queues[queue], (task){.run = run, .context = copy});
}

tw_status tw_shim_work(tw_device *d, void (*run)(void *), const void *context, size_t bytes) {
    return add_work(of(d), TW_QUEUE_COMPUTE, run, context, bytes);
}

/* ---- memory ---- */

static block *find(shim_device *s, const void *p) {
    for (int i = 0; i < s->count; i++)
        if ((const char *)p >= s->blocks[i].at && (const char *)p < s->blocks[i].at + s->blocks[i].bytes)
            return &s->blocks[i];
    return NULL;
}

static tw_status remember(shim_device *s, block b) {
    if (s->count == BLOCKS) return FAIL(TW_ERR_MEMORY, "the shim has no room for more blocks");
    s->blocks[s->count++] = b;
    return TW_OK;
}

/* The first gap of the region; its bytes are NaN. */
static tw_status place(shim_device *s, size_t bytes, void **out) {
    char *at = s->region;
    size_t taken = (bytes + GRAIN - 1) / GRAIN * GRAIN;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < s->count; i++) {
            const block *b = &s->blocks[i];
            if (b->pinned || b->at + b->bytes <= at || b->at >= at + taken) continue;
            at = b->at + b->bytes;
            moved = true;
        }
    }
    if (at + taken > s->region + REGION) return FAIL(TW_ERR_MEMORY, "the shim is out of memory");
    TRY(remember(s, (block){at, taken, false}));
    enter(s);
    memset(at, 0xff, taken);
    leave(s);
    *out = at;
    return TW_OK;
}

/* At once exactly `bytes`, so that AddressSanitizer sees the first byte beyond. */
static tw_status shim_alloc(tw_device *d, size_t bytes, void **out) {
    *out = NULL;
    if (of(d)->capturing) return refused(of(d), "allocating device memory");
    if (of(d)->late) return place(of(d), bytes ? bytes : 1, out);
    if (posix_memalign(out, 64, bytes ? bytes : 1) != 0)
        return FAIL(TW_ERR_MEMORY, "out of memory: %zu bytes were asked for", bytes);
    memset(*out, 0xff, bytes);
    return TW_OK;
}

/* Waits for the device, as cudaFree does. */
static void shim_release(tw_device *d, void *p) {
    shim_device *s = of(d);
    if (s->capturing) s->broken = true;
    if (!s->late) free(p);
    if (!s->late || !p) return;
    run_all(s);
    block *b = find(s, p);
    if (!b) abort();
    *b = s->blocks[--s->count];
}

static void shim_expect(tw_device *d, size_t bytes) {
    (void)d, (void)bytes;
}

static size_t shim_room(tw_device *d) {
    (void)d;
    return REGION / 2;
}

static tw_status shim_pinned_alloc(tw_device *d, size_t bytes, void **out) {
    shim_device *s = of(d);
    *out = NULL;
    if (s->capturing) return refused(s, "allocating pinned memory");
    if (posix_memalign(out, 64, bytes ? bytes : 1) != 0) return FAIL(TW_ERR_MEMORY, "out of memory");
    memset(*out, 0xff, bytes);
    return remember(s, (block){*out, bytes ? bytes : 1, true});
}

static void shim_pinned_release(tw_device *d, void *p) {
    shim_device *s = of(d);
    if (!p) return;
    run_all(s);
    block *b = find(s, p);
    if (!b || !b->pinned) abort();
    *b = s->blocks[--s->count];
    free(p);
}

/* ---- copies ---- */

typedef struct transfer {
    void *dst;
    const void *src;
    size_t bytes;
} transfer;

static void run_copy(void *context) {
    const transfer *t = context;
    memcpy(t->dst, t->src, t->bytes);
}

/* The bytes follow. */
static void run_staged(void *context) {
    const transfer *t = context;
    memcpy(t->dst, t + 1, t->bytes);
}

static void run_zero(void *context) {
    const transfer *t = context;
    memset(t->dst, 0, t->bytes);
}

static tw_status shim_copy(tw_device *d, tw_queue q, void *dst, const void *src, size_t bytes) {
    transfer t = {dst, src, bytes};
    return bytes ? add_work(of(d), q, run_copy, &t, sizeof t) : TW_OK;
}

static tw_status shim_upload(tw_device *d, tw_queue q, void *dst, const void *host, size_t bytes) {
    shim_device *s = of(d);
    const block *b = find(s, host);
    if (!s->late || bytes == 0 || (b && b->pinned)) return shim_copy(d, q, dst, host, bytes);
    if (s->capturing && q == TW_QUEUE_COMPUTE) return refused(s, "uploading memory that is not pinned");
    transfer *t = malloc(sizeof *t + bytes);
    if (!t) return FAIL(TW_ERR_MEMORY, "out of memory");
    *t = (transfer){.dst = dst, .bytes = bytes};
    memcpy(t + 1, host, bytes);
    tw_status status = add_work(s, q, run_staged, t, sizeof *t + bytes);
    free(t);
    return status;
}

static tw_status shim_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    transfer t = {.dst = dst, .bytes = bytes};
    return bytes ? add_work(of(d), q, run_zero, &t, sizeof t) : TW_OK;
}

/* ---- order ---- */

static tw_status shim_sync(tw_device *d, tw_queue q) {
    shim_device *s = of(d);
    if (s->capturing) return refused(s, "waiting for the device");
    enter(s);
    run_until(s, q, s->queues[q].count);
    leave(s);
    return TW_OK;
}

static tw_status shim_record(tw_device *d, tw_queue q, tw_event **event) {
    shim_device *s = of(d);
    if (s->capturing && q == TW_QUEUE_COMPUTE) return refused(s, "recording an event");
    if (!*event) *event = calloc(1, sizeof **event);
    if (!*event) return FAIL(TW_ERR_MEMORY, "out of memory");
    (*event)->queue = q;
    (*event)->at = s->queues[q].count;
    return TW_OK;
}

static tw_status shim_wait(tw_device *d, tw_queue q, tw_event *event) {
    shim_device *s = of(d);
    if (s->capturing && q == TW_QUEUE_COMPUTE) return refused(s, "waiting for an event");
    return event ? append(&s->queues[q], (task){.queue = event->queue, .at = event->at}) : TW_OK;
}

static tw_status shim_await(tw_device *d, tw_event *event) {
    shim_device *s = of(d);
    if (s->capturing) return refused(s, "waiting for an event");
    if (!event) return TW_OK;
    enter(s);
    run_until(s, event->queue, event->at);
    leave(s);
    return TW_OK;
}

/* The time is what was done so far: so what is chosen by measuring is the same in each run. */
static void run_stamp(void *context) {
    (*(tw_event **)context)->time = 1e-6 * (double)tasks_done;
}

static tw_status shim_stamp(tw_device *d, tw_queue q, tw_event **event) {
    TRY(shim_record(d, q, event));
    TRY(add_work(of(d), q, run_stamp, event, sizeof *event));
    return shim_record(d, q, event);
}

static tw_status shim_seconds(tw_device *d, tw_event *from, tw_event *to, double *out) {
    const task_list *queues = of(d)->queues;
    if (queues[from->queue].done < from->at || queues[to->queue].done < to->at)
        return FAIL(TW_ERR_LIBRARY, "an event's time is read before it is there");
    *out = to->time - from->time;
    return TW_OK;
}

static void shim_event_release(tw_device *d, tw_event *event) {
    if (event) run_all(of(d)); /* its time may still be written */
    free(event);
}

static void shim_range(tw_device *d, const char *name) {
    (void)d, (void)name;
}

/* ---- capture ---- */

static void free_list(task_list *l) {
    for (int64_t i = l->done; i < l->count; i++) free(l->tasks[i - l->first].context);
    free(l->tasks);
}

static void shim_graph_release(tw_device *d, tw_graph *graph) {
    if (!graph) return;
    run_all(of(d));
    free_list(&graph->list);
    free(graph);
}

static tw_status shim_capture_begin(tw_device *d) {
    shim_device *s = of(d);
    if (!s->late) return TW_OK;
    if (s->capturing) return refused(s, "beginning a capture");
    s->graph = calloc(1, sizeof *s->graph);
    if (!s->graph) return FAIL(TW_ERR_MEMORY, "out of memory");
    s->capturing = true;
    s->broken = false;
    return TW_OK;
}

static tw_status shim_capture_end(tw_device *d, tw_graph **out) {
    shim_device *s = of(d);
    tw_graph *graph = s->graph;
    *out = NULL;
    if (!s->late) return TW_OK;
    if (!s->capturing) return FAIL(TW_ERR_ARGUMENT, "no capture was begun");
    s->capturing = false;
    s->graph = NULL;
    if (s->broken) {
        shim_graph_release(d, graph);
        return FAIL(TW_ERR_LIBRARY, "the capture was spoiled by what cannot be captured");
    }
    *out = graph;
    return TW_OK;
}

static void run_graph(void *context) {
    const tw_graph *graph = *(tw_graph **)context;
    for (int64_t i = 0; i < graph->list.count; i++) graph->list.tasks[i].run(graph->list.tasks[i].context);
}

static tw_status shim_launch(tw_device *d, tw_graph *graph) {
    if (!graph) return FAIL(TW_ERR_ARGUMENT, "no graph was captured");
    if (of(d)->capturing) return refused(of(d), "launching a graph");
    return add_work(of(d), TW_QUEUE_COMPUTE, run_graph, &graph, sizeof graph);
}

/* ---- life ---- */

static void shim_destroy(tw_device *d) {
    shim_device *s = of(d);
    run_all(s);
    if (s->graph) free_list(&s->graph->list);
    free(s->graph);
    for (int q = 0; q < TW_QUEUES; q++) free_list(&s->queues[q]);
    if (s->region) munmap(s->region, REGION);
    for (int i = 0; i < TW_CUDA_LIBRARIES; i++)
        if (s->library[i]) s->release[i](s->library[i]);
    free(s);
}

tw_status tw_device_cuda(int index, tw_device **out) {
    *out = NULL;
    if (index != 0) return FAIL(TW_ERR_ARGUMENT, "there is no CUDA device %d: 1 is seen", index);
    static bool fuses;
    const char *late = getenv("TW_SHIM_LATE");
    shim_device *s = calloc(1, sizeof *s);
    if (!s) return FAIL(TW_ERR_MEMORY, "out of memory");
    s->late = late && *late == '1';
    s->fuses = fuses = s->late || !fuses;
    s->base = (tw_device){
        .kind = TW_CUDA,
        .name = "cuda shim",
        .state = s,
        .alloc = shim_alloc,
        .release = shim_release,
        .expect = shim_expect,
        .room = shim_room,
        .pinned_alloc = shim_pinned_alloc,
        .pinned_release = shim_pinned_release,
        .upload = shim_upload,
        .download = shim_copy,
        .copy = shim_copy,
        .zero = shim_zero,
        .sync = shim_sync,
        .record = shim_record,
        .wait = shim_wait,
        .await = shim_await,
        .stamp = shim_stamp,
        .seconds = shim_seconds,
        .event_release = shim_event_release,
        .range = shim_range,
        .capture_begin = shim_capture_begin,
        .capture_end = shim_capture_end,
        .launch = shim_launch,
        .graph_release = shim_graph_release,
        .destroy = shim_destroy,
    };
    if (s->late) {
        void *p = mmap(NULL, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        s->region = p == MAP_FAILED ? NULL : p;
    }
    if (s->late && !s->region) {
        free(s);
        return FAIL(TW_ERR_MEMORY, "the shim gets no address space");
    }
    *out = &s->base;
    return TW_OK;
}

bool tw_shim_device_fuses(const tw_device *d) {
    return of(d)->fuses;
}

void **tw_cuda_slot(tw_device *d, tw_cuda_library library, void (*release)(void *)) {
    of(d)->release[library] = release;
    return &of(d)->library[library];
}

bool tw_cuda_capturing(const tw_device *d) {
    return of(d)->capturing;
}

tw_status tw_cuda_check_driver(void) {
    return TW_OK;
}

int tw_cuda_devices(void) {
    return 1;
}

tw_status tw_cuda_id(int index, unsigned char id[TW_CUDA_ID]) {
    memset(id, 0x5a, TW_CUDA_ID);
    return index == 0 ? TW_OK : FAIL(TW_ERR_ARGUMENT, "there is no GPU %d", index);
}

void tw_cuda_report(char *text, size_t size) {
    if (size) snprintf(text, size, "GPU: the shim\n");
}

/* Its products are exact. */
void tw_cuda_set_tf32(tw_device *d, bool allowed) {
    (void)d, (void)allowed;
}

bool tw_cuda_tf32(const tw_device *d) {
    (void)d;
    return false;
}

void tw_cuda_set_deterministic(tw_device *d, bool wanted) {
    of(d)->deterministic = wanted;
}

bool tw_cuda_deterministic(const tw_device *d) {
    return of(d)->deterministic;
}
