/* include/tuwen.h as a program sees it: every way to give images, texts, errors, options of other versions,
 * and several threads on one model. */
#include "include/tuwen.h"

#include "data/files.h"
#include "data/image.h"
#include "data/shapes.h"
#include "micro_model.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#define SAMPLES TW_SOURCE_DIR "/tests/golden/images/"
enum { D = MICRO_EMBED };

static const char *const photos[] = {SAMPLES "jpeg_420.jpg", SAMPLES "png_rgba8.png",
                                     SAMPLES "png_palette8.png", SAMPLES "jpeg_gray.jpg",
                                     SAMPLES "webp_lossy.webp"};
enum { PHOTOS = sizeof photos / sizeof *photos };

static char folder[] = "/tmp/tw-library-XXXXXX";
static tuwen_model *model;

/* 21,128 lines are not needed: the tokenizer's golden vocabulary has what texts here use. */
static void setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    make_micro_model("model.h5", TW_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt", 3);
    tuwen_options options;
    tuwen_options_init(&options, sizeof options);
    options.threads = 2;
    options.batch = 3; /* so that five images are two batches */
    ck_assert_msg(tuwen_load("model.h5", &options, &model) == TUWEN_OK, "%s", tuwen_error());
}

static void teardown(void) {
    tuwen_free(model);
    unlink("model.h5");
    ck_assert_int_eq(chdir("/"), 0);
    rmdir(folder);
    strcpy(folder, "/tmp/tw-library-XXXXXX");
}

static void encode_photos(float features[PHOTOS * D]) {
    ck_assert_msg(tuwen_encode_image_files(model, PHOTOS, photos, features, NULL) == TUWEN_OK, "%s",
                  tuwen_error());
}

/* The message of a failed call has the part. */
static void fails(tuwen_status status, tuwen_status expected, const char *part) {
    ck_assert_msg(status == expected, "status %s, expected %s: %s", tuwen_status_name((int)status),
                  tuwen_status_name((int)expected), tuwen_error());
    ck_assert_msg(strstr(tuwen_error(), part) != NULL, "'%s' lacks '%s'", tuwen_error(), part);
}

START_TEST(tells_what_it_loaded) {
    ck_assert_int_eq(tuwen_embed_dim(model), D);
    ck_assert_int_eq(tuwen_context_length(model), MICRO_CONTEXT);
    ck_assert_int_eq(tuwen_resolution(model), MICRO_RESOLUTION);
    ck_assert_str_eq(tuwen_name(model), "micro");
    ck_assert_double_le(fabs(tuwen_logit_scale(model) - 1 / 0.07), 1e-5);
    ck_assert(tuwen_embed_dim(NULL) == 0 && tuwen_context_length(NULL) == 0 && tuwen_resolution(NULL) == 0);
    ck_assert(tuwen_logit_scale(NULL) == 0 && strcmp(tuwen_name(NULL), "") == 0);
    ck_assert_str_eq(tuwen_version(), TW_VERSION);
    ck_assert_str_eq(tuwen_status_name(TUWEN_ERR_FORMAT), "format");
}
END_TEST

/* Files, their bytes, and their decoded pixels give the same features. */
START_TEST(images_from_files_bytes_and_pixels_agree) {
    float files[PHOTOS * D], bytes[PHOTOS * D], rgb[PHOTOS * D];
    void *data[PHOTOS];
    size_t sizes[PHOTOS];
    int32_t status[PHOTOS];
    tuwen_rgb pixels[PHOTOS];
    uint8_t *rows[PHOTOS];
    encode_photos(files);
    for (int i = 0; i < PHOTOS; i++) {
        tw_image decoded, small;
        TW_ASSERT_OK(tw_read_file(photos[i], (uint8_t **)&data[i], &sizes[i]));
        /* Other modes are resized before they become RGB; at the right size already, there is no difference.
         */
        TW_ASSERT_OK(tw_image_decode(data[i], sizes[i], &decoded));
        TW_ASSERT_OK(tw_image_alloc(&small, TW_MODE_RGB, MICRO_RESOLUTION, MICRO_RESOLUTION));
        TW_ASSERT_OK(tw_image_load(data[i], sizes[i], MICRO_RESOLUTION, small.pixels));
        tw_image *source = decoded.mode == TW_MODE_RGB ? &decoded : &small;
        size_t row = 3 * (size_t)source->width, stride = row + 5;
        rows[i] = malloc(stride * (size_t)source->height);
        for (int y = 0; y < source->height; y++)
            memcpy(rows[i] + stride * (size_t)y, source->pixels + row * (size_t)y, row);
        pixels[i] = (tuwen_rgb){rows[i], source->width, source->height, (int64_t)stride};
        tw_image_free(&decoded);
        tw_image_free(&small);
    }
    ck_assert_int_eq(tuwen_encode_image_bytes(model, PHOTOS, (const void *const *)data, sizes, bytes, status),
                     TUWEN_OK);
    for (int i = 0; i < PHOTOS; i++) ck_assert_int_eq(status[i], TUWEN_OK);
    ck_assert_int_eq(tuwen_encode_image_rgb(model, PHOTOS, pixels, rgb, NULL), TUWEN_OK);
    ck_assert_mem_eq(files, bytes, sizeof files);
    ck_assert_mem_eq(files, rgb, sizeof files);
    for (int i = 0; i < PHOTOS; i++) {
        double length = 0;
        for (int j = 0; j < D; j++) length += (double)files[i * D + j] * (double)files[i * D + j];
        ck_assert_double_le(fabs(length - 1), 1e-5);
        free(data[i]);
        free(rows[i]);
    }
    ck_assert_mem_ne(files, files + D, D * sizeof *files);
}
END_TEST

