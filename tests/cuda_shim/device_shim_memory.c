/* The shim's memory: blocks of the device and pinned ones, and the copies between them and the host's. */
#include "device_shim_private.h"

#include <stdlib.h>
#include <string.h>

static const size_t GRAIN = 256;

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
    if (at + taken > s->region + TW_SHIM_REGION) return FAIL(TW_ERR_MEMORY, "the shim is out of memory");
    TRY(remember(s, (block){at, taken, false}));
    tw_shim_enter(s);
    memset(at, 0xff, taken);
    tw_shim_leave(s);
    *out = at;
    return TW_OK;
}

/* At once exactly `bytes`, so that AddressSanitizer sees the first byte beyond. */
tw_status tw_shim_alloc(tw_device *d, size_t bytes, void **out) {
    *out = NULL;
    if (tw_shim_of(d)->capturing) return tw_shim_refused(tw_shim_of(d), "allocating device memory");
    if (tw_shim_of(d)->late) return place(tw_shim_of(d), bytes ? bytes : 1, out);
    if (posix_memalign(out, 64, bytes ? bytes : 1) != 0)
        return FAIL(TW_ERR_MEMORY, "out of memory: %zu bytes were asked for", bytes);
    memset(*out, 0xff, bytes);
    return TW_OK;
}

/* Waits for the device, as cudaFree does. */
void tw_shim_release(tw_device *d, void *p) {
    shim_device *s = tw_shim_of(d);
    if (s->capturing) s->broken = true;
    if (!s->late) free(p);
    if (!s->late || !p) return;
    tw_shim_run_all(s);
    block *b = find(s, p);
    if (!b) abort();
    *b = s->blocks[--s->count];
}

void tw_shim_expect(tw_device *d, size_t bytes) {
    (void)d, (void)bytes;
}

size_t tw_shim_room(tw_device *d) {
    (void)d;
    return TW_SHIM_REGION / 2;
}

tw_status tw_shim_pinned_alloc(tw_device *d, size_t bytes, void **out) {
    shim_device *s = tw_shim_of(d);
    *out = NULL;
    if (s->capturing) return tw_shim_refused(s, "allocating pinned memory");
    if (posix_memalign(out, 64, bytes ? bytes : 1) != 0) return FAIL(TW_ERR_MEMORY, "out of memory");
    memset(*out, 0xff, bytes);
    return remember(s, (block){*out, bytes ? bytes : 1, true});
}

void tw_shim_pinned_release(tw_device *d, void *p) {
    shim_device *s = tw_shim_of(d);
    if (!p) return;
    tw_shim_run_all(s);
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

tw_status tw_shim_copy(tw_device *d, tw_queue q, void *dst, const void *src, size_t bytes) {
    transfer t = {dst, src, bytes};
    return bytes ? tw_shim_add_work(tw_shim_of(d), q, run_copy, &t, sizeof t) : TW_OK;
}

tw_status tw_shim_upload(tw_device *d, tw_queue q, void *dst, const void *host, size_t bytes) {
    shim_device *s = tw_shim_of(d);
    const block *b = find(s, host);
    if (!s->late || bytes == 0 || (b && b->pinned)) return tw_shim_copy(d, q, dst, host, bytes);
    if (s->capturing && q == TW_QUEUE_COMPUTE)
        return tw_shim_refused(s, "uploading memory that is not pinned");
    transfer *t = malloc(sizeof *t + bytes);
    if (!t) return FAIL(TW_ERR_MEMORY, "out of memory");
    *t = (transfer){.dst = dst, .bytes = bytes};
    memcpy(t + 1, host, bytes);
    tw_status status = tw_shim_add_work(s, q, run_staged, t, sizeof *t + bytes);
    free(t);
    return status;
}

tw_status tw_shim_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    transfer t = {.dst = dst, .bytes = bytes};
    return bytes ? tw_shim_add_work(tw_shim_of(d), q, run_zero, &t, sizeof t) : TW_OK;
}
