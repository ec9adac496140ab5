/* `tuwen info` on what the other parts write. */
#include "tw_test.h"

#include "data/files.h"
#include "data/shard_writer.h"
#include "train/commands/commands.h"
#include "train/formats/features.h"
#include "train/formats/run_folder.h"

#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

static char folder[64], buffer[4][512];

static void make_folder(void) {
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(folder, sizeof folder, "%s/tw_info_XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static char *in_folder(int slot, const char *name) {
    snprintf(buffer[slot], sizeof buffer[slot], "%s/%s", folder, name);
    return buffer[slot];
}

/* What the command writes to standard output; freed by the caller. */
static tw_status run_info(char *path, bool as_json, char **text) {
    char name[] = "info", flag[] = "--json";
    char *argv[] = {name, path, as_json ? flag : NULL, NULL};
    fflush(stdout);
    int old = dup(STDOUT_FILENO), file = open(in_folder(3, "stdout"), O_CREAT | O_TRUNC | O_RDWR, 0600);
    ck_assert_int_ge(dup2(file, STDOUT_FILENO), 0);
    tw_status status = tw_command_info(as_json ? 3 : 2, argv);
    fflush(stdout);
    dup2(old, STDOUT_FILENO);
    close(old);
    off_t size = lseek(file, 0, SEEK_END);
    *text = calloc(1, (size_t)size + 1);
    ck_assert_int_eq(pread(file, *text, (size_t)size, 0), size);
    close(file);
    return status;
}

static json_t *info_of(const char *name) {
    char *text;
    TW_ASSERT_OK(run_info(in_folder(0, name), true, &text));
    json_t *o = json_loads(text, 0, NULL);
    ck_assert_msg(o != NULL, "not JSON: %s", text);
    free(text);
    return o;
}

static int64_t number(json_t *o, const char *key) {
    ck_assert_msg(json_is_integer(json_object_get(o, key)), "no number %s", key);
    return json_integer_value(json_object_get(o, key));
}

static void write_run(void) {
    static float values[60];
    static char model[] = "name: tiny\nembed_dim: 64\n", vocab[] = "[PAD]\n[UNK]\na";
    const tw_checkpoint_tensor t[] = {
        {"visual.proj", 2, {6, 10}, values, values, values},
        {"bert.w", 1, {7}, values, values, values},
        {"text_projection", 1, {3}, values, NULL, NULL},
        {"logit_scale", 0, {0}, values, NULL, NULL},
    };
    tw_checkpoint_meta m;
    tw_checkpoint_meta_init(&m);
    m.model_yaml = model, m.vocab = vocab, m.vocab_bytes = sizeof vocab - 1;
    m.step = 12, m.epoch = 1, m.seed = 123, m.best_r1 = 71.4, m.best_step = 10;
    TW_ASSERT_OK(tw_run_folder_save(in_folder(0, "run"), &m, t, 4, true, 3));
}

START_TEST(describes_a_checkpoint) {
    make_folder();
    write_run();
    const char *const names[] = {"run", "run/best", "run/epoch_1_step_12.h5"};
    for (int i = 0; i < 3; i++) {
        json_t *o = info_of(names[i]), *p = json_object_get(o, "parameters"),
               *t = json_object_get(o, "training");
        ck_assert_str_eq(json_string_value(json_object_get(o, "kind")), "checkpoint");
        ck_assert(number(p, "total") == 71 && number(p, "image_tower") == 60 && number(p, "text_tower") == 7);
        ck_assert(number(p, "other") == 4 && number(o, "tensors") == 4 &&
                  number(o, "tensors_with_moments") == 2);
        ck_assert(number(t, "step") == 12 && number(t, "epoch") == 1 && number(t, "seed") == 123);
        ck_assert_int_eq(number(o, "vocabulary"), 3);
        ck_assert(json_real_value(json_object_get(t, "best_r1")) == 71.4);
        json_decref(o);
    }
    char *text;
    TW_ASSERT_OK(run_info(in_folder(0, "run"), false, &text));
    ck_assert_msg(strstr(text, "model:\n  name: tiny\n  embed_dim: 64\n") != NULL, "%s", text);
    ck_assert_msg(strstr(text, "  image_tower: 60\n") != NULL, "%s", text);
    free(text);
    tw_remove_folder(in_folder(0, "run"));
    tw_remove_folder(folder);
}
END_TEST

START_TEST(describes_a_data_set) {
    static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n', 0, 0, 0, 0};
    static const char *const texts[] = {"\xe5\x9b\xbe\xe6\x96\x87", "abcd"};
    const tw_shard_options options = {.format = TW_SHARDS_RAW};
    const tw_id image = {"7", 1, true}, ids[] = {{"1", 1, true}, {"2", 1, true}};
    make_folder();
    tw_shard_writer *w;
    TW_ASSERT_OK(tw_shard_writer_open(in_folder(0, "lmdb/valid"), &options, &w));
    TW_ASSERT_OK(tw_shard_writer_image(w, &image, png, sizeof png));
    for (int i = 0; i < 2; i++)
        TW_ASSERT_OK(tw_shard_writer_pair(w, &image, &ids[i], texts[i], strlen(texts[i])));
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
    json_t *o = info_of("lmdb/valid");
    ck_assert(number(o, "pairs") == 2 && number(o, "images") == 1 && number(o, "bad_pairs") == 0);
    ck_assert(json_number_value(json_object_get(o, "caption_characters_mean")) == 3.0);
    ck_assert_int_eq(number(o, "caption_characters_max"), 4);
    json_decref(o);
    const char *const above[] = {"lmdb", "."};
    for (int i = 0; i < 2; i++) {
        o = info_of(above[i]);
        ck_assert_int_eq(number(json_object_get(json_object_get(o, "splits"), "valid"), "pairs"), 2);
        json_decref(o);
    }
    tw_remove_folder(in_folder(0, "lmdb/valid"));
    tw_remove_folder(in_folder(0, "lmdb"));
    tw_remove_folder(folder);
}
END_TEST

START_TEST(describes_features_and_refuses_the_rest) {
    const float values[6] = {1, 2, 3, 4, 5, 6};
    const tw_id ids[] = {{"1", 1, true}, {"2", 1, true}};
    make_folder();
    tw_features_writer *w;
    char *text;
    TW_ASSERT_OK(tw_features_create(in_folder(0, "f.h5"), TW_FEATURES_TEXT, 3, "m", &w));
    TW_ASSERT_OK(tw_features_append(w, ids, values, 2));
    TW_ASSERT_OK(tw_features_commit(w));
    json_t *o = info_of("f.h5");
    ck_assert(number(o, "count") == 2 && number(o, "dimension") == 3);
    ck_assert_str_eq(json_string_value(json_object_get(o, "of")), "text");
    json_decref(o);
    TW_ASSERT_FAILS(run_info(in_folder(0, "none"), false, &text), TW_ERR_IO, "none: No such file");
    ck_assert_str_eq(text, "");
    free(text);
    TW_ASSERT_FAILS(run_info(folder, false, &text), TW_ERR_NOT_FOUND, "neither a run folder");
    free(text);
    TW_ASSERT_FAILS(run_info(in_folder(0, "stdout"), false, &text), TW_ERR_FORMAT, "is empty");
    free(text);
    tw_remove_folder(folder);
}
END_TEST

TW_TEST_MAIN("info", describes_a_checkpoint, describes_a_data_set, describes_features_and_refuses_the_rest)
