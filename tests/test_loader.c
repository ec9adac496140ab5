#include "data/augment.h"
#include "data/loader.h"
#include "data/shard_writer.h"
#include "tw_test.h"

#include <lmdb.h>
#include <pthread.h>
#include <turbojpeg.h>
#include <unistd.h>

/* A small split on disk, and what the loader must make of it, worked out here one sample at a time. */
enum { IMAGES = 9, PAIRS = 23, R = 24, CONTEXT = 10, SEED = 77 };

static char folder[64], split[80];
static unsigned char *files[IMAGES];
static unsigned long sizes[IMAGES];
static char texts[PAIRS][64];
static tw_dataset *dataset;
static tw_vocab *vocab;

static const char vocabulary[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n红\n绿\n圆\na\n0\n1\n2\n##0\n##1\n##2\n";

/* Ids count down so that their byte order is not the order of writing. */
static int image_number(int index) {
    return 109 - index;
}
static int image_of_pair(int pair) {
    return pair * 5 % IMAGES;
}

static void make_picture(int index) {
    int width = 30 + 7 * index, height = 50 - 3 * index;
    unsigned char *rgb = malloc((size_t)(3 * width * height));
    for (int i = 0; i < 3 * width * height; i++) rgb[i] = (unsigned char)(i * (index + 1) / 7 + i / 90);
    tjhandle jpeg = tjInitCompress();
    files[index] = NULL;
    ck_assert_int_eq(tjCompress2(jpeg, rgb, width, 0, height, TJPF_RGB, &files[index], &sizes[index],
                                 TJSAMP_444, 90, TJFLAG_ACCURATEDCT),
                     0);
    tjDestroy(jpeg);
    free(rgb);
}

static tw_id make_id(char text[16], int number) {
    int n = snprintf(text, 16, "%d", number);
    return (tw_id){text, (size_t)n, true};
}

static void write_split(void) {
    const tw_shard_options options = {TW_SHARDS_RAW, 2, false};
    tw_shard_writer *w;
    char a[16], b[16];
    TW_ASSERT_OK(tw_shard_writer_open(split, &options, &w));
    for (int i = 0; i < IMAGES; i++) {
        tw_id id = make_id(a, image_number(i));
        TW_ASSERT_OK(tw_shard_writer_image(w, &id, files[i], sizes[i]));
    }
    for (int i = 0; i < PAIRS; i++) {
        tw_id image = make_id(a, image_number(image_of_pair(i))), text = make_id(b, 1000 + i);
        TW_ASSERT_OK(tw_shard_writer_pair(w, &image, &text, texts[i], strlen(texts[i])));
    }
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
}

/* Puts a raw value into an environment, past all checks of the writer. */
static void overwrite(const char *environment, const char *key, const void *value, size_t size) {
    char path[128];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {strlen(key), (void *)key}, v = {size, (void *)value};
    snprintf(path, sizeof path, "%s/%s", split, environment);
    ck_assert_int_eq(mdb_env_create(&env), 0);
    ck_assert_int_eq(mdb_env_set_mapsize(env, 1 << 24), 0);
    ck_assert_int_eq(mdb_env_open(env, path, MDB_NOLOCK, 0666), 0);
    ck_assert_int_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    ck_assert_int_eq(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    ck_assert_int_eq(mdb_put(txn, dbi, &k, &v, 0), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void set_up(void) {
    snprintf(folder, sizeof folder, "/tmp/tw_test_loader_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(split, sizeof split, "%s/train", folder);
    for (int i = 0; i < IMAGES; i++) make_picture(i);
    for (int i = 0; i < PAIRS; i++)
        snprintf(texts[i], sizeof texts[i], "红%d 绿 圆%s", i % 13, i % 4 ? "" : "圆圆圆圆圆圆圆");
    write_split();
    TW_ASSERT_OK(tw_vocab_parse(vocabulary, strlen(vocabulary), "test", &vocab));
    TW_ASSERT_OK(tw_dataset_open(split, &dataset));
}

static void tear_down(void) {
    char command[128];
    tw_dataset_close(dataset);
    tw_vocab_free(vocab);
    for (int i = 0; i < IMAGES; i++) tjFree(files[i]);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static tw_loader_config config_of(int threads, int prefetch, bool augment) {
    return (tw_loader_config){.threads = threads,
                              .prefetch = prefetch,
                              .resolution = R,
                              .context = CONTEXT,
                              .augment = augment,
                              .policy = tw_augment_original,
                              .seed = SEED};
}

/* Compares sample `at` of the batch with pair `item` seen at `position` of `epoch`. */
static void check_sample(const tw_batch *b, int64_t at, int64_t item, int64_t epoch, int64_t position,
                         bool augment) {
    uint8_t rgb[R * R * 3];
    int32_t ids[CONTEXT];
    int length, image = image_of_pair((int)item);
    if (augment)
        TW_ASSERT_OK(tw_image_augment(files[image], sizes[image], R, &tw_augment_original, SEED,
                                      (uint32_t)epoch, (uint32_t)position, rgb));
    else
        TW_ASSERT_OK(tw_image_load(files[image], sizes[image], R, rgb));
    TW_ASSERT_OK(tw_tokenize(vocab, texts[item], strlen(texts[item]), true, CONTEXT, ids, &length, NULL));
    ck_assert_int_eq(b->items[at], item);
    ck_assert_mem_eq(b->pixels + (size_t)at * sizeof rgb, rgb, sizeof rgb);
    ck_assert_mem_eq(b->ids + at * CONTEXT, ids, sizeof ids);
    ck_assert_int_eq(b->lengths[at], length);
}

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

/* ---- bad records ---- */

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
             batch_larger_than_the_set, bad_records_are_left_out_and_named, images_only_covers_all_once,
             images_only_leaves_out_bad_ones, closes_at_any_moment, errors_that_are_not_records_are_final,
             refuses_a_broken_contract)
