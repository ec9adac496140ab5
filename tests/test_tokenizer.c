/* The tokenizer against cn_clip's: tests/golden/tokenizer.json and tokenizer_vocab.txt are made by
 * scripts/make_golden_tokenizer.py. Where ids would hide a difference behind [UNK], the words of the basic
 * tokenizer are compared. */
#include "data/basic_text.h"
#include "data/tokenizer.h"
#include "data/unicode.h"
#include "tw_test.h"

#include <jansson.h>
#include <pthread.h>
#include <unistd.h>

#define GOLDEN TW_SOURCE_DIR "/tests/golden/"
#define SPECIALS "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"

enum { CONTEXT = 52, PAD = 0, UNK = 1, CLS = 2, SEP = 3 };

/* ---- shared by the golden tests ---- */

static json_t *golden(void) {
    json_error_t error;
    json_t *root = json_load_file(GOLDEN "tokenizer.json", JSON_ALLOW_NUL, &error);
    ck_assert_msg(root != NULL, "tokenizer.json: %s", error.text);
    return root;
}

static int golden_int(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_integer(value), "golden value %s is missing", key);
    return (int)json_integer_value(value);
}

static uint64_t golden_hash(const json_t *value) {
    ck_assert(json_is_string(value));
    return strtoull(json_string_value(value), NULL, 16);
}

static tw_vocab *small_vocab(void) {
    tw_vocab *v = NULL;
    TW_ASSERT_OK(tw_vocab_load(GOLDEN "tokenizer_vocab.txt", &v));
    return v;
}

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

static const uint64_t hash_start = 0xCBF29CE484222325ull;

static uint64_t fold(uint64_t h, uint32_t value) {
    return (h ^ value) * 0x100000001B3ull;
}

static uint64_t fold_ids(uint64_t h, const tw_vocab *v, const char *text, size_t bytes, bool normalise) {
    int32_t ids[CONTEXT];
    int full = 0;
    TW_ASSERT_OK(tw_tokenize(v, text, bytes, normalise, CONTEXT, ids, NULL, &full));
    for (int i = 0; i < CONTEXT; i++) h = fold(h, (uint32_t)ids[i]);
    return fold(h, (uint32_t)full);
}

static tw_status fold_word(void *context, const uint32_t *word, size_t length) {
    uint64_t *h = context;
    for (size_t i = 0; i < length; i++) *h = fold(*h, word[i]);
    *h = fold(*h, 0xFFFFFFFFu);
    return TW_OK;
}

static uint64_t fold_words(uint64_t h, const char *text, size_t bytes, bool normalise) {
    TW_ASSERT_OK(tw_basic_words(text, bytes, normalise, fold_word, &h));
    return fold(h, 0xFFFFFFFEu);
}

/* ---- against the reference ---- */

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

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

static uint32_t array_code(const json_t *array, size_t i) {
    return (uint32_t)json_integer_value(json_array_get(array, i));
}

/* random_text of scripts/make_golden_tokenizer.py. */
static size_t random_text(const json_t *root, uint64_t index, char *out) {
    const json_t *ranges = json_object_get(root, "ranges"), *hot = json_object_get(root, "hot");
    uint64_t state = ((uint64_t)golden_int(root, "random_seed") << 32) + index;
    uint64_t count = 1 + splitmix(&state) % 40;
    size_t used = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t kind = splitmix(&state) % 8, r = splitmix(&state), c;
        if (kind < 3) {
            size_t k = 2 * (size_t)(r % (json_array_size(ranges) / 2));
            uint32_t low = array_code(ranges, k), high = array_code(ranges, k + 1);
            c = low + (r >> 32) % (high - low + 1);
        } else if (kind == 3) {
            c = array_code(hot, (size_t)(r % json_array_size(hot)));
        } else {
            c = kind == 4 ? 0x4E00 + r % 0x5200 : kind == 5 ? 0x300 + r % 0x70 : 0x20 + r % 0x5F;
        }
        used += tw_utf8_encode((uint32_t)c, out + used);
    }
    return used;
}

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

/* Every character of Unicode 14 between sigmas: its category, cases, decomposition and its part in the
 * context of a final sigma all show in the words. */
