#include "data/captions.h"
#include "data/jsonl.h"
#include "data/tsv.h"
#include "tw_test.h"

#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/tw-jsonl-XXXXXX";
static char path[64];

static const char *with_content(const char *content, size_t size) {
    if (strstr(folder, "XXXXXX")) ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(content, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
    return path;
}
#define CONTENT(literal) with_content("" literal, sizeof(literal) - 1)

static void clean(void) {
    unlink(path);
    rmdir(folder);
}

START_TEST(reads_lines) {
    tw_lines *lines;
    char *line;
    size_t size;
    TW_ASSERT_OK(tw_lines_open(CONTENT("\xef\xbb\xbf"
                                       "a\r\n\nlast\0x"),
                               &lines));
    TW_ASSERT_OK(tw_lines_next(lines, &line, &size));
    ck_assert_str_eq(line, "a");
    TW_ASSERT_OK(tw_lines_next(lines, &line, &size));
    ck_assert_uint_eq(size, 0);
    TW_ASSERT_OK(tw_lines_next(lines, &line, &size));
    ck_assert_uint_eq(size, 6);
    ck_assert_int_eq(tw_lines_number(lines), 3);
    ck_assert_int_eq(tw_lines_position(lines), tw_lines_size(lines));
    TW_ASSERT_OK(tw_lines_next(lines, &line, &size));
    ck_assert_ptr_null(line);
    tw_lines_close(lines);
    TW_ASSERT_FAILS(tw_lines_open("/nonexistent/file", &lines), TW_ERR_NOT_FOUND, "/nonexistent/file");
    TW_ASSERT_FAILS(tw_lines_open(folder, &lines), TW_ERR_IO, "folder");
    clean();
}
END_TEST

START_TEST(knows_utf8) {
    static const char *const good[] = {"",
                                       "a",
                                       "\xc2\x80",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "图文"};
    static const char *const bad[] = {"x\x80",
                                      "x\xc0\x80",
                                      "x\xc1\xbf",
                                      "x\xe0\x9f\xbf",
                                      "x\xed\xa0\x80",
                                      "x\xf0\x8f\xbf\xbf",
                                      "x\xf4\x90\x80\x80",
                                      "x\xf5\x80\x80\x80",
                                      "x\xe5\x9b",
                                      "x\xff",
                                      "x\xe5z\x9b"};
    size_t at;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ck_assert_msg(tw_lines_is_utf8(good[i], strlen(good[i]), NULL), "good %zu", i);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        at = 9;
        ck_assert_msg(!tw_lines_is_utf8(bad[i], strlen(bad[i]), &at) && at == 1, "bad %zu", i);
    }
    ck_assert(tw_lines_is_blank(" \t　\n", 6) && !tw_lines_is_blank(" a", 2) && !tw_lines_is_blank("\0", 1));
}
END_TEST

static tw_jsonl *jsonl;

static void next_is_bad(tw_bad_kind kind, const char *part) {
    tw_caption c;
    tw_bad_kind bad;
    bool end;
    TW_ASSERT_FAILS(tw_jsonl_next(jsonl, &c, &end, &bad), TW_ERR_FORMAT, part);
    ck_assert_msg(bad == kind, "kind '%s', expected '%s': %s", tw_bad_kind_name(bad), tw_bad_kind_name(kind),
                  tw_last_error());
}

static tw_caption next_is_good(void) {
    tw_caption c;
    tw_bad_kind bad;
    bool end;
    TW_ASSERT_OK(tw_jsonl_next(jsonl, &c, &end, &bad));
    ck_assert(!end && bad == TW_BAD_NONE);
    return c;
}

START_TEST(reads_records) {
    TW_ASSERT_OK(tw_jsonl_open(
        CONTENT("{\"text_id\": 8428, \"text\": \"高级感托特包\", \"image_ids\": [1076345, \"x/1\", -2], "
                "\"more\": 1}\n"
                "\n"
                "{\"text_id\": \"t1\", \"text\": \"a\\u0000b\\ud83d\\ude00\", \"image_ids\": []}"),
        &jsonl));
    tw_caption c = next_is_good();
    ck_assert_str_eq(c.text, "高级感托特包");
    ck_assert(c.text_id.is_integer && strcmp(c.text_id.text, "8428") == 0);
    ck_assert_uint_eq(c.images, 3);
    ck_assert(c.image_ids[0].is_integer && strcmp(c.image_ids[0].text, "1076345") == 0);
    ck_assert(!c.image_ids[1].is_integer && strcmp(c.image_ids[1].text, "x/1") == 0);
    ck_assert(c.image_ids[2].is_integer && strcmp(c.image_ids[2].text, "-2") == 0);
    c = next_is_good();
    ck_assert(!c.text_id.is_integer && c.images == 0);
    ck_assert_uint_eq(c.text_bytes, 7);
    ck_assert_mem_eq(c.text, "a\0b😀", 7);
    tw_bad_kind bad;
    bool end;
    TW_ASSERT_OK(tw_jsonl_next(jsonl, &c, &end, &bad));
    ck_assert(end);
    tw_jsonl_close(jsonl);
    clean();
}
END_TEST

