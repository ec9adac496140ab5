/* The CUDA device (autograd/cuda/device_cuda.c) on a stand-in for CUDA's runtime, which does everything as
 * late as it may and refuses what CUDA refuses. */
#include "autograd/cuda/device_cuda.h"
#include "cudart_shim.h"
#include "tw_test.h"

static tw_device *open_device(void) {
    tw_device *d;
    TW_ASSERT_OK(tw_device_cuda(0, &d));
    return d;
}

static void close_device(tw_device *d) {
    d->destroy(d);
    ck_assert_int_eq(cudart_alive(), 0);
}

static void *device_memory(tw_device *d, size_t bytes) {
    void *p;
    TW_ASSERT_OK(d->alloc(d, bytes, &p));
    ck_assert(cudart_on_device(p, bytes));
    return p;
}

static char *pinned_memory(tw_device *d, size_t bytes) {
    void *p;
    TW_ASSERT_OK(d->pinned_alloc(d, bytes, &p));
    return p;
}

static void sync_device(tw_device *d, tw_queue q) {
    TW_ASSERT_OK(d->sync(d, q));
}

/* ---- opening ---- */

START_TEST(what_the_machine_lacks_is_said) {
    tw_device *d;
    machine.driver = 0;
    TW_ASSERT_FAILS(tw_device_cuda(0, &d), TW_ERR_UNSUPPORTED, "no CUDA driver is installed");
    machine.driver = 12080;
    TW_ASSERT_FAILS(tw_device_cuda(0, &d), TW_ERR_UNSUPPORTED,
                    "the driver serves CUDA 12.8, this build needs 13.0 or later");
    machine.driver = 13010, machine.devices = 0;
    TW_ASSERT_FAILS(tw_device_cuda(0, &d), TW_ERR_UNSUPPORTED, "no CUDA device is seen");
    machine.devices = 2;
    TW_ASSERT_FAILS(tw_device_cuda(2, &d), TW_ERR_ARGUMENT, "there is no CUDA device 2: 2 are seen");
    TW_ASSERT_FAILS(tw_device_cuda(-1, &d), TW_ERR_ARGUMENT, "there is no CUDA device -1");
    machine.major = 7;
    TW_ASSERT_FAILS(tw_device_cuda(0, &d), TW_ERR_UNSUPPORTED, "compute capability 7.0; 8.0 or later");
    ck_assert_ptr_null(d);
    machine.major = 9;
    ck_assert_int_eq(cudaGetLastError(), cudaSuccess); /* what was told is not told again */
    ck_assert_int_eq(cudart_alive(), 0);
    d = open_device();
    ck_assert_str_eq(d->name, "cuda:0 (a stand-in)");
    close_device(d);
}
END_TEST

START_TEST(what_fails_while_opening_leaves_nothing) {
    static const char *const calls[] = {"cudaGetDeviceProperties", "cudaSetDevice",
                                        "cudaStreamCreateWithFlags"};
    tw_device *d;
    for (int i = 0; i < 3; i++) {
        cudart_fail(calls[i], cudaErrorUnknown);
        TW_ASSERT_FAILS(tw_device_cuda(0, &d), TW_ERR_LIBRARY, "CUDA says");
        ck_assert_int_eq(cudart_alive(), 0);
    }
}
END_TEST

/* ---- memory ---- */

START_TEST(out_of_memory_says_what_was_asked_and_is_free) {
    tw_device *d = open_device();
    void *p, *most = NULL;
    machine.memory = 8000000;
    most = device_memory(d, 5500000);
    ck_assert_uint_eq(d->room(d), 2500000);
    TW_ASSERT_FAILS(
        d->alloc(d, 4000000, &p), TW_ERR_MEMORY,
        "cuda:0 (a stand-in) is out of memory: 4.0 MB were asked for, 2.5 of its 8.0 MB are free");
    ck_assert_ptr_null(p);
    TW_ASSERT_OK(tw_cuda_launched("a kernel")); /* it is no error of the next launch */
    d->release(d, most);
    p = device_memory(d, 4000000);
    d->release(d, p);
    p = device_memory(d, 0);
    d->release(d, p);
    d->release(d, NULL);
    cudart_fail("cudaMalloc", cudaErrorIllegalAddress);
    TW_ASSERT_FAILS(d->alloc(d, 1, &p), TW_ERR_LIBRARY, "allocating device memory: CUDA says");
    cudart_fail("cudaMemGetInfo", cudaErrorUnknown);
    ck_assert_uint_eq(d->room(d), 0);
    cudart_fail("cudaMallocHost", cudaErrorMemoryAllocation);
    TW_ASSERT_FAILS(d->pinned_alloc(d, 3000000, &p), TW_ERR_MEMORY,
                    "out of pinned host memory: 3.0 MB were asked for");
    machine.memory = 1u << 30;
    close_device(d);
}
END_TEST

