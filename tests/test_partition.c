#include "optim/partition.h"
#include "tw_test.h"

enum { UNIT = TW_PARTITION_UNIT };

/* Buckets and pieces cover the slab once, whatever the sizes; the rules of the header hold. */
static void check(int64_t elements, int ranks, int64_t bytes) {
    int64_t total = 0;
    int even = 0;
    for (int rank = 0; rank < ranks; rank++) {
        tw_partition *p;
        TW_ASSERT_OK(tw_partition_create(elements, rank, ranks, bytes, &p));
        int64_t end = elements, state = 0;
        ck_assert_int_eq(p->bucket % UNIT, 0);
        ck_assert(p->bucket * 4 >= bytes && p->bucket * 4 < bytes + bytes / 4 + 5 * UNIT);
        even += p->bucket % (ranks * UNIT) == 0;
        for (int i = 0; i < p->count; i++) {
            const tw_bucket *b = &p->buckets[i];
            int64_t at = b->offset, least = INT64_MAX, most = 0;
            ck_assert_int_eq(b->offset + b->count, end); /* the slab's end comes first */
            ck_assert_int_eq(b->offset % UNIT, 0);
            ck_assert(b->count > 0 && b->count <= p->bucket && (i == 0 || b->count == p->bucket));
            end = b->offset;
            for (int r = 0; r < ranks; r++) {
                ck_assert(b->counts[r] == 0 || at % UNIT == 0);
                if (r == rank) ck_assert(b->own == at && b->own_count == b->counts[r]);
                if (b->counts[r]) ck_assert_int_eq(tw_partition_owner_of(p, at), r);
                if (b->counts[r]) ck_assert_int_eq(tw_partition_owner_of(p, at + b->counts[r] - 1), r);
                if (b->counts[r] < least) least = b->counts[r];
                if (b->counts[r] > most) most = b->counts[r];
                at += b->counts[r];
            }
            ck_assert_int_eq(at, b->offset + b->count);
            ck_assert(most - least <= UNIT);
            ck_assert_int_eq(b->state, state);
            state += b->own_count;
            ck_assert_int_eq(tw_partition_bucket_of(p, b->offset), i);
            ck_assert_int_eq(tw_partition_bucket_of(p, b->offset + b->count - 1), i);
        }
        ck_assert_int_eq(end, 0);
        ck_assert_int_eq(p->state, state);
        total += state;
        tw_partition_free(p);
    }
    ck_assert_int_eq(total, elements);
    if (bytes >= (int64_t)16 * UNIT * ranks) ck_assert_int_eq(even, ranks);
}

START_TEST(pieces_cover_the_slab_once) {
    static const int64_t sizes[] = {0, 16, 1008, 1024, 1040, 4096, 50000, 123456, 1 << 20};
    static const int ranks[] = {1, 2, 3, 4, 7, 64};
    static const int64_t bytes[] = {1, 4096, 4100, 40000, 16 << 20};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++)
            for (size_t b = 0; b < sizeof bytes / sizeof *bytes; b++)
                if (ranks[r] < 64 || sizes[s] <= 50000) check(sizes[s], ranks[r], bytes[b]);
}
END_TEST

/* The state of a rank falls with the ranks: the models' own sizes. */
START_TEST(shares_are_equal) {
    const int64_t elements = 188262912;
    for (int ranks = 1; ranks <= 512; ranks *= 2) {
        tw_partition *p;
        TW_ASSERT_OK(tw_partition_create(elements, ranks - 1, ranks, 16 << 20, &p));
        double ideal = (double)elements / ranks;
        ck_assert_msg((double)p->state > 0.97 * ideal && (double)p->state < 1.03 * ideal, "%d ranks: %lld",
                      ranks, (long long)p->state);
        tw_partition_free(p);
    }
}
END_TEST

START_TEST(one_rank_copies_nothing) {
    enum { N = 5000 };
    static float slab[N];
    static uint16_t half[N];
    tw_device *device;
    tw_comm *comm;
    tw_partition *p;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    TW_ASSERT_OK(tw_comm_self(device, &comm));
    TW_ASSERT_OK(tw_partition_create(N, 0, 1, 4096, &p));
    ck_assert_int_eq(p->count, 5);
    for (int i = 0; i < N; i++) slab[i] = (float)i, half[i] = (uint16_t)i;
    for (int b = 0; b < p->count; b++) {
        TW_ASSERT_OK(tw_partition_reduce(p, comm, b, slab));
        TW_ASSERT_OK(tw_partition_gather(p, comm, b, slab));
        TW_ASSERT_OK(tw_partition_gather_bf16(p, comm, b, half));
    }
    TW_ASSERT_OK(comm->sync(comm));
    for (int i = 0; i < N; i++) ck_assert(slab[i] == (float)i && half[i] == (uint16_t)i);
    tw_partition_free(p);
    tw_comm_free(comm);
    tw_device_free(device);
}
END_TEST

START_TEST(refuses_what_makes_no_sense) {
    tw_partition *p;
    TW_ASSERT_FAILS(tw_partition_create(-1, 0, 1, 4096, &p), TW_ERR_ARGUMENT, "-1 elements");
    TW_ASSERT_FAILS(tw_partition_create(10, 2, 2, 4096, &p), TW_ERR_ARGUMENT, "rank 2 of 2");
    TW_ASSERT_FAILS(tw_partition_create(10, 0, 0, 4096, &p), TW_ERR_ARGUMENT, "of 0");
    TW_ASSERT_FAILS(tw_partition_create(10, 0, 1, 0, &p), TW_ERR_ARGUMENT, "0 bytes");
    ck_assert_ptr_null(p);
    tw_partition_free(NULL);
}
END_TEST

TW_TEST_MAIN("partition", pieces_cover_the_slab_once, shares_are_equal, one_rank_copies_nothing,
             refuses_what_makes_no_sense)