START_TEST(bad_images_are_told_one_by_one) {
    const char *const paths[] = {photos[0], "no-such.jpg", "model.h5", photos[1], "/dev/zero", "."};
    float features[6 * D], good[PHOTOS * D];
    int32_t status[6];
    encode_photos(good);
    ck_assert_int_eq(tuwen_encode_image_files(model, 6, paths, features, status), TUWEN_OK);
    const int32_t expected[] = {TUWEN_OK, TUWEN_ERR_NOT_FOUND, TUWEN_ERR_FORMAT,
                                TUWEN_OK, TUWEN_ERR_IO,        TUWEN_ERR_IO};
    ck_assert_mem_eq(status, expected, sizeof status);
    ck_assert_mem_eq(features, good, D * sizeof *good);
    for (int j = 0; j < D; j++) {
        ck_assert(features[D + j] == 0.0f && features[2 * D + j] == 0.0f);
        ck_assert_float_le(fabsf(features[3 * D + j] - good[D + j]), 1e-6f);
    }
    fails(TUWEN_ERR_IO, TUWEN_ERR_IO, ".: not a file");
    fails(tuwen_encode_image_files(model, 6, paths, features, NULL), TUWEN_ERR_NOT_FOUND,
          "no-such.jpg: No such");
    const void *data[] = {"abc"};
    fails(tuwen_encode_image_bytes(model, 1, data, (const size_t[]){3}, features, NULL), TUWEN_ERR_FORMAT,
          "image number 1: not an image");
    tuwen_rgb rgb = {(const uint8_t *)"abcdef", 2, 1, 5};
    fails(tuwen_encode_image_rgb(model, 1, &rgb, features, NULL), TUWEN_ERR_ARGUMENT, "stride of 5 bytes");
    rgb = (tuwen_rgb){(const uint8_t *)"abcdef", -2, 1, 0};
    fails(tuwen_encode_image_rgb(model, 1, &rgb, features, NULL), TUWEN_ERR_FORMAT, "image number 1: ");
    rgb = (tuwen_rgb){NULL, 2, 1, 0};
    fails(tuwen_encode_image_rgb(model, 1, &rgb, features, NULL), TUWEN_ERR_ARGUMENT, "pixels is NULL");
}
END_TEST

