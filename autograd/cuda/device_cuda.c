/* The CUDA device: a stream a queue, host memory that is not pinned goes through a ring of pinned slots. */
#include "autograd/cuda/device_cuda.h"

#include <nvtx3/nvToolsExt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 16, SLOT_BYTES = 1 << 20, LEAST_MAJOR = 8 };

typedef struct staging {
    pthread_mutex_t lock;
    char *memory; /* SLOTS * SLOT_BYTES, pinned; taken when first needed */
    cudaEvent_t free[SLOTS];
    int next;
} staging;

typedef struct cuda_device {
    tw_device base;
    int index;
    char name[288];
    cudaStream_t stream[TW_QUEUES];
    staging ring;
    bool capturing, tf32, deterministic;
    void *library[TW_CUDA_LIBRARIES];
    void (*release[TW_CUDA_LIBRARIES])(void *);
} cuda_device;

static cuda_device *of(const tw_device *d) {
    return d->state; /* d may be a copy: train/memory_need.c plans on one */
}

/* ---- errors ---- */

tw_status tw_cuda_status(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return TW_OK;
    (void)cudaGetLastError(); /* told here; the next launch is not to blame */
    tw_status code = error == cudaErrorMemoryAllocation ? TW_ERR_MEMORY : TW_ERR_LIBRARY;
    return FAIL(code, "%s: CUDA says %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

tw_status tw_cuda_launched(const char *kernel) {
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return TW_OK;
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion)
        return FAIL(TW_ERR_UNSUPPORTED,
                    "%s: this build has no code for this GPU: configure with "
                    "-DCMAKE_CUDA_ARCHITECTURES=native",
                    kernel);
    return tw_cuda_status(error, kernel);
}

tw_status tw_cuda_allow_shared(const void *kernel, const char *name, size_t bytes) {
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error == cudaSuccess) return TW_OK;
    (void)cudaGetLastError();
    return FAIL(TW_ERR_UNSUPPORTED, "%s needs %zu bytes of shared memory, more than this GPU gives (%s)",
                name, bytes, cudaGetErrorString(error));
}

/* ---- access ---- */

cudaStream_t tw_cuda_stream(tw_device *d, tw_queue queue) {
    (void)cudaSetDevice(of(d)->index); /* it exists; a later error shows in the call that follows */
    return of(d)->stream[queue];
}

void **tw_cuda_slot(tw_device *d, tw_cuda_library library, void (*release)(void *)) {
    of(d)->release[library] = release;
    return &of(d)->library[library];
}

bool tw_cuda_capturing(const tw_device *d) {
    return of(d)->capturing;
}

tw_device *tw_cuda_itself(const tw_device *d) {
    return &of(d)->base;
}

void tw_cuda_set_tf32(tw_device *d, bool allowed) {
    of(d)->tf32 = allowed;
}

bool tw_cuda_tf32(const tw_device *d) {
    return of(d)->tf32;
}

void tw_cuda_set_deterministic(tw_device *d, bool wanted) {
    of(d)->deterministic = wanted;
}

bool tw_cuda_deterministic(const tw_device *d) {
    return of(d)->deterministic;
}

/* ---- memory ---- */

static tw_status cuda_alloc(tw_device *d, size_t bytes, void **out) {
    *out = NULL;
    TW_CUDA_TRY(cudaSetDevice(of(d)->index), "choosing the device");
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);
    if (error == cudaSuccess) return TW_OK;
    (void)cudaGetLastError(); /* running out of memory is no lasting error */
    size_t free_bytes = 0, all = 0;
    if (error != cudaErrorMemoryAllocation || cudaMemGetInfo(&free_bytes, &all) != cudaSuccess)
        return tw_cuda_status(error, "allocating device memory");
    return FAIL(TW_ERR_MEMORY,
                "%s is out of memory: %.1f MB were asked for, %.1f of its %.1f MB are free; a smaller "
                "micro_batch needs less",
                d->name, (double)bytes / 1e6, (double)free_bytes / 1e6, (double)all / 1e6);
}

static void cuda_release(tw_device *d, void *p) {
    if (!p) return;
    (void)cudaSetDevice(of(d)->index);
    (void)cudaFree(p);
}

static void cuda_expect(tw_device *d, size_t bytes) {
    (void)d, (void)bytes;
}

