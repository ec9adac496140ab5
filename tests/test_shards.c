#include "data/atomic_file.h"
#include "data/files.h"
#include "data/lmdb_env.h"
#include "data/shard_pair.h"
#include "data/shard_writer.h"
#include "data/shards.h"
#include "tw_test.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN TW_SOURCE_DIR "/tests/golden/shards"

static char root[64];

static void make_root(void) {
    snprintf(root, sizeof root, "/tmp/tw-shards-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static const char *in_root(const char *name) {
    static char paths[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", root, name);
    return paths[turn];
}

static void remove_root(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    ck_assert_int_eq(system(command), 0);
}

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

static tw_id id_of(const char *text, bool is_integer) {
    return (tw_id){text, strlen(text), is_integer};
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

static void check_order(tw_reader *reader, int64_t count) {
    char last[TW_ID_MAX_BYTES + 1] = "";
    for (int64_t i = 0; i < count; i++) {
        tw_id id;
        TW_ASSERT_OK(tw_dataset_image_at(reader, i, &id, NULL));
        ck_assert_int_lt(strcmp(last, id.text), 0);
        snprintf(last, sizeof last, "%s", id.text);
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

enum { IMAGES = 400, PAIRS = 1000 };

/* A made-up file with a JPEG's first bytes: shards do not look further. */
static size_t make_image(int k, uint8_t *out) {
    size_t size = 3 + (size_t)(k * 37 % 9000);
    for (size_t i = 0; i < size; i++) out[i] = (uint8_t)(i * 31 + (size_t)k);
    memcpy(out, "\xff\xd8\xff", 3);
    return size;
}

static void write_split(const char *name, int shards, tw_shard_format format) {
    tw_shard_writer *w;
    TW_ASSERT_OK(
        tw_shard_writer_open(in_root(name), &(tw_shard_options){.shards = shards, .format = format}, &w));
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
    ck_assert_int_ne(access(in_root(name), F_OK), 0);
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
}

static void check_split(const char *name) {
    tw_dataset *d, *same;
    tw_reader *reader;
    TW_ASSERT_OK(tw_dataset_open(in_root(name), &d));
    TW_ASSERT_OK(tw_dataset_open(in_root(name), &same)); /* the environments are shared */
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

START_TEST(reads_what_it_writes) {
    make_root();
    write_split("one", 0, TW_SHARDS_RAW);
    check_split("one");
    write_split("original", 1, TW_SHARDS_ORIGINAL);
    check_split("original");
    write_split("eight", 8, TW_SHARDS_RAW);
    ck_assert_int_eq(access(in_root("eight/imgs-00007-of-00008/data.mdb"), F_OK), 0);
    check_split("eight");
    write_split("deep/er/split", 1, TW_SHARDS_RAW);
    check_split("deep/er/split");
    remove_root();
}
END_TEST

/* Much more than the first map holds, in values of every size. */
START_TEST(grows_its_map) {
    make_root();
    tw_shard_writer *w;
    TW_ASSERT_OK(tw_shard_writer_open(in_root("big"), &(tw_shard_options){.shards = 1}, &w));
    size_t size = 6 << 20, total = 0;
    uint8_t *data = calloc(1, size);
    memcpy(data, "\xff\xd8\xff", 3);
    char number[16];
    int images = 0;
    for (int k = 0; total < (size_t)200 << 20; k++, images++, total += size) {
        snprintf(number, sizeof number, "%d", k);
        tw_id id = id_of(number, true);
        TW_ASSERT_OK(tw_shard_writer_image(w, &id, data, k % 3 ? size : 1000));
    }
    for (int k = 0; k < 20000; k++) {
        snprintf(number, sizeof number, "%d", k);
        tw_id id = id_of(number, true);
        TW_ASSERT_OK(tw_shard_writer_pair(w, &id, &id, "文", 3));
    }
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
    free(data);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(in_root("big"), &d));
    ck_assert_int_eq(tw_dataset_images(d), images);
    ck_assert_int_eq(tw_dataset_pairs(d), 20000);
    tw_dataset_close(d);
    remove_root();
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
    make_root();
    write_split("one", 3, TW_SHARDS_RAW);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(in_root("one"), &d));
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
    remove_root();
}
END_TEST

/* ---- refusals ---- */

START_TEST(refuses_missing_and_half_sets) {
    make_root();
    tw_dataset *d;
    TW_ASSERT_FAILS(tw_dataset_open(in_root("none"), &d), TW_ERR_NOT_FOUND, "/none: No such file");
    ck_assert_ptr_null(d);
    TW_ASSERT_FAILS(tw_dataset_open(root, &d), TW_ERR_NOT_FOUND, "holds no 'imgs'");
    ck_assert_int_eq(mkdir(in_root("imgs"), 0755), 0);
    TW_ASSERT_FAILS(tw_dataset_open(root, &d), TW_ERR_NOT_FOUND, "data.mdb");
    write_split("two", 2, TW_SHARDS_RAW);
    ck_assert_int_eq(rename(in_root("two/imgs-00001-of-00002"), in_root("away")), 0);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("two"), &d), TW_ERR_FORMAT, "1 of 2 environments");
    ck_assert_int_eq(mkdir(in_root("two/imgs"), 0755), 0);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("two"), &d), TW_ERR_FORMAT, "holds both");
    /* Images alone are a pool to extract features from. */
    write_split("pool", 1, TW_SHARDS_RAW);
    ck_assert_int_eq(rename(in_root("pool/pairs"), in_root("away2")), 0);
    TW_ASSERT_OK(tw_dataset_open(in_root("pool"), &d));
    ck_assert_int_eq(tw_dataset_pairs(d), 0);
    ck_assert_int_eq(tw_dataset_images(d), IMAGES);
    tw_dataset_close(d);
    remove_root();
}
END_TEST

