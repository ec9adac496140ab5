/* What tw_shapes_write and `tuwen shapes` write, and the pictures themselves: each shows its scene. */
#include "data/shapes.h"
#include "data/tokenizer.h"
#include "shapes_captions.h"
#include "train/commands/commands.h"

#include <jansson.h>
#include <math.h>
#include <spng.h>
#include <sys/stat.h>
#include <turbojpeg.h>
#include <unistd.h>

static char folder[256];

static const char *fresh_folder(void) {
    snprintf(folder, sizeof folder, "/tmp/tw_test_shapes_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    return folder;
}

static const char *const file_names[] = {"train_imgs.tsv", "train_texts.jsonl", "valid_imgs.tsv",
                                         "valid_texts.jsonl", "vocab.txt"};

static char *read_all(const char *dir, const char *name, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *in = fopen(path, "rb");
    ck_assert_msg(in != NULL, "%s is not there", path);
    fseek(in, 0, SEEK_END);
    *size = (size_t)ftell(in);
    rewind(in);
    char *text = malloc(*size + 1);
    ck_assert_uint_eq(fread(text, 1, *size, in), *size);
    text[*size] = 0;
    fclose(in);
    return text;
}

static void remove_folder(const char *dir) {
    char path[512];
    for (size_t i = 0; i < 5; i++) snprintf(path, sizeof path, "%s/%s", dir, file_names[i]), unlink(path);
    ck_assert_msg(rmdir(dir) == 0, "%s holds other files, perhaps temporary ones", dir);
}

static uint64_t hash_folder(const char *dir) {
    uint64_t hash = 1469598103934665603ull; /* FNV-1a */
    for (size_t i = 0; i < 5; i++) {
        size_t size;
        char *text = read_all(dir, file_names[i], &size);
        for (size_t k = 0; k < size; k++) hash = (hash ^ (unsigned char)text[k]) * 1099511628211ull;
        free(text);
    }
    return hash;
}

static size_t decode_base64(const char *text, size_t length, unsigned char *out) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    ck_assert_uint_eq(length % 4, 0);
    for (size_t i = 0; i < length; i += 4) {
        unsigned bits = 0, pad = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *place = text[i + k] == '=' ? NULL : strchr(alphabet, text[i + k]);
            ck_assert(place || (text[i + k] == '=' && i + 4 == length && k > 1));
            pad += !place;
            bits = bits << 6 | (place ? (unsigned)(place - alphabet) : 0);
        }
        for (unsigned k = 0; k < 3 - pad; k++) out[n++] = (unsigned char)(bits >> (16 - 8 * k));
    }
    return n;
}

static void decode_picture(const unsigned char *bytes, size_t size, tw_shapes_format format, int px,
                           unsigned char *rgb) {
    size_t room = 3 * (size_t)px * (size_t)px;
    if (format == TW_SHAPES_PNG) {
        spng_ctx *png = spng_ctx_new(0);
        ck_assert_int_eq(spng_set_png_buffer(png, bytes, size), 0);
        ck_assert_int_eq(spng_decode_image(png, rgb, room, SPNG_FMT_RGB8, 0), 0);
        spng_ctx_free(png);
        return;
    }
    int width, height, sampling, space;
    tjhandle jpeg = tjInitDecompress();
    ck_assert_int_eq(
        tjDecompressHeader3(jpeg, bytes, (unsigned long)size, &width, &height, &sampling, &space), 0);
    ck_assert(width == px && height == px);
    ck_assert_int_eq(tjDecompress2(jpeg, bytes, (unsigned long)size, rgb, px, 0, px, TJPF_RGB, 0), 0);
    tjDestroy(jpeg);
}

/* What a person sees: the name of a pixel's colour, -1 for background. */
static int colour_of(const unsigned char *p) {
    double high = fmax(fmax(p[0], p[1]), p[2]), low = fmin(fmin(p[0], p[1]), p[2]), range = high - low;
    if (high < 90) return 5;
    if (range < 0.35 * high) return -1;
    double hue = high == p[0]   ? 60 * (p[1] - p[2]) / range
                 : high == p[1] ? 120 + 60 * (p[2] - p[0]) / range
                                : 240 + 60 * (p[0] - p[1]) / range;
    if (hue < 0) hue += 360;
    return hue < 22 || hue > 325 ? 0 : hue < 80 ? 1 : hue < 175 ? 2 : hue < 250 ? 3 : 4;
}

