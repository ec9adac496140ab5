#include "autograd/arena.h"
#include "autograd/random.h"
#include "tw_test.h"

static uint64_t below(uint32_t trial, uint32_t element, uint64_t n) {
    tw_draw draw = {.seed = 3, .purpose = TW_DRAW_TEST, .step = trial};
    return tw_random_below(&draw, element, n);
}

static size_t rounded(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static bool together(const tw_lifetime *a, const tw_lifetime *b) {
    for (int t = a->first; t <= a->last; t++)
        if (t >= b->first && t <= b->last) return true;
    return false;
}

/* Every pair, the alignment, and the peak between what is alive at once and the sum of all. */
static void check_plan(const tw_lifetime *asked, const tw_lifetime *b, int n, size_t peak, int positions) {
    size_t sum = 0, most = 0, end = 0;
    for (int i = 0; i < n; i++) {
        ck_assert_uint_eq(b[i].offset % TW_ARENA_ALIGN, 0);
        ck_assert_uint_ge(b[i].bytes, asked[i].bytes);
        ck_assert(b[i].first == asked[i].first && b[i].last == asked[i].last);
        sum += rounded(asked[i].bytes);
        if (b[i].offset + b[i].bytes > end) end = b[i].offset + b[i].bytes;
        for (int k = 0; k < i; k++) {
            bool apart =
                b[i].offset + asked[i].bytes <= b[k].offset || b[k].offset + asked[k].bytes <= b[i].offset;
            if (asked[i].bytes && asked[k].bytes && together(&b[i], &b[k]))
                ck_assert_msg(apart, "buffers %d and %d overlap", k, i);
        }
    }
    for (int t = 0; t < positions; t++) {
        size_t alive = 0;
        for (int i = 0; i < n; i++)
            if (t >= b[i].first && t <= b[i].last) alive += rounded(asked[i].bytes);
        if (alive > most) most = alive;
    }
    ck_assert_uint_eq(peak, end);
    ck_assert_uint_ge(peak, most);
    ck_assert_uint_le(peak, sum);
}

START_TEST(random_plans_never_overlap) {
    enum { MOST = 120, POSITIONS = 60 };
    for (uint32_t trial = 0; trial < 300; trial++) {
        tw_lifetime asked[MOST] = {{0}}, b[MOST], again[MOST];
        int n = (int)below(trial, 0, MOST) + 1;
        for (int i = 0; i < n; i++) {
            uint32_t e = (uint32_t)(4 * i) + 1;
            int first = (int)below(trial, e, POSITIONS),
                length = (int)below(trial, e + 1, trial % 3 ? 8 : 60);
            int last = first + length < POSITIONS ? first + length : POSITIONS - 1;
            size_t bytes = (size_t)below(trial, e + 2, trial % 2 ? 3000 : 200);
            asked[i] = (tw_lifetime){.bytes = bytes, .first = first, .last = last, .offset = 12345};
        }
        memcpy(b, asked, sizeof b), memcpy(again, asked, sizeof again);
        size_t peak, peak_again;
        TW_ASSERT_OK(tw_arena_plan(b, n, &peak));
        check_plan(asked, b, n, peak, POSITIONS);
        TW_ASSERT_OK(tw_arena_plan(again, n, &peak_again));
        ck_assert_uint_eq(peak, peak_again);
        for (int i = 0; i < n; i++) ck_assert_uint_eq(b[i].offset, again[i].offset);
    }
}
END_TEST

START_TEST(lifetimes_apart_share_memory) {
    /* A chain in which each buffer lives with the next one only needs room for two. */
    tw_lifetime chain[20];
    size_t peak;
    for (int i = 0; i < 20; i++) chain[i] = (tw_lifetime){.bytes = 640, .first = i, .last = i + 1};
    TW_ASSERT_OK(tw_arena_plan(chain, 20, &peak));
    ck_assert_uint_eq(peak, 2 * 640);
    for (int i = 0; i < 20; i++) chain[i].last = 20; /* and all together need all */
    TW_ASSERT_OK(tw_arena_plan(chain, 20, &peak));
    ck_assert_uint_eq(peak, 20 * 640);
    /* One position in common is enough to be apart. */
    tw_lifetime touching[2] = {{.bytes = 64, .first = 0, .last = 5}, {.bytes = 64, .first = 5, .last = 9}};
    TW_ASSERT_OK(tw_arena_plan(touching, 2, &peak));
    ck_assert_uint_eq(peak, 128);
    ck_assert_uint_ne(touching[0].offset, touching[1].offset);
    TW_ASSERT_OK(tw_arena_plan(NULL, 0, &peak));
    ck_assert_uint_eq(peak, 0);
}
END_TEST

START_TEST(reserve_grows_only) {
    tw_device *device;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    tw_arena arena = {.device = device};
    TW_ASSERT_OK(tw_arena_reserve(&arena, 1000));
    ck_assert_uint_ge(arena.bytes, 1000);
    ck_assert_uint_eq((uintptr_t)arena.base % TW_ARENA_ALIGN, 0);
    void *base = arena.base;
    memset(base, 1, 1000);
    TW_ASSERT_OK(tw_arena_reserve(&arena, 500));
    ck_assert_ptr_eq(arena.base, base);
    TW_ASSERT_OK(tw_arena_reserve(&arena, 5000000));
    memset(arena.base, 1, 5000000);
    TW_ASSERT_FAILS(tw_arena_reserve(&arena, SIZE_MAX - 5), TW_ERR_MEMORY, "asked for");
    ck_assert_ptr_null(arena.base); /* released, and no longer claimed to be there */
    ck_assert_uint_eq(arena.bytes, 0);
    TW_ASSERT_OK(tw_arena_reserve(&arena, 100));
    tw_arena_release(&arena);
    ck_assert_uint_eq(arena.bytes, 0);
    tw_arena_release(&arena);
    tw_device_free(device);
}
END_TEST

TW_TEST_MAIN("arena", random_plans_never_overlap, lifetimes_apart_share_memory, reserve_grows_only)
