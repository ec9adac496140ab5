/* Every collective against the same computed plainly: what any communicator must pass, over MPI
 * (test_comm_mpi.c) and NCCL (nccl_shim/test_comm_nccl.c). Each rank is one process that runs all tests, in
 * the same order. */
#ifndef TW_TESTS_COMM_CONTRACT_H
#define TW_TESTS_COMM_CONTRACT_H

#include "autograd/comm.h"
#include "tw_test.h"

#include <math.h>
#include <stdint.h>

enum { MAX_RANKS = 16 };

static tw_device *device;
static tw_comm *comm;
static bool sums_in_order; /* of the ranks; otherwise in one that is the same on all of them */

/* Device memory with n elements of host memory, which is freed (NULL: of undefined content); and back. */
static float *given(float *host, int64_t n) {
    void *p;
    TW_ASSERT_OK(device->alloc(device, (size_t)n * sizeof *host, &p));
    if (host) TW_ASSERT_OK(device->upload(device, TW_QUEUE_COMPUTE, p, host, (size_t)n * sizeof *host));
    free(host);
    return p;
}

static float *taken(const float *p, int64_t n) {
    float *host = malloc((size_t)n * sizeof *host + 1);
    TW_ASSERT_OK(device->download(device, TW_QUEUE_COMPUTE, host, p, (size_t)n * sizeof *host));
    TW_ASSERT_OK(device->sync(device, TW_QUEUE_COMPUTE));
    return host;
}

static void give_back(float *p) {
    device->release(device, p);
}

static void fill_with(float *p, int64_t n, float value) {
    float *host = malloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = value;
    TW_ASSERT_OK(device->upload(device, TW_QUEUE_COMPUTE, p, host, (size_t)n * sizeof *host));
    TW_ASSERT_OK(device->sync(device, TW_QUEUE_COMPUTE));
    free(host);
}

/* In registers: hundreds of millions of elements are made and compared. */
typedef union float_bits {
    float f;
    uint32_t u;
} float_bits;

/* Element i of rank r's data: of very different sizes, so that another order of a sum gives other bits. */
static inline float value(int r, int64_t i) {
    uint32_t h = (uint32_t)(r * 7919) ^ (uint32_t)(i * 2654435761u);
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13;
    float_bits power = {.u = (127 - 31 + h % 23) << 23}; /* of 2 */
    return (float)(int32_t)h * power.f;
}

static float *values(int r, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x + 1);
    for (int64_t i = 0; i < n; i++) x[i] = value(r, i);
    return x;
}

static float sum_in_order(int64_t i) {
    float sum = value(0, i);
    for (int r = 1; r < comm->ranks; r++) sum += value(r, i);
    return sum;
}

/* Check writes a line for each assertion, also for those that hold. */
static inline void same_bits(float a, float b, const char *what, int64_t i) {
    float_bits x = {.f = a}, y = {.f = b};
    if (x.u != y.u)
        ck_abort_msg("rank %d: %s[%lld] is %.9g, not %.9g", comm->rank, what, (long long)i, (double)a,
                     (double)b);
}

/* The sum over ranks of element i: to the bit, or to what rounding may do in any order. */
static void is_sum(float x, const char *what, int64_t i) {
    double sum = 0, size = 0;
    if (sums_in_order) {
        same_bits(x, sum_in_order(i), what, i);
        return;
    }
    for (int r = 0; r < comm->ranks; r++) {
        sum += (double)value(r, i);
        size += fabs((double)value(r, i));
    }
    if (!(fabs((double)x - sum) <= comm->ranks * 0x1p-24 * size))
        ck_abort_msg("rank %d: %s[%lld] is %.9g, not %.9g", comm->rank, what, (long long)i, (double)x, sum);
}

/* The same bits on every rank. */
static void is_everywhere(const float *x, int64_t n) {
    uint64_t hash = 14695981039346656037u, all[MAX_RANKS];
    for (int64_t i = 0; i < n; i++) {
        float_bits one = {.f = x[i]};
        hash = (hash ^ one.u) * 1099511628211u;
    }
    TW_ASSERT_OK(comm->gather_all(comm, &hash, sizeof hash, all));
    for (int r = 0; r < comm->ranks; r++) ck_assert_msg(all[r] == hash, "rank %d has other sums", r);
}

static int64_t total(const int64_t *counts) {
    int64_t sum = 0;
    for (int r = 0; r < comm->ranks; r++) sum += counts[r];
    return sum;
}

