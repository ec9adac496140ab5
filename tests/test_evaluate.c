/* evaluate as users call it: a checkpoint in one go, and the files of extract and retrieve, give the same
 * scores. */
#include "drawn_data.h"

#include <jansson.h>
#include <math.h>

static json_t *read_json(const char *path) {
    json_error_t error;
    json_t *o = json_load_file(path, 0, &error);
    ck_assert_msg(o != NULL, "%s: %s", path, error.text);
    return o;
}

/* Both ways of `split` (one checkpoint in one go; files from extract and retrieve) give the same scores. */
static void ways_agree(const char *texts) {
    TW_ASSERT_OK(run(tw_command_evaluate, "--checkpoint model.h5 --data lmdb/valid --output all.json"));
    TW_ASSERT_OK(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output f"));
    TW_ASSERT_OK(run(tw_command_retrieve,
                     "--images f/valid_imgs.img_feat.h5 --texts f/valid_texts.txt_feat.h5 --output p"));
    TW_ASSERT_OK(run(tw_command_evaluate,
                     "--predictions p/valid_predictions.jsonl --texts %s --output t2i.json", texts));
    TW_ASSERT_OK(run(
        tw_command_evaluate,
        "--predictions p/valid_tr_predictions.jsonl --texts %s --output i2t.json --direction i2t", texts));
    TW_ASSERT_OK(run(tw_command_evaluate,
                     "--checkpoint model.h5 --data lmdb/valid --texts %s --output one.json --direction i2t",
                     texts));
    json_t *all = read_json("all.json"), *t2i = read_json("t2i.json"), *i2t = read_json("i2t.json"),
           *one = read_json("one.json");
    ck_assert(json_equal(json_object_get(all, "scoreJson"), json_object_get(t2i, "scoreJson")));
    ck_assert(json_equal(json_object_get(json_object_get(all, "image_to_text"), "scoreJson"),
                         json_object_get(i2t, "scoreJson")));
    ck_assert(json_equal(one, i2t));
    ck_assert(json_is_true(json_object_get(t2i, "success")));
    /* 10 of 20 images: random weights find some and miss some, so equal numbers say something. */
    double r10 = json_real_value(json_object_get(json_object_get(t2i, "scoreJson"), "r10"));
    ck_assert(r10 > 10 && r10 < 95);
    json_decref(all), json_decref(t2i), json_decref(i2t), json_decref(one);
}

START_TEST(both_ways_give_the_same_scores) {
    setup();
    ways_agree("valid_texts.jsonl");
    /* Texts that the context cuts are counted. */
    TW_ASSERT_OK(run(tw_command_evaluate,
                     "--checkpoint model.h5 --data lmdb/valid --output cut.json --context_length 3"));
    json_t *cut = read_json("cut.json");
    ck_assert_int_eq(json_integer_value(json_object_get(cut, "truncated")), TEXTS);
    json_decref(cut);
    /* Without any texts file the split's pairs are the texts. */
    json_t *before = read_json("all.json");
    ck_assert_int_eq(rename("valid_texts.jsonl", "elsewhere.jsonl"), 0);
    unlink("lmdb/valid/texts.jsonl");
    ways_agree("elsewhere.jsonl");
    json_t *after = read_json("all.json");
    ck_assert(json_equal(before, after));
    json_decref(before), json_decref(after);
    leave_folder();
}
END_TEST

/* Puts quotes around the image id of every line: [12] becomes ["12"]. */
static void quote_image_ids(const char *from, const char *to) {
    char line[4096];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    ck_assert(in && out);
    while (fgets(line, sizeof line, in)) {
        char *open = strrchr(line, '['), *close = strrchr(line, ']');
        ck_assert(open && close);
        fprintf(out, "%.*s\"%.*s\"%s", (int)(open + 1 - line), line, (int)(close - open - 1), open + 1,
                close);
    }
    fclose(in);
    fclose(out);
}

/* The original trains on string ids and then fails at extraction. */
START_TEST(string_ids_stay_strings) {
    draw();
    quote_image_ids("valid_texts.jsonl", "quoted.jsonl");
    ck_assert_int_eq(rename("quoted.jsonl", "valid_texts.jsonl"), 0);
    TW_ASSERT_OK(run(tw_command_prepare, ". --splits valid"));
    ways_agree("valid_texts.jsonl");
    tw_features *image = load("f/valid_imgs.img_feat.h5"), *text = load("f/valid_texts.txt_feat.h5");
    ck_assert(!image->ids[0].is_integer && text->ids[0].is_integer);
    tw_features_free(image);
    tw_features_free(text);
    leave_folder();
}
END_TEST

/* Cuts the payload of the first TSV line in half (base64 of a JPEG that ends too early). */
static void truncate_first_image(char id[64]) {
    static char line[1 << 20];
    FILE *in = fopen("valid_imgs.tsv", "r"), *out = fopen("cut.tsv", "w");
    ck_assert(in && out);
    for (int i = 0; fgets(line, sizeof line, in); i++) {
        char *tab = strchr(line, '\t');
        ck_assert_ptr_nonnull(tab);
        size_t payload = strcspn(tab + 1, "\n");
        if (i == 0) {
            snprintf(id, 64, "%.*s", (int)(tab - line), line);
            fprintf(out, "%.*s\n", (int)(tab + 1 - line + (long)(payload / 8 * 4)), line);
        } else {
            fputs(line, out);
        }
    }
    fclose(in);
    fclose(out);
    ck_assert_int_eq(rename("cut.tsv", "valid_imgs.tsv"), 0);
}

START_TEST(a_bad_image_is_left_out) {
    char id[64], part[128];
    draw();
    TW_ASSERT_OK(run(tw_command_prepare, ". --splits valid"));
    TW_ASSERT_OK(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output good"));
    truncate_first_image(id);
    TW_ASSERT_OK(run(tw_command_prepare, ". --splits valid --check_images none --force"));
    TW_ASSERT_OK(run(tw_command_extract, "--checkpoint model.h5 --data lmdb/valid --output f"));
    tw_features *good = load("good/valid_imgs.img_feat.h5"), *f = load("f/valid_imgs.img_feat.h5");
    ck_assert_int_eq(f->n, IMAGES - 1);
    for (int64_t i = 0, j = 0; i < good->n; i++) {
        if (strcmp(good->ids[i].text, id) == 0) continue;
        ck_assert_str_eq(good->ids[i].text, f->ids[j].text);
        for (int k = 0; k < EMBED; k++)
            ck_assert_double_le(fabs((double)(good->values[i * EMBED + k] - f->values[j * EMBED + k])), 1e-5);
        j++;
    }
    tw_features_free(good);
    tw_features_free(f);
    /* In one go it is a miss; the file of predictions lacks a query, which the original refuses. */
    TW_ASSERT_OK(run(tw_command_evaluate, "--checkpoint model.h5 --data lmdb/valid --output s.json"));
    TW_ASSERT_OK(run(tw_command_retrieve,
                     "--images f/valid_imgs.img_feat.h5 --texts f/valid_texts.txt_feat.h5 --output p"));
    TW_ASSERT_OK(run(tw_command_evaluate,
                     "--predictions p/valid_predictions.jsonl --texts valid_texts.jsonl --output t.json"));
    json_t *s = read_json("s.json"), *t = read_json("t.json");
    ck_assert(json_equal(json_object_get(s, "scoreJson"), json_object_get(t, "scoreJson")));
    json_decref(s), json_decref(t);
    snprintf(part, sizeof part, "1 of %d queries of the texts file have no prediction: image_id %s", IMAGES,
             id);
    TW_ASSERT_FAILS(
        run(tw_command_evaluate,
            "--predictions p/valid_tr_predictions.jsonl --texts valid_texts.jsonl --output t.json"),
        TW_ERR_FORMAT, part);
    t = read_json("t.json");
    ck_assert(json_is_false(json_object_get(t, "success")));
    ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(t, "errorMsg")), part));
    json_decref(t);
    leave_folder();
}
END_TEST

TW_TEST_MAIN("evaluate", both_ways_give_the_same_scores, string_ids_stay_strings, a_bad_image_is_left_out)