START_TEST(every_character) {
    json_t *root = golden();
    const json_t *ranges = json_object_get(root, "ranges");
    uint32_t block = (uint32_t)golden_int(root, "sweep_block");
    for (int normalise = 0; normalise < 2; normalise++) {
        static uint64_t hashes[0x110000 / 256];
        const json_t *expected =
            json_object_get(json_object_get(root, normalise ? "normalised" : "quick"), "sweep");
        for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) hashes[i] = hash_start;
        for (size_t k = 0; k < json_array_size(ranges); k += 2) {
            for (uint32_t c = array_code(ranges, k); c <= array_code(ranges, k + 1); c++) {
                char one[5] = {0}, text[40];
                size_t n = tw_utf8_encode(c, one), used = 0;
                static const char *const around[] = {"xΣ", "Σ ", "AΣ"};
                for (int part = 0; part < 3; part++) {
                    memcpy(text + used, around[part], 3);
                    memcpy(text + used + 3, one, n);
                    used += 3 + n;
                }
                hashes[c / block] = fold_words(hashes[c / block], text, used, normalise);
            }
        }
        const char *key;
        json_t *value;
        ck_assert_uint_gt(json_object_size(expected), 40);
        json_object_foreach((json_t *)expected, key, value) {
            unsigned long b = strtoul(key, NULL, 10);
            ck_assert_msg(hashes[b] == golden_hash(value), "U+%05lX to U+%05lX differ (normalise %d)",
                          b * block, (b + 1) * block - 1, normalise);
        }
    }
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

/* ---- texts that are refused ---- */

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

