#include "loader_split.h"

#include <unistd.h>

/* Reads `batches` parts of one rank from (epoch, position) and compares each with the sampler's order. */
static void check_rank(int rank, int ranks, int threads, int prefetch, int64_t batch, tw_last_batch last,
                       bool augment, int64_t epoch, int64_t position, int batches) {
    tw_sampler *s, *mine;
    tw_loader *loader;
    tw_loader_config config = config_of(threads, prefetch, augment);
    config.rank = rank, config.ranks = ranks;
    TW_ASSERT_OK(tw_sampler_create(PAIRS, batch, last, 5, &s));
    TW_ASSERT_OK(tw_sampler_create(PAIRS, batch, last, 5, &mine));
    TW_ASSERT_OK(tw_loader_open_pairs(&config, dataset, vocab, mine, epoch, position, &loader));
    for (int k = 0; k < batches; k++) {
        tw_batch b;
        const int64_t *items;
        int64_t global, truncated = 0;
        if (position == tw_sampler_epoch_samples(s)) epoch++, position = 0;
        TW_ASSERT_OK(tw_sampler_batch(s, epoch, position, &items, &global));
        int64_t first = global * rank / ranks, count = global * (rank + 1) / ranks - first;
        TW_ASSERT_OK(tw_loader_next(loader, &b));
        ck_assert_int_eq(b.size, count);
        ck_assert_int_eq(b.requested, count);
        ck_assert_int_eq(b.first, first);
        ck_assert_int_eq(b.global, global);
        ck_assert_int_eq(b.epoch, epoch);
        ck_assert_int_eq(b.position, position + first);
        ck_assert(count >= global / ranks && count <= (global + ranks - 1) / ranks);
        items += first;
        ck_assert(b.waited >= 0 && b.waited < 60);
        for (int64_t i = 0; i < count; i++) {
            check_sample(&b, i, items[i], epoch, position + first + i, augment);
            truncated += items[i] % 4 == 0;
            for (int64_t j = 0; j < i; j++) {
                bool same_image = image_of_pair((int)items[i]) == image_of_pair((int)items[j]);
                bool same_text = strcmp(texts[items[i]], texts[items[j]]) == 0;
                ck_assert_int_eq(b.image_hash[i] == b.image_hash[j], same_image);
                ck_assert_int_eq(b.text_hash[i] == b.text_hash[j], same_text);
            }
        }
        ck_assert_int_eq(b.truncated, truncated);
        position += global;
    }
    tw_loader_close(loader);
    tw_sampler_free(mine);
    tw_sampler_free(s);
}

static void check_run(int threads, int prefetch, int64_t batch, tw_last_batch last, bool augment,
                      int64_t epoch, int64_t position, int batches) {
    check_rank(0, 1, threads, prefetch, batch, last, augment, epoch, position, batches);
}

START_TEST(any_threads_give_the_same) {
    set_up();
    static const int threads[] = {1, 2, 5};
    for (int t = 0; t < 3; t++)
        for (int prefetch = 1; prefetch <= 4; prefetch += 3) {
            check_run(threads[t], prefetch, 4, TW_LAST_SHORT, false, 0, 0, 20);
            check_run(threads[t], prefetch, 4, TW_LAST_SHORT, true, 0, 0, 20);
            check_run(threads[t], prefetch, 4, TW_LAST_DROP, true, 3, 0, 12);
            check_run(threads[t], prefetch, 4, TW_LAST_PAD, true, 3, 0, 13);
        }
    tear_down();
}
END_TEST

START_TEST(any_start_gives_the_same) {
    set_up();
    for (int64_t position = 0; position <= PAIRS; position++)
        check_run(3, 2, 5, TW_LAST_SHORT, true, 1, position, 7);
    for (int64_t position = 0; position <= 20; position += 3)
        check_run(2, 1, 5, TW_LAST_DROP, false, 1, position, 7);
    tear_down();
}
END_TEST