static size_t cuda_room(tw_device *d) {
    size_t free_bytes = 0, all = 0;
    (void)cudaSetDevice(of(d)->index);
    if (cudaMemGetInfo(&free_bytes, &all) == cudaSuccess) return free_bytes;
    (void)cudaGetLastError();
    return 0;
}

static tw_status cuda_pinned_alloc(tw_device *d, size_t bytes, void **out) {
    *out = NULL;
    TW_CUDA_TRY(cudaSetDevice(of(d)->index), "choosing the device");
    cudaError_t error = cudaMallocHost(out, bytes ? bytes : 1);
    if (error == cudaSuccess) return TW_OK;
    (void)cudaGetLastError();
    return FAIL(TW_ERR_MEMORY, "out of pinned host memory: %.1f MB were asked for (%s)", (double)bytes / 1e6,
                cudaGetErrorString(error));
}

static void cuda_pinned_release(tw_device *d, void *p) {
    if (!p) return;
    (void)cudaSetDevice(of(d)->index);
    (void)cudaFreeHost(p);
}

/* ---- copies ---- */

static bool is_pinned(const void *host) {
    struct cudaPointerAttributes a;
    if (cudaPointerGetAttributes(&a, host) == cudaSuccess) return a.type == cudaMemoryTypeHost;
    (void)cudaGetLastError();
    return false;
}

static tw_status open_ring(cuda_device *c) {
    if (c->ring.memory) return TW_OK;
    for (int i = 0; i < SLOTS; i++)
        if (!c->ring.free[i])
            TW_CUDA_TRY(cudaEventCreateWithFlags(&c->ring.free[i], cudaEventDisableTiming),
                        "making an event");
    void *memory;
    TRY(cuda_pinned_alloc(&c->base, (size_t)SLOTS * SLOT_BYTES, &memory));
    c->ring.memory = memory;
    return TW_OK;
}

/* Copies through the ring: the host's memory may change as soon as this returns. */
static tw_status upload_staged(cuda_device *c, cudaStream_t stream, char *dst, const char *host,
                               size_t bytes) {
    TRY(open_ring(c));
    while (bytes > 0) {
        int i = c->ring.next;
        size_t n = bytes < SLOT_BYTES ? bytes : SLOT_BYTES;
        char *slot = c->ring.memory + (size_t)i * SLOT_BYTES;
        TW_CUDA_TRY(cudaEventSynchronize(c->ring.free[i]), "waiting for a copy to the device");
        memcpy(slot, host, n);
        TW_CUDA_TRY(cudaMemcpyAsync(dst, slot, n, cudaMemcpyHostToDevice, stream), "copying to the device");
        TW_CUDA_TRY(cudaEventRecord(c->ring.free[i], stream), "recording an event");
        c->ring.next = (i + 1) % SLOTS;
        dst += n, host += n, bytes -= n;
    }
    return TW_OK;
}

static tw_status cuda_upload(tw_device *d, tw_queue q, void *dst, const void *host, size_t bytes) {
    cuda_device *c = of(d);
    if (bytes == 0) return TW_OK;
    cudaStream_t stream = tw_cuda_stream(d, q);
    if (is_pinned(host))
        return tw_cuda_status(cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, stream),
                              "copying to the device");
    if (c->capturing && q == TW_QUEUE_COMPUTE)
        return FAIL(TW_ERR_ARGUMENT, "memory that is not pinned cannot be uploaded in captured work");
    pthread_mutex_lock(&c->ring.lock);
    tw_status status = upload_staged(c, stream, dst, host, bytes);
    pthread_mutex_unlock(&c->ring.lock);
    return status;
}

static tw_status cuda_download(tw_device *d, tw_queue q, void *host, const void *src, size_t bytes) {
    if (bytes == 0) return TW_OK;
    return tw_cuda_status(cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, tw_cuda_stream(d, q)),
                          "copying from the device");
}

static tw_status cuda_copy(tw_device *d, tw_queue q, void *dst, const void *src, size_t bytes) {
    if (bytes == 0 || dst == src) return TW_OK;
    return tw_cuda_status(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, tw_cuda_stream(d, q)),
                          "copying on the device");
}

static tw_status cuda_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    if (bytes == 0) return TW_OK;
    return tw_cuda_status(cudaMemsetAsync(dst, 0, bytes, tw_cuda_stream(d, q)), "zeroing device memory");
}