/* All two- to four-byte beginnings at the edges of what is allowed, against the table 3-7 of the standard. */
START_TEST(takes_exactly_the_valid_sequences) {
    static const unsigned char tails[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    tw_code_points c;
    tw_code_points_init(&c);
    for (unsigned lead = 0x80; lead < 0x100; lead++) {
        for (size_t t = 0; t < sizeof tails; t++) {
            unsigned char second = tails[t];
            char s[4] = {(char)lead, (char)second, (char)0x80, (char)0xBF};
            size_t n = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
            unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
            unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
            bool valid = lead >= 0xC2 && lead <= 0xF4 && second >= low && second <= high;
            c.count = 0;
            tw_status status = tw_utf8_decode(s, n, &c);
            ck_assert_msg((status == TW_OK) == valid, "%02x %02x", lead, second);
            if (!valid) continue;
            char back[4];
            ck_assert_uint_eq(c.count, 1);
            ck_assert_uint_eq(tw_utf8_encode(c.at[0], back), n);
            ck_assert_int_eq(memcmp(s, back, n), 0);
        }
    }
    tw_code_points_free(&c);
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

/* ---- vocabularies ---- */

START_TEST(reads_lines_as_python_does) {
    static const char file[] = SPECIALS "a\r\n b\t\r\xE3\x80\x80\n\n##c\xC2\x85\na\x1F\n##\nd";
    tw_vocab *v = NULL;
    TW_ASSERT_OK(tw_vocab_parse(file, sizeof file - 1, "test", &v));
    ck_assert_int_eq(tw_vocab_size(v), 12);
    ck_assert_int_eq(tw_vocab_pad(v), PAD);
    ck_assert_int_eq(tw_vocab_unk(v), UNK);
    ck_assert_int_eq(tw_vocab_cls(v), CLS);
    ck_assert_int_eq(tw_vocab_sep(v), SEP);
    ck_assert_int_eq(tw_vocab_find(v, "b", 1), 5);
    ck_assert_int_eq(tw_vocab_find(v, "", 0), 7);
    ck_assert_int_eq(tw_vocab_find(v, "##c", 3), 8);
    ck_assert_int_eq(tw_vocab_find(v, "c", 1), -1);
    ck_assert_int_eq(tw_vocab_find(v, "a", 1), 9); /* the last of two */
    ck_assert_int_eq(tw_vocab_find(v, "##", 2), 10);
    ck_assert_int_eq(tw_vocab_find(v, "d", 1), 11); /* no line end */
    ck_assert_int_eq(tw_vocab_find(v, "\xFF", 1), -1);
    size_t n = 0;
    ck_assert_int_eq(strncmp(tw_vocab_token(v, 5, &n), "b", 1), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(strncmp(tw_vocab_token(v, 8, &n), "##c", 3), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert_ptr_nonnull(tw_vocab_token(v, 6, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_null(tw_vocab_token(v, 12, &n));
    ck_assert_ptr_null(tw_vocab_token(v, -1, &n));
    const char *text = tw_vocab_text(v, &n);
    ck_assert_uint_eq(n, sizeof file - 1);
    ck_assert_int_eq(memcmp(text, file, n + 1), 0);
    tw_vocab_free(v);
    tw_vocab_free(NULL);
}
END_TEST

static void refuse_vocab(const char *bytes, tw_status code, const char *part) {
    tw_vocab *v = (tw_vocab *)1;
    TW_ASSERT_FAILS(tw_vocab_parse(bytes, strlen(bytes), "test.txt", &v), code, part);
    ck_assert_ptr_null(v);
}

START_TEST(refuses_bad_vocabularies) {
    refuse_vocab("", TW_ERR_FORMAT, "test.txt is empty");
    refuse_vocab("[UNK]\n[CLS]\n[SEP]\n", TW_ERR_FORMAT, "lacks the token [PAD]");
    refuse_vocab("[PAD]\n[CLS]\n[SEP]\n", TW_ERR_FORMAT, "lacks the token [UNK]");
    refuse_vocab("[PAD]\n[UNK]\n[SEP]\n", TW_ERR_FORMAT, "lacks the token [CLS]");
    refuse_vocab("[PAD]\n[UNK]\n[CLS]\n", TW_ERR_FORMAT, "lacks the token [SEP]");
    refuse_vocab("\xEF\xBB\xBF" SPECIALS, TW_ERR_FORMAT, "byte order mark");
    refuse_vocab("a\n" SPECIALS, TW_ERR_UNSUPPORTED, "[PAD] on line 2");
    refuse_vocab(SPECIALS "ok\nab\xFFz\n", TW_ERR_FORMAT, "test.txt, line 6: not UTF-8");
    refuse_vocab(SPECIALS "ok\nab\xFFz\n", TW_ERR_FORMAT, "byte offset 2");
    tw_vocab *v = NULL;
    TW_ASSERT_FAILS(tw_vocab_load("/nonexistent/vocab.txt", &v), TW_ERR_IO, "/nonexistent/vocab.txt");
    TW_ASSERT_FAILS(tw_vocab_load("/", &v), TW_ERR_IO, "vocabulary /");
    ck_assert_ptr_null(v);
}
END_TEST

/* ---- threads ---- */

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

/* ---- building ---- */

static char *build(const char *const *captions, size_t n, int max_size, int *left_out) {
    tw_vocab_builder *b = NULL;
    char *text = NULL;
    size_t bytes = 0;
    TW_ASSERT_OK(tw_vocab_builder_new(&b));
    for (size_t i = 0; i < n; i++) TW_ASSERT_OK(tw_vocab_builder_add(b, captions[i], strlen(captions[i])));
    TW_ASSERT_OK(tw_vocab_builder_finish(b, max_size, &text, &bytes, left_out));
    ck_assert_uint_eq(bytes, strlen(text));
    tw_vocab_builder_free(b);
    return text;
}

START_TEST(builds_a_vocabulary) {
    static const char *const captions[] = {"一个红色的圆，一个红色的方块", "RED 圆“red”", "Red rouge",
                                           "b狗a"};
    static const char *const reversed[] = {"b狗a", "Red rouge", "RED 圆“red”",
                                           "一个红色的圆，一个红色的方块"};
    int left_out = -1;
    char *text = build(captions, 4, 10000, &left_out), *again = build(reversed, 4, 10000, NULL);
    ck_assert_str_eq(text, again);
    ck_assert_int_eq(left_out, 0);
    /* 4: "##e" (3 red, 1 rouge), "r"; 3: "##d"; 2: then by code point, " before the ideographs, ## after */
    static const char start[] =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n##e\nr\n##d\n\"\n一\n个\n圆\n的\n红\n色\na\nb\n##g\n";
    ck_assert_msg(strncmp(text, start, sizeof start - 1) == 0, "%s", text);
    ck_assert_ptr_nonnull(strstr(text, "\n方\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nz\n##z\n"));
    ck_assert_str_eq(text + strlen(text) - 5, "\nred\n"); /* rouge occurs once */
    tw_vocab *v = NULL;
    TW_ASSERT_OK(tw_vocab_parse(text, strlen(text), "built", &v));
    int32_t ids[CONTEXT];
    for (size_t k = 0; k < 4; k++) {
        TW_ASSERT_OK(tw_tokenize(v, captions[k], strlen(captions[k]), true, CONTEXT, ids, NULL, NULL));
        for (int i = 0; i < CONTEXT; i++) ck_assert_int_ne(ids[i], UNK);
    }
    TW_ASSERT_OK(tw_tokenize(v, "unseen42", 8, true, CONTEXT, ids, NULL, NULL));
    ck_assert_int_ne(ids[1], UNK);
    tw_vocab_free(v);
    free(text);
    free(again);
}
END_TEST

START_TEST(builds_within_a_size) {
    static const char *const captions[] = {"狗狗狗猫猫鸟"};
    int left_out = -1;
    char *text = build(captions, 1, 7, &left_out);
    ck_assert_str_eq(text, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n狗\n猫\n");
    ck_assert_int_eq(left_out, 1);
    free(text);
    tw_vocab_builder *b = NULL;
    char *none = NULL;
    size_t bytes = 0;
    TW_ASSERT_OK(tw_vocab_builder_new(&b));
    TW_ASSERT_FAILS(tw_vocab_builder_finish(b, 5, &none, &bytes, NULL), TW_ERR_ARGUMENT, "at most 5");
    TW_ASSERT_FAILS(tw_vocab_builder_add(b, "狗\xFF", 4), TW_ERR_FORMAT, "byte offset 3");
    TW_ASSERT_OK(tw_vocab_builder_finish(b, 1000, &none, &bytes, NULL));
    ck_assert_ptr_null(strstr(none, "狗")); /* what was refused was not counted */
    free(none);
    tw_vocab_builder_free(b);
    tw_vocab_builder_free(NULL);
}
END_TEST

/* Thousands of different pieces: the table grows, and every text is covered by its vocabulary. */
START_TEST(builds_from_random_texts) {
    json_t *root = golden();
    tw_vocab_builder *b = NULL;
    TW_ASSERT_OK(tw_vocab_builder_new(&b));
    char text[4 * 40];
    for (uint64_t i = 0; i < 3000; i++) {
        size_t n = random_text(root, i, text);
        TW_ASSERT_OK(tw_vocab_builder_add(b, text, n));
    }
    char *file = NULL;
    size_t bytes = 0;
    int left_out = -1;
    TW_ASSERT_OK(tw_vocab_builder_finish(b, 1000000, &file, &bytes, &left_out));
    ck_assert_int_eq(left_out, 0);
    tw_vocab *v = NULL;
    TW_ASSERT_OK(tw_vocab_parse(file, bytes, "built", &v));
    ck_assert_int_gt(tw_vocab_size(v), 5000);
    for (uint64_t i = 0; i < 3000; i++) {
        int32_t ids[CONTEXT];
        size_t n = random_text(root, i, text);
        TW_ASSERT_OK(tw_tokenize(v, text, n, true, CONTEXT, ids, NULL, NULL));
        for (int k = 0; k < CONTEXT; k++) ck_assert_msg(ids[k] != UNK, "text %d, token %d", (int)i, k);
    }
    for (int32_t id = 0; id < tw_vocab_size(v); id++) { /* no line twice, none changed by stripping */
        size_t n = 0;
        const char *token = tw_vocab_token(v, id, &n);
        ck_assert_int_eq(tw_vocab_find(v, token, n), id);
    }
    tw_vocab_free(v);
    free(file);
    tw_vocab_builder_free(b);
    json_decref(root);
}
END_TEST

TW_TEST_MAIN("tokenizer", adversarial_texts_small_vocabulary, adversarial_texts_published_vocabulary,
             random_texts, every_character, captions_of_flickr8k_cn, refuses_what_is_not_utf8,
             takes_exactly_the_valid_sequences, refuses_bad_arguments, long_texts, reads_lines_as_python_does,
             refuses_bad_vocabularies, threads_share_a_vocabulary, builds_a_vocabulary, builds_within_a_size,
             builds_from_random_texts)
