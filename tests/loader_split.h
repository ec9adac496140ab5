/* For tests of the loader: a small split on disk, and what the loader must make of it, worked out here one
 * sample at a time. */
#ifndef TW_TESTS_LOADER_SPLIT_H
#define TW_TESTS_LOADER_SPLIT_H

#include "data/augment.h"
#include "data/loader.h"
#include "data/shard_writer.h"
#include "own_folder.h"

#include <turbojpeg.h>

enum { IMAGES = 9, PAIRS = 23, R = 24, CONTEXT = 10, SEED = 77 };

static char split[256];
static unsigned char *files[IMAGES];
static unsigned long sizes[IMAGES];
static char texts[PAIRS][64];
static tw_dataset *dataset;
static tw_vocab *vocab;

static const char vocabulary[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n红\n绿\n圆\na\n0\n1\n2\n##0\n##1\n##2\n";

/* Ids count down so that their byte order is not the order of writing. */
static inline int image_number(int index) {
    return 109 - index;
}
static inline int image_of_pair(int pair) {
    return pair * 5 % IMAGES;
}

static inline void make_picture(int index) {
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

static inline tw_id make_id(char text[16], int number) {
    int n = snprintf(text, 16, "%d", number);
    return (tw_id){text, (size_t)n, true};
}

static inline void write_split(void) {
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

static inline void set_up(void) {
    snprintf(split, sizeof split, "%s", temp_path("train"));
    for (int i = 0; i < IMAGES; i++) make_picture(i);
    for (int i = 0; i < PAIRS; i++)
        snprintf(texts[i], sizeof texts[i], "红%d 绿 圆%s", i % 13, i % 4 ? "" : "圆圆圆圆圆圆圆");
    write_split();
    TW_ASSERT_OK(tw_vocab_parse(vocabulary, strlen(vocabulary), "test", &vocab));
    TW_ASSERT_OK(tw_dataset_open(split, &dataset));
}

static inline void tear_down(void) {
    tw_dataset_close(dataset);
    tw_vocab_free(vocab);
    for (int i = 0; i < IMAGES; i++) tjFree(files[i]);
    remove_folder();
}

static inline tw_loader_config config_of(int threads, int prefetch, bool augment) {
    return (tw_loader_config){.threads = threads,
                              .prefetch = prefetch,
                              .resolution = R,
                              .context = CONTEXT,
                              .augment = augment,
                              .policy = tw_augment_original,
                              .seed = SEED};
}

/* Compares sample `at` of the batch with pair `item` seen at `position` of `epoch`. */
static inline void check_sample(const tw_batch *b, int64_t at, int64_t item, int64_t epoch, int64_t position,
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

#endif
