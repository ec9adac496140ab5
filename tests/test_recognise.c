/* Architectures from names and shapes. */
#include "model_weights.h"
#include "train/descriptions.h"
#include "train/recognise.h"

#include <sys/stat.h>
#include <unistd.h>

static void expect_same(const char *want_yaml_name) {
    tw_model_config want = described(want_yaml_name), got;
    memory_weights m = weights_of(&want, TW_WEIGHT_F16);
    memory_add(&m, "bert.pooler.dense.weight", TW_WEIGHT_F16, "4,4");
    tw_weights *w = memory_open(&m);
    TW_ASSERT_OK(tw_recognise_model(w, (tw_known_heads){0}, &got));
    char *a, *b;
    TW_ASSERT_OK(tw_model_config_to_yaml(&want, &a));
    TW_ASSERT_OK(tw_model_config_to_yaml(&got, &b));
    ck_assert_str_eq(a, b);
    free(a);
    free(b);
    tw_weights_close(w);
}

START_TEST(knows_the_family) {
    static const char *const names[] = {"RN50",     "ViT-B-16",     "ViT-B-32",
                                        "ViT-L-14", "ViT-L-14-336", "ViT-H-14"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) expect_same(names[i]);
}
END_TEST

/* Their heads are not of 64 values: the descriptions in configs/models say so. */
START_TEST(knows_its_own_small_models) {
    static const char *const names[] = {"tiny", "small", "micro"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) expect_same(names[i]);
}
END_TEST

/* A description of equal shapes in the folder where the program is started has no say, but a name given by
 * the user is looked up there. */
START_TEST(no_file_that_lies_about_has_a_say) {
    char folder[] = "/tmp/tw-recognise-XXXXXX", back[4096];
    tw_model_config c = described("ViT-B-16"), given;
    char *yaml;
    ck_assert(getcwd(back, sizeof back) && mkdtemp(folder) && chdir(folder) == 0);
    ck_assert(mkdir("configs", 0777) == 0 && mkdir("configs/models", 0777) == 0);
    snprintf(c.name, sizeof c.name, "another");
    c.context = 20, c.image.heads = 6, c.text.heads = 6;
    TW_ASSERT_OK(tw_model_config_to_yaml(&c, &yaml));
    FILE *f = fopen("configs/models/Another.yaml", "w");
    ck_assert(f && fputs(yaml, f) >= 0 && fclose(f) == 0);
    free(yaml);
    expect_same("ViT-B-16");
    TW_ASSERT_OK(tw_model_config_load("Another", &given));
    ck_assert_int_eq(given.context, 20);
    ck_assert(unlink("configs/models/Another.yaml") == 0 && rmdir("configs/models") == 0 &&
              rmdir("configs") == 0 && chdir(back) == 0 && rmdir(folder) == 0);
}
END_TEST

START_TEST(built_in_descriptions_are_the_files) {
    ck_assert_uint_ge(tw_description_count, 10);
    for (size_t i = 0; i < tw_description_count; i++) {
        tw_model_config built, read;
        char path[512], *a, *b;
        snprintf(path, sizeof path, TW_SOURCE_DIR "/configs/models/%s.yaml", tw_descriptions[i].name);
        TW_ASSERT_OK(tw_model_config_built_in(i, &built));
        TW_ASSERT_OK(tw_model_config_load(path, &read));
        TW_ASSERT_OK(tw_model_config_to_yaml(&built, &a));
        TW_ASSERT_OK(tw_model_config_to_yaml(&read, &b));
        ck_assert_str_eq(a, b);
        free(a);
        free(b);
    }
}
END_TEST

static tw_weights *unusual(tw_model_config *c) {
    *c = described("tiny");
    c->image.layers = 5;
    c->image.resolution = 96;
    c->text.positions = 40;
    memory_weights m = weights_of(c, TW_WEIGHT_F32);
    return memory_open(&m);
}

START_TEST(counts_what_has_no_name) {
    tw_model_config want, got;
    tw_weights *w = unusual(&want);
    TW_ASSERT_OK(tw_recognise_model(w, (tw_known_heads){0}, &got));
    ck_assert_str_eq(got.name, "custom");
    ck_assert_int_eq(got.image.layers, 5);
    ck_assert_int_eq(got.image.resolution, 96);
    ck_assert_int_eq(got.image.heads, 2); /* 128 / 64 */
    ck_assert_int_eq(got.context, 40);
    TW_ASSERT_OK(tw_recognise_model(w, (tw_known_heads){.image = 8, .text = 16}, &got));
    ck_assert_int_eq(got.image.heads, 8);
    ck_assert_int_eq(got.text.heads, 16);
    TW_ASSERT_FAILS(tw_recognise_model(w, (tw_known_heads){.image = 7}, &got), TW_ERR_CONFIG,
                    "7 attention heads do not divide the image tower's width 128");
    tw_weights_close(w);
}
END_TEST

START_TEST(says_when_heads_cannot_be_told) {
    tw_model_config c = described("micro"), got;
    c.image.layers = 2;
    memory_weights m = weights_of(&c, TW_WEIGHT_F32);
    tw_weights *w = memory_open(&m);
    TW_ASSERT_FAILS(tw_recognise_model(w, (tw_known_heads){0}, &got), TW_ERR_CONFIG,
                    "attention heads the image tower of width 32 has: give a description");
    tw_weights_close(w);
}
END_TEST