/* ---- copies ---- */

static char pattern(size_t i, int round) {
    return (char)(i * 31 + i / 4096 + (size_t)round * 77);
}

/* Host memory that is not pinned may change at once, however much of it there is and however late the queue.
 */
START_TEST(uploads_are_staged) {
    enum { BYTES = (18 << 20) + 12345, ROUNDS = 2 }; /* the ring has 16 MB */
    tw_device *d = open_device();
    char *host = malloc(BYTES), *back = pinned_memory(d, BYTES);
    int pageable = cudart_pageable();
    ck_assert_ptr_nonnull(host);
    void *there[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        there[round] = device_memory(d, BYTES);
        for (size_t i = 0; i < BYTES; i++) host[i] = pattern(i, round);
        TW_ASSERT_OK(d->upload(d, round ? TW_QUEUE_COPY : TW_QUEUE_COMPUTE, there[round], host, BYTES));
        memset(host, 0, BYTES);
    }
    for (int round = 0; round < ROUNDS; round++) {
        tw_queue q = round ? TW_QUEUE_COPY : TW_QUEUE_COMPUTE;
        TW_ASSERT_OK(d->download(d, q, back, there[round], BYTES));
        sync_device(d, q);
        for (size_t i = 0; i < BYTES; i++)
            if (back[i] != pattern(i, round)) ck_abort_msg("byte %zu of upload %d", i, round);
        d->release(d, there[round]);
    }
    ck_assert_int_eq(cudart_pageable(), pageable);
    free(host);
    d->pinned_release(d, back);
    close_device(d);
}
END_TEST

START_TEST(a_ring_that_could_not_be_made_is_made_later) {
    tw_device *d = open_device();
    char byte = 5, back = 0;
    void *p = device_memory(d, 1);
    cudart_fail("cudaEventCreateWithFlags", cudaErrorUnknown);
    TW_ASSERT_FAILS(d->upload(d, TW_QUEUE_COPY, p, &byte, 1), TW_ERR_LIBRARY, "making an event");
    cudart_fail("cudaMallocHost", cudaErrorMemoryAllocation);
    TW_ASSERT_FAILS(d->upload(d, TW_QUEUE_COPY, p, &byte, 1), TW_ERR_MEMORY, "out of pinned host memory");
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COPY, p, &byte, 1));
    TW_ASSERT_OK(d->download(d, TW_QUEUE_COPY, &back, p, 1));
    sync_device(d, TW_QUEUE_COPY);
    ck_assert_int_eq(back, 5);
    d->release(d, p);
    close_device(d);
}
END_TEST

/* Pinned memory is read when the queue gets there, and queues see each other's work through events only. */
START_TEST(queues_are_ordered_by_events) {
    tw_device *d = open_device();
    char *host = pinned_memory(d, 3), *a = device_memory(d, 1), *b = device_memory(d, 1);
    tw_event *event = NULL;
    host[0] = 1, host[1] = host[2] = 9;
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COPY, a, host, 1));
    host[0] = 2;
    TW_ASSERT_OK(d->record(d, TW_QUEUE_COPY, &event));
    TW_ASSERT_OK(d->copy(d, TW_QUEUE_COMPUTE, b, a, 1)); /* too early */
    TW_ASSERT_OK(d->download(d, TW_QUEUE_COMPUTE, host + 1, b, 1));
    TW_ASSERT_OK(d->wait(d, TW_QUEUE_COMPUTE, event));
    TW_ASSERT_OK(d->wait(d, TW_QUEUE_COMPUTE, NULL));
    TW_ASSERT_OK(d->copy(d, TW_QUEUE_COMPUTE, b, a, 1));
    TW_ASSERT_OK(d->download(d, TW_QUEUE_COMPUTE, host + 2, b, 1));
    sync_device(d, TW_QUEUE_COMPUTE);
    ck_assert_int_eq(host[1], -1);
    ck_assert_int_eq(host[2], 2);
    /* An event marks what was there when it was recorded last. */
    host[0] = 7;
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COPY, a, host, 1));
    TW_ASSERT_OK(d->record(d, TW_QUEUE_COPY, &event));
    int before = cudart_works();
    TW_ASSERT_OK(d->zero(d, TW_QUEUE_COPY, a, 1));
    TW_ASSERT_OK(d->await(d, event));
    TW_ASSERT_OK(d->await(d, NULL));
    ck_assert_int_eq(cudart_works(), before + 1);
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COPY, NULL, host, 0));
    TW_ASSERT_OK(d->download(d, TW_QUEUE_COPY, host, NULL, 0));
    TW_ASSERT_OK(d->copy(d, TW_QUEUE_COPY, a, a, 1));
    d->event_release(d, event);
    d->event_release(d, NULL);
    d->release(d, a), d->release(d, b);
    d->pinned_release(d, host);
    close_device(d);
}
END_TEST

