#include "autograd/affinity.h"
#include "autograd/device.h"
#include "autograd/expected.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static tw_status cpu_alloc(tw_device *d, size_t bytes, void **out) {
    *out = tw_expected_take(d->state, bytes);
    if (*out) return TW_OK;
    size_t alignment = bytes >= HUGE_PAGE ? (size_t)HUGE_PAGE : (size_t)ALIGNMENT;
    size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded < bytes) return FAIL(TW_ERR_MEMORY, "%zu bytes were asked for", bytes);
    void *p = aligned_alloc(alignment, rounded ? rounded : alignment);
    if (!p) return FAIL(TW_ERR_MEMORY, "out of memory: %.1f MB were asked for", (double)bytes / 1e6);
    /* Fewer page faults and TLB misses in a step's sweeps over activations; only a hint. */
    if (bytes >= HUGE_PAGE) (void)madvise(p, rounded, MADV_HUGEPAGE);
    *out = p;
    return TW_OK;
}

static void cpu_release(tw_device *d, void *p) {
    if (!tw_expected_release(d->state, p)) free(p);
}

static void cpu_expect(tw_device *d, size_t bytes) {
    tw_expected_begin(d->state, bytes);
}

static size_t cpu_room(tw_device *d) {
    (void)d;
    return 0;
}

static tw_status cpu_upload(tw_device *d, tw_queue q, void *dst, const void *host, size_t bytes) {
    (void)d, (void)q;
    if (bytes) memcpy(dst, host, bytes);
    return TW_OK;
}

static tw_status cpu_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    (void)d, (void)q;
    if (bytes) memset(dst, 0, bytes);
    return TW_OK;
}

static tw_status cpu_sync(tw_device *d, tw_queue q) {
    (void)d, (void)q;
    return TW_OK;
}

static tw_status cpu_record(tw_device *d, tw_queue q, tw_event **event) {
    (void)d, (void)q, (void)event; /* work is done when a call returns */
    return TW_OK;
}

static tw_status cpu_wait(tw_device *d, tw_queue q, tw_event *event) {
    (void)d, (void)q, (void)event;
    return TW_OK;
}

static tw_status cpu_await(tw_device *d, tw_event *event) {
    (void)d, (void)event;
    return TW_OK;
}

struct tw_event { /* of stamp */
    double time;
};

static tw_status cpu_stamp(tw_device *d, tw_queue q, tw_event **event) {
    (void)d, (void)q;
    struct timespec now;
    if (!*event) *event = malloc(sizeof **event);
    if (!*event) return FAIL(TW_ERR_MEMORY, "out of memory");
    clock_gettime(CLOCK_MONOTONIC, &now);
    (*event)->time = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    return TW_OK;
}

static tw_status cpu_seconds(tw_device *d, tw_event *from, tw_event *to, double *out) {
    (void)d;
    *out = to->time - from->time;
    return TW_OK;
}

static void cpu_event_release(tw_device *d, tw_event *event) {
    (void)d;
    free(event);
}

static void cpu_range(tw_device *d, const char *name) {
    (void)d, (void)name;
}

static tw_status cpu_capture_begin(tw_device *d) {
    (void)d;
    return TW_OK;
}

static tw_status cpu_capture_end(tw_device *d, tw_graph **out) {
    (void)d;
    *out = NULL;
    return TW_OK;
}

static tw_status cpu_launch(tw_device *d, tw_graph *graph) {
    (void)d, (void)graph;
    return FAIL(TW_ERR_ARGUMENT, "the CPU captures no graphs");
}

static void cpu_graph_release(tw_device *d, tw_graph *graph) {
    (void)d, (void)graph;
}

static void cpu_destroy(tw_device *d) {
    tw_expected_free(d->state);
    free(d);
}

static int available_cores(void) {
    tw_affinity cores;
    tw_affinity_read(0, &cores);
    return cores.end ? tw_affinity_count(&cores) : 1;
}

tw_status tw_device_cpu(int threads, tw_device **out) {
    *out = NULL;
    if (threads < 0) return FAIL(TW_ERR_ARGUMENT, "%d compute threads", threads);
    tw_device *d = malloc(sizeof *d);
    if (!d) return FAIL(TW_ERR_MEMORY, "out of memory");
    *d = (tw_device){
        .kind = TW_CPU,
        .name = "cpu",
        .state = tw_expected_create(), /* without it nothing is expected */
        .alloc = cpu_alloc,
        .release = cpu_release,
        .expect = cpu_expect,
        .room = cpu_room,
        .pinned_alloc = cpu_alloc,
        .pinned_release = cpu_release,
        .upload = cpu_upload,
        .download = cpu_upload,
        .copy = cpu_upload,
        .zero = cpu_zero,
        .sync = cpu_sync,
        .record = cpu_record,
        .wait = cpu_wait,
        .await = cpu_await,
        .stamp = cpu_stamp,
        .seconds = cpu_seconds,
        .event_release = cpu_event_release,
        .range = cpu_range,
        .capture_begin = cpu_capture_begin,
        .capture_end = cpu_capture_end,
        .launch = cpu_launch,
        .graph_release = cpu_graph_release,
        .destroy = cpu_destroy,
    };
    /* A fixed team of a fixed size: sums are split the same way every time. */
    omp_set_dynamic(0);
    omp_set_num_threads(threads ? threads : available_cores());
    *out = d;
    return TW_OK;
}

void tw_device_free(tw_device *d) {
    if (d) d->destroy(d);
}