START_TEST(names_bad_records) {
    TW_ASSERT_OK(
        tw_jsonl_open(CONTENT("{\"text_id\": 1\n"
                              "[1]\n"
                              "{\"text\": \"a\", \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"text\": \"a\"}\n"
                              "{\"text_id\": 1.5, \"text\": \"a\", \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"text\": \"a\", \"image_ids\": 1}\n"
                              "{\"text_id\": 1, \"text\": \"a\", \"image_ids\": [null]}\n"
                              "{\"text_id\": 1, \"text\": [\"a\"], \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"text\": \"a\xff\", \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"text\": \"\\ud83d\", \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"text\": \"  　\", \"image_ids\": [1]}\n"
                              "{\"text_id\": \"\", \"text\": \"a\", \"image_ids\": [1]}\n"
                              "{\"text_id\": 99999999999999999999, \"text\": \"a\", \"image_ids\": [1]}\n"
                              "{\"text_id\": 1, \"text\": \"a\", \"image_ids\": [1]} x\n"
                              "{\"text_id\": 7, \"text\": \"good\", \"image_ids\": [1]}\n"),
                      &jsonl));
    next_is_bad(TW_BAD_JSON, "file:1: bad JSON");
    next_is_bad(TW_BAD_FIELD, "file:2: not a JSON object");
    next_is_bad(TW_BAD_FIELD, "file:3: the field 'text_id' is missing");
    next_is_bad(TW_BAD_FIELD, "file:4: the field 'text' is missing");
    next_is_bad(TW_BAD_FIELD, "file:5: the field 'image_ids' is missing");
    next_is_bad(TW_BAD_FIELD, "file:6: 'text_id' must be");
    next_is_bad(TW_BAD_FIELD, "file:7: 'image_ids' must be an array");
    next_is_bad(TW_BAD_FIELD, "file:8: 'image_ids' must be");
    next_is_bad(TW_BAD_FIELD, "file:9: 'text' must be");
    next_is_bad(TW_BAD_UTF8, "file:10: not UTF-8: byte 0xff at column 26");
    next_is_bad(TW_BAD_JSON, "file:11: ");
    next_is_bad(TW_BAD_EMPTY_TEXT, "file:12: text 1 is empty");
    next_is_bad(TW_BAD_ID, "file:13: 'text_id': the id is empty");
    next_is_bad(TW_BAD_JSON, "file:14: ");
    next_is_bad(TW_BAD_JSON, "file:15: ");
    ck_assert_str_eq(next_is_good().text_id.text, "7");
    tw_jsonl_close(jsonl);
    clean();
}
END_TEST

START_TEST(reads_tsv) {
    tw_tsv *tsv;
    tw_tsv_image image;
    tw_bad_kind bad;
    bool end;
    TW_ASSERT_OK(tw_tsv_open(
        CONTENT(
            "12\tYWJj\n 007\tYW-_\r\nno tab here\n\tYWJj\n5\t\n6\tYW!j\nnum_images\tYWJj\na\1\tYWJj\n9\tYWI"),
        &tsv));
    TW_ASSERT_OK(tw_tsv_next(tsv, &image, &end, &bad));
    ck_assert(image.id.is_integer && strcmp(image.id.text, "12") == 0 && image.size == 3);
    ck_assert_mem_eq(image.data, "abc", 3);
    TW_ASSERT_OK(tw_tsv_next(tsv, &image, &end, &bad));
    ck_assert(!image.id.is_integer && strcmp(image.id.text, "007") == 0);
    ck_assert_mem_eq(image.data, "a\x6f\xbf", 3);
    static const struct {
        tw_bad_kind kind;
        const char *part;
    } wanted[] = {{TW_BAD_LINE, "file:3: no tab"},
                  {TW_BAD_ID, "file:4: the id is empty"},
                  {TW_BAD_LINE, "file:5: no tab"},
                  {TW_BAD_BASE64, "file:6: image 6: base64: '!' at position 2"},
                  {TW_BAD_ID, "file:7: 'num_images'"},
                  {TW_BAD_ID, "file:8: the id holds a control"},
                  {TW_BAD_BASE64, "file:9: image 9: base64: ends"}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        TW_ASSERT_FAILS(tw_tsv_next(tsv, &image, &end, &bad), TW_ERR_FORMAT, wanted[i].part);
        ck_assert_msg(bad == wanted[i].kind, "line %zu: '%s'", i + 3, tw_bad_kind_name(bad));
    }
    TW_ASSERT_OK(tw_tsv_next(tsv, &image, &end, &bad));
    ck_assert(end);
    tw_tsv_close(tsv);
    clean();
}
END_TEST

