/* Shards read: as the original tool writes them, as this program does, damaged ones. */
#include "data/files.h"
#include "data/shard_pair.h"
#include "data/shards.h"
#include "raw_lmdb.h"
#include "shard_split.h"

#include <jansson.h>
#include <pthread.h>

#define GOLDEN TW_SOURCE_DIR "/tests/golden/shards"

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

static tw_id id_of_json(const json_t *v, char text[32]) {
    if (json_is_string(v)) return id_of(json_string_value(v), false);
    snprintf(text, 32, "%lld", (long long)json_integer_value(v));
    return id_of(text, true);
}

static bool same_id(const tw_id *a, const tw_id *b) {
    return a->is_integer == b->is_integer && a->size == b->size && strcmp(a->text, b->text) == 0;
}

/* ---- what the original tool writes ---- */

static void check_pairs(tw_reader *reader, const json_t *pairs) {
    size_t i;
    json_t *pair;
    json_array_foreach(pairs, i, pair) {
        tw_pair got;
        char a[32], b[32];
        tw_id image_id = id_of_json(json_array_get(pair, 0), a),
              text_id = id_of_json(json_array_get(pair, 1), b);
        const json_t *text = json_array_get(pair, 2);
        TW_ASSERT_OK(tw_dataset_pair(reader, (int64_t)i, &got));
        ck_assert(same_id(&got.image_id, &image_id));
        ck_assert(same_id(&got.text_id, &text_id));
        ck_assert_uint_eq(got.text_bytes, json_string_length(text));
        ck_assert_mem_eq(got.text, json_string_value(text), got.text_bytes + 1);
    }
}

static void check_images(tw_reader *reader, const json_t *ids, const json_t *payloads) {
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id) {
        uint8_t wanted[2048];
        tw_bytes got, again;
        tw_id found;
        int64_t index;
        size_t size = from_hex(json_string_value(json_array_get(payloads, i)), wanted);
        TW_ASSERT_OK(tw_dataset_image(reader, json_string_value(id), json_string_length(id), &got));
        ck_assert_uint_eq(got.size, size);
        ck_assert_mem_eq(got.data, wanted, size);
        TW_ASSERT_OK(tw_dataset_image_index(reader, json_string_value(id), json_string_length(id), &index));
        TW_ASSERT_OK(tw_dataset_image_at(reader, index, &found, &again));
        ck_assert_str_eq(found.text, json_string_value(id));
        ck_assert_mem_eq(again.data, wanted, size);
    }
}

START_TEST(reads_original_lmdb) {
    json_error_t error;
    json_t *golden = json_load_file(GOLDEN "/expected.json", JSON_ALLOW_NUL, &error);
    ck_assert_msg(golden != NULL, "%s", error.text);
    size_t i;
    json_t *split;
    json_array_foreach(json_object_get(golden, "splits"), i, split) {
        char path[512];
        const json_t *pairs = json_object_get(split, "pairs"), *ids = json_object_get(split, "image_ids");
        snprintf(path, sizeof path, "%s/%s", GOLDEN, json_string_value(json_object_get(split, "split")));
        tw_dataset *d;
        tw_reader *reader;
        TW_ASSERT_OK(tw_dataset_open(path, &d));
        ck_assert_int_eq(tw_dataset_pairs(d), (int64_t)json_array_size(pairs));
        ck_assert_int_eq(tw_dataset_images(d), (int64_t)json_array_size(ids));
        TW_ASSERT_OK(tw_reader_open(d, &reader));
        check_pairs(reader, pairs);
        check_images(reader, ids, json_object_get(golden, "payloads"));
        check_order(reader, tw_dataset_images(d));
        tw_reader_close(reader);
        tw_dataset_close(d);
    }
    ck_assert_uint_eq(i, 7);
    json_decref(golden);
}
END_TEST

/* Byte for byte what pickle.dumps(pair, protocol=4) gives. */
START_TEST(writes_pickles_as_python) {
    json_t *golden = json_load_file(GOLDEN "/expected.json", JSON_ALLOW_NUL, NULL), *split;
    ck_assert_ptr_nonnull(golden);
    size_t i, compared = 0;
    json_array_foreach(json_object_get(golden, "splits"), i, split) {
        const json_t *pickles = json_object_get(split, "pickles");
        for (size_t k = 0; k < json_array_size(pickles); k++, compared++) {
            const json_t *pair = json_array_get(json_object_get(split, "pairs"), k),
                         *text = json_array_get(pair, 2);
            char a[32], b[32], *got;
            uint8_t wanted[2048];
            size_t size, n = from_hex(json_string_value(json_array_get(pickles, k)), wanted);
            tw_id image_id = id_of_json(json_array_get(pair, 0), a),
                  text_id = id_of_json(json_array_get(pair, 1), b);
            TW_ASSERT_OK(tw_pair_to_pickle(&image_id, &text_id, json_string_value(text),
                                           json_string_length(text), &got, &size));
            ck_assert_uint_eq(size, n);
            ck_assert_mem_eq(got, wanted, n);
            free(got);
        }
    }
    ck_assert_uint_eq(compared, 12);
    json_decref(golden);
}
END_TEST

