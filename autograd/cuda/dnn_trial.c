#include "autograd/cuda/dnn_trial.h"

#include <stdlib.h>

static size_t type_bytes(tw_dnn_type type) {
    return type == TW_DNN_I64 ? 8 : type == TW_DNN_BF16 ? 2 : type == TW_DNN_BOOL ? 1 : 4;
}

/* A slot may be several tensors, which see the same memory in different ways. */
static size_t slot_bytes(const tw_dnn_graph *g, int slot) {
    size_t most = 0;
    for (int i = 0; i < g->tensors; i++) {
        const tw_dnn_tensor *t = &g->tensor[i];
        size_t bytes = (size_t)tw_dnn_extent(t) * type_bytes(t->type);
        if (t->slot == slot && bytes > most) most = bytes;
    }
    return most;
}

static bool holds_counts(const tw_dnn_graph *g, int slot) {
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i].slot == slot && g->tensor[i].type == TW_DNN_I32) return true;
    return false;
}

static tw_status fill_counts(tw_device *d, void *memory, size_t bytes) {
    int32_t *ones = malloc(bytes);
    if (!ones) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < bytes / sizeof *ones; i++) ones[i] = 1;
    tw_status status = d->upload(d, TW_QUEUE_COMPUTE, memory, ones, bytes);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE); /* `ones` is read until here */
    free(ones);
    return status;
}

static tw_status make_slot(tw_dnn_trial *t, const tw_dnn_graph *g, int slot, bool *enough) {
    tw_device *d = t->device;
    size_t bytes = slot_bytes(g, slot);
    if (bytes == 0) return TW_OK;
    tw_status status = d->alloc(d, bytes, &t->slot[slot]);
    *enough = status != TW_ERR_MEMORY;
    if (status != TW_OK) return *enough ? status : TW_OK;
    if (holds_counts(g, slot)) return fill_counts(d, t->slot[slot], bytes);
    return d->zero(d, TW_QUEUE_COMPUTE, t->slot[slot], bytes);
}

tw_status tw_dnn_trial_begin(tw_device *d, const tw_dnn_graph *g, tw_dnn_trial *out, bool *enough) {
    tw_status status = TW_OK;
    *out = (tw_dnn_trial){.device = d};
    *enough = true;
    for (int i = 0; i < TW_DNN_SLOTS && status == TW_OK && *enough; i++)
        status = make_slot(out, g, i, enough);
    if (status == TW_OK && *enough) return TW_OK;
    tw_dnn_trial_end(out);
    return status;
}

tw_status tw_dnn_trial_room(tw_dnn_trial *t, size_t bytes, bool *enough) {
    tw_device *d = t->device;
    d->release(d, t->scratch);
    t->scratch = NULL;
    tw_status status = d->alloc(d, bytes, &t->scratch);
    *enough = status != TW_ERR_MEMORY;
    return *enough ? status : TW_OK;
}

void tw_dnn_trial_end(tw_dnn_trial *t) {
    for (int i = 0; t->device && i < TW_DNN_SLOTS; i++) t->device->release(t->device, t->slot[i]);
    if (t->device) t->device->release(t->device, t->scratch);
    *t = (tw_dnn_trial){0};
}
