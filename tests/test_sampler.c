#include "autograd/random.h"
#include "data/sampler.h"
#include "tw_test.h"

/* A whole epoch, batch after batch from position 0; returns its length. */
static int64_t run_epoch(tw_sampler *s, int64_t epoch, int64_t batch, int64_t *out) {
    int64_t at = 0, count;
    const int64_t *items;
    for (;;) {
        TW_ASSERT_OK(tw_sampler_batch(s, epoch, at, &items, &count));
        if (count == 0) return at;
        ck_assert_int_le(count, batch);
        for (int64_t i = 0; i < count; i++) out[at + i] = items[i];
        at += count;
    }
}

/* The definition in sampler.h in its own words. */
static void reference_order(int64_t n, int64_t length, uint64_t seed, uint32_t epoch, int64_t *order) {
    tw_draw draw = {.seed = seed, .purpose = TW_DRAW_SHUFFLE, .step = epoch};
    for (int64_t i = 0; i < length; i++) order[i] = i % n;
    for (int64_t last = length - 1; last >= 1; last--) {
        int64_t other = (int64_t)tw_random_below(&draw, (uint32_t)last, (uint64_t)(last + 1));
        int64_t kept = order[other];
        order[other] = order[last];
        order[last] = kept;
    }
}

static void check_epoch(int64_t n, int64_t batch, tw_last_batch last, int64_t samples, int64_t batches) {
    tw_sampler *s;
    int64_t *seen = calloc((size_t)n, sizeof *seen), *out = malloc((size_t)samples * sizeof *out),
            *order = malloc((size_t)(n + batch) * sizeof *order);
    TW_ASSERT_OK(tw_sampler_create(n, batch, last, 42, &s));
    ck_assert_int_eq(tw_sampler_epoch_samples(s), samples);
    ck_assert_int_eq(tw_sampler_epoch_batches(s), batches);
    ck_assert_int_eq(run_epoch(s, 5, batch, out), samples);
    for (int64_t i = 0; i < samples; i++) {
        ck_assert(out[i] >= 0 && out[i] < n);
        seen[out[i]]++;
    }
    for (int64_t i = 0; i < n; i++) {
        if (last == TW_LAST_SHORT) ck_assert_int_eq(seen[i], 1);
        if (last == TW_LAST_DROP) ck_assert_int_le(seen[i], 1);
        if (last == TW_LAST_PAD) ck_assert_int_eq(seen[i], samples / n + (i < samples % n));
    }
    reference_order(n, last == TW_LAST_PAD ? samples : n, 42, 5, order);
    ck_assert_mem_eq(out, order, (size_t)samples * sizeof *out);
    tw_sampler_free(s);
    free(order);
    free(out);
    free(seen);
}

START_TEST(an_epoch_has_every_sample) {
    check_epoch(1, 1, TW_LAST_SHORT, 1, 1);
    check_epoch(100, 7, TW_LAST_SHORT, 100, 15);
    check_epoch(98, 7, TW_LAST_SHORT, 98, 14);
    check_epoch(3, 10, TW_LAST_SHORT, 3, 1);
    check_epoch(100, 7, TW_LAST_DROP, 98, 14);
    check_epoch(98, 7, TW_LAST_DROP, 98, 14);
    check_epoch(5, 5, TW_LAST_DROP, 5, 1);
    check_epoch(100, 7, TW_LAST_PAD, 105, 15);
    check_epoch(98, 7, TW_LAST_PAD, 98, 14);
    check_epoch(3, 10, TW_LAST_PAD, 10, 1);
    check_epoch(1, 4, TW_LAST_PAD, 4, 1);
}
END_TEST

START_TEST(any_position_continues_the_same_order) {
    enum { N = 103, BATCH = 8 };
    for (int last = TW_LAST_SHORT; last <= TW_LAST_PAD; last++) {
        tw_sampler *whole;
        int64_t order[N + BATCH], count;
        TW_ASSERT_OK(tw_sampler_create(N, BATCH, (tw_last_batch)last, 9, &whole));
        int64_t samples = run_epoch(whole, 2, BATCH, order);
        for (int64_t position = 0; position <= samples; position++) {
            /* A fresh one, and one that has been in another epoch meanwhile. */
            tw_sampler *fresh;
            const int64_t *items;
            TW_ASSERT_OK(tw_sampler_create(N, BATCH, (tw_last_batch)last, 9, &fresh));
            TW_ASSERT_OK(tw_sampler_batch(fresh, 2, position, &items, &count));
            ck_assert_int_eq(count, samples - position < BATCH ? samples - position : BATCH);
            ck_assert_mem_eq(items, order + position, (size_t)count * sizeof *items);
            TW_ASSERT_OK(tw_sampler_batch(whole, 3, 0, &items, &count));
            TW_ASSERT_OK(tw_sampler_batch(whole, 2, position, &items, &count));
            ck_assert_mem_eq(items, order + position, (size_t)count * sizeof *items);
            tw_sampler_free(fresh);
        }
        tw_sampler_free(whole);
    }
}
END_TEST