/* ---- what this program writes ---- */

START_TEST(reads_what_it_writes) {
    write_split("one", 0, TW_SHARDS_RAW);
    check_split("one");
    write_split("original", 1, TW_SHARDS_ORIGINAL);
    check_split("original");
    write_split("eight", 8, TW_SHARDS_RAW);
    ck_assert_int_eq(access(temp_path("eight/imgs-00007-of-00008/data.mdb"), F_OK), 0);
    check_split("eight");
    write_split("deep/er/split", 1, TW_SHARDS_RAW);
    check_split("deep/er/split");
    remove_folder();
}
END_TEST

typedef struct worker {
    const tw_dataset *dataset;
    int start;
    int64_t bytes;
} worker;

static void *read_some(void *arg) {
    worker *x = arg;
    tw_reader *reader;
    if (tw_reader_open(x->dataset, &reader)) return NULL;
    for (int k = 0; k < 2000; k++) {
        tw_pair pair;
        tw_bytes bytes;
        tw_id id;
        if (tw_dataset_pair(reader, (x->start + k * 7) % PAIRS, &pair)) break;
        if (tw_dataset_image(reader, pair.image_id.text, pair.image_id.size, &bytes)) break;
        x->bytes += (int64_t)bytes.size + (int64_t)pair.text_bytes;
        if (tw_dataset_image_at(reader, k % IMAGES, &id, &bytes)) break;
        x->bytes += (int64_t)bytes.size;
    }
    tw_reader_close(reader);
    return reader;
}

START_TEST(many_threads_read) {
    write_split("one", 3, TW_SHARDS_RAW);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(temp_path("one"), &d));
    pthread_t threads[8];
    worker workers[8];
    for (int i = 0; i < 8; i++) {
        workers[i] = (worker){.dataset = d};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_some, &workers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_ptr_nonnull(result);
        ck_assert_int_gt(workers[i].bytes, 0);
        ck_assert_int_eq(workers[i].bytes, workers[0].bytes);
    }
    tw_dataset_close(d);
    remove_folder();
}
END_TEST

/* ---- refusals ---- */

START_TEST(refuses_missing_and_half_sets) {
    tw_dataset *d;
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("none"), &d), TW_ERR_NOT_FOUND, "/none: No such file");
    ck_assert_ptr_null(d);
    TW_ASSERT_FAILS(tw_dataset_open(own_folder(), &d), TW_ERR_NOT_FOUND, "holds no 'imgs'");
    ck_assert_int_eq(mkdir(temp_path("imgs"), 0755), 0);
    TW_ASSERT_FAILS(tw_dataset_open(own_folder(), &d), TW_ERR_NOT_FOUND, "data.mdb");
    write_split("two", 2, TW_SHARDS_RAW);
    ck_assert_int_eq(rename(temp_path("two/imgs-00001-of-00002"), temp_path("away")), 0);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("two"), &d), TW_ERR_FORMAT, "1 of 2 environments");
    ck_assert_int_eq(mkdir(temp_path("two/imgs"), 0755), 0);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("two"), &d), TW_ERR_FORMAT, "holds both");
    /* Images alone are a pool to extract features from. */
    write_split("pool", 1, TW_SHARDS_RAW);
    ck_assert_int_eq(rename(temp_path("pool/pairs"), temp_path("away2")), 0);
    TW_ASSERT_OK(tw_dataset_open(temp_path("pool"), &d));
    ck_assert_int_eq(tw_dataset_pairs(d), 0);
    ck_assert_int_eq(tw_dataset_images(d), IMAGES);
    tw_dataset_close(d);
    remove_folder();
}
END_TEST

