#include "data/captions.h"
#include "data/shards.h"
#include "prepare_case.h"
#include "train/commands/commands.h"

static void check_good(const char *split) {
    tw_dataset *d;
    tw_reader *reader;
    tw_pair pair;
    tw_bytes bytes;
    tw_captions *captions;
    TW_ASSERT_OK(tw_dataset_open(temp_path(split), &d));
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
    TW_ASSERT_OK(tw_captions_find(temp_path(split), file, sizeof file));
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
    TW_ASSERT_OK(tw_prepare_lmdb(temp_path("lmdb/t"), temp_path("o"), &options, &report));
    check_good("o");
    tw_prepare_report_free(&report);
    options.shards = (tw_shard_options){.shards = 3};
    TW_ASSERT_OK(tw_prepare_lmdb(temp_path("o"), temp_path("three"), &options, &report));
    check_good("three");
    tw_prepare_report_free(&report);
    remove_folder();
}
END_TEST

/* The original tool's folder has no list of texts: it is made from the pairs. */
START_TEST(makes_texts_from_pairs) {
    tw_captions *captions;
    char file[512];
    options = (tw_prepare_options){.check = TW_CHECK_DECODE, .strict = true};
    TW_ASSERT_OK(
        tw_prepare_lmdb(TW_SOURCE_DIR "/tests/golden/shards/protocol2", temp_path("s"), &options, &report));
    ck_assert_int_eq(report.images, 8);
    ck_assert_int_eq(report.pairs, 6);
    ck_assert_int_eq(report.texts, 6);
    TW_ASSERT_OK(tw_captions_find(temp_path("s"), file, sizeof file));
    TW_ASSERT_OK(tw_captions_load(file, NULL, &captions));
    ck_assert_int_eq(captions->texts, 6);
    ck_assert_str_eq(captions->text_ids[0].text, "300");
    ck_assert_str_eq(captions->image_ids[4].text, "70000");
    ck_assert(captions->image_ids[4].is_integer);
    ck_assert_uint_eq(captions->text_bytes[5], 6);
    tw_captions_free(captions);
    tw_prepare_report_free(&report);
    remove_folder();
}
END_TEST

START_TEST(imports_tables) {
    set_up();
    ck_assert_int_eq(mkdir(temp_path("photos"), 0755), 0);
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
        tw_prepare_table(temp_path("t.csv"), temp_path("photos"), false, temp_path("s"), &options, &report));
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
    TW_ASSERT_OK(tw_dataset_open(temp_path("s"), &d));
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
        tw_prepare_table(temp_path("t.jsonl"), temp_path("photos"), true, temp_path("n"), &options, &report));
    ck_assert_int_eq(report.pairs, 2);
    ck_assert_int_eq(report.bad[TW_BAD_FIELD], 1);
    TW_ASSERT_OK(tw_dataset_open(temp_path("n"), &d));
    TW_ASSERT_OK(tw_reader_open(d, &reader));
    TW_ASSERT_OK(tw_dataset_pair(reader, 1, &pair));
    ck_assert(pair.image_id.is_integer && strcmp(pair.image_id.text, "2") == 0);
    tw_reader_close(reader);
    tw_dataset_close(d);
    tw_prepare_report_free(&report);
    /* No header: the first two columns. A quote that swallows the rest is an error, not one bad row. */
    write_text("t.tsv", "a.jpg\t狗\nb c.png\t猫\n");
    TW_ASSERT_OK(
        tw_prepare_table(temp_path("t.tsv"), temp_path("photos"), false, temp_path("v"), &options, &report));
    ck_assert_int_eq(report.pairs, 2);
    tw_prepare_report_free(&report);
    write_text("q.csv", "a.jpg,狗\nb c.png,\"猫\na.jpg,狗\n");
    TW_ASSERT_FAILS(
        tw_prepare_table(temp_path("q.csv"), temp_path("photos"), false, temp_path("q"), &options, &report),
        TW_ERR_FORMAT, "q.csv:2: a quote opened here");
    tw_prepare_report_free(&report);
    write_text("e.csv", "image,text\n");
    TW_ASSERT_FAILS(
        tw_prepare_table(temp_path("e.csv"), temp_path("photos"), false, temp_path("q"), &options, &report),
        TW_ERR_FORMAT, "holds no rows");
    TW_ASSERT_FAILS(
        tw_prepare_table(temp_path("e.xls"), temp_path("photos"), false, temp_path("q"), &options, &report),
        TW_ERR_CONFIG, "should end in");
    remove_folder();
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
    TW_ASSERT_FAILS(COMMAND_LINE("--data_dir", own_folder()), TW_ERR_NOT_FOUND, "train_imgs.tsv");
    TW_ASSERT_FAILS(COMMAND_LINE("--data_dir", own_folder(), "--splits", "t,../x"), TW_ERR_NOT_FOUND,
                    "t_texts.jsonl");
    TW_ASSERT_FAILS(COMMAND_LINE("--lmdb", "a", "--output", "b", "--shards", "2", "--format", "original"),
                    TW_ERR_CONFIG, "one environment");
    TSV("1\t%J", "2\t%P", "x/y\t%P");
    write_text("t_texts.jsonl", good_texts);
    TW_ASSERT_OK(COMMAND_LINE("--data_dir", own_folder(), "--splits", "t", "--make_vocab",
                              temp_path("vocab.txt"), "--check_images", "decode"));
    check_good("lmdb/t");
    FILE *vocab = fopen(temp_path("vocab.txt"), "r");
    char line[64];
    ck_assert_ptr_nonnull(vocab);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, vocab));
    ck_assert_str_eq(line, "[PAD]\n");
    fclose(vocab);
    TW_ASSERT_FAILS(COMMAND_LINE(own_folder(), "--splits", "t"), TW_ERR_CONFIG, "already");
    TW_ASSERT_OK(COMMAND_LINE(own_folder(), "--splits", "t", "--force", "--shards", "2"));
    check_good("lmdb/t");
    remove_folder();
}
END_TEST

TW_TEST_MAIN("prepare", imports_tsv_and_lmdb, makes_texts_from_pairs, imports_tables, runs_as_a_command)
