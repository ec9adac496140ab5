/* Token ids against cn_clip's, texts that are refused, and long ones. */
#include "tokenizer_golden.h"

#include <pthread.h>
#include <unistd.h>

static const char *shared_path(const char *name, char *path, size_t size) {
    const char *shared = getenv("TW_SHARED");
    snprintf(path, size, "%s/data/%s", shared ? shared : TW_SOURCE_DIR "/../shared", name);
    return access(path, R_OK) == 0 ? path : NULL;
}

/* The published vocabulary, or NULL where it is not at hand. */
static tw_vocab *big_vocab(void) {
    char path[4096];
    tw_vocab *v = NULL;
    if (shared_path("vocab.txt", path, sizeof path)) TW_ASSERT_OK(tw_vocab_load(path, &v));
    return v;
}

static void check_case(const json_t *c, const tw_vocab *v, const char *key) {
    const json_t *text = json_object_get(c, "text"), *expected = json_object_get(c, key);
    const char *name = json_string_value(json_object_get(c, "name"));
    bool normalise = json_is_true(json_object_get(c, "normalise"));
    int context = golden_int(c, "context");
    char full_key[32];
    snprintf(full_key, sizeof full_key, "%s_full", key);
    int32_t ids[CONTEXT + 1];
    int length = -1, full = -1;
    ids[context] = 12345; /* must stay */
    TW_ASSERT_OK(tw_tokenize(v, json_string_value(text), json_string_length(text), normalise, context, ids,
                             &length, &full));
    ck_assert_int_eq(ids[context], 12345);
    ck_assert_msg(length == (int)json_array_size(expected), "%s: %d ids, expected %zu", name, length,
                  json_array_size(expected));
    ck_assert_msg(full == golden_int(c, full_key), "%s: %d ids uncut", name, full);
    for (int i = 0; i < context; i++) {
        int32_t e = i < length ? (int32_t)json_integer_value(json_array_get(expected, (size_t)i)) : PAD;
        ck_assert_msg(ids[i] == e, "%s (%s, normalise %d): id %d is %d, expected %d", name, key, normalise, i,
                      ids[i], e);
    }
}

static void check_adversarial(const tw_vocab *v, const char *key) {
    json_t *root = golden();
    const json_t *cases = json_object_get(root, "adversarial");
    ck_assert_uint_gt(json_array_size(cases), 100);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(json_array_get(cases, i), v, key);
    json_decref(root);
}

START_TEST(adversarial_texts_small_vocabulary) {
    tw_vocab *v = small_vocab();
    check_adversarial(v, "small");
    tw_vocab_free(v);
}
END_TEST

START_TEST(adversarial_texts_published_vocabulary) {
    tw_vocab *v = big_vocab();
    if (!v) TW_SKIP("the published vocab.txt is not in shared/data");
    ck_assert_int_eq(tw_vocab_size(v), 21128);
    check_adversarial(v, "big");
    tw_vocab_free(v);
}
END_TEST

/* v NULL: words, not ids. */
static void check_random(const json_t *root, const tw_vocab *v, const char *key) {
    int count = golden_int(root, "random_count"), block = golden_int(root, "random_block");
    for (int normalise = 0; normalise < 2; normalise++) {
        const json_t *kind = json_object_get(root, normalise ? "normalised" : "quick");
        const json_t *expected = json_object_get(kind, key);
        ck_assert_int_eq((int)json_array_size(expected), count / block);
        for (int b = 0; b < count / block; b++) {
            uint64_t h = hash_start;
            for (int i = b * block; i < (b + 1) * block; i++) {
                char text[4 * 40];
                size_t n = random_text(root, (uint64_t)i, text);
                h = v ? fold_ids(h, v, text, n, normalise) : fold_words(h, text, n, normalise);
            }
            ck_assert_msg(h == golden_hash(json_array_get(expected, (size_t)b)),
                          "random texts %d to %d differ (%s, normalise %d)", b * block, (b + 1) * block - 1,
                          key, normalise);
        }
    }
}