static int64_t offset(const int64_t *counts, int rank) {
    int64_t sum = 0;
    for (int r = 0; r < rank; r++) sum += counts[r];
    return sum;
}

/* Layouts: equal, growing with a zero, everything at one rank, nothing at all, pieces of several rounds. */
enum { LAYOUTS = 6 };
static void layout(int which, int64_t *counts) {
    for (int r = 0; r < comm->ranks; r++) {
        const int64_t of[LAYOUTS] = {1000, r * 333, r == comm->ranks - 1 ? 5000 : 0, 0, 1, 1500000 + 7 * r};
        counts[r] = of[which];
    }
}

START_TEST(all_reduce_gives_the_same_sums_everywhere) {
    static const int64_t sizes[] = {0, 1, 5, 1000, 8191, 70001, 3000017};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        float *x = given(values(comm->rank, sizes[s]), sizes[s]);
        TW_ASSERT_OK(comm->all_reduce(comm, x, sizes[s]));
        TW_ASSERT_OK(comm->sync(comm));
        float *sum = taken(x, sizes[s]);
        for (int64_t i = 0; i < sizes[s]; i++) is_sum(sum[i], "all_reduce", i);
        is_everywhere(sum, sizes[s]);
        free(sum), give_back(x);
    }
}
END_TEST

static void check_gathered(const float *device_out, const int64_t *counts) {
    float *out = taken(device_out, total(counts) + 1);
    for (int r = 0; r < comm->ranks; r++)
        for (int64_t i = 0; i < counts[r]; i++)
            same_bits(out[offset(counts, r) + i], value(r, i), "all_gather", i);
    same_bits(out[total(counts)], 42, "behind the end", 0);
    free(out);
}

START_TEST(all_gather_of_uneven_counts) {
    int64_t counts[MAX_RANKS];
    for (int which = 0; which < LAYOUTS; which++) {
        layout(which, counts);
        int64_t own = counts[comm->rank];
        float *in = given(values(comm->rank, own), own), *out = given(NULL, total(counts) + 1);
        fill_with(out, total(counts) + 1, 42);
        TW_ASSERT_OK(comm->all_gather(comm, in, out, counts));
        TW_ASSERT_OK(comm->sync(comm));
        check_gathered(out, counts);
        fill_with(out, total(counts) + 1, 42);
        float *place = out + offset(counts, comm->rank);
        TW_ASSERT_OK(device->copy(device, TW_QUEUE_COMPUTE, place, in, (size_t)own * sizeof *in));
        TW_ASSERT_OK(comm->all_gather(comm, place, out, counts));
        TW_ASSERT_OK(comm->sync(comm));
        check_gathered(out, counts);
        give_back(in), give_back(out);
    }
}
END_TEST

/* first, if not NULL: what another call gave for the same. */
static float *check_scattered(const float *device_out, const int64_t *counts, const float *first) {
    int64_t at = offset(counts, comm->rank), own = counts[comm->rank];
    float *out = taken(device_out, own);
    for (int64_t i = 0; i < own; i++) {
        is_sum(out[i], "reduce_scatter", at + i);
        if (first) same_bits(out[i], first[i], "the second reduce_scatter", i);
    }
    return out;
}

START_TEST(reduce_scatter_of_uneven_counts) {
    int64_t counts[MAX_RANKS];
    for (int which = 0; which < LAYOUTS; which++) {
        layout(which, counts);
        int64_t own = counts[comm->rank];
        int64_t all = total(counts);
        float *in = given(values(comm->rank, all), all), *out = given(NULL, own + 1);
        fill_with(out, own + 1, 42);
        TW_ASSERT_OK(comm->reduce_scatter(comm, in, out, counts));
        TW_ASSERT_OK(comm->sync(comm));
        float *first = check_scattered(out, counts, NULL), *end = taken(out + own, 1);
        same_bits(*end, 42, "behind the end", 0);
        TW_ASSERT_OK(comm->reduce_scatter(comm, in, in + offset(counts, comm->rank), counts));
        TW_ASSERT_OK(comm->sync(comm));
        free(check_scattered(in + offset(counts, comm->rank), counts, first));
        free(first), free(end);
        give_back(in), give_back(out);
    }
}
END_TEST

/* What rank s sends rank r. */
static int64_t sent(int s, int r, int64_t scale) {
    return (s + 2 * r) % 3 * scale;
}