/* ---- order ---- */

static tw_status cuda_sync(tw_device *d, tw_queue q) {
    return tw_cuda_status(cudaStreamSynchronize(tw_cuda_stream(d, q)), "waiting for the device");
}

static tw_status cuda_record(tw_device *d, tw_queue q, tw_event **event) {
    cudaStream_t stream = tw_cuda_stream(d, q);
    cudaEvent_t e = (cudaEvent_t)*event;
    if (!e) TW_CUDA_TRY(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "making an event");
    *event = (tw_event *)e;
    return tw_cuda_status(cudaEventRecord(e, stream), "recording an event");
}

static tw_status cuda_wait(tw_device *d, tw_queue q, tw_event *event) {
    if (!event) return TW_OK;
    return tw_cuda_status(cudaStreamWaitEvent(tw_cuda_stream(d, q), (cudaEvent_t)event, 0),
                          "waiting for an event");
}

static tw_status cuda_await(tw_device *d, tw_event *event) {
    if (!event) return TW_OK;
    (void)cudaSetDevice(of(d)->index);
    return tw_cuda_status(cudaEventSynchronize((cudaEvent_t)event), "waiting for the device");
}

static tw_status cuda_stamp(tw_device *d, tw_queue q, tw_event **event) {
    cudaStream_t stream = tw_cuda_stream(d, q);
    cudaEvent_t e = (cudaEvent_t)*event;
    if (!e) TW_CUDA_TRY(cudaEventCreateWithFlags(&e, cudaEventDefault), "making an event");
    *event = (tw_event *)e;
    return tw_cuda_status(cudaEventRecord(e, stream), "recording an event");
}

static tw_status cuda_seconds(tw_device *d, tw_event *from, tw_event *to, double *out) {
    float ms = 0;
    (void)cudaSetDevice(of(d)->index);
    TW_CUDA_TRY(cudaEventElapsedTime(&ms, (cudaEvent_t)from, (cudaEvent_t)to), "reading a time");
    *out = (double)ms * 1e-3;
    return TW_OK;
}

/* Costs a comparison where no profiler is attached. */
static void cuda_range(tw_device *d, const char *name) {
    (void)d;
    if (name)
        (void)nvtxRangePushA(name);
    else
        (void)nvtxRangePop();
}

static void cuda_event_release(tw_device *d, tw_event *event) {
    (void)d;
    if (event) (void)cudaEventDestroy((cudaEvent_t)event);
}

static tw_status cuda_capture_begin(tw_device *d) {
    cudaStream_t stream = tw_cuda_stream(d, TW_QUEUE_COMPUTE);
    if (of(d)->capturing) return FAIL(TW_ERR_ARGUMENT, "the compute queue is being captured already");
    /* Other threads (the loader's copies, NCCL's) go on meanwhile. */
    TW_CUDA_TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
    of(d)->capturing = true;
    return TW_OK;
}

static tw_status cuda_capture_end(tw_device *d, tw_graph **out) {
    *out = NULL;
    if (!of(d)->capturing) return FAIL(TW_ERR_ARGUMENT, "no capture was begun");
    of(d)->capturing = false;
    cudaGraph_t graph = NULL;
    TW_CUDA_TRY(cudaStreamEndCapture(tw_cuda_stream(d, TW_QUEUE_COMPUTE), &graph), "ending a capture");
    cudaGraphExec_t made = NULL;
    cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
    (void)cudaGraphDestroy(graph);
    TW_CUDA_TRY(error, "making a graph of captured work");
    *out = (tw_graph *)made;
    return TW_OK;
}

static tw_status cuda_launch(tw_device *d, tw_graph *graph) {
    if (!graph) return FAIL(TW_ERR_ARGUMENT, "no graph was captured");
    return tw_cuda_status(cudaGraphLaunch((cudaGraphExec_t)graph, tw_cuda_stream(d, TW_QUEUE_COMPUTE)),
                          "launching a graph");
}

