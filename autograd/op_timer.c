#include "autograd/op_timer.h"

#include <stdlib.h>
#include <string.h>

typedef struct lap {
    tw_op op;
    bool backward;
    tw_event *begin, *end;
} lap;

struct tw_op_timer {
    tw_device *device;
    lap *laps; /* events are made once and used again */
    int64_t count, capacity;
    tw_op_time totals[TW_OP_COUNT][2];
};

tw_status tw_op_timer_create(tw_device *d, tw_op_timer **out) {
    *out = NULL;
    if (d->timer) return FAIL(TW_ERR_ARGUMENT, "%s has a timer already", d->name);
    tw_op_timer *t = calloc(1, sizeof *t);
    if (!t) return FAIL(TW_ERR_MEMORY, "out of memory");
    t->device = d;
    d->timer = *out = t;
    return TW_OK;
}

void tw_op_timer_free(tw_op_timer *t) {
    if (!t) return;
    for (int64_t i = 0; i < t->capacity; i++) {
        t->device->event_release(t->device, t->laps[i].begin);
        t->device->event_release(t->device, t->laps[i].end);
    }
    t->device->timer = NULL;
    free(t->laps);
    free(t);
}

tw_status tw_op_timer_begin(tw_op_timer *t, tw_op op, bool backward) {
    if (t->count == t->capacity) {
        int64_t larger = t->capacity ? 2 * t->capacity : 1024;
        lap *grown = realloc(t->laps, (size_t)larger * sizeof *grown);
        if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
        memset(grown + t->capacity, 0, (size_t)(larger - t->capacity) * sizeof *grown);
        t->laps = grown;
        t->capacity = larger;
    }
    lap *l = &t->laps[t->count];
    l->op = op;
    l->backward = backward;
    return t->device->stamp(t->device, TW_QUEUE_COMPUTE, &l->begin);
}

tw_status tw_op_timer_end(tw_op_timer *t) {
    return t->device->stamp(t->device, TW_QUEUE_COMPUTE, &t->laps[t->count++].end);
}

tw_status tw_op_timer_collect(tw_op_timer *t) {
    tw_device *d = t->device;
    TRY(d->sync(d, TW_QUEUE_COMPUTE));
    for (int64_t i = 0; i < t->count; i++) {
        double seconds;
        TRY(d->seconds(d, t->laps[i].begin, t->laps[i].end, &seconds));
        tw_op_time *total = &t->totals[t->laps[i].op][t->laps[i].backward];
        total->calls++;
        total->seconds += seconds;
    }
    t->count = 0;
    return TW_OK;
}

tw_op_time tw_op_timer_total(const tw_op_timer *t, tw_op op, bool backward) {
    return t->totals[op][backward];
}

void tw_op_timer_reset(tw_op_timer *t) {
    t->count = 0;
    memset(t->totals, 0, sizeof t->totals);
}
