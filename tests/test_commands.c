/* extract and retrieve as users call them: the files that come out, and what the commands refuse. */
#include "drawn_data.h"
#include "train/id_lines.h"

#include <math.h>

static void same_features(const tw_features *a, const tw_features *b, double tolerance) {
    ck_assert_int_eq(a->n, b->n);
    ck_assert_int_eq(a->dim, b->dim);
    for (int64_t i = 0; i < a->n; i++) {
        ck_assert_str_eq(a->ids[i].text, b->ids[i].text);
        ck_assert_int_eq(a->ids[i].is_integer, b->ids[i].is_integer);
    }
    for (int64_t i = 0; i < a->n * a->dim; i++)
        ck_assert_double_le(fabs((double)a->values[i] - (double)b->values[i]), tolerance);
}

static double dot(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < EMBED; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void check_rows(const tw_features *f, int64_t n, bool byte_order) {
    ck_assert_int_eq(f->n, n);
    ck_assert_int_eq(f->dim, EMBED);
    for (int64_t i = 0; i < n; i++) {
        ck_assert_double_le(fabs(dot(f->values + i * EMBED, f->values + i * EMBED) - 1), 1e-6);
        ck_assert(f->ids[i].is_integer);
        if (byte_order && i) ck_assert_int_lt(strcmp(f->ids[i - 1].text, f->ids[i].text), 0);
        if (i) ck_assert_mem_ne(f->values + i * EMBED, f->values + (i - 1) * EMBED, EMBED * sizeof(float));
    }
}

START_TEST(formats_hold_the_same_numbers) {
    static const char *const formats[] = {"h5", "npy", "jsonl"};
    tw_features *image[3], *text[3];
    setup();
    for (int i = 0; i < 3; i++) {
        char path[64];
        TW_ASSERT_OK(run(tw_command_extract,
                         "--checkpoint model.h5 --data lmdb/valid --output f --format %s --batch 8",
                         formats[i]));
        snprintf(path, sizeof path, "f/valid_imgs.img_feat.%s", formats[i]);
        image[i] = load(path);
        snprintf(path, sizeof path, "f/valid_texts.txt_feat.%s", formats[i]);
        text[i] = load(path);
        same_features(image[0], image[i], 0);
        same_features(text[0], text[i], 0);
    }
    check_rows(image[0], IMAGES, true);
    check_rows(text[0], TEXTS, false);
    tw_id_lines *lines; /* texts come in the file's order */
    TW_ASSERT_OK(tw_id_lines_open("valid_texts.jsonl", TW_TEXT_TO_IMAGE, &lines));
    for (int64_t i = 0; i < TEXTS; i++) {
        tw_id id;
        const tw_id *ids;
        int64_t n;
        bool end;
        TW_ASSERT_OK(tw_id_lines_next(lines, &id, &ids, &n, &end));
        ck_assert(!end);
        ck_assert_str_eq(id.text, text[0]->ids[i].text);
    }
    tw_id_lines_close(lines);
    for (int i = 0; i < 3; i++) tw_features_free(image[i]), tw_features_free(text[i]);
    leave_folder();
}
END_TEST

/* Where a row comes from does not depend on how the work was cut; parts that are not asked for are not made.
 */
START_TEST(batches_and_parts) {
    setup();
    TW_ASSERT_OK(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output a --batch 1"));
    TW_ASSERT_OK(
        run(tw_command_extract,
            "--checkpoint model.h5 --data lmdb/valid --output b --batch 64 --num_workers 3 --images_only"));
    TW_ASSERT_OK(run(tw_command_extract,
                     "--checkpoint model.h5 --texts valid_texts.jsonl --name mine --output b "
                     "--batch 7 --texts_only"));
    TW_ASSERT_OK(
        run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output c --precision bf16"));
    tw_features *f[] = {load("a/valid_imgs.img_feat.h5"),  load("b/valid_imgs.img_feat.h5"),
                        load("a/valid_texts.txt_feat.h5"), load("b/mine_texts.txt_feat.h5"),
                        load("c/valid_imgs.img_feat.h5"),  load("c/valid_texts.txt_feat.h5")};
    same_features(f[0], f[1], 1e-5);
    same_features(f[2], f[3], 1e-5);
    same_features(f[0], f[4], 3e-2);
    same_features(f[2], f[5], 3e-2);
    ck_assert_int_ne(access("b/valid_texts.txt_feat.h5", F_OK), 0);
    ck_assert_int_ne(access("b/mine_imgs.img_feat.h5", F_OK), 0);
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) tw_features_free(f[i]);
    leave_folder();
}
END_TEST

/* Ranks of a prediction file against all scores in f64. */
static void check_predictions(const char *path, tw_direction direction, const tw_features *queries,
                              const tw_features *gallery, int k) {
    tw_id_lines *lines;
    TW_ASSERT_OK(tw_id_lines_open(path, direction, &lines));
    for (int64_t i = 0; i <= queries->n; i++) {
        tw_id id;
        const tw_id *ids;
        int64_t n;
        bool end, used[TEXTS] = {false};
        TW_ASSERT_OK(tw_id_lines_next(lines, &id, &ids, &n, &end));
        ck_assert_int_eq(end, i == queries->n);
        if (end) break;
        ck_assert_str_eq(id.text, queries->ids[i].text);
        ck_assert_int_eq(n, k);
        for (int r = 0; r < k; r++) {
            double best = -2, got = -3;
            int64_t taken = -1;
            for (int64_t j = 0; j < gallery->n; j++) {
                double score = dot(queries->values + i * EMBED, gallery->values + j * EMBED);
                if (!used[j] && score > best) best = score;
                if (strcmp(gallery->ids[j].text, ids[r].text) == 0) got = score, taken = j;
            }
            ck_assert_int_ge(taken, 0);
            ck_assert(!used[taken]);
            used[taken] = true;
            ck_assert_double_le(fabs(best - got), 1e-6);
        }
    }
    tw_id_lines_close(lines);
}

START_TEST(retrieval_is_exact) {
    setup();
    TW_ASSERT_OK(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output f"));
    TW_ASSERT_OK(run(tw_command_retrieve,
                     "--images f/valid_imgs.img_feat.h5 --texts f/valid_texts.txt_feat.h5 --output p --k 7"));
    tw_features *image = load("f/valid_imgs.img_feat.h5"), *text = load("f/valid_texts.txt_feat.h5");
    check_predictions("p/valid_predictions.jsonl", TW_TEXT_TO_IMAGE, text, image, 7);
    check_predictions("p/valid_tr_predictions.jsonl", TW_IMAGE_TO_TEXT, image, text, 7);
    /* One direction alone. */
    TW_ASSERT_OK(run(tw_command_retrieve,
                     "--images f/valid_imgs.img_feat.h5 --texts f/valid_texts.txt_feat.h5 --output one --k 7 "
                     "--direction i2t"));
    check_predictions("one/valid_tr_predictions.jsonl", TW_IMAGE_TO_TEXT, image, text, 7);
    ck_assert_int_ne(access("one/valid_predictions.jsonl", F_OK), 0);
    /* More than there are. */
    TW_ASSERT_OK(run(tw_command_retrieve,
                     "--images f/valid_imgs.img_feat.h5 --texts f/valid_texts.txt_feat.h5 "
                     "--output p --name x --k 30"));
    check_predictions("p/x_predictions.jsonl", TW_TEXT_TO_IMAGE, text, image, IMAGES);
    check_predictions("p/x_tr_predictions.jsonl", TW_IMAGE_TO_TEXT, image, text, 30);
    tw_features_free(image);
    tw_features_free(text);
    leave_folder();
}
END_TEST

static void write_features(const char *path, tw_features_kind kind, const tw_id *ids, int n) {
    tw_features_writer *w;
    const float row[2] = {0.6f, 0.8f};
    TW_ASSERT_OK(tw_features_create(path, kind, 2, NULL, &w));
    for (int i = 0; i < n; i++) TW_ASSERT_OK(tw_features_append(w, &ids[i], row, 1));
    TW_ASSERT_OK(tw_features_commit(w));
}

static void file_is(const char *path, const char *expected) {
    char text[1024];
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s is not there", path);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    ck_assert_str_eq(text, expected);
}

START_TEST(ties_keep_the_order_and_ids_their_type) {
    const tw_id images[] = {{"9", 1, true}, {"1", 1, true}, {"5", 1, true}};
    const tw_id texts[] = {{"7", 1, false}, {"b", 1, false}};
    enter_folder();
    write_features("i.h5", TW_FEATURES_IMAGE, images, 3);
    write_features("t.jsonl", TW_FEATURES_TEXT, texts, 2);
    TW_ASSERT_OK(run(tw_command_retrieve, "--images i.h5 --texts t.jsonl --k 2 --output made/here"));
    file_is("made/here/predictions.jsonl", "{\"text_id\": \"7\", \"image_ids\": [9, 1]}\n"
                                           "{\"text_id\": \"b\", \"image_ids\": [9, 1]}\n");
    file_is("made/here/tr_predictions.jsonl", "{\"image_id\": 9, \"text_ids\": [\"7\", \"b\"]}\n"
                                              "{\"image_id\": 1, \"text_ids\": [\"7\", \"b\"]}\n"
                                              "{\"image_id\": 5, \"text_ids\": [\"7\", \"b\"]}\n");
    TW_ASSERT_FAILS(run(tw_command_retrieve, "--images t.jsonl --texts i.h5"), TW_ERR_FORMAT,
                    "image features are");
    TW_ASSERT_FAILS(run(tw_command_retrieve, "--images i.h5 --texts none.h5"), TW_ERR_IO, "none.h5");
    write_features("t.npy", TW_FEATURES_TEXT, texts, 2);
    TW_ASSERT_OK(run(tw_command_retrieve, "--images i.h5 --texts t.npy --k 10000 --output made"));
    ck_assert_int_eq(unlink("t.ids.jsonl"), 0);
    TW_ASSERT_FAILS(run(tw_command_retrieve, "--images i.h5 --texts t.npy"), TW_ERR_FORMAT,
                    "t.npy: the ids are missing; they belong in t.ids.jsonl");
    TW_ASSERT_FAILS(run(tw_command_retrieve, "--images i.h5"), TW_ERR_CONFIG, "--texts is missing");
    TW_ASSERT_FAILS(run(tw_command_retrieve, "--images i.h5 --texts t.jsonl --k 0"), TW_ERR_CONFIG, "k");
    TW_ASSERT_FAILS(run(tw_command_retrieve, "--images i.h5 --texts t.jsonl --output i.h5/x"), TW_ERR_IO,
                    "i.h5");
    leave_folder();
}
END_TEST

/* Settings that this build does not know matter to the optimizer's groups alone. */
START_TEST(another_versions_settings_do_not_bar_a_conversion) {
    enter_folder();
    make_micro_model_of("model.h5", TW_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt", 7,
                        "lr: 1e-4\nfuture_key: 3\n");
    TW_ASSERT_OK(run(tw_command_convert, "model.h5 new/folder/model.pt"));
    TW_ASSERT_OK(run(tw_command_convert, "model.h5 again.h5"));
    TW_ASSERT_FAILS(run(tw_command_convert, "model.h5 with.pt --optimizer"), TW_ERR_CONFIG,
                    "unknown key 'future_key'");
    leave_folder();
}
END_TEST

static void flip_byte(const char *path, long at) {
    FILE *f = fopen(path, "r+");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(f);
    ck_assert_int_eq(fseek(f, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, f);
    fclose(f);
}

START_TEST(bad_input_is_refused) {
    setup();
    TW_ASSERT_FAILS(run(tw_command_extract, "--data lmdb/valid"), TW_ERR_CONFIG, "--checkpoint is missing");
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint model.h5"), TW_ERR_CONFIG, "--data is missing");
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint none.h5 --data lmdb/valid"), TW_ERR_IO, "none.h5");
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/none"), TW_ERR_NOT_FOUND,
                    "lmdb/none");
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint vocab.txt --data lmdb/valid"), TW_ERR_FORMAT,
                    "vocab.txt");
    TW_ASSERT_FAILS(
        run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --images_only --texts_only"),
        TW_ERR_CONFIG, "nothing to do");
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --name a/b"),
                    TW_ERR_CONFIG, "--name");
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output model.h5/f"),
                    TW_ERR_IO, "model.h5");
    TW_ASSERT_FAILS(
        run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --vocab valid_texts.jsonl"),
        TW_ERR_FORMAT, "valid_texts.jsonl");
    FILE *f = fopen("short.txt", "w");
    fputs("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", f);
    fclose(f);
    TW_ASSERT_FAILS(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --vocab short.txt"),
                    TW_ERR_SHAPE,
                    "the vocabulary short.txt has 4 entries, the word embeddings of model.h5 have");
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--checkpoint model.h5"), TW_ERR_CONFIG, "--data is missing");
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--texts valid_texts.jsonl"), TW_ERR_CONFIG,
                    "either --predictions");
    f = fopen("valid_texts.tr.jsonl", "w");
    fputs("{\"image_id\": 1, \"text_ids\": [3, 4]}\n", f);
    fclose(f);
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--predictions p.jsonl --texts valid_texts.tr.jsonl"),
                    TW_ERR_FORMAT,
                    "give the texts file that it was made from (text_id with image_ids), valid_texts.jsonl; "
                    "image-to-text");
    TW_ASSERT_FAILS(
        run(tw_command_evaluate, "--checkpoint model.h5 --data lmdb/valid --texts valid_texts.tr.jsonl"),
        TW_ERR_FORMAT, "the original's reversed annotation");
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--predictions valid_texts.jsonl"), TW_ERR_CONFIG,
                    "--texts is missing");
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--predictions valid_texts.jsonl --texts valid_texts.jsonl"),
                    TW_ERR_FORMAT, "valid_texts.jsonl:1: text_id");
    TW_ASSERT_FAILS(
        run(tw_command_evaluate, "--predictions valid_texts.jsonl --texts valid_texts.jsonl --direction i2t"),
        TW_ERR_FORMAT, "holds text-to-image predictions, --direction says i2t");
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--checkpoint model.h5 --data lmdb/valid --texts none.jsonl"),
                    TW_ERR_NOT_FOUND, "none.jsonl");
    flip_byte("model.h5", -3000);
    TW_ASSERT_FAILS(run(tw_command_evaluate, "--checkpoint model.h5 --data lmdb/valid"), TW_ERR_FORMAT,
                    "model.h5");
    leave_folder();
}
END_TEST

TW_TEST_MAIN("commands", formats_hold_the_same_numbers, batches_and_parts, retrieval_is_exact,
             ties_keep_the_order_and_ids_their_type, another_versions_settings_do_not_bar_a_conversion,
             bad_input_is_refused)