static void check_picture(const unsigned char *rgb, int px, const tw_shapes_scene *scene) {
    int count[4][6] = {{0}};
    for (int y = 0; y < px; y++)
        for (int x = 0; x < px; x++) {
            int colour = colour_of(rgb + 3 * (y * px + x));
            if (colour >= 0) count[(y >= px / 2) * 2 + (x >= px / 2)][colour]++;
        }
    for (int place = 0; place < 4; place++) {
        int expected = -1, size = 0, all = 0;
        for (int i = 0; i < (scene->single ? 1 : 2); i++)
            if (scene->object[i].place == place)
                expected = scene->object[i].colour, size = scene->object[i].size;
        for (int c = 0; c < 6; c++) all += count[place][c];
        double share = (double)all / (px * px);
        if (expected < 0) {
            ck_assert_msg(share < 0.004, "place %d should be empty, %.3f is coloured", place, share);
            continue;
        }
        ck_assert_msg(count[place][expected] > 0.9 * all, "place %d: %d of %d pixels have colour %d", place,
                      count[place][expected], all, expected);
        ck_assert_msg(size == 0 ? share > 0.045 && share < 0.11 : share > 0.008 && share < 0.034,
                      "place %d: a %s object covers %.3f", place, size ? "small" : "big", share);
    }
}

/* Checks the files of one split against each other; first_id: of its pictures. */
static void check_files(const char *dir, const char *split, const tw_shapes_options *options, int n,
                        int first_id, const int *scenes, const tw_vocab *vocab) {
    char name[64];
    size_t size, texts_size;
    snprintf(name, sizeof name, "%s_imgs.tsv", split);
    char *images = read_all(dir, name, &size), *line = images;
    snprintf(name, sizeof name, "%s_texts.jsonl", split);
    char *texts = read_all(dir, name, &texts_size), *text = texts;
    unsigned char *bytes = malloc(size), *rgb = malloc(3 * (size_t)options->px * (size_t)options->px);
    for (int i = 0; i < n; i++) {
        char *tab = strchr(line, '\t'), *end = strchr(line, '\n');
        ck_assert(tab && end && tab < end);
        ck_assert_int_eq(atoi(line), first_id + i);
        size_t length = decode_base64(tab + 1, (size_t)(end - tab - 1), bytes);
        decode_picture(bytes, length, options->format, options->px, rgb);
        tw_shapes_scene scene = tw_shapes_scene_at(scenes[i]);
        check_picture(rgb, options->px, &scene);
        line = end + 1;
        for (int k = 0; k < options->captions_per_image; k++) {
            char *stop = strchr(text, '\n');
            ck_assert_ptr_nonnull(stop);
            json_t *record = json_loadb(text, (size_t)(stop - text), 0, NULL);
            ck_assert_ptr_nonnull(record);
            ck_assert_int_eq(json_integer_value(json_object_get(record, "text_id")),
                             (first_id - 1 + i) * options->captions_per_image + k + 1);
            json_t *ids = json_object_get(record, "image_ids");
            ck_assert_uint_eq(json_array_size(ids), 1);
            ck_assert_int_eq(json_integer_value(json_array_get(ids, 0)), first_id + i);
            const char *caption = json_string_value(json_object_get(record, "text"));
            ck_assert_int_eq(parse_caption(caption), scenes[i]);
            int32_t ids_out[TW_SHAPES_CONTEXT];
            int used, full;
            TW_ASSERT_OK(
                tw_tokenize(vocab, caption, strlen(caption), true, TW_SHAPES_CONTEXT, ids_out, &used, &full));
            ck_assert_int_le(full, TW_SHAPES_CONTEXT);
            for (int m = 0; m < used; m++) ck_assert_msg(ids_out[m] != 1, "[UNK] in %s", caption);
            json_decref(record);
            text = stop + 1;
        }
    }
    ck_assert_msg(!*line && !*text, "%s has more records than it should", split);
    free(rgb);
    free(bytes);
    free(texts);
    free(images);
}

