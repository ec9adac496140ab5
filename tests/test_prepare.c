#include "data/base64.h"
#include "data/captions.h"
#include "data/prepare.h"
#include "data/shards.h"
#include "train/commands/commands.h"
#include "tw_test.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static void make_root(void) {
    snprintf(root, sizeof root, "/tmp/tw-prepare-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void remove_root(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    ck_assert_int_eq(system(command), 0);
}

static char *in_root(const char *name) {
    static char paths[8][256];
    static int turn;
    turn = (turn + 1) % 8;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", root, name);
    return paths[turn];
}

static void write_bytes(const char *name, const void *data, size_t size) {
    FILE *f = fopen(in_root(name), "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

static void write_text(const char *name, const char *text) {
    write_bytes(name, text, strlen(text));
}

/* A real JPEG and a real PNG, of the golden set, as bytes and as base64. */
static uint8_t jpeg[2048], png[2048];
static size_t jpeg_size, png_size;
static char jpeg64[3000], png64[3000];

static size_t payload(int index, uint8_t *out, char *text) {
    json_t *golden = json_load_file(TW_SOURCE_DIR "/tests/golden/shards/expected.json", JSON_ALLOW_NUL, NULL);
    ck_assert_ptr_nonnull(golden);
    const char *hex = json_string_value(json_array_get(json_object_get(golden, "payloads"), (size_t)index));
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    tw_base64_encode(out, n, text);
    text[tw_base64_encoded_size(n)] = '\0';
    json_decref(golden);
    return n;
}

static void set_up(void) {
    make_root();
    jpeg_size = payload(0, jpeg, jpeg64);
    png_size = payload(1, png, png64);
}

/* A TSV of these lines; %J and %P stand for the JPEG and the PNG in base64. */
static void write_tsv(const char *const *lines) {
    FILE *f = fopen(in_root("t_imgs.tsv"), "wb");
    for (; *lines; lines++) {
        for (const char *s = *lines; *s; s++) {
            if (s[0] == '%' && (s[1] == 'J' || s[1] == 'P'))
                fputs(*++s == 'J' ? jpeg64 : png64, f);
            else
                putc(*s, f);
        }
        putc('\n', f);
    }
    ck_assert_int_eq(fclose(f), 0);
}
#define TSV(...) write_tsv((const char *const[]){__VA_ARGS__, NULL})

static const char good_texts[] = "{\"text_id\": 7, \"text\": \"一只狗\", \"image_ids\": [1, 2]}\n"
                                 "{\"text_id\": 8, \"text\": \"两只猫\", \"image_ids\": [2]}\n"
                                 "{\"text_id\": 9, \"text\": \"没有图\", \"image_ids\": []}\n";

static tw_prepare_options options;
static tw_prepare_report report;

static tw_status prepare_tsv(void) {
    tw_prepare_report_free(&report);
    return tw_prepare_tsv(in_root("t_imgs.tsv"), in_root("t_texts.jsonl"), in_root("lmdb/t"), &options,
                          &report);
}

/* Nothing under the final name and no temporary folder beside it. */
static void nothing_written(void) {
    ck_assert_int_ne(access(in_root("lmdb/t"), F_OK), 0);
    if (access(in_root("lmdb"), F_OK) == 0)
        ck_assert_msg(rmdir(in_root("lmdb")) == 0, "left: %s", strerror(errno));
}

/* Without `strict` the record is left out, counted and named; with it the import ends with the same words. */
static void bad_record(tw_bad_kind kind, int64_t images, int64_t texts, int64_t pairs, const char *part) {
    options = (tw_prepare_options){.check = TW_CHECK_HEADERS, .shards.replace = true};
    TW_ASSERT_OK(prepare_tsv());
    ck_assert_msg(report.bad[kind] == 1 && report.bad_total == 1, "%lld bad, %lld of this kind",
                  (long long)report.bad_total, (long long)report.bad[kind]);
    ck_assert_msg(strstr(report.named[kind][0], part) != NULL, "'%s' lacks '%s'", report.named[kind][0],
                  part);
    ck_assert_int_eq(report.images, images);
    ck_assert_int_eq(report.texts, texts);
    ck_assert_int_eq(report.pairs, pairs);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(in_root("lmdb/t"), &d));
    ck_assert_int_eq(tw_dataset_images(d), images);
    ck_assert_int_eq(tw_dataset_pairs(d), pairs);
    tw_dataset_close(d);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/lmdb", root);
    ck_assert_int_eq(system(command), 0);
    options.strict = true;
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, part);
    nothing_written();
}