START_TEST(missing_images_are_told_one_by_one) {
    const char *const paths[] = {NULL, photos[0]};
    const void *const data[] = {NULL, NULL};
    float features[2 * D], good[PHOTOS * D];
    int32_t status[2];
    encode_photos(good);
    ck_assert_int_eq(tuwen_encode_image_files(model, 2, paths, features, status), TUWEN_OK);
    ck_assert(status[0] == TUWEN_ERR_ARGUMENT && status[1] == TUWEN_OK);
    for (int j = 0; j < D; j++) ck_assert_float_le(fabsf(features[D + j] - good[j]), 1e-6f);
    fails(TUWEN_ERR_ARGUMENT, TUWEN_ERR_ARGUMENT, "image number 1: the path is NULL");
    fails(tuwen_encode_image_files(model, 2, paths, features, NULL), TUWEN_ERR_ARGUMENT, "the path is NULL");
    ck_assert_int_eq(tuwen_encode_image_bytes(model, 2, data, (const size_t[]){1, 2}, features, status),
                     TUWEN_OK);
    ck_assert(status[0] == TUWEN_ERR_ARGUMENT && status[1] == TUWEN_ERR_ARGUMENT);
    fails(TUWEN_ERR_ARGUMENT, TUWEN_ERR_ARGUMENT, "image number 2: NULL");
#ifndef __SANITIZE_ADDRESS__ /* which needs all of the address space */
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    ck_assert(f && fscanf(f, "%lu", &pages) == 1 && fclose(f) == 0);
    size_t most = pages * (size_t)sysconf(_SC_PAGESIZE) + (100u << 20);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &(struct rlimit){most, most}), 0);
    static const uint8_t small[3 * 4] = {0};
    const tuwen_rgb pixels[] = {{small, 13000, 13000, 0}, {small, 2, 2, 0}}; /* 507 MB, never read */
    ck_assert_int_eq(tuwen_encode_image_rgb(model, 2, pixels, features, status), TUWEN_OK);
    ck_assert(status[0] == TUWEN_ERR_MEMORY && status[1] == TUWEN_OK);
    fails(tuwen_encode_image_rgb(model, 2, pixels, features, NULL), TUWEN_ERR_MEMORY, "image number 1");
#endif
}
END_TEST

START_TEST(refuses_broken_contracts) {
    float features[D];
    ck_assert_int_eq(tuwen_encode_image_files(model, 0, NULL, NULL, NULL), TUWEN_OK);
    ck_assert_int_eq(tuwen_encode_texts(model, 0, NULL, NULL, NULL, NULL), TUWEN_OK);
    fails(tuwen_encode_image_files(model, 1, NULL, features, NULL), TUWEN_ERR_ARGUMENT, "is NULL");
    fails(tuwen_encode_image_files(NULL, 1, photos, features, NULL), TUWEN_ERR_ARGUMENT, "model is NULL");
    fails(tuwen_encode_texts(model, -1, photos, NULL, features, NULL), TUWEN_ERR_ARGUMENT, "n is -1");
    tuwen_model *none = model;
    fails(tuwen_load(NULL, NULL, &none), TUWEN_ERR_ARGUMENT, "checkpoint is NULL");
    ck_assert_ptr_null(none);
    tuwen_status missing = tuwen_load("none.h5", NULL, &none);
    ck_assert(missing == TUWEN_ERR_IO || missing == TUWEN_ERR_NOT_FOUND);
    fails(missing, missing, "none.h5");
    fails(tuwen_load(photos[0], NULL, &none), TUWEN_ERR_FORMAT, "jpeg_420.jpg");
    tuwen_free(NULL);
}
END_TEST

START_TEST(another_resolution_and_context) {
    tuwen_options options;
    tuwen_model *other;
    tuwen_options_init(&options, sizeof options);
    options.resolution = 48;
    options.context_length = 8;
    ck_assert_msg(tuwen_load("model.h5", &options, &other) == TUWEN_OK, "%s", tuwen_error());
    ck_assert_int_eq(tuwen_resolution(other), 48);
    ck_assert_int_eq(tuwen_context_length(other), 8);
    float features[D];
    const char *const given[] = {"一只猫和一条狗在一起"};
    int64_t truncated;
    ck_assert_int_eq(tuwen_encode_image_files(other, 1, photos, features, NULL), TUWEN_OK);
    ck_assert_int_eq(tuwen_encode_texts(other, 1, given, NULL, features, &truncated), TUWEN_OK);
    ck_assert_int_eq(truncated, 1);
    tuwen_free(other);
    /* A program that was compiled before there was a resolution: its padding lies there. */
    options.size = offsetof(tuwen_options, context_length);
    ck_assert_msg(tuwen_load("model.h5", &options, &other) == TUWEN_OK, "%s", tuwen_error());
    ck_assert_int_eq(tuwen_resolution(other), MICRO_RESOLUTION);
    ck_assert_int_eq(tuwen_context_length(other), MICRO_CONTEXT);
    tuwen_free(other);
    options.size = sizeof options;
    options.context_length = 2;
    fails(tuwen_load("model.h5", &options, &other), TUWEN_ERR_CONFIG, "context_length is 2");
    options.context_length = 0;
    options.resolution = -1;
    fails(tuwen_load("model.h5", &options, &other), TUWEN_ERR_CONFIG, "resolution is -1");
}
END_TEST