static void check_data_set(tw_shapes_format format, int px, int captions) {
    tw_shapes_options options = tw_shapes_defaults();
    options.train = 150, options.valid = 60, options.px = px, options.format = format;
    options.captions_per_image = captions, options.seed = 11;
    const char *dir = fresh_folder();
    tw_shapes_summary summary;
    TW_ASSERT_OK(tw_shapes_write(dir, &options, &summary));
    ck_assert_int_eq(summary.siblings, 30);
    ck_assert(summary.singles > 40 && summary.singles < 110);
    int train[150], valid[60];
    TW_ASSERT_OK(tw_shapes_split(&options, train, valid));
    char path[512];
    snprintf(path, sizeof path, "%s/vocab.txt", dir);
    tw_vocab *vocab = NULL;
    TW_ASSERT_OK(tw_vocab_load(path, &vocab));
    ck_assert_int_eq(tw_vocab_size(vocab), summary.vocabulary);
    check_files(dir, "train", &options, 150, 1, train, vocab);
    check_files(dir, "valid", &options, 60, 151, valid, vocab);
    tw_vocab_free(vocab);
    remove_folder(dir);
}

START_TEST(files_hold_pictures_and_captions_of_the_scenes) {
    check_data_set(TW_SHAPES_JPEG, 64, 1);
    check_data_set(TW_SHAPES_PNG, 48, 3);
    check_data_set(TW_SHAPES_JPEG, 96, TW_SHAPES_CAPTIONS);
}
END_TEST

/* Area over that of the circumscribed circle tells the four shapes apart. */
START_TEST(shapes_have_their_geometry) {
    static const double ratio[] = {1.0, 1.299 / M_PI, 2 / M_PI, 1.1226 / M_PI};
    enum { PX = 512 };
    float *canvas = malloc(3 * PX * PX * sizeof *canvas);
    unsigned char *rgb = malloc(3 * PX * PX);
    for (int shape = 0; shape < 4; shape++)
        for (int seed = 0; seed < 20; seed++) {
            tw_shapes_scene scene = {.object = {{0, 0, shape, seed % 2}, {3, 3, 0, 1}}};
            tw_draw draw = {.seed = (uint64_t)seed, .purpose = TW_DRAW_DATA};
            tw_shapes_draw(&scene, draw, PX, canvas, rgb);
            double area = 0, cx = 0, cy = 0, radius = 0;
            for (int pass = 0; pass < 2; pass++)
                for (int y = 0; y < PX / 2; y++)
                    for (int x = 0; x < PX / 2; x++) {
                        if (colour_of(rgb + 3 * (y * PX + x)) != 0) continue;
                        if (pass == 0)
                            area++, cx += x, cy += y;
                        else
                            radius = fmax(radius, hypot(x - cx / area, y - cy / area));
                    }
            double measured = area / (M_PI * radius * radius);
            ck_assert_msg(fabs(measured - ratio[shape]) < 0.026, "shape %d, seed %d: %.3f, expected %.3f",
                          shape, seed, measured, ratio[shape]);
        }
    free(canvas);
    free(rgb);
}
END_TEST

START_TEST(same_seed_same_bytes) {
    tw_shapes_options options = tw_shapes_defaults();
    options.train = 40, options.valid = 20;
    uint64_t hash[4];
    for (int i = 0; i < 4; i++) {
        options.seed = i == 2 ? 2 : 1;
        if (i == 3) options.seed += 1ull << 32; /* all 64 bits count */
        const char *dir = fresh_folder();
        TW_ASSERT_OK(tw_shapes_write(dir, &options, NULL));
        hash[i] = hash_folder(dir);
        remove_folder(dir);
    }
    ck_assert(hash[0] == hash[1]);
    ck_assert(hash[0] != hash[2] && hash[0] != hash[3]);
}
END_TEST

START_TEST(no_two_pictures_of_a_scene_are_equal) {
    enum { PX = 64, N = 20 };
    static unsigned char rgb[N][3 * PX * PX];
    static float canvas[3 * PX * PX];
    tw_shapes_scene scene = tw_shapes_scene_at(4321);
    for (uint32_t i = 0; i < N; i++) {
        tw_draw draw = {.seed = 1, .purpose = TW_DRAW_DATA, .step = i % 2, .sample = i / 2};
        tw_shapes_draw(&scene, draw, PX, canvas, rgb[i]);
        check_picture(rgb[i], PX, &scene);
        for (uint32_t k = 0; k < i; k++) ck_assert(memcmp(rgb[i], rgb[k], sizeof rgb[i]) != 0);
    }
}
END_TEST