START_TEST(random_texts) {
    json_t *root = golden();
    tw_vocab *small = small_vocab(), *big = big_vocab();
    check_random(root, NULL, "random_words");
    check_random(root, small, "random_small");
    if (big) check_random(root, big, "random_big");
    tw_vocab_free(small);
    tw_vocab_free(big);
    json_decref(root);
}
END_TEST

/* Folds the captions of one file into the running block; returns false where the file is not at hand. */
static bool fold_captions(const char *name, const tw_vocab *v, int block, uint64_t h[2], int *count,
                          uint64_t found[][2]) {
    char path[4096];
    if (!shared_path(name, path, sizeof path)) return false;
    FILE *f = fopen(path, "r");
    ck_assert(f != NULL);
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, f) > 0) {
        json_t *record = json_loads(line, 0, NULL), *text = json_object_get(record, "text");
        ck_assert_msg(json_is_string(text), "%s, caption %d", path, *count + 1);
        for (int n = 0; n < 2; n++) {
            if (*count % block == 0) h[n] = hash_start;
            h[n] = fold_ids(h[n], v, json_string_value(text), json_string_length(text), n);
            found[*count / block][n] = h[n];
        }
        ++*count;
        json_decref(record);
    }
    free(line);
    fclose(f);
    return true;
}

START_TEST(captions_of_flickr8k_cn) {
    tw_vocab *v = big_vocab();
    if (!v) TW_SKIP("the published vocab.txt is not in shared/data");
    json_t *root = golden();
    int block = golden_int(root, "caption_block"), count = 0;
    uint64_t h[2] = {0}, found[200][2];
    if (!fold_captions("flickr8k-cn/train_texts.jsonl", v, block, h, &count, found) ||
        !fold_captions("flickr8k-cn/valid_texts.jsonl", v, block, h, &count, found))
        count = -1;
    if (count < 0) {
        json_decref(root);
        tw_vocab_free(v);
        TW_SKIP("flickr8k-cn is not in shared/data");
    }
    ck_assert_int_eq(count, golden_int(root, "captions"));
    for (int n = 0; n < 2; n++) {
        const json_t *expected =
            json_object_get(json_object_get(root, n ? "normalised" : "quick"), "captions");
        for (size_t b = 0; b < json_array_size(expected); b++)
            ck_assert_msg(found[b][n] == golden_hash(json_array_get(expected, b)),
                          "captions from %zu differ (normalise %d)", b * (size_t)block, n);
    }
    json_decref(root);
    tw_vocab_free(v);
}
END_TEST

static void refuse(const tw_vocab *v, const char *text, size_t n, const char *part) {
    int32_t ids[8];
    for (int normalise = 0; normalise < 2; normalise++)
        TW_ASSERT_FAILS(tw_tokenize(v, text, n, normalise, 8, ids, NULL, NULL), TW_ERR_FORMAT, part);
}