static void count_bad(void *context, const char *message) {
    ck_assert_ptr_nonnull(strstr(message, "file:2: "));
    ++*(int *)context;
}

START_TEST(loads_captions) {
    tw_captions *c;
    int bad = 0;
    CONTENT("{\"text_id\": 5, \"text\": \"一\", \"image_ids\": [1, 2]}\n"
            "{\"text_id\": 6}\n"
            "{\"text_id\": \"b\", \"text\": \"二\", \"image_ids\": []}\n"
            "{\"text_id\": 5, \"text\": \"三\", \"image_ids\": [\"2\"]}\n");
    TW_ASSERT_OK(tw_captions_load(path, &(tw_captions_options){.on_bad = count_bad, .context = &bad}, &c));
    ck_assert_int_eq(bad, 1);
    ck_assert_int_eq(c->bad, 1);
    ck_assert_int_eq(c->texts, 3);
    ck_assert_str_eq(c->text[1], "二");
    ck_assert_str_eq(c->text_ids[1].text, "b");
    ck_assert(c->text_ids[0].is_integer && !c->text_ids[1].is_integer);
    ck_assert_int_eq(c->images_start[1], 2);
    ck_assert_int_eq(c->images_start[2], 2);
    ck_assert_int_eq(c->images_start[3], 3);
    ck_assert_str_eq(c->image_ids[1].text, "2");
    ck_assert(c->image_ids[1].is_integer && !c->image_ids[2].is_integer);
    tw_captions_free(c);
    TW_ASSERT_FAILS(tw_captions_load(path, &(tw_captions_options){.strict = true}, &c), TW_ERR_FORMAT,
                    "file:2: ");
    ck_assert_ptr_null(c);
    TW_ASSERT_FAILS(tw_captions_load(CONTENT(""), NULL, &c), TW_ERR_FORMAT, "holds no texts");
    TW_ASSERT_FAILS(tw_captions_load(CONTENT("x\n"), NULL, &c), TW_ERR_FORMAT, "file:1: bad JSON");
    TW_ASSERT_FAILS(tw_captions_load("/nonexistent", NULL, &c), TW_ERR_NOT_FOUND, "/nonexistent");
    clean();
}
END_TEST

/* What the original's extraction encodes as str(text), one that is empty included. */
START_TEST(any_text_is_one_to_encode) {
    static const char *const texts[] = {"", " ", "2020", "1.5", "1e+16", "-3", "True", "None", "a"};
    tw_captions *c;
    CONTENT("{\"text_id\": 1, \"text\": \"\", \"image_ids\": [1]}\n"
            "{\"text_id\": 2, \"text\": \" \", \"image_ids\": [1]}\n"
            "{\"text_id\": 3, \"text\": 2020, \"image_ids\": [1]}\n"
            "{\"text_id\": 4, \"text\": 1.50, \"image_ids\": [1]}\n"
            "{\"text_id\": 5, \"text\": 1e16, \"image_ids\": [1]}\n"
            "{\"text_id\": 6, \"text\": -3, \"image_ids\": [1]}\n"
            "{\"text_id\": 7, \"text\": true, \"image_ids\": [1]}\n"
            "{\"text_id\": 8, \"text\": null, \"image_ids\": [1]}\n"
            "{\"text_id\": 9, \"text\": [\"a\"], \"image_ids\": [1]}\n"
            "{\"text_id\": 10, \"text\": \"a\", \"image_ids\": [1]}\n");
    TW_ASSERT_OK(tw_captions_load(path, &(tw_captions_options){.any_text = true}, &c));
    ck_assert_int_eq(c->bad, 1);
    ck_assert_int_eq(c->texts, sizeof texts / sizeof texts[0]);
    for (int i = 0; i < c->texts; i++) {
        ck_assert_str_eq(c->text[i], texts[i]);
        ck_assert_uint_eq(c->text_bytes[i], strlen(texts[i]));
    }
    tw_captions_free(c);
    TW_ASSERT_OK(tw_captions_load(path, NULL, &c));
    ck_assert_int_eq(c->bad, 9);
    tw_captions_free(c);
    TW_ASSERT_FAILS(tw_captions_load(CONTENT("{\"text_id\": 9, \"text\": {}, \"image_ids\": [1]}\n"),
                                     &(tw_captions_options){.any_text = true}, &c),
                    TW_ERR_FORMAT, "'text' must be a string or a number");
    clean();
}
END_TEST

