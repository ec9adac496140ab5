/* Records that are damaged: the loader leaves them out and names them. */
#include "loader_split.h"
#include "raw_lmdb.h"

#include <pthread.h>

static void overwrite(const char *environment, const char *key, const void *value, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", split, environment);
    change_raw(path, key, value, size);
}

typedef struct reports {
    pthread_t thread;
    int count;
    char text[64][256];
} reports;

static void on_bad(void *context, const char *message) {
    reports *r = context;
    ck_assert(pthread_equal(r->thread, pthread_self()));
    ck_assert_int_lt(r->count, 64);
    snprintf(r->text[r->count++], sizeof r->text[0], "%s", message);
}

/* Image 0 is cut off, image 1 no image, image 2 gone from pair 2; pair 6's text is not UTF-8. */
static void damage(void) {
    char id[16];
    snprintf(id, sizeof id, "%d", image_number(0));
    static const char *const halves[] = {"imgs-00000-of-00002", "imgs-00001-of-00002"};
    tw_reader *reader;
    tw_bytes bytes;
    tw_dataset_close(dataset);
    for (int i = 0; i < 2; i++) {
        overwrite(halves[i], id, files[0], sizes[0] / 2); /* an id may be in both */
        char other[16];
        snprintf(other, sizeof other, "%d", image_number(1));
        overwrite(halves[i], other, "aGVsbG8gd29ybGQ=", 16);
    }
    overwrite("pairs-00000-of-00002", "2", "[999,1002,\"a\"]", 14);
    overwrite("pairs-00000-of-00002", "6", "[107,1006,\"a\xff\"]", 15);
    TW_ASSERT_OK(tw_dataset_open(split, &dataset));
    ck_assert_int_eq(tw_dataset_pairs(dataset), PAIRS);
    ck_assert_int_eq(tw_dataset_images(dataset), IMAGES);
    TW_ASSERT_OK(tw_reader_open(dataset, &reader));
    TW_ASSERT_FAILS(tw_dataset_image(reader, "999", 3, &bytes), TW_ERR_NOT_FOUND, "999");
    tw_reader_close(reader);
}

static const char *why_bad(int64_t item) {
    if (item == 2) return "no image '999'";
    if (item == 6) return "pair 6: ";
    return image_of_pair((int)item) == 0   ? "image 109: "
           : image_of_pair((int)item) == 1 ? "image 108: "
                                           : NULL;
}

static void check_bad_run(int threads, int64_t batch, bool augment) {
    reports r = {.thread = pthread_self()};
    tw_sampler *s, *mine;
    tw_loader *loader;
    tw_loader_config config = config_of(threads, 2, augment);
    config.on_bad = on_bad, config.on_bad_context = &r;
    TW_ASSERT_OK(tw_sampler_create(PAIRS, batch, TW_LAST_SHORT, 5, &s));
    TW_ASSERT_OK(tw_sampler_create(PAIRS, batch, TW_LAST_SHORT, 5, &mine));
    TW_ASSERT_OK(tw_loader_open_pairs(&config, dataset, vocab, mine, 0, 0, &loader));
    int64_t epoch = 0, position = 0;
    for (int k = 0, empty = 0; k < 2 * tw_sampler_epoch_batches(s); k++) {
        tw_batch b;
        const int64_t *items;
        int64_t count, size = 0, truncated = 0;
        if (position == tw_sampler_epoch_samples(s)) epoch++, position = 0;
        TW_ASSERT_OK(tw_sampler_batch(s, epoch, position, &items, &count));
        r.count = 0;
        TW_ASSERT_OK(tw_loader_next(loader, &b));
        for (int64_t i = 0; i < count; i++) {
            const char *why = why_bad(items[i]);
            if (why) {
                int report = (int)(i - size);
                ck_assert_int_lt(report, r.count);
                ck_assert_msg(strstr(r.text[report], why) && strstr(r.text[report], split), "'%s' lacks '%s'",
                              r.text[report], why);
            } else {
                truncated += items[i] % 4 == 0;
                check_sample(&b, size++, items[i], epoch, position + i, augment);
            }
        }
        ck_assert_int_eq(b.size, size);
        ck_assert_int_eq(b.requested, count);
        ck_assert_int_eq(r.count, count - size);
        ck_assert_int_eq(b.truncated, truncated);
        empty += size == 0;
        if (batch == 1 && position == PAIRS - 1) ck_assert_int_gt(empty, 0);
        position += count;
    }
    tw_loader_close(loader);
    tw_sampler_free(mine);
    tw_sampler_free(s);
}

START_TEST(bad_records_are_left_out_and_named) {
    set_up();
    damage();
    for (int threads = 1; threads <= 5; threads += 2) {
        check_bad_run(threads, 6, false);
        check_bad_run(threads, 6, true);
        check_bad_run(threads, 1, false);
        check_bad_run(threads, PAIRS, true);
    }
    tear_down();
}
END_TEST

START_TEST(images_only_leaves_out_bad_ones) {
    set_up();
    damage();
    reports r = {.thread = pthread_self()};
    tw_loader *loader;
    tw_batch b;
    tw_loader_config config = config_of(3, 1, false);
    config.on_bad = on_bad, config.on_bad_context = &r;
    TW_ASSERT_OK(tw_loader_open_images(&config, dataset, IMAGES, 0, IMAGES, &loader));
    TW_ASSERT_OK(tw_loader_next(loader, &b));
    ck_assert_int_eq(b.requested, IMAGES);
    ck_assert_int_eq(b.size, IMAGES - 2); /* the last two in the order of ids */
    for (int i = 0; i < IMAGES - 2; i++) ck_assert_int_eq(b.items[i], i);
    ck_assert_int_eq(r.count, 2);
    ck_assert_ptr_nonnull(strstr(r.text[0], "image 108: "));
    ck_assert_ptr_nonnull(strstr(r.text[1], "image 109: "));
    tw_loader_close(loader);
    tear_down();
}
END_TEST

TW_TEST_MAIN("loader_damaged", bad_records_are_left_out_and_named, images_only_leaves_out_bad_ones)