/* Positions that hold the same sample; about 1 of two independent orders. */
static int64_t equal_places(uint64_t seed_a, int64_t epoch_a, uint64_t seed_b, int64_t epoch_b) {
    enum { N = 1000 };
    int64_t a[N], b[N], equal = 0;
    tw_sampler *s;
    TW_ASSERT_OK(tw_sampler_create(N, N, TW_LAST_SHORT, seed_a, &s));
    run_epoch(s, epoch_a, N, a);
    tw_sampler_free(s);
    TW_ASSERT_OK(tw_sampler_create(N, N, TW_LAST_SHORT, seed_b, &s));
    run_epoch(s, epoch_b, N, b);
    tw_sampler_free(s);
    for (int i = 0; i < N; i++) equal += a[i] == b[i];
    return equal;
}

START_TEST(seeds_and_epochs_differ) {
    ck_assert_int_eq(equal_places(1, 0, 1, 0), 1000);
    ck_assert_int_lt(equal_places(1, 0, 1, 1), 10);
    ck_assert_int_lt(equal_places(1, 0, 2, 0), 10);
    ck_assert_int_lt(equal_places(1, 1, 2, 0), 10);
    ck_assert_int_lt(equal_places(1, 0, 1ull << 32 | 1, 0), 10);
}
END_TEST

START_TEST(orders_are_uniform) {
    /* All 6 orders of 3 samples come up about equally often: 12,000 / 6 with a standard deviation of 41. */
    int seen[27] = {0}, kinds = 0;
    tw_sampler *s;
    TW_ASSERT_OK(tw_sampler_create(3, 3, TW_LAST_SHORT, 7, &s));
    for (int64_t epoch = 0; epoch < 12000; epoch++) {
        const int64_t *o;
        int64_t count;
        TW_ASSERT_OK(tw_sampler_batch(s, epoch, 0, &o, &count));
        seen[9 * o[0] + 3 * o[1] + o[2]]++;
    }
    for (int i = 0; i < 27; i++) {
        if (seen[i] == 0) continue;
        kinds++;
        ck_assert_msg(seen[i] > 1800 && seen[i] < 2200, "order %d came up %d times", i, seen[i]);
    }
    ck_assert_int_eq(kinds, 6);
    tw_sampler_free(s);
}
END_TEST

START_TEST(refuses_what_makes_no_step) {
    tw_sampler *s;
    const int64_t *items;
    int64_t count;
    TW_ASSERT_FAILS(tw_sampler_create(3, 10, TW_LAST_DROP, 0, &s), TW_ERR_CONFIG, "larger than the data set");
    ck_assert_ptr_null(s);
    TW_ASSERT_FAILS(tw_sampler_create(0, 10, TW_LAST_SHORT, 0, &s), TW_ERR_ARGUMENT, "0 samples");
    TW_ASSERT_FAILS(tw_sampler_create(3, 0, TW_LAST_SHORT, 0, &s), TW_ERR_ARGUMENT, "batches of 0");
    TW_ASSERT_OK(tw_sampler_create(3, 2, TW_LAST_SHORT, 0, &s));
    TW_ASSERT_FAILS(tw_sampler_batch(s, 0, 4, &items, &count), TW_ERR_ARGUMENT, "position 4");
    TW_ASSERT_FAILS(tw_sampler_batch(s, 0, -1, &items, &count), TW_ERR_ARGUMENT, "position -1");
    tw_sampler_free(s);
    tw_sampler_free(NULL);
}
END_TEST

TW_TEST_MAIN("sampler", an_epoch_has_every_sample, any_position_continues_the_same_order,
             seeds_and_epochs_differ, orders_are_uniform, refuses_what_makes_no_step)
