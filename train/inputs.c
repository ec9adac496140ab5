#include "train/inputs.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2, SMALL = 256, ALIGNMENT = 256 };

typedef struct slot {
    char *memory; /* device */
    size_t capacity;
    tw_event *sent, *taken; /* on the copy queue; on the compute queue */
    char *small;            /* pinned, SMALL bytes */
    size_t small_bytes;
} slot;

struct tw_inputs {
    tw_device *device;
    slot slots[SLOTS];
    int64_t sends, takes;
    char *pinned; /* (SLOTS, SMALL) */
};

tw_status tw_inputs_create(tw_device *d, tw_inputs **out) {
    tw_inputs *in = *out = calloc(1, sizeof *in);
    if (!in) return FAIL(TW_ERR_MEMORY, "out of memory");
    in->device = d;
    tw_status status = d->pinned_alloc(d, (size_t)SLOTS * SMALL, (void **)&in->pinned);
    if (status != TW_OK) {
        free(in);
        *out = NULL;
        return status;
    }
    for (int i = 0; i < SLOTS; i++) in->slots[i].small = in->pinned + (size_t)i * SMALL;
    return TW_OK;
}

void tw_inputs_free(tw_inputs *in) {
    if (!in) return;
    tw_device *d = in->device;
    for (int i = 0; i < SLOTS; i++) {
        d->event_release(d, in->slots[i].sent);
        d->event_release(d, in->slots[i].taken);
        d->release(d, in->slots[i].memory);
    }
    d->pinned_release(d, in->pinned);
    free(in);
}

static size_t rounded(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Blocks lie one behind the other, the small one last. */
static size_t offset_of(const tw_input_copy *copies, int i) {
    size_t at = 0;
    for (int k = 0; k < i; k++) at += rounded(copies[k].bytes);
    return at;
}

static tw_status reserve(tw_device *d, slot *s, size_t bytes) {
    if (bytes <= s->capacity) return TW_OK;
    s->capacity = 0;
    d->release(d, s->memory);
    s->memory = NULL;
    TRY(d->alloc(d, bytes, (void **)&s->memory));
    s->capacity = bytes;
    return TW_OK;
}

tw_status tw_inputs_send(tw_inputs *in, const tw_input_copy *copies, int n, const void *small,
                         size_t small_bytes) {
    tw_device *d = in->device;
    slot *s = &in->slots[in->sends % SLOTS];
    if (n < 0 || n > TW_INPUTS_MOST || small_bytes > SMALL || in->sends - in->takes >= SLOTS)
        return FAIL(TW_ERR_ARGUMENT, "a send of %d blocks and %zu bytes with %lld waiting", n, small_bytes,
                    (long long)(in->sends - in->takes));
    TRY(reserve(d, s, offset_of(copies, n) + SMALL));
    TRY(d->await(d, s->sent)); /* its pinned bytes have been read */
    if (small_bytes) memcpy(s->small, small, small_bytes);
    s->small_bytes = small_bytes;
    TRY(d->wait(d, TW_QUEUE_COPY, s->taken));
    for (int i = 0; i < n; i++)
        TRY(d->upload(d, TW_QUEUE_COPY, s->memory + offset_of(copies, i), copies[i].host, copies[i].bytes));
    TRY(d->upload(d, TW_QUEUE_COPY, s->memory + offset_of(copies, n), s->small, small_bytes));
    TRY(d->record(d, TW_QUEUE_COPY, &s->sent));
    in->sends++;
    return TW_OK;
}

tw_status tw_inputs_take(tw_inputs *in, const tw_input_copy *copies, int n, void *small_device) {
    tw_device *d = in->device;
    slot *s = &in->slots[in->takes % SLOTS];
    if (in->takes >= in->sends) return FAIL(TW_ERR_ARGUMENT, "nothing was sent to be taken");
    TRY(d->wait(d, TW_QUEUE_COMPUTE, s->sent));
    for (int i = 0; i < n; i++)
        TRY(d->copy(d, TW_QUEUE_COMPUTE, copies[i].device, s->memory + offset_of(copies, i),
                    copies[i].bytes));
    TRY(d->copy(d, TW_QUEUE_COMPUTE, small_device, s->memory + offset_of(copies, n), s->small_bytes));
    TRY(d->record(d, TW_QUEUE_COMPUTE, &s->taken));
    in->takes++;
    return TW_OK;
}

tw_status tw_inputs_wait(tw_inputs *in) {
    for (int i = 0; i < SLOTS; i++) TRY(in->device->await(in->device, in->slots[i].sent));
    return TW_OK;
}

void tw_inputs_drop(tw_inputs *in) {
    in->takes = in->sends;
}

size_t tw_inputs_bytes(const tw_inputs *in) {
    size_t sum = 0;
    for (int i = 0; i < SLOTS; i++) sum += in->slots[i].capacity;
    return sum;
}
