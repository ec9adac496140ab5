#include "autograd/arena.h"

#include <stdlib.h>

static int larger_first(const void *a, const void *b) {
    const tw_lifetime *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes) return (*x)->bytes > (*y)->bytes ? -1 : 1;
    return *x < *y ? -1 : *x > *y; /* list order: the plan must not depend on qsort */
}

static bool overlap_in_time(const tw_lifetime *a, const tw_lifetime *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* `placed` is sorted by offset. The lowest gap that fits between the placed buffers alive at the same time.
 */
static size_t lowest_offset(const tw_lifetime *buffer, tw_lifetime *const *placed, int n) {
    size_t offset = 0;
    for (int i = 0; i < n; i++) {
        const tw_lifetime *other = placed[i];
        if (!overlap_in_time(buffer, other)) continue;
        if (offset + buffer->bytes <= other->offset) break;
        size_t end = other->offset + other->bytes;
        if (end > offset) offset = end;
    }
    return offset;
}

tw_status tw_arena_plan(tw_lifetime *buffers, int count, size_t *peak) {
    *peak = 0;
    if (count == 0) return TW_OK;
    tw_lifetime **order = calloc((size_t)count * 2, sizeof *order);
    if (!order) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_lifetime **placed = order + count;
    for (int i = 0; i < count; i++) {
        buffers[i].bytes = (buffers[i].bytes + TW_ARENA_ALIGN - 1) / TW_ARENA_ALIGN * TW_ARENA_ALIGN;
        order[i] = &buffers[i];
    }
    qsort(order, (size_t)count, sizeof *order, larger_first);
    for (int n = 0; n < count; n++) {
        tw_lifetime *buffer = order[n];
        buffer->offset = lowest_offset(buffer, placed, n);
        if (buffer->offset + buffer->bytes > *peak) *peak = buffer->offset + buffer->bytes;
        int at = n;
        while (at > 0 && placed[at - 1]->offset > buffer->offset) {
            placed[at] = placed[at - 1];
            at--;
        }
        placed[at] = buffer;
    }
    free(order);
    return TW_OK;
}

tw_status tw_arena_reserve(tw_arena *arena, size_t bytes) {
    if (bytes <= arena->bytes) return TW_OK;
    tw_arena_release(arena);
    TRY(arena->device->alloc(arena->device, bytes, &arena->base));
    arena->bytes = bytes;
    return TW_OK;
}

void tw_arena_release(tw_arena *arena) {
    if (arena->base) arena->device->release(arena->device, arena->base);
    arena->base = NULL;
    arena->bytes = 0;
}