/* Changes one thing of a whole model. */
static void expect_refused(void (*spoil)(memory_weights *m), const char *message) {
    tw_model_config c = described("tiny"), got;
    memory_weights m = weights_of(&c, TW_WEIGHT_F32);
    spoil(&m);
    tw_weights *w = memory_open(&m);
    TW_ASSERT_FAILS(tw_recognise_model(w, (tw_known_heads){0}, &got), TW_ERR_FORMAT, message);
    tw_weights_close(w);
}

static void without_conv1(memory_weights *m) {
    memory_remove(m, "visual.conv1.weight");
}
static void without_text(memory_weights *m) {
    memory_remove(m, "bert.embeddings.word_embeddings.weight");
}
static void no_square(memory_weights *m) {
    memory_find(m, "visual.positional_embedding")->shape[0] = 16;
}
static void other_projection(memory_weights *m) {
    memory_find(m, "text_projection")->shape[1] = 65;
}
static void flat_conv1(memory_weights *m) {
    memory_find(m, "visual.conv1.weight")->ndim = 2;
}
static void huge(memory_weights *m) {
    memory_find(m, "bert.embeddings.word_embeddings.weight")->shape[0] = (int64_t)1 << 40;
}
static void empty(memory_weights *m) {
    memory_find(m, "visual.proj")->shape[0] = 0;
}

START_TEST(refuses_what_does_not_fit_together) {
    expect_refused(without_conv1, "memory.pt has no tensor visual.conv1.weight: it holds no image tower");
    expect_refused(without_text, "bert.embeddings.word_embeddings.weight: it holds no text tower");
    expect_refused(no_square, "16 rows, which are not a square grid");
    expect_refused(other_projection, "text_projection is (128,65), the towers need (128,64)");
    expect_refused(flat_conv1, "visual.conv1.weight should have 4 dimensions");
    expect_refused(huge, "word_embeddings.weight should have 2 dimensions");
    expect_refused(empty, "visual.proj should have 2 dimensions, none of them 0");
}
END_TEST

START_TEST(counts_a_resnet) {
    tw_model_config want = described("RN50"), got;
    want.image.stages[2] = 2;
    want.image.resolution = 320;
    want.image.width = 32;
    want.image.heads = 16;
    memory_weights m = weights_of(&want, TW_WEIGHT_F32);
    memory_add(&m, "visual.bn1.num_batches_tracked", TW_WEIGHT_I64, "");
    tw_weights *w = memory_open(&m);
    TW_ASSERT_OK(tw_recognise_model(w, (tw_known_heads){0}, &got));
    ck_assert_int_eq(got.image.kind, TW_RESNET);
    ck_assert_int_eq(got.image.stages[2], 2);
    ck_assert_int_eq(got.image.resolution, 320);
    ck_assert_int_eq(got.image.width, 32);
    ck_assert_int_eq(got.image.heads, 16);
    tw_weights_close(w);
}
END_TEST

START_TEST(knows_towers_alone) {
    tw_model_config want = described("ViT-B-16"), got = {0};
    memory_weights m = weights_of(&want, TW_WEIGHT_F32);
    memory_remove(&m, "bert.embeddings.word_embeddings.weight");
    tw_weights *w = memory_open(&m);
    TW_ASSERT_OK(tw_recognise_image(w, 0, &got));
    ck_assert_int_eq(got.image.heads, 12);
    ck_assert_int_eq(got.embed, 512);
    ck_assert_int_eq(got.text.hidden, 0);
    tw_weights_close(w);
    m = weights_of(&want, TW_WEIGHT_F32);
    memory_remove(&m, "visual.conv1.weight");
    w = memory_open(&m);
    TW_ASSERT_OK(tw_recognise_text(w, 0, &got));
    ck_assert_int_eq(got.text.layers, 12);
    ck_assert_int_eq(got.text.heads, 12);
    ck_assert_int_eq(got.context, 52);
    tw_weights_close(w);
}
END_TEST

START_TEST(knows_a_tower_without_projection) {
    tw_model_config want = described("ViT-B-16"), got = {.embed = 640};
    memory_weights m = weights_of(&want, TW_WEIGHT_F32);
    memory_remove(&m, "visual.proj");
    tw_weights *w = memory_open(&m);
    TW_ASSERT_OK(tw_recognise_image(w, 0, &got));
    ck_assert_int_eq(got.embed, 640);
    ck_assert_int_eq(got.image.layers, 12);
    got = (tw_model_config){0};
    TW_ASSERT_FAILS(tw_recognise_image(w, 0, &got), TW_ERR_FORMAT, "no tensor visual.proj");
    tw_weights_close(w);
    m = weights_of(&want, TW_WEIGHT_F32); /* one that is there counts */
    w = memory_open(&m);
    got.embed = 640;
    TW_ASSERT_OK(tw_recognise_image(w, 0, &got));
    ck_assert_int_eq(got.embed, 512);
    tw_weights_close(w);
}
END_TEST

TW_TEST_MAIN("recognise", knows_the_family, knows_its_own_small_models, no_file_that_lies_about_has_a_say,
             built_in_descriptions_are_the_files, counts_what_has_no_name, counts_a_resnet,
             says_when_heads_cannot_be_told, refuses_what_does_not_fit_together, knows_towers_alone,
             knows_a_tower_without_projection)
