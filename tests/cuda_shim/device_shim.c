/* tw_device_cuda for the shim: device memory is the host's, everything is done when a call returns. */
#include "device_shim.h"

#include "autograd/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shim_device {
    tw_device base;
    bool fuses;
} shim_device;

/* Exactly `bytes`, so that AddressSanitizer sees the first byte beyond; 64-byte aligned like cudaMalloc's. */
static tw_status shim_alloc(tw_device *d, size_t bytes, void **out) {
    (void)d;
    *out = NULL;
    if (posix_memalign(out, 64, bytes ? bytes : 1) != 0)
        return FAIL(TW_ERR_MEMORY, "out of memory: %zu bytes were asked for", bytes);
    memset(*out, 0xff, bytes);
    return TW_OK;
}

static void shim_release(tw_device *d, void *p) {
    (void)d;
    free(p);
}

static tw_status shim_copy(tw_device *d, tw_queue q, void *dst, const void *src, size_t bytes) {
    (void)d, (void)q;
    if (bytes) memcpy(dst, src, bytes);
    return TW_OK;
}

static tw_status shim_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    (void)d, (void)q;
    if (bytes) memset(dst, 0, bytes);
    return TW_OK;
}

static tw_status shim_sync(tw_device *d, tw_queue q) {
    (void)d, (void)q;
    return TW_OK;
}

static tw_status shim_record(tw_device *d, tw_queue q, tw_event **event) {
    (void)d, (void)q;
    *event = NULL;
    return TW_OK;
}

static tw_status shim_wait(tw_device *d, tw_queue q, tw_event *event) {
    (void)d, (void)q, (void)event;
    return TW_OK;
}

static void shim_event_release(tw_device *d, tw_event *event) {
    (void)d, (void)event;
}

static tw_status shim_capture_begin(tw_device *d) {
    (void)d;
    return TW_OK;
}

static tw_status shim_capture_end(tw_device *d, tw_graph **out) {
    (void)d;
    *out = NULL;
    return TW_OK;
}

static tw_status shim_launch(tw_device *d, tw_graph *graph) {
    (void)d, (void)graph;
    return FAIL(TW_ERR_ARGUMENT, "the shim captures no graphs");
}

static void shim_graph_release(tw_device *d, tw_graph *graph) {
    (void)d, (void)graph;
}

static void shim_destroy(tw_device *d) {
    free(d);
}

tw_status tw_device_cuda(int index, tw_device **out) {
    (void)index;
    *out = NULL;
    static bool fuses;
    shim_device *d = malloc(sizeof *d);
    if (!d) return FAIL(TW_ERR_MEMORY, "out of memory");
    d->fuses = fuses = !fuses;
    d->base = (tw_device){
        .kind = TW_CUDA,
        .name = "cuda shim",
        .alloc = shim_alloc,
        .release = shim_release,
        .pinned_alloc = shim_alloc,
        .pinned_release = shim_release,
        .upload = shim_copy,
        .download = shim_copy,
        .copy = shim_copy,
        .zero = shim_zero,
        .sync = shim_sync,
        .record = shim_record,
        .wait = shim_wait,
        .event_release = shim_event_release,
        .capture_begin = shim_capture_begin,
        .capture_end = shim_capture_end,
        .launch = shim_launch,
        .graph_release = shim_graph_release,
        .destroy = shim_destroy,
    };
    *out = &d->base;
    return TW_OK;
}

bool tw_shim_device_fuses(const tw_device *d) {
    return ((const shim_device *)d)->fuses;
}

int tw_cuda_devices(void) {
    return 1;
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