START_TEST(each_rank_gets_its_part) {
    set_up();
    static const int ranks[] = {2, 3, 4, 7};
    for (int k = 0; k < 4; k++)
        for (int r = 0; r < ranks[k]; r++) {
            check_rank(r, ranks[k], 2, 2, 8, TW_LAST_SHORT, true, 1, 0, 9);
            check_rank(r, ranks[k], 1, 1, 5, TW_LAST_SHORT, false, 0, PAIRS - 1, 4);
            check_rank(r, ranks[k], 3, 3, 4, TW_LAST_PAD, true, 2, 8, 12); /* some parts are empty */
            check_rank(r, ranks[k], 2, 1, 3, TW_LAST_DROP, false, 0, 0, 5);
        }
    tear_down();
}
END_TEST

START_TEST(batch_larger_than_the_set) {
    set_up();
    check_run(2, 2, 100, TW_LAST_SHORT, true, 0, 0, 3);
    check_run(2, 1, 100, TW_LAST_PAD, true, 0, 0, 2);
    check_run(5, 3, 1, TW_LAST_SHORT, false, 0, 0, 2 * PAIRS);
    tear_down();
}
END_TEST

/* ---- images only ---- */

static void check_rank_images(int rank, int ranks, int threads, int64_t batch, int64_t first, int64_t end) {
    tw_loader *loader;
    tw_batch b;
    tw_loader_config config = config_of(threads, 2, true); /* augmentation has no effect here */
    config.rank = rank, config.ranks = ranks;
    TW_ASSERT_OK(tw_loader_open_images(&config, dataset, batch, first, end, &loader));
    for (int64_t at = first + rank * batch; at < end; at += ranks * batch) {
        TW_ASSERT_OK(tw_loader_next(loader, &b));
        ck_assert_int_eq(b.requested, end - at < batch ? end - at : batch);
        ck_assert_int_eq(b.size, b.requested);
        ck_assert_int_eq(b.position, at);
        ck_assert(!b.ids && !b.lengths && !b.text_hash && b.truncated == 0);
        for (int64_t i = 0; i < b.size; i++) {
            uint8_t rgb[R * R * 3];
            int image = IMAGES - 1 - (int)(at + i); /* in the order of the ids */
            TW_ASSERT_OK(tw_image_load(files[image], sizes[image], R, rgb));
            ck_assert_int_eq(b.items[i], at + i);
            ck_assert_mem_eq(b.pixels + (size_t)i * sizeof rgb, rgb, sizeof rgb);
        }
    }
    for (int k = 0; k < 2; k++) { /* the end stays the end */
        TW_ASSERT_OK(tw_loader_next(loader, &b));
        ck_assert_int_eq(b.requested, 0);
        ck_assert_int_eq(b.size, 0);
    }
    tw_loader_close(loader);
}

static void check_images(int threads, int64_t batch, int64_t first, int64_t end) {
    for (int ranks = 1; ranks <= 4; ranks++)
        for (int r = 0; r < ranks; r++) check_rank_images(r, ranks, threads, batch, first, end);
}

START_TEST(images_only_covers_all_once) {
    set_up();
    static const int threads[] = {1, 2, 5};
    for (int t = 0; t < 3; t++) {
        check_images(threads[t], 4, 0, IMAGES);
        check_images(threads[t], 3, 0, IMAGES);
        check_images(threads[t], 100, 0, IMAGES);
        check_images(threads[t], 1, 3, 7);
        check_images(threads[t], 4, 5, 5);
        check_images(threads[t], 4, 0, 0);
    }
    tear_down();
}
END_TEST

/* ---- ends and errors ---- */

START_TEST(closes_at_any_moment) {
    set_up();
    tw_loader_config config = config_of(4, 3, true);
    for (int k = 0; k < 40; k++) {
        tw_sampler *s;
        tw_loader *loader;
        tw_batch b;
        TW_ASSERT_OK(tw_sampler_create(PAIRS, 7, TW_LAST_SHORT, 5, &s));
        TW_ASSERT_OK(tw_loader_open_pairs(&config, dataset, vocab, s, 0, 0, &loader));
        if (k % 3 == 1) usleep((unsigned)(k * 50));
        for (int i = 0; i < k % 4; i++) TW_ASSERT_OK(tw_loader_next(loader, &b));
        tw_loader_close(loader);
        tw_sampler_free(s);
        TW_ASSERT_OK(tw_loader_open_images(&config, dataset, 2, 0, IMAGES, &loader));
        if (k % 2) TW_ASSERT_OK(tw_loader_next(loader, &b));
        tw_loader_close(loader);
    }
    tw_loader_close(NULL);
    tear_down();
}
END_TEST

