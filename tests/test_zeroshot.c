/* Class weights, accuracies, and the benchmark site's file. */
#include "include/tuwen.h"
#include "train/commands/commands.h"
#include "train/zeroshot.h"

#include "data/python_float.h"
#include "micro_model.h"

#include <jansson.h>
#include <math.h>
#include <unistd.h>

static char folder[] = "/tmp/tw-zeroshot-XXXXXX";

static void enter(void) {
    strcpy(folder, "/tmp/tw-zeroshot-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
}

static void leave(void) {
    char command[128];
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

/* Against the definition, each prompt encoded alone. */
START_TEST(weights_are_normalised_means) {
    enum { LABELS = 3, TEMPLATES = 4, D = MICRO_EMBED };
    static char *labels_at[LABELS] = {(char *)"猫", (char *)"“狗”", (char *)""};
    static char *templates_at[TEMPLATES] = {(char *)"{}", (char *)"一张{}的照片", (char *)"{}A{}",
                                            (char *)"{}"};
    const tw_prompts labels = {labels_at, LABELS}, templates = {templates_at, TEMPLATES};
    enter();
    make_micro_model("model.h5", TW_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt", 9);
    tw_encoder_options options = tw_encoder_defaults();
    options.checkpoint = "model.h5";
    options.batch = 5;
    options.threads = 1;
    tw_encoder e;
    TW_ASSERT_OK(tw_encoder_open(&options, NULL, &e));
    float weights[LABELS * D], one[D];
    int64_t truncated;
    TW_ASSERT_OK(tw_zeroshot_weights(&e, &labels, &templates, weights, &truncated));
    ck_assert_int_eq(truncated, 0);
    for (int c = 0; c < LABELS; c++) {
        double mean[D] = {0}, length = 0;
        for (int t = 0; t < TEMPLATES; t++) {
            char *text = tw_template_fill(templates_at[t], labels_at[c]);
            tw_text prompt = {text, strlen(text)};
            int64_t cut;
            TW_ASSERT_OK(
                tw_encode_texts(e.towers, e.loaded.model, e.loaded.vocab, &prompt, 1, &e.encode, one, &cut));
            for (int k = 0; k < D; k++) mean[k] += (double)one[k] / TEMPLATES;
            free(text);
        }
        for (int k = 0; k < D; k++) length += mean[k] * mean[k];
        for (int k = 0; k < D; k++)
            ck_assert_double_le(fabs((double)weights[c * D + k] - mean[k] / sqrt(length)), 1e-6);
    }
    tw_encoder_close(&e);
    leave();
}
END_TEST

START_TEST(scores_of_a_small_table) {
    enum { N = 6, C = 7 };
    /* image 3 is bad; image 4: a tie, which the earlier class wins; image 5: sixth of seven. */
    static const float logits[N * C] = {9, 1, 2, 3, 4, 5, 6, /* right */
                                        9, 8, 2, 3, 4, 5, 6, /* second */
                                        1, 2, 9, 3, 4, 5, 6, /* right */
                                        9, 9, 9, 9, 9, 9, 9, /* bad */
                                        0, 5, 5, 0, 0, 0, 0, /* second by the tie */
                                        1, 2, 3, 4, 5, 6, 7};
    static const int32_t class_of[N] = {0, 1, 2, 3, 2, 1};
    static const bool ok[N] = {true, true, true, false, true, true};
    tw_zeroshot_scores s;
    TW_ASSERT_OK(tw_zeroshot_score(logits, class_of, ok, N, C, &s));
    ck_assert_int_eq(s.images, 5);
    ck_assert_double_eq(s.top1, 40);
    ck_assert_double_eq(s.top5, 80);
    ck_assert_double_le(fabs(s.mean_class - 100 * (1.0 + 0.0 + 0.5) / 3), 1e-12); /* classes with images */
    const int64_t count[C] = {1, 2, 2, 0, 0, 0, 0}, right5[C] = {1, 1, 2, 0, 0, 0, 0};
    ck_assert_mem_eq(s.count, count, sizeof count);
    ck_assert_mem_eq(s.right5, right5, sizeof right5);
    ck_assert_int_eq(s.confusion[0 * C + 0], 1);
    ck_assert_int_eq(s.confusion[1 * C + 0], 1);
    ck_assert_int_eq(s.confusion[1 * C + 6], 1);
    ck_assert_int_eq(s.confusion[2 * C + 1], 1);
    ck_assert_int_eq(s.confusion[2 * C + 2], 1);
    tw_zeroshot_scores_free(&s);
}
END_TEST

static void write_text(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    fputs(text, f);
    fclose(f);
}

START_TEST(index_files) {
    enter();
    int64_t *order, n;
    write_text("i", "[2, 0, 1, 2]");
    TW_ASSERT_OK(tw_zeroshot_index_load("i", 3, &order, &n));
    const int64_t expected[] = {2, 0, 1, 2};
    ck_assert_int_eq(n, 4);
    ck_assert_mem_eq(order, expected, sizeof expected);
    free(order);
    static const char *const bad[][2] = {{"[0, 3]", "element 1 is 3; there are 3 images"},
                                         {"[-1]", "element 0 is -1"},
                                         {"[0, 1.0]", "element 1 is no whole number"},
                                         {"[true]", "element 0 is no whole number"},
                                         {"{}", "not a list"},
                                         {"[]", "not a list"},
                                         {"[0,", "i:1:"},
                                         {"", "i:1:"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("i", bad[i][0]);
        TW_ASSERT_FAILS(tw_zeroshot_index_load("i", 3, &order, &n), TW_ERR_FORMAT, bad[i][1]);
        ck_assert_ptr_null(order);
    }
    TW_ASSERT_FAILS(tw_zeroshot_index_load("none", 3, &order, &n), TW_ERR_NOT_FOUND, "none");
    leave();
}
END_TEST

/* Python's json.dumps of the same, with numbers chosen at its corners. */
START_TEST(predictions_are_written_as_python_writes_them) {
    enter();
    static const float values[] = {1.0f, 0.0f, 4e-7f, 6e-7f, 0.1f, 0.08012041f};
    const int64_t order[] = {2, 0};
    tw_zeroshot_predictions p = {.model = "CN-CLIP-micro",
                                 .dataset = "集/\"\\\t\x7f\xf0\x9f\x98\x80",
                                 .params = 12,
                                 .visual_params = 5,
                                 .probabilities = values,
                                 .images = 3,
                                 .classes = 2,
                                 .order = order,
                                 .rows = 2};
    TW_ASSERT_OK(tw_zeroshot_predictions_write("p.json", &p));
    char got[1024] = "";
    FILE *f = fopen("p.json", "rb");
    ck_assert_uint_gt(fread(got, 1, sizeof got - 1, f), 0);
    fclose(f);
    ck_assert_str_eq(
        got, "{\"model_name\": \"CN-CLIP-micro\", \"dataset_name\": "
             "\"\\u96c6/\\\"\\\\\\t\\u007f\\ud83d\\ude00\", \"num_trainable_params\": 0, "
             "\"num_params\": 12, \"num_visual_params\": 5, \"num_backbone_params\": 12, \"n_shot\": 0, "
             "\"rnd_seeds\": [123], \"predictions\": [[[0.1, 0.08012], [1.0, 0.0]]]}");
    p.order = NULL;
    p.rows = 3;
    TW_ASSERT_OK(tw_zeroshot_predictions_write("p.json", &p));
    f = fopen("p.json", "rb");
    got[fread(got, 1, sizeof got - 1, f)] = '\0';
    fclose(f);
    ck_assert_ptr_nonnull(strstr(got, "[[[1.0, 0.0], [0.0, 1e-06], [0.1, 0.08012]]]}"));
    p.dataset = "\xff";
    TW_ASSERT_FAILS(tw_zeroshot_predictions_write("q.json", &p), TW_ERR_FORMAT, "dataset_name");
    ck_assert_int_ne(access("q.json", F_OK), 0);
    leave();
}
END_TEST

/* The command's file against the formula, from the library's features: softmax(100 I C), images made RGB
 * before they are resized, which a palette and an image with alpha tell from the other order. */
START_TEST(the_command_is_the_formula) {
    enum { CLASSES = 2, D = MICRO_EMBED };
    static const char *const files[CLASSES] = {"set/test/0/png_palette8.png", "set/test/1/png_rgba8.png"};
    static const char *const prompts[CLASSES] = {"一只猫", "一只“狗”"};
    char *argv[] = {(char *)"classify", (char *)"--checkpoint",  (char *)"model.h5", (char *)"--data",
                    (char *)"set",      (char *)"--templates",   (char *)"t.txt",    (char *)"--threads",
                    (char *)"1",        (char *)"--predictions", (char *)"p.json",   NULL};
    enter();
    make_micro_model("model.h5", TW_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt", 5);
    ck_assert_int_eq(system("mkdir -p set/test/0 set/test/1 && cp " TW_SOURCE_DIR
                            "/tests/golden/images/png_palette8.png set/test/0 && cp " TW_SOURCE_DIR
                            "/tests/golden/images/png_rgba8.png set/test/1"),
                     0);
    write_text("set/label_cn.txt", "猫\n“狗”\n");
    write_text("t.txt", "一只{}\n");
    TW_ASSERT_OK(tw_command_classify(11, argv));

    tuwen_options options;
    tuwen_model *model;
    float images[2][CLASSES * D], texts[CLASSES * D]; /* RGB first; in the image's own mode */
    tuwen_options_init(&options, sizeof options);
    for (int order = 0; order < 2; order++) {
        options.image = order ? TUWEN_IMAGE_AS_TRAINED : TUWEN_IMAGE_RGB_FIRST;
        ck_assert_int_eq(tuwen_load("model.h5", &options, &model), TUWEN_OK);
        ck_assert_int_eq(tuwen_encode_image_files(model, CLASSES, files, images[order], NULL), TUWEN_OK);
        ck_assert_int_eq(tuwen_encode_texts(model, CLASSES, prompts, NULL, texts, NULL), TUWEN_OK);
        tuwen_free(model);
    }
    json_t *file = json_load_file("p.json", 0, NULL);
    const json_t *rows = json_array_get(json_object_get(file, "predictions"), 0);
    ck_assert_uint_eq(json_array_size(rows), CLASSES);
    for (int i = 0; i < CLASSES; i++) {
        double chance[2]; /* of class 0, in both orders */
        for (int order = 0; order < 2; order++) {
            double logit[CLASSES] = {0};
            for (int k = 0; k < CLASSES * D; k++)
                logit[k / D] += 100 * (double)images[order][i * D + k % D] * (double)texts[k];
            chance[order] = 1 / (1 + exp(logit[1] - logit[0]));
        }
        double got = json_number_value(json_array_get(json_array_get(rows, (size_t)i), 0));
        ck_assert_double_le(fabs(got - chance[0]), 1e-5);
        ck_assert_double_gt(fabs(got - chance[1]), 1e-4);
    }
    json_decref(file);
    leave();
}
END_TEST

TW_TEST_MAIN("zeroshot", weights_are_normalised_means, scores_of_a_small_table, index_files,
             predictions_are_written_as_python_writes_them, the_command_is_the_formula)