START_TEST(options_of_other_versions) {
    struct newer {
        tuwen_options known;
        int64_t added;
    } newer;
    tuwen_model *other;
    tuwen_options_init(&newer.known, sizeof newer);
    ck_assert_int_eq(newer.added, 0);
    ck_assert_msg(tuwen_load("model.h5", &newer.known, &other) == TUWEN_OK, "%s", tuwen_error());
    tuwen_free(other);
    newer.added = 1;
    fails(tuwen_load("model.h5", &newer.known, &other), TUWEN_ERR_UNSUPPORTED, "newer than this library");
    tuwen_options options;
    memset(&options, 0, sizeof options);
    fails(tuwen_load("model.h5", &options, &other), TUWEN_ERR_ARGUMENT, "tuwen_options_init");
    tuwen_options_init(&options, sizeof options);
    options.device = "tpu";
    fails(tuwen_load("model.h5", &options, &other), TUWEN_ERR_UNSUPPORTED, "'tpu'");
    options.device = "cpu";
    options.precision = 7;
    fails(tuwen_load("model.h5", &options, &other), TUWEN_ERR_CONFIG, "precision is 7");
    options.precision = TUWEN_F32;
    options.batch = 0;
    fails(tuwen_load("model.h5", &options, &other), TUWEN_ERR_CONFIG, "batch is 0");
    options.batch = 1;
    options.vocab = "none.txt";
    tuwen_status missing = tuwen_load("model.h5", &options, &other);
    ck_assert(missing == TUWEN_ERR_IO || missing == TUWEN_ERR_NOT_FOUND);
    fails(missing, missing, "none.txt");
}
END_TEST

START_TEST(texts) {
    const char *const given[] = {"一只猫", "“猫”", "\"猫\"", "一只猫和一条狗"};
    float features[4 * D], cut[D], again[D];
    int64_t truncated = -1;
    ck_assert_int_eq(tuwen_encode_texts(model, 4, given, NULL, features, &truncated), TUWEN_OK);
    ck_assert_int_eq(truncated, 0);
    ck_assert_mem_eq(features + D, features + 2 * D, D * sizeof *features); /* as trained */
    size_t bytes = strlen(given[0]);
    ck_assert_int_eq(tuwen_encode_texts(model, 1, &given[3], &bytes, cut, NULL), TUWEN_OK);
    ck_assert_int_eq(tuwen_encode_texts(model, 1, given, NULL, again, NULL), TUWEN_OK);
    ck_assert_mem_eq(cut, again, sizeof cut);
    ck_assert_mem_ne(features, features + 3 * D, sizeof cut);
    char longer[MICRO_CONTEXT * 3 + 1] = "";
    for (int i = 0; i < MICRO_CONTEXT; i++) strcat(longer, "猫");
    const char *const long_text[] = {longer, given[0]};
    ck_assert_int_eq(tuwen_encode_texts(model, 2, long_text, NULL, features, &truncated), TUWEN_OK);
    ck_assert_int_eq(truncated, 1);
    const char *const bad[] = {"a", "b\xff"};
    fails(tuwen_encode_texts(model, 2, bad, NULL, features, NULL), TUWEN_ERR_FORMAT, "text number 2");

    tuwen_options options;
    tuwen_model *quick;
    tuwen_options_init(&options, sizeof options);
    options.text = TUWEN_TEXT_AS_IS;
    ck_assert_int_eq(tuwen_load("model.h5", &options, &quick), TUWEN_OK);
    ck_assert_int_eq(tuwen_encode_texts(quick, 4, given, NULL, features, NULL), TUWEN_OK);
    ck_assert_mem_ne(features + D, features + 2 * D, D * sizeof *features); /* “ is [UNK] */
    tuwen_free(quick);
}
END_TEST

