/* What the tests of the tokenizer share: tests/golden/tokenizer.json and tokenizer_vocab.txt, made by
 * scripts/make_golden_tokenizer.py from cn_clip, its hashes and its random texts. */
#ifndef TW_TESTS_TOKENIZER_GOLDEN_H
#define TW_TESTS_TOKENIZER_GOLDEN_H

#include "data/basic_text.h"
#include "data/tokenizer.h"
#include "data/unicode.h"
#include "tw_test.h"

#include <jansson.h>

#define GOLDEN TW_SOURCE_DIR "/tests/golden/"

enum { CONTEXT = 52, PAD = 0, UNK = 1, CLS = 2, SEP = 3 }; /* ids of the small vocabulary */

static inline json_t *golden(void) {
    json_error_t error;
    json_t *root = json_load_file(GOLDEN "tokenizer.json", JSON_ALLOW_NUL, &error);
    ck_assert_msg(root != NULL, "tokenizer.json: %s", error.text);
    return root;
}

static inline int golden_int(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_integer(value), "golden value %s is missing", key);
    return (int)json_integer_value(value);
}

static inline uint64_t golden_hash(const json_t *value) {
    ck_assert(json_is_string(value));
    return strtoull(json_string_value(value), NULL, 16);
}

static inline tw_vocab *small_vocab(void) {
    tw_vocab *v = NULL;
    TW_ASSERT_OK(tw_vocab_load(GOLDEN "tokenizer_vocab.txt", &v));
    return v;
}

/* ---- hashes ---- */

static const uint64_t hash_start = 0xCBF29CE484222325ull;

static inline uint64_t fold(uint64_t h, uint32_t value) {
    return (h ^ value) * 0x100000001B3ull;
}

static inline uint64_t fold_ids(uint64_t h, const tw_vocab *v, const char *text, size_t bytes,
                                bool normalise) {
    int32_t ids[CONTEXT];
    int full = 0;
    TW_ASSERT_OK(tw_tokenize(v, text, bytes, normalise, CONTEXT, ids, NULL, &full));
    for (int i = 0; i < CONTEXT; i++) h = fold(h, (uint32_t)ids[i]);
    return fold(h, (uint32_t)full);
}

static inline tw_status fold_word(void *context, const uint32_t *word, size_t length) {
    uint64_t *h = context;
    for (size_t i = 0; i < length; i++) *h = fold(*h, word[i]);
    *h = fold(*h, 0xFFFFFFFFu);
    return TW_OK;
}

static inline uint64_t fold_words(uint64_t h, const char *text, size_t bytes, bool normalise) {
    TW_ASSERT_OK(tw_basic_words(text, bytes, normalise, fold_word, &h));
    return fold(h, 0xFFFFFFFEu);
}

/* ---- random texts ---- */

static inline uint64_t splitmix(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

static inline uint32_t array_code(const json_t *array, size_t i) {
    return (uint32_t)json_integer_value(json_array_get(array, i));
}

/* random_text of scripts/make_golden_tokenizer.py. */
static inline size_t random_text(const json_t *root, uint64_t index, char *out) {
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

#endif
