/* Every kind of data that `prepare` does not import: what is left out and named, what ends it, and that
 * nothing half-made stays behind. */
#include "data/files.h"
#include "data/shards.h"
#include "prepare_case.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

/* Nothing under the final name and no temporary folder beside it. */
static void nothing_written(void) {
    ck_assert_int_ne(access(temp_path("lmdb/t"), F_OK), 0);
    if (access(temp_path("lmdb"), F_OK) == 0)
        ck_assert_msg(rmdir(temp_path("lmdb")) == 0, "left: %s", strerror(errno));
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
    TW_ASSERT_OK(tw_dataset_open(temp_path("lmdb/t"), &d));
    ck_assert_int_eq(tw_dataset_images(d), images);
    ck_assert_int_eq(tw_dataset_pairs(d), pairs);
    tw_dataset_close(d);
    tw_remove_folder(temp_path("lmdb/t"));
    ck_assert_int_eq(rmdir(temp_path("lmdb")), 0);
    options.strict = true;
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_FORMAT, part);
    nothing_written();
}

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
    ck_assert_int_eq(unlink(temp_path("t_texts.jsonl")), 0);
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
    remove_folder();
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
    remove_folder();
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
    remove_folder();
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
    remove_folder();
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
    remove_folder();
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
    remove_folder();
}
END_TEST

START_TEST(unwritable_and_full) {
    set_up();
    TSV("1\t%J", "2\t%P");
    write_text("t_texts.jsonl", good_texts);
    write_text("lmdb", "a file where a folder should be");
    options = (tw_prepare_options){0};
    TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_IO, "lmdb: cannot make this folder");
    ck_assert_int_eq(unlink(temp_path("lmdb")), 0);
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(own_folder(), 0555), 0);
        TW_ASSERT_FAILS(prepare_tsv(), TW_ERR_IO, "Permission denied");
        ck_assert_int_eq(chmod(own_folder(), 0755), 0);
    }
    TW_ASSERT_FAILS(tw_prepare_tsv(temp_path("t_imgs.tsv"), temp_path("t_texts.jsonl"), "/proc/none/t",
                                   &options, &report),
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
    remove_folder();
}
END_TEST

TW_TEST_MAIN("prepare_refused", missing_and_empty_files, bad_tsv_lines, truncated_payloads, bad_json_lines,
             counts_many_bad_records, stops_and_leaves_nothing, unwritable_and_full)