START_TEST(similarity_and_probabilities) {
    const char *const given[] = {"一只猫", "一条狗", "蓝色的天空"};
    float images[PHOTOS * D], features[3 * D], logits[PHOTOS * 3], chances[PHOTOS * 3];
    encode_photos(images);
    ck_assert_int_eq(tuwen_encode_texts(model, 3, given, NULL, features, NULL), TUWEN_OK);
    ck_assert_int_eq(tuwen_similarity(model, PHOTOS, images, 3, features, logits), TUWEN_OK);
    ck_assert_int_eq(tuwen_probabilities(model, PHOTOS, images, 3, features, chances), TUWEN_OK);
    for (int i = 0; i < PHOTOS; i++) {
        double total = 0, sum = 0;
        for (int j = 0; j < 3; j++) {
            double product = 0;
            for (int k = 0; k < D; k++) product += (double)images[i * D + k] * (double)features[j * D + k];
            ck_assert_double_le(fabs(tuwen_logit_scale(model) * product - (double)logits[i * 3 + j]), 1e-5);
            total += exp(tuwen_logit_scale(model) * product);
        }
        for (int j = 0; j < 3; j++) {
            ck_assert_double_le(fabs(exp((double)logits[i * 3 + j]) / total - (double)chances[i * 3 + j]),
                                1e-5);
            sum += (double)chances[i * 3 + j];
        }
        ck_assert_double_le(fabs(sum - 1), 1e-6);
    }
    ck_assert_int_eq(tuwen_probabilities(model, PHOTOS, images, 0, NULL, NULL), TUWEN_OK);
    ck_assert_int_eq(tuwen_similarity(model, 0, NULL, 3, features, NULL), TUWEN_OK);
    fails(tuwen_similarity(model, 1, images, 1, NULL, logits), TUWEN_ERR_ARGUMENT, "NULL");
}
END_TEST

/* ---- several threads, one model ---- */

enum { THREADS = 4, ROUNDS = 12 };

typedef struct user {
    pthread_t thread;
    const float *images, *text; /* what must come out */
    int wrong;
    bool message_stays;
} user;

static void *use(void *argument) {
    user *u = argument;
    const char *const cat[] = {"一只猫"}, *const missing[] = {"missing.jpg"};
    float features[PHOTOS * D];
    omp_set_num_threads(1 + (int)(u->images != NULL)); /* the program's own setting must not matter */
    tuwen_status status = tuwen_encode_image_files(model, 1, missing, features, NULL);
    u->wrong += status != TUWEN_ERR_NOT_FOUND;
    for (int round = 0; round < ROUNDS; round++) {
        u->wrong += tuwen_encode_image_files(model, PHOTOS, photos, features, NULL) != TUWEN_OK;
        u->wrong += memcmp(features, u->images, sizeof features) != 0;
        u->wrong += tuwen_encode_texts(model, 1, cat, NULL, features, NULL) != TUWEN_OK;
        u->wrong += memcmp(features, u->text, D * sizeof *features) != 0;
    }
    u->message_stays = strstr(tuwen_error(), "missing.jpg") != NULL;
    return NULL;
}

START_TEST(several_threads_use_one_model) {
    float images[PHOTOS * D], text[D];
    const char *const cat[] = {"一只猫"};
    user users[THREADS] = {0};
    int before = omp_get_max_threads();
    encode_photos(images);
    ck_assert_int_eq(tuwen_encode_texts(model, 1, cat, NULL, text, NULL), TUWEN_OK);
    omp_set_num_threads(7);
    encode_photos(images);
    ck_assert_int_eq(omp_get_max_threads(), 7); /* as it was before the call */
    omp_set_num_threads(before);
    for (int i = 0; i < THREADS; i++) {
        users[i].images = images, users[i].text = text;
        ck_assert_int_eq(pthread_create(&users[i].thread, NULL, use, &users[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(users[i].thread, NULL);
        ck_assert_int_eq(users[i].wrong, 0);
        ck_assert(users[i].message_stays);
    }
}
END_TEST

static void *load_and_free(void *argument) {
    for (int i = 0; i < 3; i++) {
        tuwen_model *own;
        if (tuwen_load("model.h5", NULL, &own) != TUWEN_OK) ++*(int *)argument;
        tuwen_free(own);
    }
    return NULL;
}

START_TEST(several_threads_load) {
    pthread_t threads[THREADS];
    int failed[THREADS] = {0};
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, load_and_free, &failed[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(failed[i], 0);
    }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {tells_what_it_loaded,
                                  images_from_files_bytes_and_pixels_agree,
                                  bad_images_are_told_one_by_one,
                                  missing_images_are_told_one_by_one,
                                  refuses_broken_contracts,
                                  another_resolution_and_context,
                                  options_of_other_versions,
                                  texts,
                                  similarity_and_probabilities,
                                  several_threads_use_one_model,
                                  several_threads_load};
    TCase *tcase = tcase_create("library");
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) tcase_add_test(tcase, tests[i]);
    return tw_test_run_case("library", tcase);
}