START_TEST(all_to_all_of_uneven_counts) {
    for (int64_t scale = 1; scale <= 1000000; scale *= 1000) {
        int64_t in_counts[MAX_RANKS], out_counts[MAX_RANKS];
        for (int r = 0; r < comm->ranks; r++) {
            in_counts[r] = sent(comm->rank, r, scale);
            out_counts[r] = sent(r, comm->rank, scale);
        }
        int64_t n = total(in_counts);
        float *in = given(values(comm->rank, n), n), *device_out = given(NULL, total(out_counts));
        TW_ASSERT_OK(comm->all_to_all(comm, in, in_counts, device_out, out_counts));
        TW_ASSERT_OK(comm->sync(comm));
        float *out = taken(device_out, total(out_counts));
        for (int s = 0; s < comm->ranks; s++) {
            int64_t there = 0; /* where rank s has it */
            for (int r = 0; r < comm->rank; r++) there += sent(s, r, scale);
            for (int64_t i = 0; i < out_counts[s]; i++)
                same_bits(out[offset(out_counts, s) + i], value(s, there + i), "all_to_all", i);
        }
        free(out);
        give_back(in), give_back(device_out);
    }
}
END_TEST

START_TEST(broadcast_from_each_rank) {
    static const size_t sizes[] = {0, 1, 77, 100000, 3u << 20};
    for (int root = 0; root < comm->ranks; root++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            unsigned char *x = malloc(sizes[s] + 1);
            memset(x, comm->rank == root ? 17 + root : 0, sizes[s] + 1);
            TW_ASSERT_OK(comm->broadcast(comm, x, sizes[s], root));
            for (size_t i = 0; i < sizes[s]; i++)
                if (x[i] != 17 + root) ck_abort_msg("byte %zu is %d, not %d", i, x[i], 17 + root);
            free(x);
        }
    if (comm->ranks > 1)
        TW_ASSERT_FAILS(comm->broadcast(comm, NULL, 0, comm->ranks), TW_ERR_ARGUMENT, "broadcast from rank");
}
END_TEST

/* What gather_all gives to all, for the first and for the last. */
static void check_gather(const unsigned char *in, size_t n, const unsigned char *expected) {
    int last = comm->ranks - 1;
    for (int root = 0; root <= last; root += last > 0 ? last : 1) {
        bool mine = comm->rank == root;
        unsigned char *out = mine ? calloc((size_t)comm->ranks, n + 1) : NULL;
        TW_ASSERT_OK(tw_comm_gather(comm, in, n, out, root));
        if (mine && memcmp(out, expected, (size_t)comm->ranks * n) != 0)
            ck_abort_msg("rank %d got others", root);
        free(out);
    }
}

START_TEST(gather_all_small_and_large) {
    static const size_t sizes[] = {0, 1, 12, 5000, 300000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        unsigned char *in = malloc(n + 1), *out = calloc((size_t)comm->ranks, n + 1);
        for (size_t i = 0; i < n; i++) in[i] = (unsigned char)(31 * (size_t)comm->rank + i % 251);
        TW_ASSERT_OK(comm->gather_all(comm, in, n, out));
        for (int r = 0; r < comm->ranks; r++)
            for (size_t i = 0; i < n; i++)
                if (out[(size_t)r * n + i] != (unsigned char)(31 * (size_t)r + i % 251))
                    ck_abort_msg("byte %zu of rank %d differs", i, r);
        check_gather(in, n, out);
        free(in), free(out);
    }
}
END_TEST

/* Many calls of all kinds before one sync, of data that later calls take up; host calls in between, which do
 * not wait for them. */
START_TEST(many_calls_are_done_in_order) {
    enum { CALLS = 200, N = 3000 };
    float *x = given(NULL, N), want = 1;
    int64_t counts[MAX_RANKS];
    for (int r = 0; r < comm->ranks; r++) counts[r] = N / comm->ranks + (r < N % comm->ranks);
    float *own = x + offset(counts, comm->rank);
    for (int call = 0; call < CALLS; call++) {
        if (call % 50 == 0) { /* growth by `ranks`, back to 1 before it overflows */
            TW_ASSERT_OK(comm->sync(comm));
            fill_with(x, N, want = 1);
        }
        if (call % 10 == 0) {
            int found[MAX_RANKS], mine = call + comm->rank;
            TW_ASSERT_OK(comm->gather_all(comm, &mine, sizeof mine, found));
            for (int r = 0; r < comm->ranks; r++) ck_assert_int_eq(found[r], call + r);
        }
        if (call % 25 == 3) {
            TW_ASSERT_OK(comm->all_reduce(comm, x, N));
            want *= (float)comm->ranks;
        } else if (call % 25 == 7) {
            TW_ASSERT_OK(comm->reduce_scatter(comm, x, own, counts));
            TW_ASSERT_OK(comm->all_gather(comm, own, x, counts));
            want *= (float)comm->ranks;
        } else {
            TW_ASSERT_OK(comm->all_gather(comm, own, x, counts));
        }
    }
    memset(counts, 0, sizeof counts); /* counts are copied when a call is made */
    TW_ASSERT_OK(comm->sync(comm));
    float *found = taken(x, N);
    for (int i = 0; i < N; i++) same_bits(found[i], want, "x", i);
    free(found), give_back(x);
}
END_TEST