START_TEST(time_is_the_queues) {
    tw_device *d = open_device();
    tw_event *from = NULL, *to = NULL, *plain = NULL;
    char *p = device_memory(d, 4);
    double seconds;
    TW_ASSERT_OK(d->stamp(d, TW_QUEUE_COMPUTE, &from));
    for (int i = 0; i < 3; i++) TW_ASSERT_OK(d->zero(d, TW_QUEUE_COMPUTE, p, 4));
    TW_ASSERT_OK(d->stamp(d, TW_QUEUE_COMPUTE, &to));
    TW_ASSERT_FAILS(d->seconds(d, from, to, &seconds), TW_ERR_LIBRARY, "reading a time");
    TW_ASSERT_OK(d->await(d, to));
    TW_ASSERT_OK(d->seconds(d, from, to, &seconds));
    ck_assert_double_eq_tol(seconds, 3e-6, 1e-9);
    TW_ASSERT_OK(d->record(d, TW_QUEUE_COMPUTE, &plain)); /* has no time */
    TW_ASSERT_OK(d->await(d, plain));
    TW_ASSERT_FAILS(d->seconds(d, from, plain, &seconds), TW_ERR_LIBRARY, "reading a time");
    d->event_release(d, from), d->event_release(d, to), d->event_release(d, plain);
    d->range(d, "a part");
    d->range(d, NULL);
    d->release(d, p);
    close_device(d);
}
END_TEST

START_TEST(errors_of_calls_come_out_once) {
    tw_device *d = open_device();
    cudart_fail("cudaStreamSynchronize", cudaErrorIllegalAddress);
    TW_ASSERT_FAILS(d->sync(d, TW_QUEUE_COMPUTE), TW_ERR_LIBRARY, "waiting for the device: CUDA says");
    sync_device(d, TW_QUEUE_COMPUTE);
    TW_ASSERT_OK(tw_cuda_launched("a kernel"));
    cudart_fail("cudaSetDevice", cudaErrorNoKernelImageForDevice); /* left behind, as a launch would */
    (void)tw_cuda_stream(d, TW_QUEUE_COMPUTE);
    TW_ASSERT_FAILS(tw_cuda_launched("a kernel"), TW_ERR_UNSUPPORTED, "a kernel: this build has no code");
    cudart_fail("cudaSetDevice", cudaErrorIllegalAddress);
    (void)tw_cuda_stream(d, TW_QUEUE_COMPUTE);
    TW_ASSERT_FAILS(tw_cuda_launched("a kernel"), TW_ERR_LIBRARY, "a kernel: CUDA says");
    TW_ASSERT_OK(tw_cuda_launched("a kernel"));
    TW_ASSERT_OK(tw_cuda_allow_shared(d, "a kernel", 200 << 10));
    TW_ASSERT_FAILS(tw_cuda_allow_shared(d, "a kernel", 300 << 10), TW_ERR_UNSUPPORTED,
                    "a kernel needs 307200 bytes of shared memory");
    TW_ASSERT_OK(tw_cuda_launched("a kernel"));
    close_device(d);
}
END_TEST

/* ---- captures ---- */

START_TEST(captured_work_runs_when_it_is_launched) {
    tw_device *d = open_device();
    char *host = pinned_memory(d, 2), *p = device_memory(d, 1), plain = 3;
    tw_graph *graph;
    TW_ASSERT_FAILS(d->capture_end(d, &graph), TW_ERR_ARGUMENT, "no capture was begun");
    TW_ASSERT_FAILS(d->launch(d, NULL), TW_ERR_ARGUMENT, "no graph was captured");
    TW_ASSERT_OK(d->capture_begin(d));
    ck_assert(tw_cuda_capturing(d));
    TW_ASSERT_FAILS(d->capture_begin(d), TW_ERR_ARGUMENT, "being captured already");
    TW_ASSERT_FAILS(d->upload(d, TW_QUEUE_COMPUTE, p, &plain, 1), TW_ERR_ARGUMENT, "not pinned");
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COMPUTE, p, host, 1));
    TW_ASSERT_OK(d->download(d, TW_QUEUE_COMPUTE, host + 1, p, 1));
    TW_ASSERT_OK(d->capture_end(d, &graph));
    ck_assert(!tw_cuda_capturing(d));
    for (char i = 0; i < 3; i++) {
        host[0] = i, host[1] = -1;
        sync_device(d, TW_QUEUE_COMPUTE);
        ck_assert_int_eq(host[1], -1);
        TW_ASSERT_OK(d->launch(d, graph));
        sync_device(d, TW_QUEUE_COMPUTE);
        ck_assert_int_eq(host[1], i);
    }
    d->graph_release(d, graph);
    d->graph_release(d, NULL);
    d->release(d, p);
    d->pinned_release(d, host);
    close_device(d);
}
END_TEST

