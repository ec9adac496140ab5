/* UTF-8, characters and words, below the vocabulary: against Python where ids would hide a difference behind
 * [UNK]. */
#include "tokenizer_golden.h"

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

static tw_status count_words(void *context, const uint32_t *word, size_t length) {
    (void)word;
    (void)length;
    ++*(int *)context;
    return TW_OK;
}

/* The ranges' ends include code points that no version of Unicode has assigned yet. */
START_TEST(ideographs_stand_alone) {
    static const uint32_t ranges[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                         {0x20000, 0x2A6DF}, {0x2A700, 0x2B81F}, {0x2B820, 0x2CEAF},
                                         {0x2F800, 0x2FA1F}};
    static const uint32_t others[] = {0x33FF,  0x4DC0,  0xA000,  0xF8FF,  0xFB00,  0x1FFFF, 0x2A6E0,
                                      0x2A6FF, 0x2CEB0, 0x2F7FF, 0x2FA20, 0x30000, 0x3007};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        for (uint32_t c = ranges[i][0]; c <= ranges[i][1]; c++) {
            char text[6] = "a";
            size_t n = 1 + tw_utf8_encode(c, text + 1);
            int words = 0;
            text[n++] = 'a';
            TW_ASSERT_OK(tw_basic_words(text, n, false, count_words, &words));
            ck_assert_msg(words == 3, "U+%04X: %d words", (unsigned)c, words);
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char text[6] = "a";
        size_t n = 1 + tw_utf8_encode(others[i], text + 1);
        int words = 0;
        text[n++] = 'a';
        TW_ASSERT_OK(tw_basic_words(text, n, false, count_words, &words));
        ck_assert_msg(words == 1, "U+%04X: %d words", (unsigned)others[i], words);
    }
}
END_TEST

START_TEST(lower_case_and_accents_alone) {
    static const uint32_t in[] = {0x130, 'I', 0xC0, 0x1E9E, 0x3A3},
                          low[] = {'i', 0x307, 'i', 0xE0, 0xDF, 0x3C2};
    static const uint32_t accented[] = {0xC0, 0x1F82, 0xAC01, 0x302E, 0x316, 0x1D165, 0x20DD, 0xBF};
    static const uint32_t bare[] = {'A', 0x3B1, 0x1100, 0x1161, 0x11A8, 0x1D165, 0x302E, 0x20DD, 0xBF};
    tw_code_points c;
    tw_code_points_init(&c);
    TW_ASSERT_OK(tw_unicode_lower(in, sizeof in / sizeof *in, &c));
    ck_assert_uint_eq(c.count, sizeof low / sizeof *low);
    ck_assert_int_eq(memcmp(c.at, low, sizeof low), 0);
    c.count = 0;
    TW_ASSERT_OK(tw_unicode_strip_accents(accented, sizeof accented / sizeof *accented, &c));
    ck_assert_uint_eq(c.count, sizeof bare / sizeof *bare);
    ck_assert_int_eq(memcmp(c.at, bare, sizeof bare), 0);
    tw_code_points_free(&c);
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

TW_TEST_MAIN("unicode", every_character, takes_exactly_the_valid_sequences, ideographs_stand_alone,
             lower_case_and_accents_alone)
