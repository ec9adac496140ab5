/* Reading and building vocabularies. */
#include "tokenizer_golden.h"

#define SPECIALS "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"

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
    TW_ASSERT_FAILS(tw_vocab_load("/", &v), TW_ERR_IO, "vocabulary: cannot open /: it is a folder");
    ck_assert_ptr_null(v);
}
END_TEST

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
    static const char *const words[] = {
        "abc abc"}; /* left out: ##b and ##c, and a word, which does no harm */
    text = build(words, 1, 6, &left_out);
    ck_assert_str_eq(text, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n");
    ck_assert_int_eq(left_out, 2);
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

TW_TEST_MAIN("vocab", reads_lines_as_python_does, refuses_bad_vocabularies, builds_a_vocabulary,
             builds_within_a_size, builds_from_random_texts)