/* ---- good data ---- */

static void check_good(const char *split) {
    tw_dataset *d;
    tw_reader *reader;
    tw_pair pair;
    tw_bytes bytes;
    tw_captions *captions;
    TW_ASSERT_OK(tw_dataset_open(in_root(split), &d));
    ck_assert_int_eq(tw_dataset_images(d), 3);
    ck_assert_int_eq(tw_dataset_pairs(d), 3);
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    static const char *const wanted[3][3] = {
        {"1", "7", "一只狗"}, {"2", "7", "一只狗"}, {"2", "8", "两只猫"}};
    for (int i = 0; i < 3; i++) {
        TW_ASSERT_OK(tw_dataset_pair(reader, i, &pair));
        ck_assert_str_eq(pair.image_id.text, wanted[i][0]);
        ck_assert_str_eq(pair.text_id.text, wanted[i][1]);
        ck_assert_str_eq(pair.text, wanted[i][2]);
        ck_assert(pair.image_id.is_integer && pair.text_id.is_integer);
    }
    TW_ASSERT_OK(tw_dataset_image(reader, "1", 1, &bytes));
    ck_assert(bytes.size == jpeg_size && memcmp(bytes.data, jpeg, jpeg_size) == 0);
    TW_ASSERT_OK(tw_dataset_image(reader, "x/y", 3, &bytes));
    ck_assert(bytes.size == png_size && memcmp(bytes.data, png, png_size) == 0);
    tw_reader_close(reader);
    tw_dataset_close(d);
    char file[512];
    TW_ASSERT_OK(tw_captions_find(in_root(split), file, sizeof file));
    ck_assert_ptr_nonnull(strstr(file, "/texts.jsonl"));
    TW_ASSERT_OK(tw_captions_load(file, NULL, &captions));
    ck_assert_int_eq(captions->texts, 3);
    ck_assert_str_eq(captions->text[2], "没有图");
    tw_captions_free(captions);
}

START_TEST(imports_tsv_and_lmdb) {
    set_up();
    TSV("1\t%J", "2\t%P", "x/y\t%P");
    write_text("t_texts.jsonl", good_texts);
    options = (tw_prepare_options){.check = TW_CHECK_DECODE, .strict = true};
    TW_ASSERT_OK(prepare_tsv());
    ck_assert_int_eq(report.images, 3);
    ck_assert_int_eq(report.texts, 3);
    ck_assert_int_eq(report.pairs, 3);
    ck_assert_int_eq(report.texts_without_images, 1);
    ck_assert_int_eq(report.unused_images, 1);
    ck_assert_int_eq(report.bad_total, 0);
    check_good("lmdb/t");
    /* There already; then replaced; then converted there and back. */
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_CONFIG, "already");
    options.shards.replace = true;
    TW_ASSERT_OK(prepare_tsv());
    check_good("lmdb/t");
    tw_prepare_report_free(&report);
    options.shards = (tw_shard_options){.format = TW_SHARDS_ORIGINAL};
    TW_ASSERT_OK(tw_prepare_lmdb(in_root("lmdb/t"), in_root("o"), &options, &report));
    check_good("o");
    tw_prepare_report_free(&report);
    options.shards = (tw_shard_options){.shards = 3};
    TW_ASSERT_OK(tw_prepare_lmdb(in_root("o"), in_root("three"), &options, &report));
    check_good("three");
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

