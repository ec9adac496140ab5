/* The step arena: one block on a device in which every activation, gradient and scratch buffer of a tape has
 * a fixed place. Offsets are planned from lifetimes before the first step, so the peak is known and addresses
 * repeat. */
#ifndef TW_AUTOGRAD_ARENA_H
#define TW_AUTOGRAD_ARENA_H

#include "autograd/device.h"

#include <stdbool.h>

enum { TW_ARENA_ALIGN = 64 };

/* A buffer that lives from schedule position `first` to `last`, both included. */
typedef struct tw_lifetime {
    size_t bytes;
    int first, last;
    size_t offset; /* set by tw_arena_plan: bytes from the block's start */
} tw_lifetime;

/* Gives every buffer an offset such that buffers alive at one time do not overlap; *peak is the block's size
 * in bytes. Greedy by size (largest first, lowest free offset): offsets depend on the list alone. */
tw_status tw_arena_plan(tw_lifetime *buffers, int count, size_t *peak) TW_MUST_CHECK;

typedef struct tw_arena {
    tw_device *device;
    void *base;
    size_t bytes;
} tw_arena;

/* Makes the arena at least `bytes` large. Growing releases the old block: tapes bound to it must be bound
 * again. */
tw_status tw_arena_reserve(tw_arena *arena, size_t bytes) TW_MUST_CHECK;
void tw_arena_release(tw_arena *arena);

#endif