START_TEST(refuses_what_is_not_utf8) {
    tw_vocab *v = small_vocab();
    static const struct {
        const char *text, *part;
    } bad[] = {{"ab\x80", "stray continuation byte at byte offset 2"},
               {"狗\xC0\xAF", "overlong form at byte offset 3"},
               {"\xC1\xBF", "overlong form at byte offset 0"},
               {"\xE0\x9F\xBF", "overlong form at byte offset 0"},
               {"\xF0\x8F\xBF\xBF", "overlong form at byte offset 0"},
               {"a\xED\xA0\x80", "surrogate at byte offset 1"},
               {"\xED\xBF\xBF", "surrogate at byte offset 0"},
               {"\xED\xA0\xBD\xED\xB0\xB6", "surrogate at byte offset 0"},
               {"\xF4\x90\x80\x80", "over U+10FFFF at byte offset 0"},
               {"\xF5\x80\x80\x80", "impossible byte at byte offset 0"},
               {"a\xFF", "impossible byte at byte offset 1"},
               {"\xFE", "(byte 0xfe)"},
               {"abc\xE4\xBD", "incomplete character at byte offset 3"},
               {"abc\xE4", "incomplete character at byte offset 3"},
               {"\xF0\x9F\x90", "incomplete character at byte offset 0"},
               {"\xE4\xBDz", "incomplete character at byte offset 0"},
               {"\xC3(", "incomplete character at byte offset 0"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuse(v, bad[i].text, strlen(bad[i].text), bad[i].part);
    /* the text ends where its length says, not where the buffer does */
    refuse(v, "狗", 2, "incomplete character at byte offset 0");
    tw_vocab_free(v);
}
END_TEST

START_TEST(refuses_bad_arguments) {
    tw_vocab *v = small_vocab();
    int32_t ids[2];
    int length, full;
    TW_ASSERT_FAILS(tw_tokenize(v, "a", 1, true, 1, ids, NULL, NULL), TW_ERR_ARGUMENT, "context length 1");
    TW_ASSERT_FAILS(tw_tokenize(v, "a", 1, true, -3, ids, NULL, NULL), TW_ERR_ARGUMENT, "context length -3");
    TW_ASSERT_FAILS(tw_tokenize(v, "", (size_t)TW_TEXT_MAX_BYTES + 1, true, 2, ids, NULL, NULL),
                    TW_ERR_FORMAT, "16777217 bytes");
    TW_ASSERT_OK(tw_tokenize(v, NULL, 0, true, 2, ids, &length, &full));
    ck_assert(ids[0] == CLS && ids[1] == SEP && length == 2 && full == 2);
    tw_vocab_free(v);
}
END_TEST

/* A megabyte of one kind each: finished in linear time and memory, nothing overflows. */
START_TEST(long_texts) {
    enum { N = 1 << 20 };
    static const char *const units[] = {"a", "狗", "\u0301", "Σ", "İ", " ", "한", "ΐ", "e\u0301\u0323\u302e",
                                        "'"};
    static const int full[] = {3, N / 3 + 2, 2, 3, 3, 2, 3, 3, 3, N + 2}; /* a word over 200 is one [UNK] */
    tw_vocab *v = small_vocab();
    char *text = malloc(N);
    ck_assert(text != NULL);
    for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
        size_t n = strlen(units[k]), used = 0;
        while (used + n <= N) memcpy(text + used, units[k], n), used += n;
        int32_t ids[16];
        int length = 0, uncut = 0;
        TW_ASSERT_OK(tw_tokenize(v, text, used, true, 16, ids, &length, &uncut));
        ck_assert_msg(uncut == full[k], "'%s' many times: %d ids", units[k], uncut);
        ck_assert_int_eq(ids[length - 1], SEP);
    }
    free(text);
    tw_vocab_free(v);
}
END_TEST

typedef struct reader {
    const tw_vocab *v;
    const json_t *root;
    uint64_t hash;
} reader;

static void *read_random(void *argument) {
    reader *r = argument;
    r->hash = hash_start;
    for (uint64_t i = 0; i < 500; i++) {
        char text[4 * 40];
        size_t n = random_text(r->root, i, text);
        r->hash = fold_ids(r->hash, r->v, text, n, true);
    }
    return NULL;
}

START_TEST(threads_share_a_vocabulary) {
    json_t *root = golden();
    tw_vocab *v = small_vocab();
    reader alone = {v, root, 0}, readers[4];
    pthread_t threads[4];
    read_random(&alone);
    for (int i = 0; i < 4; i++) {
        readers[i] = (reader){v, root, 0};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, read_random, &readers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert(readers[i].hash == alone.hash);
    }
    tw_vocab_free(v);
    json_decref(root);
}
END_TEST

TW_TEST_MAIN("tokenizer", adversarial_texts_small_vocabulary, adversarial_texts_published_vocabulary,
             random_texts, captions_of_flickr8k_cn, refuses_what_is_not_utf8, refuses_bad_arguments,
             long_texts, threads_share_a_vocabulary)
