/* tw_device_cuda for the shim: device memory is the host's.
 *
 * By default everything is done when a call returns. With TW_SHIM_LATE=1 in the environment the device is
 * as unhelpful as a GPU may be: work waits in its queue until the host must have it, copies from and to
 * pinned memory happen no sooner than that, what a queue does is not seen by another one without an event,
 * device memory cannot be touched by the host (SIGSEGV), and what CUDA refuses while a queue is captured is
 * refused. */
#include "device_shim_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void shim_range(tw_device *d, const char *name) {
    (void)d, (void)name;
}

static void shim_destroy(tw_device *d) {
    shim_device *s = tw_shim_of(d);
    tw_shim_run_all(s);
    if (s->graph) tw_shim_free_list(&s->graph->list);
    free(s->graph);
    for (int q = 0; q < TW_QUEUES; q++) tw_shim_free_list(&s->queues[q]);
    if (s->region) munmap(s->region, TW_SHIM_REGION);
    for (int i = 0; i < TW_CUDA_LIBRARIES; i++)
        if (s->library[i]) s->release[i](s->library[i]);
    free(s);
}

tw_status tw_device_cuda(int index, tw_device **out) {
    *out = NULL;
    if (index != 0) return FAIL(TW_ERR_ARGUMENT, "there is no CUDA device %d: 1 is seen", index);
    static bool fuses;
    const char *late = getenv("TW_SHIM_LATE");
    shim_device *s = calloc(1, sizeof *s);
    if (!s) return FAIL(TW_ERR_MEMORY, "out of memory");
    s->late = late && *late == '1';
    s->fuses = fuses = s->late || !fuses;
    s->base = (tw_device){
        .kind = TW_CUDA,
        .name = "cuda shim",
        .state = s,
        .alloc = tw_shim_alloc,
        .release = tw_shim_release,
        .expect = tw_shim_expect,
        .room = tw_shim_room,
        .pinned_alloc = tw_shim_pinned_alloc,
        .pinned_release = tw_shim_pinned_release,
        .upload = tw_shim_upload,
        .download = tw_shim_copy,
        .copy = tw_shim_copy,
        .zero = tw_shim_zero,
        .sync = tw_shim_sync,
        .record = tw_shim_record,
        .wait = tw_shim_wait,
        .await = tw_shim_await,
        .stamp = tw_shim_stamp,
        .seconds = tw_shim_seconds,
        .event_release = tw_shim_event_release,
        .range = shim_range,
        .capture_begin = tw_shim_capture_begin,
        .capture_end = tw_shim_capture_end,
        .launch = tw_shim_launch_graph,
        .graph_release = tw_shim_graph_release,
        .destroy = shim_destroy,
    };
    if (s->late) {
        void *p = mmap(NULL, TW_SHIM_REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        s->region = p == MAP_FAILED ? NULL : p;
    }
    if (s->late && !s->region) {
        free(s);
        return FAIL(TW_ERR_MEMORY, "the shim gets no address space");
    }
    *out = &s->base;
    return TW_OK;
}

bool tw_shim_device_fuses(const tw_device *d) {
    return tw_shim_of(d)->fuses;
}

void **tw_cuda_slot(tw_device *d, tw_cuda_library library, void (*release)(void *)) {
    tw_shim_of(d)->release[library] = release;
    return &tw_shim_of(d)->library[library];
}

bool tw_cuda_capturing(const tw_device *d) {
    return tw_shim_of(d)->capturing;
}

tw_device *tw_cuda_itself(const tw_device *d) {
    return &tw_shim_of(d)->base;
}

tw_status tw_cuda_check_driver(void) {
    return TW_OK;
}

int tw_cuda_devices(void) {
    return 1;
}

tw_status tw_cuda_id(int index, unsigned char id[TW_CUDA_ID]) {
    memset(id, 0x5a, TW_CUDA_ID);
    return index == 0 ? TW_OK : FAIL(TW_ERR_ARGUMENT, "there is no GPU %d", index);
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

void tw_cuda_set_deterministic(tw_device *d, bool wanted) {
    tw_shim_of(d)->deterministic = wanted;
}

bool tw_cuda_deterministic(const tw_device *d) {
    return tw_shim_of(d)->deterministic;
}
