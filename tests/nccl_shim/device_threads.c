#include "stream_threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_GPUS = 16 };

typedef struct thread_device {
    tw_device base;
    struct CUstream_st stream[TW_QUEUES];
    int gpu;
    char name[64];
    void *library[TW_CUDA_LIBRARIES];
    void (*release[TW_CUDA_LIBRARIES])(void *);
} thread_device;

static _Thread_local int current_gpu = -1;

int tw_current_gpu(void) {
    return current_gpu;
}

/* ---- the device ---- */

static thread_device *of(const tw_device *d) {
    return d->state;
}

cudaStream_t tw_cuda_stream(tw_device *d, tw_queue queue) {
    current_gpu = of(d)->gpu;
    return &of(d)->stream[queue];
}

tw_status tw_cuda_status(cudaError_t error, const char *what) {
    return error == cudaSuccess ? TW_OK : FAIL(TW_ERR_LIBRARY, "%s: error %d", what, (int)error);
}

void **tw_cuda_slot(tw_device *d, tw_cuda_library library, void (*release)(void *)) {
    of(d)->release[library] = release;
    return &of(d)->library[library];
}

bool tw_cuda_capturing(const tw_device *d) {
    (void)d;
    return false;
}

tw_device *tw_cuda_itself(const tw_device *d) {
    return &of(d)->base;
}

static void drain(tw_device *d) {
    for (int q = 0; q < TW_QUEUES; q++) tw_stream_drain(&of(d)->stream[q]);
}

static tw_status shim_alloc(tw_device *d, size_t bytes, void **out) {
    (void)d;
    *out = NULL;
    if (posix_memalign(out, 64, bytes ? bytes : 1) != 0) return FAIL(TW_ERR_MEMORY, "out of memory");
    memset(*out, 0xff, bytes);
    return TW_OK;
}

static void shim_release(tw_device *d, void *p) {
    if (!p) return;
    drain(d); /* as cudaFree does */
    free(p);
}

typedef struct copy_work {
    void *to;
    const void *from;
    void *staged; /* freed after */
    size_t bytes;
} copy_work;

static void copy_run(void *context) {
    const copy_work *w = context;
    if (w->from)
        memmove(w->to, w->from, w->bytes);
    else
        memset(w->to, 0, w->bytes);
    free(w->staged);
}

static tw_status add_copy(tw_device *d, tw_queue q, copy_work w) {
    if (w.bytes == 0) return TW_OK;
    return tw_cuda_status(tw_stream_work(tw_cuda_stream(d, q), copy_run, &w, sizeof w), "copying");
}

/* Memory that is not pinned is read before this returns. */
static tw_status shim_upload(tw_device *d, tw_queue q, void *to, const void *host, size_t bytes) {
    void *staged = malloc(bytes + 1);
    if (!staged) return FAIL(TW_ERR_MEMORY, "out of memory");
    if (bytes) memcpy(staged, host, bytes);
    if (bytes == 0) free(staged);
    return add_copy(d, q, (copy_work){to, staged, staged, bytes});
}

static tw_status shim_copy(tw_device *d, tw_queue q, void *to, const void *from, size_t bytes) {
    return add_copy(d, q, (copy_work){to, from, NULL, bytes});
}

static tw_status shim_zero(tw_device *d, tw_queue q, void *to, size_t bytes) {
    return add_copy(d, q, (copy_work){to, NULL, NULL, bytes});
}

static tw_status shim_sync(tw_device *d, tw_queue q) {
    tw_stream_drain(tw_cuda_stream(d, q));
    return TW_OK;
}

static tw_status shim_record(tw_device *d, tw_queue q, tw_event **event) {
    cudaEvent_t e = (cudaEvent_t)*event;
    if (!e) TRY(tw_cuda_status(cudaEventCreateWithFlags(&e, 0), "making an event"));
    *event = (tw_event *)e;
    return tw_cuda_status(cudaEventRecord(e, tw_cuda_stream(d, q)), "recording an event");
}

static tw_status shim_wait(tw_device *d, tw_queue q, tw_event *event) {
    if (!event) return TW_OK;
    return tw_cuda_status(cudaStreamWaitEvent(tw_cuda_stream(d, q), (cudaEvent_t)event, 0),
                          "waiting for an event");
}

static void shim_expect(tw_device *d, size_t bytes) {
    (void)d, (void)bytes;
}

static size_t shim_room(tw_device *d) {
    (void)d;
    return 0;
}

static tw_status shim_await(tw_device *d, tw_event *event) {
    (void)d;
    while (event) {
        cudaError_t e = cudaEventQuery((cudaEvent_t)event);
        if (e != cudaErrorNotReady) return tw_cuda_status(e, "waiting for an event");
        usleep(50);
    }
    return TW_OK;
}

