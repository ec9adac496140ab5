/* A split of made-up images and texts, for the tests of shards: written by the writer, and compared with what
 * the reader gives. */
#ifndef TW_TESTS_SHARD_SPLIT_H
#define TW_TESTS_SHARD_SPLIT_H

#include "data/shard_writer.h"
#include "data/shards.h"
#include "own_folder.h"

enum { IMAGES = 400, PAIRS = 1000 };

static inline tw_id id_of(const char *text, bool is_integer) {
    return (tw_id){text, strlen(text), is_integer};
}

/* A made-up file with a JPEG's first bytes: shards do not look further. */
static inline size_t make_image(int k, uint8_t *out) {
    size_t size = 3 + (size_t)(k * 37 % 9000);
    for (size_t i = 0; i < size; i++) out[i] = (uint8_t)(i * 31 + (size_t)k);
    memcpy(out, "\xff\xd8\xff", 3);
    return size;
}

static inline void write_split(const char *name, int shards, tw_shard_format format) {
    tw_shard_writer *w;
    TW_ASSERT_OK(
        tw_shard_writer_open(temp_path(name), &(tw_shard_options){.shards = shards, .format = format}, &w));
    uint8_t data[9100];
    char text[64], number[32], other[32];
    for (int k = 0; k < IMAGES; k++) {
        snprintf(number, sizeof number, k % 2 ? "%d" : "id/%d", k);
        tw_id id = id_of(number, k % 2);
        bool found;
        TW_ASSERT_OK(tw_shard_writer_has_image(w, &id, &found));
        ck_assert(!found);
        TW_ASSERT_OK(tw_shard_writer_image(w, &id, data, make_image(k, data)));
        TW_ASSERT_OK(tw_shard_writer_has_image(w, &id, &found));
        ck_assert(found);
    }
    tw_id first = id_of("1", true);
    TW_ASSERT_FAILS(tw_shard_writer_image(w, &first, "x", 1), TW_ERR_ARGUMENT, "'1' is there already");
    for (int k = 0; k < PAIRS; k++) {
        snprintf(number, sizeof number, k % IMAGES % 2 ? "%d" : "id/%d", k % IMAGES);
        snprintf(other, sizeof other, "%d", k + 7);
        snprintf(text, sizeof text, "第 %d 句", k);
        tw_id image_id = id_of(number, k % IMAGES % 2), text_id = id_of(other, k % 3);
        TW_ASSERT_OK(tw_shard_writer_pair(w, &image_id, &text_id, text, strlen(text)));
    }
    ck_assert_int_ne(access(temp_path(name), F_OK), 0);
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
}

static inline void check_order(tw_reader *reader, int64_t count) {
    char last[TW_ID_MAX_BYTES + 1] = "";
    for (int64_t i = 0; i < count; i++) {
        tw_id id;
        TW_ASSERT_OK(tw_dataset_image_at(reader, i, &id, NULL));
        ck_assert_int_lt(strcmp(last, id.text), 0);
        snprintf(last, sizeof last, "%s", id.text);
    }
}

static inline void check_split(const char *name) {
    tw_dataset *d, *same;
    tw_reader *reader;
    TW_ASSERT_OK(tw_dataset_open(temp_path(name), &d));
    TW_ASSERT_OK(tw_dataset_open(temp_path(name), &same)); /* the environments are shared */
    ck_assert_int_eq(tw_dataset_images(d), IMAGES);
    ck_assert_int_eq(tw_dataset_pairs(same), PAIRS);
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    uint8_t data[9100];
    char number[32], text[64];
    for (int k = 0; k < IMAGES; k++) {
        tw_bytes got;
        snprintf(number, sizeof number, k % 2 ? "%d" : "id/%d", k);
        size_t size = make_image(k, data);
        TW_ASSERT_OK(tw_dataset_image(reader, number, strlen(number), &got));
        ck_assert(got.size == size && memcmp(got.data, data, size) == 0);
    }
    for (int k = 0; k < PAIRS; k++) {
        tw_pair pair;
        TW_ASSERT_OK(tw_dataset_pair(reader, k, &pair));
        snprintf(text, sizeof text, "第 %d 句", k);
        ck_assert_str_eq(pair.text, text);
        ck_assert(pair.image_id.is_integer == (k % IMAGES % 2 != 0) &&
                  pair.text_id.is_integer == (k % 3 != 0));
        ck_assert_int_eq(atoi(pair.text_id.text), k + 7);
    }
    check_order(reader, IMAGES);
    tw_bytes bytes;
    tw_pair pair;
    TW_ASSERT_FAILS(tw_dataset_image(reader, "999", 3, &bytes), TW_ERR_NOT_FOUND, "no image '999'");
    TW_ASSERT_FAILS(tw_dataset_image(reader, "num_images", 10, &bytes), TW_ERR_NOT_FOUND, "num_images");
    TW_ASSERT_FAILS(tw_dataset_image(reader, "", 0, &bytes), TW_ERR_NOT_FOUND, "no image");
    TW_ASSERT_FAILS(tw_dataset_pair(reader, PAIRS, &pair), TW_ERR_ARGUMENT, "no pair 1000");
    TW_ASSERT_FAILS(tw_dataset_pair(reader, -1, &pair), TW_ERR_ARGUMENT, "no pair -1");
    TW_ASSERT_FAILS(tw_dataset_image_at(reader, IMAGES, NULL, &bytes), TW_ERR_ARGUMENT,
                    "no image number 400");
    tw_reader_close(reader);
    tw_dataset_close(same);
    tw_dataset_close(d);
}

#endif
