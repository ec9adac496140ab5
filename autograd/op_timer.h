/* How long each operation takes on the device: stamps of the compute queue around every call. Each costs a
 * little, so that a timed run is slower than others, and work between calls (copies, gaps) is in none. */
#ifndef TW_AUTOGRAD_OP_TIMER_H
#define TW_AUTOGRAD_OP_TIMER_H

#include "autograd/op.h"

typedef struct tw_op_timer tw_op_timer;

typedef struct tw_op_time {
    int64_t calls;
    double seconds;
} tw_op_time;

/* Times every call on this device from now on, until it is freed. One timer a device. */
tw_status tw_op_timer_create(tw_device *device, tw_op_timer **out) TW_MUST_CHECK;
void tw_op_timer_free(tw_op_timer *timer); /* accepts NULL */

/* Waits for what was called so far and adds it to the totals. Worth calling once a step: stamps are kept
 * until then. */
tw_status tw_op_timer_collect(tw_op_timer *timer) TW_MUST_CHECK;
tw_op_time tw_op_timer_total(const tw_op_timer *timer, tw_op op, bool backward);
void tw_op_timer_reset(tw_op_timer *timer);

/* For op.c, around a call. */
tw_status tw_op_timer_begin(tw_op_timer *timer, tw_op op, bool backward) TW_MUST_CHECK;
tw_status tw_op_timer_end(tw_op_timer *timer) TW_MUST_CHECK;

#endif