/* A call follows the compute queue's work so far; what the queue is given after sync follows the call. */
START_TEST(calls_and_the_compute_queue_are_in_order) {
    enum { N = 200000, ROUNDS = 30 };
    float *x = given(NULL, N), *y = given(NULL, N);
    for (int round = 0; round < ROUNDS; round++) {
        float *host = malloc(N * sizeof *host);
        for (int i = 0; i < N; i++) host[i] = (float)round;
        TW_ASSERT_OK(device->upload(device, TW_QUEUE_COMPUTE, x, host, N * sizeof *x));
        TW_ASSERT_OK(device->copy(device, TW_QUEUE_COMPUTE, y, x, N * sizeof *x));
        TW_ASSERT_OK(comm->all_reduce(comm, y, N));
        TW_ASSERT_OK(comm->sync(comm));
        TW_ASSERT_OK(device->copy(device, TW_QUEUE_COMPUTE, x, y, N * sizeof *x));
        float *found = taken(x, N);
        for (int i = 0; i < N; i++) same_bits(found[i], (float)(round * comm->ranks), "x", i);
        free(found), free(host);
    }
    give_back(x), give_back(y);
}
END_TEST

/* The same without a host that waits in between: only the queues wait for each other. */
START_TEST(the_compute_queue_follows_calls) {
    enum { N = 20000, ROUNDS = 40 };
    float *x = given(NULL, N), *y = given(NULL, N), *all = given(NULL, ROUNDS * N);
    for (int round = 0; round < ROUNDS; round++) {
        float *host = malloc(N * sizeof *host);
        for (int i = 0; i < N; i++) host[i] = (float)round;
        TW_ASSERT_OK(device->upload(device, TW_QUEUE_COMPUTE, x, host, N * sizeof *x));
        TW_ASSERT_OK(device->copy(device, TW_QUEUE_COMPUTE, y, x, N * sizeof *x));
        TW_ASSERT_OK(comm->all_reduce(comm, y, N));
        TW_ASSERT_OK(comm->follow(comm));
        TW_ASSERT_OK(device->copy(device, TW_QUEUE_COMPUTE, all + round * N, y, N * sizeof *x));
        free(host);
    }
    TW_ASSERT_OK(comm->sync(comm));
    float *found = taken(all, ROUNDS * N);
    for (int i = 0; i < ROUNDS * N; i++) same_bits(found[i], (float)(i / N * comm->ranks), "all", i);
    free(found), give_back(x), give_back(y), give_back(all);
}
END_TEST

START_TEST(counts_that_cannot_be_are_refused) {
    if (comm->ranks == 1) TW_SKIP("one rank copies its own");
    int64_t counts[MAX_RANKS] = {0}, none[MAX_RANKS] = {0};
    float x = 1;
    counts[0] = -1;
    TW_ASSERT_FAILS(comm->all_gather(comm, &x, &x, counts), TW_ERR_ARGUMENT, "negative");
    TW_ASSERT_FAILS(comm->all_reduce(comm, &x, -1), TW_ERR_ARGUMENT, "-1 elements");
    counts[0] = 0, counts[comm->rank] = 1;
    TW_ASSERT_FAILS(comm->all_to_all(comm, &x, counts, &x, none), TW_ERR_ARGUMENT, "another count");
    TW_ASSERT_OK(comm->sync(comm));
}
END_TEST

#define COMM_CONTRACT                                                                                        \
    all_reduce_gives_the_same_sums_everywhere, all_gather_of_uneven_counts, reduce_scatter_of_uneven_counts, \
        all_to_all_of_uneven_counts, broadcast_from_each_rank, gather_all_small_and_large,                   \
        many_calls_are_done_in_order, calls_and_the_compute_queue_are_in_order,                              \
        the_compute_queue_follows_calls, counts_that_cannot_be_are_refused

#endif