/* Changes one key of the pairs of a split, or removes it (value NULL). */
static void change(const char *environment, const char *key, const char *value, size_t size) {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val k = {strlen(key), (void *)key}, v = {size, (void *)value};
    ck_assert_int_eq(mdb_env_create(&env), 0);
    ck_assert_int_eq(mdb_env_open(env, environment, MDB_NOLOCK, 0644), 0);
    ck_assert_int_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    ck_assert_int_eq(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    ck_assert_int_eq(value ? mdb_put(txn, dbi, &k, &v, 0) : mdb_del(txn, dbi, &k, NULL), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void pair_is_refused(const char *value, size_t size, tw_status code, const char *part) {
    tw_dataset *d;
    tw_reader *reader;
    tw_pair pair;
    change(in_root("s/pairs"), "5", value, size);
    TW_ASSERT_OK(tw_dataset_open(in_root("s"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_FAILS(tw_dataset_pair(reader, 5, &pair), code, part);
    ck_assert_ptr_nonnull(strstr(tw_last_error(), "pair 5: "));
    TW_ASSERT_OK(tw_dataset_pair(reader, 6, &pair));
    tw_reader_close(reader);
    tw_dataset_close(d);
}

START_TEST(refuses_bad_records) {
    make_root();
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
    change(in_root("s/imgs"), "1", "!!!", 3);
    change(in_root("s/imgs"), "3", "YWJj", 4);
    TW_ASSERT_OK(tw_dataset_open(in_root("s"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_FAILS(tw_dataset_image(reader, "1", 1, &bytes), TW_ERR_FORMAT, "image 1: base64: '!'");
    TW_ASSERT_FAILS(tw_dataset_image(reader, "3", 1, &bytes), TW_ERR_FORMAT,
                    "image 3: its base64 holds no JPEG");
    tw_reader_close(reader);
    tw_dataset_close(d);
    change(in_root("s/pairs"), "5", NULL, 0);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_FORMAT, "'num_samples' says 1000");
    remove_root();
}
END_TEST

START_TEST(refuses_unfinished_and_newer) {
    make_root();
    tw_dataset *d;
    write_split("s", 1, TW_SHARDS_RAW);
    change(in_root("s/pairs"), "999", NULL, 0);
    change(in_root("s/pairs"), "x", "x", 1);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_FORMAT, "are not '0' to '999'");
    change(in_root("s/pairs"), "num_samples", NULL, 0);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_FORMAT, "did not end");
    change(in_root("s/imgs"), "tuwen_format", "2", 1);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_UNSUPPORTED, "written in format 2");
    remove_root();
}
END_TEST

static size_t read_whole(const char *path, uint8_t **data) {
    size_t size;
    TW_ASSERT_OK(tw_read_file(path, data, &size));
    return size;
}

static void write_whole(const char *path, const uint8_t *data, size_t size) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

/* Cut anywhere: refused with words, never a SIGBUS. */
START_TEST(refuses_truncated_files) {
    make_root();
    write_split("s", 1, TW_SHARDS_RAW);
    uint8_t *data;
    char path[256];
    snprintf(path, sizeof path, "%s", in_root("s/imgs/data.mdb"));
    size_t size = read_whole(path, &data);
    tw_dataset *d;
    for (size_t cut = 0; cut < size; cut += cut < 10000 ? 777 : 4096 * 13) {
        write_whole(path, data, cut);
        TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_FORMAT, cut ? "truncated" : "empty");
    }
    write_whole(path, data, size - 1);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_FORMAT, "truncated");
    write_whole(path, (const uint8_t *)path, sizeof path);
    TW_ASSERT_FAILS(tw_dataset_open(in_root("s"), &d), TW_ERR_FORMAT, "not an LMDB file");
    write_whole(path, data, size);
    TW_ASSERT_OK(tw_dataset_open(in_root("s"), &d));
    tw_dataset_close(d);
    free(data);
    remove_root();
}
END_TEST

/* Flipped bytes in the pages that LMDB walks: an error, or a set that reads without a crash. */
START_TEST(survives_damaged_pages) {
    make_root();
    write_split("s", 1, TW_SHARDS_RAW);
    uint8_t *data;
    char path[256];
    snprintf(path, sizeof path, "%s", in_root("s/pairs/data.mdb"));
    size_t size = read_whole(path, &data);
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
        write_whole(path, copy, size);
        tw_dataset *d;
        tw_reader *reader;
        tw_pair pair;
        if (tw_dataset_open(in_root("s"), &d) == TW_OK) {
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
    remove_root();
}
END_TEST

START_TEST(keeps_or_replaces_an_old_split) {
    make_root();
    tw_shard_writer *w;
    write_split("s", 2, TW_SHARDS_RAW);
    TW_ASSERT_FAILS(tw_shard_writer_open(in_root("s"), &(tw_shard_options){0}, &w), TW_ERR_CONFIG, "already");
    write_whole(in_root("s/notes.txt"), (const uint8_t *)"mine", 4);
    /* Given up: the old one stays. */
    TW_ASSERT_OK(tw_shard_writer_open(in_root("s"), &(tw_shard_options){.replace = true}, &w));
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s", tw_shard_writer_folder(w));
    ck_assert_int_eq(access(temporary, F_OK), 0);
    tw_shard_writer_close(w);
    ck_assert_int_ne(access(temporary, F_OK), 0);
    check_split("s");
    TW_ASSERT_OK(tw_shard_writer_open(in_root("s"), &(tw_shard_options){.replace = true}, &w));
    tw_id id = id_of("5", true);
    TW_ASSERT_OK(tw_shard_writer_image(w, &id, "\xff\xd8\xff", 3));
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(in_root("s"), &d));
    ck_assert_int_eq(tw_dataset_images(d), 1);
    ck_assert_int_eq(tw_dataset_pairs(d), 0);
    tw_dataset_close(d);
    ck_assert_int_eq(access(in_root("s/notes.txt"), F_OK), 0);
    ck_assert_int_ne(access(in_root("s/imgs-00000-of-00002"), F_OK), 0);
    ck_assert_int_ne(access(temporary, F_OK), 0);
    remove_root();
}
END_TEST

/* ".s.tmp-<this host>.<rest>" */
static const char *leftover(const char *rest) {
    static char name[200];
    char label[TW_WRITER_LABEL];
    tw_writer_label(label);
    snprintf(name, sizeof name, ".s.tmp-%.*s.%s", (int)(strrchr(label, '.') - label), label, rest);
    return in_root(name);
}

/* A killed process's number is this one's now, as in a container that is started anew. */
START_TEST(removes_what_a_namesake_left) {
    make_root();
    char mine[64], parents[64], containers[64], hosts[64];
    snprintf(mine, sizeof mine, "%ld-1", (long)getpid());
    snprintf(parents, sizeof parents, "%ld", (long)getppid()); /* it lives, and may have written this */
    snprintf(containers, sizeof containers, "%ld-1-1", (long)getpid());
    snprintf(hosts, sizeof hosts, ".s.tmp-elsewhere.%ld-1", (long)getpid());
    ck_assert_int_eq(mkdir(leftover(mine), 0700), 0);
    ck_assert_int_eq(mkdir(leftover(parents), 0700), 0);
    ck_assert_int_eq(mkdir(leftover(containers), 0700), 0);
    ck_assert_int_eq(mkdir(in_root(hosts), 0700), 0);
    write_split("s", 1, TW_SHARDS_RAW);
    check_split("s");
    ck_assert_int_ne(access(leftover(mine), F_OK), 0);
    ck_assert_int_eq(access(leftover(parents), F_OK), 0);
    ck_assert_int_eq(access(leftover(containers), F_OK), 0);
    ck_assert_int_eq(access(in_root(hosts), F_OK), 0);
    remove_root();
}
END_TEST

START_TEST(refuses_bad_targets) {
    make_root();
    tw_shard_writer *w;
    write_whole(in_root("file"), (const uint8_t *)"x", 1);
    TW_ASSERT_FAILS(tw_shard_writer_open(in_root("file/train"), &(tw_shard_options){0}, &w), TW_ERR_IO,
                    "there is a file of that name");
    TW_ASSERT_FAILS(tw_shard_writer_open("/proc/none/train", &(tw_shard_options){0}, &w), TW_ERR_IO,
                    "/proc/none");
    TW_ASSERT_FAILS(tw_shard_writer_open("..", &(tw_shard_options){0}, &w), TW_ERR_ARGUMENT, "does not name");
    TW_ASSERT_FAILS(tw_shard_writer_open(in_root("s"), &(tw_shard_options){.shards = 5000}, &w),
                    TW_ERR_CONFIG, "1 to 1000");
    TW_ASSERT_FAILS(tw_shard_writer_open(in_root("s"),
                                         &(tw_shard_options){.shards = 2, .format = TW_SHARDS_ORIGINAL}, &w),
                    TW_ERR_CONFIG, "one environment");
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(root, 0555), 0);
        TW_ASSERT_FAILS(tw_shard_writer_open(in_root("s"), &(tw_shard_options){0}, &w), TW_ERR_IO,
                        "Permission");
        ck_assert_int_eq(chmod(root, 0755), 0);
    }
    remove_root();
}
END_TEST

/* Writes until it fails; nothing may stay behind. */
static void fill_the_disk(const char *part) {
    tw_shard_writer *w;
    uint8_t *data = calloc(1, 1 << 20);
    memcpy(data, "\xff\xd8\xff", 3);
    TW_ASSERT_OK(tw_shard_writer_open(in_root("s"), &(tw_shard_options){0}, &w));
    tw_status status = TW_OK;
    char number[16];
    for (int k = 0; k < 40 && status == TW_OK; k++) {
        snprintf(number, sizeof number, "%d", k);
        tw_id id = id_of(number, true);
        status = tw_shard_writer_image(w, &id, data, 1 << 20);
    }
    if (status == TW_OK) status = tw_shard_writer_finish(w);
    ck_assert_int_eq(status, TW_ERR_IO);
    ck_assert_msg(strstr(tw_last_error(), part) != NULL, "%s", tw_last_error());
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s", tw_shard_writer_folder(w));
    tw_shard_writer_close(w);
    ck_assert_int_ne(access(temporary, F_OK), 0);
    ck_assert_int_ne(access(in_root("s"), F_OK), 0);
    free(data);
}

START_TEST(says_when_the_disk_is_full) {
    make_root();
    if (mount("tmpfs", root, "tmpfs", 0, "size=8m") != 0) {
        remove_root();
        TW_SKIP("no right to mount a small file system");
    }
    fill_the_disk("full");
    ck_assert_int_eq(umount(root), 0);
    remove_root();
}
END_TEST

START_TEST(says_when_the_file_may_not_grow) {
    make_root();
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {8 << 20, RLIM_INFINITY};
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    fill_the_disk("s.tmp-"); /* EFBIG, or a write that was cut short */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    remove_root();
}
END_TEST

TW_TEST_MAIN("shards", reads_original_lmdb, writes_pickles_as_python, reads_what_it_writes, grows_its_map,
             many_threads_read, refuses_missing_and_half_sets, refuses_bad_records,
             refuses_unfinished_and_newer, refuses_truncated_files, survives_damaged_pages,
             keeps_or_replaces_an_old_split, removes_what_a_namesake_left, refuses_bad_targets,
             says_when_the_disk_is_full, says_when_the_file_may_not_grow)
