/* What ranks tell each other before a step; they are threads here. */
#include "thread_comm.h"
#include "train/run_exchange.h"
#include "train/signals.h"
#include "tw_test.h"

#include <signal.h>

enum { PART = 5, STEPS = 4 };

/* In step `t` rank r delivers this many samples. */
static int64_t size_of(int rank, int t) {
    return (rank * 3 + t) % (PART + 1);
}

static void check_step(tw_comm *c, tw_exchange *x, int t) {
    int64_t items[PART], size = size_of(c->rank, t);
    uint64_t images[PART], texts[PART];
    for (int64_t i = 0; i < size; i++) {
        items[i] = 1000 * t + 10 * c->rank + i;
        images[i] = (uint64_t)items[i] * 7;
        texts[i] = (uint64_t)items[i] * 11;
    }
    tw_batch batch = {.size = size,
                      .requested = size + c->rank % 2,
                      .items = items,
                      .image_hash = images,
                      .text_hash = texts,
                      .truncated = c->rank,
                      .waited = (double)(c->rank + 1)};
    tw_global_batch all;
    TW_ASSERT_OK(tw_exchange_batch(x, &batch, false, &all));
    int64_t at = 0;
    for (int r = 0; r < c->ranks; r++)
        for (int64_t i = 0; i < size_of(r, t); i++, at++) {
            ck_assert_int_eq(all.items[at], 1000 * t + 10 * r + i);
            ck_assert_uint_eq(all.image_hash[at], (uint64_t)all.items[at] * 7);
            ck_assert_uint_eq(all.text_hash[at], (uint64_t)all.items[at] * 11);
        }
    ck_assert_int_eq(all.size, at);
    ck_assert_int_eq(all.bad, c->ranks / 2);
    ck_assert_int_eq(all.truncated, c->ranks * (c->ranks - 1) / 2);
    ck_assert_double_eq(all.waited, (double)c->ranks);
    ck_assert(!all.stop);
}

static void exchange(tw_comm *c, void *argument) {
    tw_exchange *x;
    (void)argument;
    TW_ASSERT_OK(tw_exchange_create(c, PART, &x));
    for (int t = 0; t < STEPS; t++) check_step(c, x, t);
    tw_exchange_free(x);
}

START_TEST(all_ranks_see_the_global_batch) {
    static const int ranks[] = {1, 2, 3, 7};
    for (int k = 0; k < 4; k++) thread_comm_run(ranks[k], NULL, exchange, NULL);
}
END_TEST

static void stop_on_last(tw_comm *c, void *argument) {
    tw_exchange *x;
    tw_global_batch all;
    (void)argument;
    TW_ASSERT_OK(tw_exchange_create(c, PART, &x));
    TW_ASSERT_OK(tw_exchange_batch(x, &(tw_batch){0}, c->rank == c->ranks - 1, &all));
    ck_assert(all.stop && all.size == 0);
    tw_exchange_free(x);
}

static void agree_on_last(tw_comm *c, void *argument) {
    bool stop, asks = *(const bool *)argument && c->rank == c->ranks - 1;
    TW_ASSERT_OK(tw_stop_agree(c, asks, &stop));
    ck_assert_int_eq(stop, *(const bool *)argument);
}

START_TEST(one_rank_stops_all) {
    for (int ranks = 1; ranks <= 4; ranks++) {
        tw_stop_reset();
        thread_comm_run(ranks, NULL, stop_on_last, NULL);
        ck_assert_str_eq(tw_stop_reason(), "the stop file");
        tw_stop_reset();
        thread_comm_run(ranks, NULL, agree_on_last, &(bool){false});
        ck_assert_str_eq(tw_stop_reason(), "nothing");
        thread_comm_run(ranks, NULL, agree_on_last, &(bool){true});
        ck_assert_str_eq(tw_stop_reason(), "the stop file");
    }
    tw_stop_reset();
    tw_stop_note(SIGTERM); /* what another rank got decides the exit code here too */
    ck_assert_int_eq(tw_stop_exit_code(), 143);
    tw_stop_note(SIGINT);
    ck_assert_str_eq(tw_stop_reason(), "SIGTERM");
}
END_TEST

START_TEST(refuses_more_than_was_said) {
    tw_device *device;
    tw_comm *comm;
    tw_exchange *x;
    tw_global_batch all;
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    TW_ASSERT_OK(tw_comm_self(device, &comm));
    TW_ASSERT_OK(tw_exchange_create(comm, PART, &x));
    TW_ASSERT_FAILS(tw_exchange_batch(x, &(tw_batch){.size = PART + 1}, false, &all), TW_ERR_ARGUMENT,
                    "6 samples");
    tw_exchange_free(x);
    tw_exchange_free(NULL);
    tw_comm_free(comm);
    tw_device_free(device);
}
END_TEST

TW_TEST_MAIN("run_exchange", all_ranks_see_the_global_batch, one_rank_stops_all, refuses_more_than_was_said)