START_TEST(errors_that_are_not_records_are_final) {
    set_up();
    for (int threads = 1; threads <= 4; threads += 3) {
        tw_sampler *s;
        tw_loader *loader;
        tw_batch b;
        tw_loader_config config = config_of(threads, 2, false);
        /* A sampler of another, larger set. */
        TW_ASSERT_OK(tw_sampler_create(PAIRS + 60, 16, TW_LAST_SHORT, 5, &s));
        TW_ASSERT_OK(tw_loader_open_pairs(&config, dataset, vocab, s, 0, 0, &loader));
        const int64_t *items;
        int64_t count;
        char expected[64];
        tw_sampler *other;
        TW_ASSERT_OK(tw_sampler_create(PAIRS + 60, 16, TW_LAST_SHORT, 5, &other));
        TW_ASSERT_OK(tw_sampler_batch(other, 0, 0, &items, &count));
        int64_t first = 0; /* the first failing sample is named, whichever thread is faster */
        while (items[first] < PAIRS) first++;
        snprintf(expected, sizeof expected, "no pair %d,", (int)items[first]);
        for (int k = 0; k < 3; k++) TW_ASSERT_FAILS(tw_loader_next(loader, &b), TW_ERR_ARGUMENT, expected);
        ck_assert_int_eq(b.size, 0);
        tw_loader_close(loader);
        tw_sampler_free(other);
        tw_sampler_free(s);
    }
    tear_down();
}
END_TEST

START_TEST(refuses_a_broken_contract) {
    set_up();
    tw_sampler *s;
    tw_loader *loader;
    TW_ASSERT_OK(tw_sampler_create(PAIRS, 4, TW_LAST_SHORT, 5, &s));
    tw_loader_config config = config_of(0, 1, false);
    TW_ASSERT_FAILS(tw_loader_open_pairs(&config, dataset, vocab, s, 0, 0, &loader), TW_ERR_ARGUMENT,
                    "0 threads");
    ck_assert_ptr_null(loader);
    config = config_of(1, 0, false);
    TW_ASSERT_FAILS(tw_loader_open_images(&config, dataset, 2, 0, 1, &loader), TW_ERR_ARGUMENT, "0 batches");
    config = config_of(1, 1, false);
    config.resolution = 0;
    TW_ASSERT_FAILS(tw_loader_open_images(&config, dataset, 2, 0, 1, &loader), TW_ERR_ARGUMENT, "0 pixels");
    config = config_of(1, 1, false);
    config.context = 1;
    TW_ASSERT_FAILS(tw_loader_open_pairs(&config, dataset, vocab, s, 0, 0, &loader), TW_ERR_ARGUMENT,
                    "1 tokens");
    config = config_of(1, 1, false);
    TW_ASSERT_FAILS(tw_loader_open_pairs(&config, dataset, vocab, s, 0, PAIRS + 1, &loader), TW_ERR_ARGUMENT,
                    "position");
    config.rank = 2, config.ranks = 2;
    TW_ASSERT_FAILS(tw_loader_open_images(&config, dataset, 1, 0, 1, &loader), TW_ERR_ARGUMENT,
                    "rank 2 of 2");
    config.rank = config.ranks = 0;
    TW_ASSERT_FAILS(tw_loader_open_images(&config, dataset, 0, 0, 1, &loader), TW_ERR_ARGUMENT,
                    "0 at a time");
    TW_ASSERT_FAILS(tw_loader_open_images(&config, dataset, 1, 0, IMAGES + 1, &loader), TW_ERR_ARGUMENT,
                    "of 9");
    TW_ASSERT_FAILS(tw_loader_open_images(&config, dataset, 1, 2, 1, &loader), TW_ERR_ARGUMENT, "2 to 1");
    tw_sampler_free(s);
    tear_down();
}
END_TEST

TW_TEST_MAIN("loader", any_threads_give_the_same, any_start_gives_the_same, each_rank_gets_its_part,
             batch_larger_than_the_set, images_only_covers_all_once, closes_at_any_moment,
             errors_that_are_not_records_are_final, refuses_a_broken_contract)