static void pair_is_refused(const char *value, size_t size, tw_status code, const char *part) {
    tw_dataset *d;
    tw_reader *reader;
    tw_pair pair;
    change_raw(temp_path("s/pairs"), "5", value, size);
    TW_ASSERT_OK(tw_dataset_open(temp_path("s"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_FAILS(tw_dataset_pair(reader, 5, &pair), code, part);
    ck_assert_ptr_nonnull(strstr(tw_last_error(), "pair 5: "));
    TW_ASSERT_OK(tw_dataset_pair(reader, 6, &pair));
    tw_reader_close(reader);
    tw_dataset_close(d);
}

START_TEST(refuses_bad_records) {
    write_split("s", 1, TW_SHARDS_RAW);
    pair_is_refused("[1,2]", 5, TW_ERR_FORMAT, "not a JSON array [image_id");
    pair_is_refused("[1,2,3]", 7, TW_ERR_FORMAT, "not a JSON array [image_id");
    pair_is_refused("[1,2,\"a\"", 8, TW_ERR_FORMAT, "bad JSON");
    pair_is_refused("[1,2,\"\xff\"]", 9, TW_ERR_FORMAT, "bad JSON");
    pair_is_refused("[1.5,2,\"a\"]", 11, TW_ERR_FORMAT, "neither an integer nor a string");
    pair_is_refused("", 0, TW_ERR_FORMAT, "empty");
    pair_is_refused("garbage", 7, TW_ERR_FORMAT, "cut off");
    pair_is_refused("(K\x01K\x02t.", 7, TW_ERR_FORMAT, "tuple");
    pair_is_refused("K\x01K\x02K\x03\x87.", 8, TW_ERR_FORMAT, "type int, not str");
    pair_is_refused("NK\x02X\x01\x00\x00\x00"
                    "a\x87.",
                    11, TW_ERR_FORMAT, "type None");
    pair_is_refused("cos\nsystem\n.", 12, TW_ERR_UNSUPPORTED, "GLOBAL");
    tw_dataset *d;
    tw_reader *reader;
    tw_bytes bytes;
    change_raw(temp_path("s/imgs"), "1", "!!!", 3);
    change_raw(temp_path("s/imgs"), "3", "YWJj", 4);
    TW_ASSERT_OK(tw_dataset_open(temp_path("s"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_FAILS(tw_dataset_image(reader, "1", 1, &bytes), TW_ERR_FORMAT, "image 1: base64: '!'");
    TW_ASSERT_FAILS(tw_dataset_image(reader, "3", 1, &bytes), TW_ERR_FORMAT,
                    "image 3: its base64 holds no JPEG");
    tw_reader_close(reader);
    tw_dataset_close(d);
    change_raw(temp_path("s/pairs"), "5", NULL, 0);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_FORMAT, "'num_samples' says 1000");
    remove_folder();
}
END_TEST

START_TEST(refuses_unfinished_and_newer) {
    tw_dataset *d;
    write_split("s", 1, TW_SHARDS_RAW);
    change_raw(temp_path("s/pairs"), "999", NULL, 0);
    change_raw(temp_path("s/pairs"), "x", "x", 1);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_FORMAT, "are not '0' to '999'");
    change_raw(temp_path("s/pairs"), "num_samples", NULL, 0);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_FORMAT, "did not end");
    change_raw(temp_path("s/imgs"), "tuwen_format", "2", 1);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_UNSUPPORTED, "written in format 2");
    remove_folder();
}
END_TEST

static size_t read_whole(const char *name, uint8_t **data) {
    size_t size;
    TW_ASSERT_OK(tw_read_file(temp_path(name), data, &size));
    return size;
}

/* Cut anywhere: refused with words, never a SIGBUS. */
START_TEST(refuses_truncated_files) {
    write_split("s", 1, TW_SHARDS_RAW);
    uint8_t *data;
    static const char other[256] = "something else";
    size_t size = read_whole("s/imgs/data.mdb", &data);
    tw_dataset *d;
    for (size_t cut = 0; cut < size; cut += cut < 10000 ? 777 : 4096 * 13) {
        write_bytes("s/imgs/data.mdb", data, cut);
        TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_FORMAT, cut ? "truncated" : "empty");
    }
    write_bytes("s/imgs/data.mdb", data, size - 1);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_FORMAT, "truncated");
    write_bytes("s/imgs/data.mdb", other, sizeof other);
    TW_ASSERT_FAILS(tw_dataset_open(temp_path("s"), &d), TW_ERR_FORMAT, "not an LMDB file");
    write_bytes("s/imgs/data.mdb", data, size);
    TW_ASSERT_OK(tw_dataset_open(temp_path("s"), &d));
    tw_dataset_close(d);
    free(data);
    remove_folder();
}
END_TEST

/* Flipped bytes in the pages that LMDB walks: an error, or a set that reads without a crash. */
START_TEST(survives_damaged_pages) {
    write_split("s", 1, TW_SHARDS_RAW);
    uint8_t *data;
    size_t size = read_whole("s/pairs/data.mdb", &data);
    uint32_t state = 5;
    int refused = 0;
    for (int round = 0; round < 1500; round++) {
        uint8_t *copy = malloc(size);
        memcpy(copy, data, size);
        state = state * 1664525u + 1013904223u;
        /* Half of the rounds in the headers, where it hurts. */
        size_t at = (state >> 4) % size;
        if (round % 2) at = at / 4096 * 4096 + at % 64;
        copy[at] ^= (uint8_t)(1u << (round % 8));
        write_bytes("s/pairs/data.mdb", copy, size);
        tw_dataset *d;
        tw_reader *reader;
        tw_pair pair;
        if (tw_dataset_open(temp_path("s"), &d) == TW_OK) {
            TW_ASSERT_OK(tw_reader_open(d, &reader));
            for (int64_t k = 0; k < tw_dataset_pairs(d); k++) {
                tw_status status = tw_dataset_pair(reader, k, &pair);
                ck_assert(status == TW_OK || status == TW_ERR_FORMAT || status == TW_ERR_UNSUPPORTED);
            }
            tw_reader_close(reader);
            tw_dataset_close(d);
        } else {
            refused++;
        }
        free(copy);
    }
    ck_assert_int_gt(refused, 100);
    free(data);
    remove_folder();
}
END_TEST

TW_TEST_MAIN("shards", reads_original_lmdb, writes_pickles_as_python, reads_what_it_writes, many_threads_read,
             refuses_missing_and_half_sets, refuses_bad_records, refuses_unfinished_and_newer,
             refuses_truncated_files, survives_damaged_pages)
