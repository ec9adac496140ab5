/* Every collective over MPI against the same computed plainly. Started as one process, it starts itself under
 * mpirun with 1, 2, 3, 4 and 7 ranks; each rank runs all tests, in the same order and in one process. */
#include "autograd/comm.h"
#include "train/comm_mpi.h"
#include "train/comm_open.h"
#include "train/mpi_calls.h"
#include "tw_test.h"

#include <math.h>
#include <stdint.h>
#include <unistd.h>

enum { MAX_RANKS = 16 };

static tw_device *device;
static tw_comm *comm;

/* Element i of rank r's data: of very different sizes, so that another order of a sum gives other bits. */
static float value(int r, int64_t i) {
    uint32_t h = (uint32_t)(r * 7919) ^ (uint32_t)(i * 2654435761u);
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13;
    return ldexpf((float)(int32_t)h, -31 + (int)(h % 23));
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
static void same_bits(float a, float b, const char *what, int64_t i) {
    if (memcmp(&a, &b, sizeof a) != 0)
        ck_abort_msg("rank %d: %s[%lld] is %.9g, not %.9g", comm->rank, what, (long long)i, (double)a,
                     (double)b);
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

START_TEST(all_reduce_sums_in_rank_order) {
    static const int64_t sizes[] = {0, 1, 5, 1000, 8191, 70001, 3000017};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        float *x = values(comm->rank, sizes[s]);
        TW_ASSERT_OK(comm->all_reduce(comm, x, sizes[s]));
        TW_ASSERT_OK(comm->sync(comm));
        for (int64_t i = 0; i < sizes[s]; i++) same_bits(x[i], sum_in_order(i), "all_reduce", i);
        free(x);
    }
}
END_TEST

/* Were the order another one, the test above could not tell unless the bits depend on it. */
START_TEST(the_order_matters_to_these_values) {
    if (comm->ranks < 3) TW_SKIP("two values have one sum");
    int64_t differ = 0;
    for (int64_t i = 0; i < 1000; i++) {
        float back = value(comm->ranks - 1, i);
        for (int r = comm->ranks - 2; r >= 0; r--) back += value(r, i);
        differ += back != sum_in_order(i);
    }
    ck_assert_int_gt(differ, 10);
}
END_TEST

static void check_gathered(const float *out, const int64_t *counts) {
    for (int r = 0; r < comm->ranks; r++)
        for (int64_t i = 0; i < counts[r]; i++)
            same_bits(out[offset(counts, r) + i], value(r, i), "all_gather", i);
}

START_TEST(all_gather_of_uneven_counts) {
    int64_t counts[MAX_RANKS];
    for (int which = 0; which < LAYOUTS; which++) {
        layout(which, counts);
        float *in = values(comm->rank, counts[comm->rank]);
        float *out = calloc((size_t)total(counts) + 1, sizeof *out);
        out[total(counts)] = 42;
        TW_ASSERT_OK(comm->all_gather(comm, in, out, counts));
        TW_ASSERT_OK(comm->sync(comm));
        check_gathered(out, counts);
        ck_assert_float_eq(out[total(counts)], 42); /* nothing behind the end */
        memset(out, 0, (size_t)total(counts) * sizeof *out);
        float *place = out + offset(counts, comm->rank);
        memcpy(place, in, (size_t)counts[comm->rank] * sizeof *in);
        TW_ASSERT_OK(comm->all_gather(comm, place, out, counts));
        TW_ASSERT_OK(comm->sync(comm));
        check_gathered(out, counts);
        free(in), free(out);
    }
}
END_TEST

static void check_scattered(const float *out, const int64_t *counts) {
    int64_t at = offset(counts, comm->rank);
    for (int64_t i = 0; i < counts[comm->rank]; i++)
        same_bits(out[i], sum_in_order(at + i), "reduce_scatter", i);
}

START_TEST(reduce_scatter_of_uneven_counts) {
    int64_t counts[MAX_RANKS];
    for (int which = 0; which < LAYOUTS; which++) {
        layout(which, counts);
        int64_t own = counts[comm->rank];
        float *in = values(comm->rank, total(counts)), *out = calloc((size_t)own + 1, sizeof *out);
        out[own] = 42;
        TW_ASSERT_OK(comm->reduce_scatter(comm, in, out, counts));
        TW_ASSERT_OK(comm->sync(comm));
        check_scattered(out, counts);
        ck_assert_float_eq(out[own], 42);
        TW_ASSERT_OK(comm->reduce_scatter(comm, in, in + offset(counts, comm->rank), counts));
        TW_ASSERT_OK(comm->sync(comm));
        check_scattered(in + offset(counts, comm->rank), counts);
        free(in), free(out);
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
        float *in = values(comm->rank, total(in_counts));
        float *out = calloc((size_t)total(out_counts) + 1, sizeof *out);
        TW_ASSERT_OK(comm->all_to_all(comm, in, in_counts, out, out_counts));
        TW_ASSERT_OK(comm->sync(comm));
        for (int s = 0; s < comm->ranks; s++) {
            int64_t there = 0; /* where rank s has it */
            for (int r = 0; r < comm->rank; r++) there += sent(s, r, scale);
            for (int64_t i = 0; i < out_counts[s]; i++)
                same_bits(out[offset(out_counts, s) + i], value(s, there + i), "all_to_all", i);
        }
        free(in), free(out);
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
        free(in), free(out);
    }
}
END_TEST

/* Many calls of all kinds before one sync, of data that later calls take up; host calls in between, which do
 * not wait for them. */
START_TEST(many_calls_are_done_in_order) {
    enum { CALLS = 200, N = 3000 };
    float *x = calloc(N, sizeof *x), want = 1;
    int64_t counts[MAX_RANKS];
    for (int r = 0; r < comm->ranks; r++) counts[r] = N / comm->ranks + (r < N % comm->ranks);
    float *own = x + offset(counts, comm->rank);
    for (int i = 0; i < N; i++) x[i] = 1;
    for (int call = 0; call < CALLS; call++) {
        if (call % 50 == 0) { /* growth by `ranks`, back to 1 before it overflows */
            TW_ASSERT_OK(comm->sync(comm));
            for (int i = 0; i < N; i++) x[i] = want = 1;
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
    for (int i = 0; i < N; i++) same_bits(x[i], want, "x", i);
    free(x);
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

START_TEST(times_are_kept) {
    tw_comm_times times = tw_comm_mpi_times(comm);
    if (comm->ranks == 1) {
        ck_assert_uint_eq(times.bytes, 0);
        return;
    }
    ck_assert_uint_gt(times.bytes, 1000000);
    ck_assert_double_gt(times.busy, 0);
    ck_assert_double_gt(times.waited, 0);
}
END_TEST

static int run_rank(void) {
    const TTest *const tests[] = {all_reduce_sums_in_rank_order,     the_order_matters_to_these_values,
                                  all_gather_of_uneven_counts,       reduce_scatter_of_uneven_counts,
                                  all_to_all_of_uneven_counts,       broadcast_from_each_rank,
                                  gather_all_small_and_large,        many_calls_are_done_in_order,
                                  counts_that_cannot_be_are_refused, times_are_kept};
    setenv("CK_FORK", "no", 1); /* a rank is one process */
    if (tw_device_cpu(1, &device) != TW_OK || tw_comm_open(device, 60, &comm) != TW_OK) {
        fprintf(stderr, "test_comm_mpi: %s\n", tw_last_error());
        return EXIT_FAILURE;
    }
    int expected = atoi(getenv("TW_TEST_RANKS")), failed = comm->ranks != expected;
    if (failed) fprintf(stderr, "%d ranks, not %d\n", comm->ranks, expected);
    failed |= tw_test_run("comm_mpi", tests, sizeof tests / sizeof *tests);
    tw_comm_free(comm);
    tw_device_free(device);
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    if (getenv("TW_TEST_RANKS")) return run_rank();
    if (!tw_mpi_version()) {
        printf("SKIP comm_mpi: this build has no MPI\n");
        return EXIT_SUCCESS;
    }
    static const int ranks[] = {1, 2, 3, 4, 7};
    int failed = 0;
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        char command[4096];
        snprintf(command, sizeof command, "TW_TEST_RANKS=%d '%s/tests/mpirun.sh' %d '%s'", ranks[i],
                 TW_SOURCE_DIR, ranks[i], argv[0]);
        failed |= system(command) != 0;
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