/* The other queues go on meanwhile. */
START_TEST(the_copy_queue_is_not_captured) {
    tw_device *d = open_device();
    char plain = 3, *host = pinned_memory(d, 1), *p = device_memory(d, 1);
    tw_graph *graph;
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COPY, p, &plain, 1)); /* makes the ring */
    TW_ASSERT_OK(d->capture_begin(d));
    plain = 4;
    TW_ASSERT_OK(d->upload(d, TW_QUEUE_COPY, p, &plain, 1));
    TW_ASSERT_OK(d->download(d, TW_QUEUE_COPY, host, p, 1));
    sync_device(d, TW_QUEUE_COPY);
    ck_assert_int_eq(host[0], 4);
    TW_ASSERT_OK(d->capture_end(d, &graph));
    d->graph_release(d, graph);
    d->release(d, p);
    d->pinned_release(d, host);
    close_device(d);
}
END_TEST

START_TEST(what_must_not_be_captured_spoils_the_capture_alone) {
    tw_device *d = open_device();
    char *p = device_memory(d, 1);
    void *more;
    tw_graph *graph;
    for (int i = 0; i < 2; i++) {
        TW_ASSERT_OK(d->capture_begin(d));
        TW_ASSERT_OK(d->zero(d, TW_QUEUE_COMPUTE, p, 1));
        if (i == 0)
            TW_ASSERT_FAILS(d->alloc(d, 1, &more), TW_ERR_LIBRARY, "allocating device memory");
        else
            TW_ASSERT_FAILS(d->sync(d, TW_QUEUE_COMPUTE), TW_ERR_LIBRARY, "waiting for the device");
        TW_ASSERT_FAILS(d->capture_end(d, &graph), TW_ERR_LIBRARY, "ending a capture: CUDA says");
        ck_assert_ptr_null(graph);
    }
    cudart_fail("cudaStreamBeginCapture", cudaErrorUnknown);
    TW_ASSERT_FAILS(d->capture_begin(d), TW_ERR_LIBRARY, "beginning a capture");
    ck_assert(!tw_cuda_capturing(d));
    TW_ASSERT_OK(d->capture_begin(d));
    cudart_fail("cudaGraphInstantiate", cudaErrorUnknown);
    TW_ASSERT_FAILS(d->capture_end(d, &graph), TW_ERR_LIBRARY, "making a graph of captured work");
    TW_ASSERT_OK(d->capture_begin(d));
    TW_ASSERT_OK(d->zero(d, TW_QUEUE_COMPUTE, p, 1));
    TW_ASSERT_OK(d->capture_end(d, &graph));
    TW_ASSERT_OK(d->launch(d, graph));
    sync_device(d, TW_QUEUE_COMPUTE);
    ck_assert_int_eq(*p, 0);
    d->graph_release(d, graph);
    d->release(d, p);
    close_device(d);
}
END_TEST

/* Calls find their device whatever the thread used last. */
START_TEST(two_devices_live_side_by_side) {
    tw_device *first = open_device(), *second;
    TW_ASSERT_OK(tw_device_cuda(1, &second));
    char *host = pinned_memory(first, 1), *p = device_memory(first, 1), *q = device_memory(second, 1);
    host[0] = 6;
    TW_ASSERT_OK(first->upload(first, TW_QUEUE_COMPUTE, p, host, 1));
    TW_ASSERT_OK(second->zero(second, TW_QUEUE_COMPUTE, q, 1));
    sync_device(first, TW_QUEUE_COMPUTE);
    sync_device(second, TW_QUEUE_COMPUTE);
    ck_assert_int_eq(*p, 6);
    ck_assert_int_eq(*q, 0);
    tw_cuda_set_tf32(first, true), tw_cuda_set_deterministic(second, true);
    ck_assert(tw_cuda_tf32(first) && !tw_cuda_tf32(second));
    ck_assert(!tw_cuda_deterministic(first) && tw_cuda_deterministic(second));
    first->release(first, p), second->release(second, q);
    first->pinned_release(first, host);
    first->destroy(first);
    close_device(second);
}
END_TEST

TW_TEST_MAIN("cudart device", what_the_machine_lacks_is_said, what_fails_while_opening_leaves_nothing,
             out_of_memory_says_what_was_asked_and_is_free, uploads_are_staged,
             a_ring_that_could_not_be_made_is_made_later, queues_are_ordered_by_events, time_is_the_queues,
             errors_of_calls_come_out_once, captured_work_runs_when_it_is_launched,
             the_copy_queue_is_not_captured, what_must_not_be_captured_spoils_the_capture_alone,
             two_devices_live_side_by_side)