START_TEST(refuses_bad_options) {
    tw_shapes_options good = tw_shapes_defaults(), bad;
    const char *nowhere = "/tmp/tw_test_shapes_must_not_appear";
    bad = good, bad.train = 0;
    TW_ASSERT_FAILS(tw_shapes_write(nowhere, &bad, NULL), TW_ERR_CONFIG, "train");
    bad = good, bad.valid = TW_SHAPES_VALID_MAX + 1;
    TW_ASSERT_FAILS(tw_shapes_write(nowhere, &bad, NULL), TW_ERR_CONFIG, "it must be 1 to 4000");
    bad = good, bad.px = 31;
    TW_ASSERT_FAILS(tw_shapes_write(nowhere, &bad, NULL), TW_ERR_CONFIG, "size (pixels) is 31");
    bad = good, bad.captions_per_image = 13;
    TW_ASSERT_FAILS(tw_shapes_write(nowhere, &bad, NULL), TW_ERR_CONFIG, "captions-per-image");
    bad = good, bad.format = (tw_shapes_format)7;
    TW_ASSERT_FAILS(tw_shapes_write(nowhere, &bad, NULL), TW_ERR_CONFIG, "format");
    ck_assert(access(nowhere, F_OK) != 0);
}
END_TEST

static tw_status command(const char *a, const char *b, const char *c, const char *d) {
    char *argv[] = {(char *)"shapes", (char *)a, (char *)b, (char *)c, (char *)d, NULL};
    int argc = 1;
    while (argv[argc]) argc++;
    return tw_command_shapes(argc, argv);
}

START_TEST(command_line) {
    const char *dir = "/tmp/tw_test_shapes_must_not_appear";
    TW_ASSERT_FAILS(command(NULL, NULL, NULL, NULL), TW_ERR_CONFIG, "DIR");
    TW_ASSERT_FAILS(command("", NULL, NULL, NULL), TW_ERR_CONFIG, "empty");
    TW_ASSERT_FAILS(command(dir, "b", NULL, NULL), TW_ERR_CONFIG, "'b'");
    TW_ASSERT_FAILS(command(dir, "--trainn", "3", NULL), TW_ERR_CONFIG, "--trainn");
    TW_ASSERT_FAILS(command(dir, "--train=10000001", NULL, NULL), TW_ERR_CONFIG, "--train: 10000001");
    TW_ASSERT_FAILS(command(dir, "--valid", "4001", NULL), TW_ERR_CONFIG, "--valid: 4001");
    TW_ASSERT_FAILS(command(dir, "--captions-per-image", "13", NULL), TW_ERR_CONFIG, "captions");
    TW_ASSERT_FAILS(command(dir, "--seed", "-1", NULL), TW_ERR_CONFIG, "--seed: -1");
    TW_ASSERT_FAILS(command(dir, "--format", "webp", NULL), TW_ERR_CONFIG, "jpeg|png");
    TW_ASSERT_FAILS(command(dir, "--size=31", NULL, NULL), TW_ERR_CONFIG, "--size: 31");
    TW_ASSERT_OK(command("--help", NULL, NULL, NULL));
    ck_assert(access(dir, F_OK) != 0);
}
END_TEST

START_TEST(keeps_what_is_there) {
    const char *dir = fresh_folder();
    char deep[512], file[600];
    snprintf(deep, sizeof deep, "%s/a//b/", dir); /* made with its parents */
    TW_ASSERT_OK(command(deep, "--train=3", "--valid=2", NULL));
    uint64_t hash = hash_folder(deep);
    TW_ASSERT_FAILS(command(deep, "--train=3", "--valid=2", "--seed=9"), TW_ERR_CONFIG, "--force");
    ck_assert(hash_folder(deep) == hash);
    TW_ASSERT_OK(command(deep, "--force", "--train=4", "--valid=2"));
    ck_assert(hash_folder(deep) != hash);
    snprintf(file, sizeof file, "%s/vocab.txt/x", deep); /* below a file */
    TW_ASSERT_FAILS(command(file, NULL, NULL, NULL), TW_ERR_IO, "vocab.txt");
    remove_folder(deep);
    snprintf(deep, sizeof deep, "%s/a", dir);
    remove_folder(deep);
    remove_folder(dir);
}
END_TEST

TW_TEST_MAIN("shapes_files", files_hold_pictures_and_captions_of_the_scenes, shapes_have_their_geometry,
             same_seed_same_bytes, no_two_pictures_of_a_scene_are_equal, refuses_bad_options, command_line,
             keeps_what_is_there)
