/* The shim's queues: tasks that wait in them, events that order them, and their capture as graphs. */
#include "device_shim_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

tw_status tw_shim_refused(shim_device *s, const char *what) {
    s->broken = true;
    return FAIL(TW_ERR_LIBRARY, "%s: not permitted while the queue is being captured", what);
}

/* ---- tasks ---- */

void tw_shim_enter(shim_device *s) {
    if (s->late && s->open++ == 0 && mprotect(s->region, TW_SHIM_REGION, PROT_READ | PROT_WRITE) != 0)
        abort();
}

void tw_shim_leave(shim_device *s) {
    if (s->late && --s->open == 0 && mprotect(s->region, TW_SHIM_REGION, PROT_NONE) != 0) abort();
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

void tw_shim_run_all(shim_device *s) {
    tw_shim_enter(s);
    for (int q = 0; q < TW_QUEUES; q++) run_until(s, q, s->queues[q].count);
    tw_shim_leave(s);
}

tw_status tw_shim_add_work(shim_device *s, int queue, void (*run)(void *), const void *context,
                           size_t bytes) {
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
    return tw_shim_add_work(tw_shim_of(d), TW_QUEUE_COMPUTE, run, context, bytes);
}

void tw_shim_free_list(task_list *l) {
    for (int64_t i = l->done; i < l->count; i++) free(l->tasks[i - l->first].context);
    free(l->tasks);
}

/* ---- order ---- */

tw_status tw_shim_sync(tw_device *d, tw_queue q) {
    shim_device *s = tw_shim_of(d);
    if (s->capturing) return tw_shim_refused(s, "waiting for the device");
    tw_shim_enter(s);
    run_until(s, q, s->queues[q].count);
    tw_shim_leave(s);
    return TW_OK;
}

tw_status tw_shim_record(tw_device *d, tw_queue q, tw_event **event) {
    shim_device *s = tw_shim_of(d);
    if (s->capturing && q == TW_QUEUE_COMPUTE) return tw_shim_refused(s, "recording an event");
    if (!*event) *event = calloc(1, sizeof **event);
    if (!*event) return FAIL(TW_ERR_MEMORY, "out of memory");
    (*event)->queue = q;
    (*event)->at = s->queues[q].count;
    return TW_OK;
}

tw_status tw_shim_wait(tw_device *d, tw_queue q, tw_event *event) {
    shim_device *s = tw_shim_of(d);
    if (s->capturing && q == TW_QUEUE_COMPUTE) return tw_shim_refused(s, "waiting for an event");
    return event ? append(&s->queues[q], (task){.queue = event->queue, .at = event->at}) : TW_OK;
}

tw_status tw_shim_await(tw_device *d, tw_event *event) {
    shim_device *s = tw_shim_of(d);
    if (s->capturing) return tw_shim_refused(s, "waiting for an event");
    if (!event) return TW_OK;
    tw_shim_enter(s);
    run_until(s, event->queue, event->at);
    tw_shim_leave(s);
    return TW_OK;
}

/* The time is what was done so far: so what is chosen by measuring is the same in each run. */
static void run_stamp(void *context) {
    (*(tw_event **)context)->time = 1e-6 * (double)tasks_done;
}

tw_status tw_shim_stamp(tw_device *d, tw_queue q, tw_event **event) {
    TRY(tw_shim_record(d, q, event));
    TRY(tw_shim_add_work(tw_shim_of(d), q, run_stamp, event, sizeof *event));
    return tw_shim_record(d, q, event);
}

tw_status tw_shim_seconds(tw_device *d, tw_event *from, tw_event *to, double *out) {
    const task_list *queues = tw_shim_of(d)->queues;
    if (queues[from->queue].done < from->at || queues[to->queue].done < to->at)
        return FAIL(TW_ERR_LIBRARY, "an event's time is read before it is there");
    *out = to->time - from->time;
    return TW_OK;
}

void tw_shim_event_release(tw_device *d, tw_event *event) {
    if (event) tw_shim_run_all(tw_shim_of(d)); /* its time may still be written */
    free(event);
}

/* ---- capture ---- */

void tw_shim_graph_release(tw_device *d, tw_graph *graph) {
    if (!graph) return;
    tw_shim_run_all(tw_shim_of(d));
    tw_shim_free_list(&graph->list);
    free(graph);
}

tw_status tw_shim_capture_begin(tw_device *d) {
    shim_device *s = tw_shim_of(d);
    if (!s->late) return TW_OK;
    if (s->capturing) return tw_shim_refused(s, "beginning a capture");
    s->graph = calloc(1, sizeof *s->graph);
    if (!s->graph) return FAIL(TW_ERR_MEMORY, "out of memory");
    s->capturing = true;
    s->broken = false;
    return TW_OK;
}

tw_status tw_shim_capture_end(tw_device *d, tw_graph **out) {
    shim_device *s = tw_shim_of(d);
    tw_graph *graph = s->graph;
    *out = NULL;
    if (!s->late) return TW_OK;
    if (!s->capturing) return FAIL(TW_ERR_ARGUMENT, "no capture was begun");
    s->capturing = false;
    s->graph = NULL;
    if (s->broken) {
        tw_shim_graph_release(d, graph);
        return FAIL(TW_ERR_LIBRARY, "the capture was spoiled by what cannot be captured");
    }
    *out = graph;
    return TW_OK;
}

static void run_graph(void *context) {
    const tw_graph *graph = *(tw_graph **)context;
    for (int64_t i = 0; i < graph->list.count; i++) graph->list.tasks[i].run(graph->list.tasks[i].context);
}

tw_status tw_shim_launch_graph(tw_device *d, tw_graph *graph) {
    if (!graph) return FAIL(TW_ERR_ARGUMENT, "no graph was captured");
    if (tw_shim_of(d)->capturing) return tw_shim_refused(tw_shim_of(d), "launching a graph");
    return tw_shim_add_work(tw_shim_of(d), TW_QUEUE_COMPUTE, run_graph, &graph, sizeof graph);
}
