#include "train/graphs.h"

#include "autograd/progress.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 128 };

typedef struct entry {
    uint64_t plan;
    tw_graph_part part;
    bool plain;      /* it cannot be captured */
    tw_graph *graph; /* NULL: not captured yet */
    int64_t used;    /* when last */
} entry;

struct tw_graphs {
    tw_device *device;
    bool on;
    entry entries[MOST];
    int count;
    int64_t now, launched;
    bool told;
    char trouble[512];
};

tw_status tw_graphs_create(tw_device *device, bool on, tw_graphs **out) {
    tw_graphs *g = *out = calloc(1, sizeof *g);
    if (!g) return FAIL(TW_ERR_MEMORY, "out of memory");
    g->device = device;
    g->on = on && !tw_on_cpu(device);
    return TW_OK;
}

void tw_graphs_free(tw_graphs *g) {
    if (!g) return;
    for (int i = 0; i < g->count; i++) g->device->graph_release(g->device, g->entries[i].graph);
    free(g);
}

static entry *find(tw_graphs *g, uint64_t plan, tw_graph_part part) {
    for (int i = 0; i < g->count; i++)
        if (g->entries[i].plan == plan && g->entries[i].part == part) return &g->entries[i];
    return NULL;
}

/* Room for one more: the one that was not used for longest makes it. */
static entry *add(tw_graphs *g, uint64_t plan, tw_graph_part part) {
    entry *e = &g->entries[g->count];
    if (g->count < MOST) {
        g->count++;
    } else {
        e = &g->entries[0];
        for (int i = 1; i < MOST; i++)
            if (g->entries[i].used < e->used) e = &g->entries[i];
        g->device->graph_release(g->device, e->graph);
    }
    *e = (entry){.plan = plan, .part = part};
    return e;
}

/* Leaves e->graph NULL, and says why, where the body cannot be captured. Whether it ran at once instead. */
static bool capture(tw_graphs *g, entry *e, tw_status (*body)(void *), void *context) {
    tw_device *d = g->device;
    char message[sizeof g->trouble] = "the device ran it at once";
    tw_status status = d->capture_begin(d);
    bool begun = status == TW_OK;
    if (begun) status = body(context);
    if (status != TW_OK) snprintf(message, sizeof message, "%s", tw_last_error());
    tw_status ended = begun ? d->capture_end(d, &e->graph) : TW_OK;
    if (status == TW_OK && ended != TW_OK) snprintf(message, sizeof message, "%s", tw_last_error());
    if (status == TW_OK && ended == TW_OK && e->graph) return false;
    bool ran = status == TW_OK && ended == TW_OK;
    d->graph_release(d, e->graph);
    e->graph = NULL;
    e->plain = true;
    if (!*g->trouble) memcpy(g->trouble, message, sizeof message);
    return ran;
}

static tw_status run(tw_graphs *g, uint64_t plan, tw_graph_part part, tw_status (*body)(void *),
                     void *context) {
    tw_device *d = g->device;
    if (!g->on) return body(context);
    entry *e = find(g, plan, part);
    bool known = e != NULL;
    if (!e) e = add(g, plan, part);
    e->used = ++g->now;
    if (known && !e->plain && !e->graph && capture(g, e, body, context)) return TW_OK;
    if (!e->graph) return body(context);
    g->launched++;
    tw_progress_begin("a captured part of the step");
    return d->launch(d, e->graph);
}

tw_status tw_graphs_run(tw_graphs *g, uint64_t plan, tw_graph_part part, tw_status (*body)(void *),
                        void *context) {
    static const char *const names[TW_GRAPH_PARTS] = {"towers forward", "towers first backward",
                                                      "towers backward", "loss", "optimizer"};
    g->device->range(g->device, names[part]);
    tw_status status = run(g, plan, part, body, context);
    g->device->range(g->device, NULL);
    return status;
}

const char *tw_graphs_trouble(tw_graphs *g) {
    if (!*g->trouble || g->told) return NULL;
    g->told = true;
    return g->trouble;
}

int64_t tw_graphs_launched(const tw_graphs *g) {
    return g->launched;
}