static tw_status shim_seconds(tw_device *d, tw_event *from, tw_event *to, double *out) {
    float ms = 0;
    (void)d;
    TRY(tw_cuda_status(cudaEventElapsedTime(&ms, (cudaEvent_t)from, (cudaEvent_t)to), "reading a time"));
    *out = (double)ms * 1e-3;
    return TW_OK;
}

static void shim_range(tw_device *d, const char *name) {
    (void)d, (void)name;
}

static void shim_event_release(tw_device *d, tw_event *event) {
    (void)d;
    if (event) (void)cudaEventDestroy((cudaEvent_t)event);
}

static tw_status shim_capture_begin(tw_device *d) {
    (void)d;
    return FAIL(TW_ERR_UNSUPPORTED, "a device of threads captures nothing");
}

static tw_status shim_capture_end(tw_device *d, tw_graph **out) {
    (void)d;
    *out = NULL;
    return TW_OK;
}

static tw_status shim_launch(tw_device *d, tw_graph *graph) {
    (void)d, (void)graph;
    return FAIL(TW_ERR_ARGUMENT, "no graph was captured");
}

static void shim_graph_release(tw_device *d, tw_graph *graph) {
    (void)d, (void)graph;
}

static void shim_destroy(tw_device *d) {
    for (int q = 0; q < TW_QUEUES; q++) tw_stream_close(&of(d)->stream[q]);
    for (int i = 0; i < TW_CUDA_LIBRARIES; i++)
        if (of(d)->library[i]) of(d)->release[i](of(d)->library[i]);
    free(of(d));
}

/* ---- the GPUs ---- */

/* Which GPU of the host this process calls `index`; -1: it does not see so many. */
static int gpu_of(int index) {
    const char *text = getenv("TW_SHIM_GPUS"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    int gpus = text ? atoi(text) : MOST_GPUS;
    if (!visible) return index < gpus ? index : -1;
    for (int i = 0; *visible; i++) {
        char *end;
        long gpu = strtol(visible, &end, 10);
        if (end == visible || gpu < 0 || gpu >= gpus) return -1; /* what follows is not seen either */
        if (i == index) return (int)gpu;
        visible = *end ? end + 1 : end;
    }
    return -1;
}

tw_status tw_cuda_check_driver(void) {
    return TW_OK;
}

int tw_cuda_devices(void) {
    int n = 0;
    while (n < MOST_GPUS && gpu_of(n) >= 0) n++;
    return n;
}

void tw_cuda_set_tf32(tw_device *d, bool allowed) {
    (void)d, (void)allowed; /* products are exact, where it has any */
}

void tw_cuda_set_deterministic(tw_device *d, bool wanted) {
    (void)d, (void)wanted; /* nor anything else that could differ */
}

bool tw_cuda_deterministic(const tw_device *d) {
    (void)d;
    return true;
}

tw_status tw_cuda_id(int index, unsigned char id[TW_CUDA_ID]) {
    int gpu = gpu_of(index);
    if (gpu < 0) return FAIL(TW_ERR_ARGUMENT, "there is no GPU %d", index);
    memset(id, 0x5a, TW_CUDA_ID);
    id[TW_CUDA_ID - 1] = (unsigned char)gpu;
    return TW_OK;
}

cudaError_t cudaGetDevice(int *device) {
    for (*device = 0; *device < MOST_GPUS; ++*device)
        if (gpu_of(*device) == current_gpu) return cudaSuccess;
    return cudaErrorInvalidValue;
}

tw_status tw_device_cuda(int index, tw_device **out) {
    *out = NULL;
    int gpu = gpu_of(index);
    if (gpu < 0) return FAIL(TW_ERR_UNSUPPORTED, "no CUDA device is seen");
    thread_device *d = calloc(1, sizeof *d);
    if (!d) return FAIL(TW_ERR_MEMORY, "out of memory");
    d->gpu = gpu;
    snprintf(d->name, sizeof d->name, "cuda:%d (GPU %d of threads)", index, gpu);
    for (int q = 0; q < TW_QUEUES; q++) tw_stream_open(&d->stream[q], (unsigned)(gpu * TW_QUEUES + q));
    d->base = (tw_device){
        .kind = TW_CUDA,
        .name = d->name,
        .state = d,
        .alloc = shim_alloc,
        .release = shim_release,
        .expect = shim_expect,
        .room = shim_room,
        .pinned_alloc = shim_alloc,
        .pinned_release = shim_release,
        .upload = shim_upload,
        .download = shim_copy,
        .copy = shim_copy,
        .zero = shim_zero,
        .sync = shim_sync,
        .record = shim_record,
        .wait = shim_wait,
        .await = shim_await,
        .stamp = shim_record,
        .seconds = shim_seconds,
        .event_release = shim_event_release,
        .range = shim_range,
        .capture_begin = shim_capture_begin,
        .capture_end = shim_capture_end,
        .launch = shim_launch,
        .graph_release = shim_graph_release,
        .destroy = shim_destroy,
    };
    *out = &d->base;
    return TW_OK;
}