/* The original tool's folder has no list of texts: it is made from the pairs. */
START_TEST(makes_texts_from_pairs) {
    make_root();
    tw_captions *captions;
    char file[512];
    options = (tw_prepare_options){.check = TW_CHECK_DECODE, .strict = true};
    TW_ASSERT_OK(
        tw_prepare_lmdb(TW_SOURCE_DIR "/tests/golden/shards/protocol2", in_root("s"), &options, &report));
    ck_assert_int_eq(report.images, 8);
    ck_assert_int_eq(report.pairs, 6);
    ck_assert_int_eq(report.texts, 6);
    TW_ASSERT_OK(tw_captions_find(in_root("s"), file, sizeof file));
    TW_ASSERT_OK(tw_captions_load(file, NULL, &captions));
    ck_assert_int_eq(captions->texts, 6);
    ck_assert_str_eq(captions->text_ids[0].text, "300");
    ck_assert_str_eq(captions->image_ids[4].text, "70000");
    ck_assert(captions->image_ids[4].is_integer);
    ck_assert_uint_eq(captions->text_bytes[5], 6);
    tw_captions_free(captions);
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

START_TEST(imports_tables) {
    set_up();
    ck_assert_int_eq(mkdir(in_root("photos"), 0755), 0);
    write_bytes("photos/a.jpg", jpeg, jpeg_size);
    write_bytes("photos/b c.png", png, png_size);
    write_text("photos/c.jpg", "no image");
    write_text("t.csv", "caption,image,more\r\n"
                        "\"一只狗, \"\"大\"\"\n第二行\",a.jpg,x\r\n"
                        "一只猫,b c.png\r\n"
                        "又一只狗,a.jpg,\r\n"
                        ",a.jpg\r\n"
                        "没有,none.jpg\r\n"
                        "坏,c.jpg\r\n"
                        "坏二,c.jpg\r\n"
                        "one column\r\n");
    options = (tw_prepare_options){.check = TW_CHECK_DECODE};
    TW_ASSERT_OK(
        tw_prepare_table(in_root("t.csv"), in_root("photos"), false, in_root("s"), &options, &report));
    ck_assert_int_eq(report.images, 2);
    ck_assert_int_eq(report.texts, 3);
    ck_assert_int_eq(report.pairs, 3);
    ck_assert_int_eq(report.bad[TW_BAD_EMPTY_TEXT], 1);
    ck_assert_int_eq(report.bad[TW_BAD_IMAGE_FILE], 1);
    ck_assert_int_eq(report.bad[TW_BAD_IMAGE], 1);
    ck_assert_int_eq(report.bad[TW_BAD_UNKNOWN_IMAGE], 1);
    ck_assert_int_eq(report.bad[TW_BAD_LINE], 1);
    ck_assert_ptr_nonnull(strstr(report.named[TW_BAD_IMAGE_FILE][0], "t.csv:7: "));
    ck_assert_ptr_nonnull(strstr(report.named[TW_BAD_IMAGE_FILE][0], "none.jpg: No such file"));
    tw_prepare_report_free(&report);
    tw_dataset *d;
    tw_reader *reader;
    tw_pair pair;
    TW_ASSERT_OK(tw_dataset_open(in_root("s"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_OK(tw_dataset_pair(reader, 0, &pair));
    ck_assert_str_eq(pair.text, "一只狗, \"大\"\n第二行");
    ck_assert_str_eq(pair.image_id.text, "a.jpg");
    TW_ASSERT_OK(tw_dataset_pair(reader, 1, &pair));
    ck_assert_str_eq(pair.image_id.text, "b c.png");
    tw_reader_close(reader);
    tw_dataset_close(d);
    /* JSON lines, numbered. */
    write_text("t.jsonl",
               "{\"file_name\": \"b c.png\", \"caption\": \"猫\"}\n{\"image\": \"a.jpg\", \"text\": \"狗\"}\n"
               "{\"image\": \"a.jpg\"}\n");
    TW_ASSERT_OK(
        tw_prepare_table(in_root("t.jsonl"), in_root("photos"), true, in_root("n"), &options, &report));
    ck_assert_int_eq(report.pairs, 2);
    ck_assert_int_eq(report.bad[TW_BAD_FIELD], 1);
    TW_ASSERT_OK(tw_dataset_open(in_root("n"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_OK(tw_dataset_pair(reader, 1, &pair));
    ck_assert(pair.image_id.is_integer && strcmp(pair.image_id.text, "2") == 0);
    tw_reader_close(reader);
    tw_dataset_close(d);
    tw_prepare_report_free(&report);
    /* No header: the first two columns. A quote that swallows the rest is an error, not one bad row. */
    write_text("t.tsv", "a.jpg\t狗\nb c.png\t猫\n");
    TW_ASSERT_OK(
        tw_prepare_table(in_root("t.tsv"), in_root("photos"), false, in_root("v"), &options, &report));
    ck_assert_int_eq(report.pairs, 2);
    tw_prepare_report_free(&report);
    write_text("q.csv", "a.jpg,狗\nb c.png,\"猫\na.jpg,狗\n");
    TW_ASSERT_FAILS(
        tw_prepare_table(in_root("q.csv"), in_root("photos"), false, in_root("q"), &options, &report),
        TW_ERR_FORMAT, "q.csv:2: a quote opened here");
    tw_prepare_report_free(&report);
    write_text("e.csv", "image,text\n");
    TW_ASSERT_FAILS(
        tw_prepare_table(in_root("e.csv"), in_root("photos"), false, in_root("q"), &options, &report),
        TW_ERR_FORMAT, "holds no rows");
    TW_ASSERT_FAILS(
        tw_prepare_table(in_root("e.xls"), in_root("photos"), false, in_root("q"), &options, &report),
        TW_ERR_CONFIG, "should end in");
    remove_root();
}
END_TEST

/* ---- every kind of bad input ---- */

START_TEST(missing_and_empty_files) {
    set_up();
    options = (tw_prepare_options){.check = TW_CHECK_HEADERS};
    write_text("t_texts.jsonl", good_texts);
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_NOT_FOUND, "t_imgs.tsv: No such file");
    nothing_written();
    write_text("t_imgs.tsv", "");
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, "t_imgs.tsv: holds no images");
    nothing_written();
    TSV("1\t%J", "2\t%J");
    write_text("t_texts.jsonl", "\n");
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, "t_texts.jsonl: holds no texts");
    nothing_written();
    ck_assert_int_eq(unlink(in_root("t_texts.jsonl")), 0);
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_NOT_FOUND, "t_texts.jsonl: No such file");
    nothing_written();
    write_text("t_texts.jsonl", "{\"text_id\": 1, \"text\": \"a\", \"image_ids\": [3]}\n");
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, "none of the images that the texts name is there");
    nothing_written();
    write_text("t_texts.jsonl", "x\n");
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, "no good text in the data, 1 records are bad");
    nothing_written();
    write_text("t_imgs.tsv", "nothing\nof use\n");
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, "no good image in the data, 2 records are bad");
    nothing_written();
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

START_TEST(bad_tsv_lines) {
    set_up();
    write_text("t_texts.jsonl", good_texts);
    TSV("1\t%J", "no tab", "2\t%P");
    bad_record(TW_BAD_LINE, 2, 3, 3, "t_imgs.tsv:2: no tab");
    TSV("1\t%J", "2\t%P", "3\tabc$efgh");
    bad_record(TW_BAD_BASE64, 2, 3, 3, "t_imgs.tsv:3: image 3: base64: '$' at position 3");
    TSV("1\t%J", "2\t%P", "3\tR0lGODlhAQABAAAAACw=");
    bad_record(TW_BAD_IMAGE, 2, 3, 3, "t_imgs.tsv:3: image 3: a GIF file");
    TSV("3\taGVsbG8gd29ybGQ=", "1\t%J", "2\t%P");
    bad_record(TW_BAD_IMAGE, 2, 3, 3, "t_imgs.tsv:1: image 3: not an image");
    TSV("1\t%J", "2\t%P", "1\t%P");
    bad_record(TW_BAD_DUPLICATE, 2, 3, 3, "t_imgs.tsv:3: image 1 is there already");
    TSV("1\t%J", "2\t%P", "num_images\t%P");
    bad_record(TW_BAD_ID, 2, 3, 3, "'num_images' cannot be an image id");
    TSV("1\t%J", "2\t%P", "\xff\t%P");
    bad_record(TW_BAD_ID, 2, 3, 3, "not UTF-8");
    char line[700];
    memset(line, 'x', sizeof line);
    snprintf(line + 600, 100, "\t%%P");
    TSV("1\t%J", "2\t%P", line);
    bad_record(TW_BAD_ID, 2, 3, 3, "600 bytes long");
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

/* Cut at every length, the header check finds it; pixels that are damaged inside, decoding finds. */
START_TEST(truncated_payloads) {
    set_up();
    write_text("t_texts.jsonl", good_texts);
    for (int kind = 0; kind < 2; kind++) {
        size_t size = kind ? png_size : jpeg_size, step = size / 9;
        for (size_t cut = 4; cut < size; cut += step) {
            char text[3000], line[3100];
            tw_base64_encode(kind ? png : jpeg, cut, text);
            text[tw_base64_encoded_size(cut)] = '\0';
            snprintf(line, sizeof line, "3\t%s", text);
            TSV("1\t%J", "2\t%P", line);
            options = (tw_prepare_options){.check = TW_CHECK_HEADERS, .shards.replace = true};
            TW_ASSERT_OK(prepare_tsv());
            ck_assert_msg(report.bad[TW_BAD_IMAGE] == 1, "%s cut at %zu of %zu", kind ? "PNG" : "JPEG", cut,
                          size);
        }
    }
    ck_assert_ptr_nonnull(strstr(report.named[TW_BAD_IMAGE][0], "truncated PNG"));
    png[45] ^= 0x55; /* in the compressed pixels */
    char text[3000], line[3100];
    tw_base64_encode(png, png_size, text);
    text[tw_base64_encoded_size(png_size)] = '\0';
    snprintf(line, sizeof line, "3\t%s", text);
    TSV("1\t%J", "2\t%P", line);
    options.check = TW_CHECK_DECODE;
    TW_ASSERT_OK(prepare_tsv());
    ck_assert_int_eq(report.bad[TW_BAD_IMAGE], 1);
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

static void texts(const char *extra) {
    char all[1000];
    snprintf(all, sizeof all, "%s%s\n", good_texts, extra);
    write_text("t_texts.jsonl", all);
}

START_TEST(bad_json_lines) {
    set_up();
    TSV("1\t%J", "2\t%P");
    texts("{\"text_id\": 1, ");
    bad_record(TW_BAD_JSON, 2, 3, 3, "t_texts.jsonl:4: bad JSON");
    texts("{\"text_id\": 1, \"image_ids\": [1]}");
    bad_record(TW_BAD_FIELD, 2, 3, 3, "t_texts.jsonl:4: the field 'text' is missing");
    texts("{\"text_id\": 1, \"text\": \"a\", \"image_ids\": [99]}");
    bad_record(TW_BAD_UNKNOWN_IMAGE, 2, 4, 3, "t_texts.jsonl:4: text 1 names image 99");
    texts("{\"text_id\": 1, \"text\": \"a\", \"image_ids\": [1, 99, 2]}");
    bad_record(TW_BAD_UNKNOWN_IMAGE, 2, 4, 5, "names image 99");
    texts("{\"text_id\": 1, \"text\": \"\xe4\xb8\", \"image_ids\": [1]}");
    bad_record(TW_BAD_UTF8, 2, 3, 3, "t_texts.jsonl:4: not UTF-8: byte 0xe4 at column 25");
    texts("{\"text_id\": 1, \"text\": \"　 \", \"image_ids\": [1]}");
    bad_record(TW_BAD_EMPTY_TEXT, 2, 3, 3, "t_texts.jsonl:4: text 1 is empty");
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

/* Of many bad records the first five of a kind are named, the rest counted; all go to the callback. */
static void count(void *context, tw_bad_kind kind, const char *message) {
    ck_assert_int_eq(kind, TW_BAD_LINE);
    ck_assert_ptr_nonnull(strstr(message, "t_imgs.tsv:"));
    ++*(int *)context;
}

START_TEST(counts_many_bad_records) {
    set_up();
    int seen = 0;
    TSV("1\t%J", "a", "b", "c", "d", "e", "f", "g", "2\t%P");
    write_text("t_texts.jsonl", good_texts);
    options = (tw_prepare_options){.on_bad = count, .context = &seen};
    TW_ASSERT_OK(prepare_tsv());
    ck_assert_int_eq(seen, 7);
    ck_assert_int_eq(report.bad[TW_BAD_LINE], 7);
    ck_assert_ptr_nonnull(strstr(report.named[TW_BAD_LINE][4], "t_imgs.tsv:6: "));
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

static bool stop_now(void *context) {
    return --*(int *)context == 0;
}

START_TEST(stops_and_leaves_nothing) {
    set_up();
    TSV("1\t%J", "2\t%P");
    write_text("t_texts.jsonl", good_texts);
    for (int after = 1; after <= 5; after++) {
        int left = after;
        options = (tw_prepare_options){.should_stop = stop_now, .context = &left};
        TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_INTERRUPTED, "nothing was written");
        nothing_written();
    }
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

START_TEST(unwritable_and_full) {
    set_up();
    TSV("1\t%J", "2\t%P");
    write_text("t_texts.jsonl", good_texts);
    write_text("lmdb", "a file where a folder should be");
    options = (tw_prepare_options){0};
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_IO, "lmdb: cannot make this folder");
    ck_assert_int_eq(unlink(in_root("lmdb")), 0);
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(root, 0555), 0);
        TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_IO, "Permission denied");
        ck_assert_int_eq(chmod(root, 0755), 0);
    }
    TW_ASSERT_FAILS(
        tw_prepare_tsv(in_root("t_imgs.tsv"), in_root("t_texts.jsonl"), "/proc/none/t", &options, &report),
        TW_ERR_IO, "/proc/none");
    /* texts.jsonl and the LMDB files stop at 4 KiB. */
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {4096, RLIM_INFINITY};
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    tw_status status = prepare_tsv();
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_msg(status == TW_ERR_IO, "%s: %s", tw_status_name(status), tw_last_error());
    ck_assert_ptr_nonnull(strstr(tw_last_error(), ".t.tmp-"));
    nothing_written();
    tw_prepare_report_free(&report);
    remove_root();
}
END_TEST

/* ---- the command ---- */

static tw_status command(const char *const *words) {
    char *argv[24] = {(char *)"prepare"};
    int argc = 1;
    for (; *words; words++) argv[argc++] = (char *)*words;
    return tw_command_prepare(argc, argv);
}
#define COMMAND_LINE(...) command((const char *const[]){__VA_ARGS__, NULL})

START_TEST(runs_as_a_command) {
    set_up();
    /* Its summary is not of interest here. */
    ck_assert_ptr_nonnull(freopen("/dev/null", "w", stdout));
    TW_ASSERT_FAILS(COMMAND_LINE("--shards", "2"), TW_ERR_CONFIG, "give one of");
    TW_ASSERT_FAILS(COMMAND_LINE("--tsv", "a", "--lmdb", "b"), TW_ERR_CONFIG, "not several");
    TW_ASSERT_FAILS(COMMAND_LINE("--tsv", "a"), TW_ERR_CONFIG, "--output is missing");
    TW_ASSERT_FAILS(COMMAND_LINE("--data_dir", "a", "--output", "b"), TW_ERR_CONFIG, "--data_dir writes to");
    TW_ASSERT_FAILS(COMMAND_LINE("--data_dir", root), TW_ERR_NOT_FOUND, "train_imgs.tsv");
    TW_ASSERT_FAILS(COMMAND_LINE("--data_dir", root, "--splits", "t,../x"), TW_ERR_NOT_FOUND,
                    "t_texts.jsonl");
    TW_ASSERT_FAILS(COMMAND_LINE("--lmdb", "a", "--output", "b", "--shards", "2", "--format", "original"),
                    TW_ERR_CONFIG, "one environment");
    TSV("1\t%J", "2\t%P", "x/y\t%P");
    write_text("t_texts.jsonl", good_texts);
    TW_ASSERT_OK(COMMAND_LINE("--data_dir", root, "--splits", "t", "--make_vocab", in_root("vocab.txt"),
                              "--check_images", "decode"));
    check_good("lmdb/t");
    FILE *vocab = fopen(in_root("vocab.txt"), "r");
    char line[64];
    ck_assert_ptr_nonnull(vocab);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, vocab));
    ck_assert_str_eq(line, "[PAD]\n");
    fclose(vocab);
    TW_ASSERT_FAILS(COMMAND_LINE(root, "--splits", "t"), TW_ERR_CONFIG, "already");
    TW_ASSERT_OK(COMMAND_LINE(root, "--splits", "t", "--force", "--shards", "2"));
    check_good("lmdb/t");
    remove_root();
}
END_TEST

TW_TEST_MAIN("prepare", imports_tsv_and_lmdb, makes_texts_from_pairs, imports_tables, missing_and_empty_files,
             bad_tsv_lines, truncated_payloads, bad_json_lines, counts_many_bad_records,
             stops_and_leaves_nothing, unwritable_and_full, runs_as_a_command)