static void cuda_graph_release(tw_device *d, tw_graph *graph) {
    (void)d;
    if (graph) (void)cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

/* ---- life ---- */

static void cuda_destroy(tw_device *d) {
    cuda_device *c = of(d);
    (void)cudaSetDevice(c->index);
    for (int i = 0; i < TW_QUEUES; i++)
        if (c->stream[i]) (void)cudaStreamSynchronize(c->stream[i]);
    for (int i = 0; i < TW_CUDA_LIBRARIES; i++)
        if (c->library[i]) c->release[i](c->library[i]);
    for (int i = 0; i < SLOTS; i++)
        if (c->ring.free[i]) (void)cudaEventDestroy(c->ring.free[i]);
    cuda_pinned_release(d, c->ring.memory);
    for (int i = 0; i < TW_QUEUES; i++)
        if (c->stream[i]) (void)cudaStreamDestroy(c->stream[i]);
    pthread_mutex_destroy(&c->ring.lock);
    free(c);
}

tw_status tw_cuda_check_driver(void) {
    int count = 0, driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) (void)cudaGetLastError();
    if (driver == 0 || error == cudaSuccess || error == cudaErrorNoDevice) return TW_OK;
    if (driver / 1000 < runtime / 1000)
        return FAIL(TW_ERR_UNSUPPORTED, "the driver serves CUDA %d.%d, this build needs %d.0 or later",
                    driver / 1000, driver % 1000 / 10, runtime / 1000);
    return FAIL(TW_ERR_UNSUPPORTED, "the driver does not answer (%s)", cudaGetErrorString(error));
}

static tw_status check_machine(int index) {
    int count = 0, driver = 0;
    TRY(tw_cuda_check_driver());
    (void)cudaDriverGetVersion(&driver);
    if (driver == 0) return FAIL(TW_ERR_UNSUPPORTED, "no CUDA driver is installed");
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) (void)cudaGetLastError();
    if (error != cudaSuccess || count == 0)
        return FAIL(TW_ERR_UNSUPPORTED, "no CUDA device is seen (%s)",
                    error == cudaSuccess ? "there are 0" : cudaGetErrorString(error));
    if (index < 0 || index >= count)
        return FAIL(TW_ERR_ARGUMENT, "there is no CUDA device %d: %d are seen, numbered from 0", index,
                    count);
    return TW_OK;
}

static tw_status open_device(cuda_device *c) {
    struct cudaDeviceProp p;
    TW_CUDA_TRY(cudaGetDeviceProperties(&p, c->index), "asking for the device's properties");
    snprintf(c->name, sizeof c->name, "cuda:%d (%s)", c->index, p.name);
    if (p.major < LEAST_MAJOR)
        return FAIL(TW_ERR_UNSUPPORTED, "%s has compute capability %d.%d; %d.0 or later is needed (bf16)",
                    c->name, p.major, p.minor, LEAST_MAJOR);
    TW_CUDA_TRY(cudaSetDevice(c->index), "choosing the device");
    for (int i = 0; i < TW_QUEUES; i++)
        TW_CUDA_TRY(cudaStreamCreateWithFlags(&c->stream[i], cudaStreamNonBlocking), "making a stream");
    return TW_OK;
}

tw_status tw_device_cuda(int index, tw_device **out) {
    *out = NULL;
    TRY(check_machine(index));
    cuda_device *c = calloc(1, sizeof *c);
    if (!c) return FAIL(TW_ERR_MEMORY, "out of memory");
    c->index = index;
    c->base = (tw_device){
        .kind = TW_CUDA,
        .name = c->name,
        .state = c,
        .alloc = cuda_alloc,
        .release = cuda_release,
        .expect = cuda_expect,
        .room = cuda_room,
        .pinned_alloc = cuda_pinned_alloc,
        .pinned_release = cuda_pinned_release,
        .upload = cuda_upload,
        .download = cuda_download,
        .copy = cuda_copy,
        .zero = cuda_zero,
        .sync = cuda_sync,
        .record = cuda_record,
        .wait = cuda_wait,
        .await = cuda_await,
        .stamp = cuda_stamp,
        .seconds = cuda_seconds,
        .event_release = cuda_event_release,
        .range = cuda_range,
        .capture_begin = cuda_capture_begin,
        .capture_end = cuda_capture_end,
        .launch = cuda_launch,
        .graph_release = cuda_graph_release,
        .destroy = cuda_destroy,
    };
    pthread_mutex_init(&c->ring.lock, NULL);
    tw_status status = open_device(c);
    if (status != TW_OK) {
        cuda_destroy(&c->base);
        return status;
    }
    *out = &c->base;
    return TW_OK;
}