START_TEST(finds_captions) {
    char split[128], file[200], found[256];
    CONTENT("");
    snprintf(split, sizeof split, "%s/lmdb", folder);
    ck_assert_int_eq(mkdir(split, 0755), 0);
    snprintf(split, sizeof split, "%s/lmdb/valid", folder);
    ck_assert_int_eq(mkdir(split, 0755), 0);
    TW_ASSERT_FAILS(tw_captions_find(split, found, sizeof found), TW_ERR_NOT_FOUND, "valid_texts.jsonl");
    snprintf(file, sizeof file, "%s/valid_texts.jsonl", folder);
    fclose(fopen(file, "w"));
    TW_ASSERT_OK(tw_captions_find(split, found, sizeof found));
    ck_assert_str_eq(found, file);
    unlink(file);
    snprintf(file, sizeof file, "%s/texts.jsonl", split);
    fclose(fopen(file, "w"));
    TW_ASSERT_OK(tw_captions_find(split, found, sizeof found));
    ck_assert_str_eq(found, file);
    unlink(file);
    rmdir(split);
    *strrchr(split, '/') = '\0';
    rmdir(split);
    clean();
}
END_TEST

START_TEST(writes_what_it_reads) {
    char *text;
    size_t size;
    tw_id number = {"-9223372036854775808", 20, true}, name = {"a\"b", 3, false};
    TW_ASSERT_OK(tw_pair_to_json(&number, &name, "图\0\n", 5, &text, &size));
    ck_assert_str_eq(text, "[-9223372036854775808,\"a\\\"b\",\"图\\u0000\\n\"]");
    ck_assert_uint_eq(size, strlen(text));
    free(text);
    TW_ASSERT_OK(tw_caption_to_json(&name, "图", 3, &number, 1, &text, &size));
    ck_assert_str_eq(text, "{\"text_id\":\"a\\\"b\",\"text\":\"图\",\"image_ids\":[-9223372036854775808]}");
    free(text);
}
END_TEST

START_TEST(survives_mutations) {
    static const char seed[] =
        "{\"text_id\": 8428, \"text\": \"高\\u9ad8 \\ud83d\\ude00\", \"image_ids\": [10, \"x\", -2]}\n";
    size_t size = sizeof seed - 1;
    uint32_t state = 3;
    int good = 0;
    char *all = malloc(2000 * size);
    for (int file = 0; file < 20; file++) {
        for (size_t line = 0; line < 2000; line++) {
            memcpy(all + line * size, seed, size);
            for (int k = (int)line % 4; k > 0; k--) {
                state = state * 1664525u + 1013904223u;
                size_t at = line * size + (state >> 8) % (size - 1);
                state = state * 1664525u + 1013904223u;
                all[at] = state & 0x40000000 ? (char)(state >> 16) : seed[(state >> 8) % (size - 1)];
            }
        }
        TW_ASSERT_OK(tw_jsonl_open(with_content(all, 2000 * size), &jsonl));
        tw_caption c;
        tw_bad_kind bad;
        for (bool end = false; !end;) {
            if (tw_jsonl_next(jsonl, &c, &end, &bad)) {
                ck_assert_int_ne(bad, TW_BAD_NONE);
            } else if (!end) {
                good++;
                ck_assert(tw_lines_is_utf8(c.text, c.text_bytes, NULL) && c.text[c.text_bytes] == '\0');
            }
        }
        tw_jsonl_close(jsonl);
    }
    ck_assert_int_gt(good, 10000);
    free(all);
    clean();
}
END_TEST

TW_TEST_MAIN("jsonl", reads_lines, knows_utf8, reads_records, names_bad_records, reads_tsv, loads_captions,
             any_text_is_one_to_encode, finds_captions, writes_what_it_reads, survives_mutations)
