#include "train/config.h"
#include "train/config_table.h"
#include "tw_test.h"

#include <unistd.h>

/* Parses one YAML text over the defaults. */
static tw_status parse(tw_config *config, const char *text) {
    tw_config_free(config);
    TRY(tw_config_init(config));
    return tw_config_parse_yaml(text, strlen(text), "r.yaml", config);
}

START_TEST(defaults_are_the_originals) {
    tw_config c;
    TW_ASSERT_OK(tw_config_init(&c));
    ck_assert_double_eq(c.lr, 5e-4);
    ck_assert_double_eq(c.weight_decay, 0.2);
    ck_assert_double_eq(c.beta1, 0.9);
    ck_assert_double_eq(c.beta2, TW_CONFIG_AUTO); /* by the image tower: tests/test_train.sh */
    ck_assert_double_eq(c.eps, TW_CONFIG_AUTO);
    ck_assert_int_eq(c.warmup, 500);
    ck_assert_int_eq(c.batch, 64);
    ck_assert_int_eq(c.epochs, 32);
    ck_assert_int_eq(c.seed, 123);
    ck_assert_int_eq(c.context_length, 52);
    ck_assert(!c.use_augment);
    ck_assert(c.val_at_start);
    ck_assert_uint_eq(c.no_decay.count, 4);
    ck_assert_str_eq(c.no_decay.items[3], "logit_scale");
    ck_assert_str_eq(c.train_data, "");
    ck_assert_uint_eq(c.freeze.count, 0);
    ck_assert_ptr_null(c.origin[TW_CONFIG_KEY_lr]);
    TW_ASSERT_OK(tw_config_check(&c));
    tw_config_free(&c);
    tw_config_free(&c); /* twice, and NULL, are fine */
    tw_config_free(NULL);
}
END_TEST

START_TEST(enum_constants_stand_in_the_order_of_the_choices) {
    tw_config c;
    char text[32];
    TW_ASSERT_OK(tw_config_init(&c));
#define CHECK_ENUM(field, constant, name)                                                                    \
    do {                                                                                                     \
        TW_ASSERT_OK(tw_config_set(&c, #field, name, "test"));                                               \
        ck_assert_int_eq(c.field, constant);                                                                 \
        tw_config_value_text(&c, #field, text, sizeof text);                                                 \
        ck_assert_str_eq(text, name);                                                                        \
    } while (0)
    CHECK_ENUM(last_batch, TW_CONFIG_LAST_BATCH_SHORT, "short");
    CHECK_ENUM(last_batch, TW_CONFIG_LAST_BATCH_DROP, "drop");
    CHECK_ENUM(last_batch, TW_CONFIG_LAST_BATCH_PAD, "pad");
    CHECK_ENUM(schedule, TW_CONFIG_SCHEDULE_COSINE, "cosine");
    CHECK_ENUM(schedule, TW_CONFIG_SCHEDULE_CONSTANT, "constant");
    CHECK_ENUM(schedule, TW_CONFIG_SCHEDULE_LINEAR, "linear");
    CHECK_ENUM(precision, TW_CONFIG_PRECISION_F32, "f32");
    CHECK_ENUM(precision, TW_CONFIG_PRECISION_BF16, "bf16");
    CHECK_ENUM(tf32, TW_CONFIG_TF32_AUTO, "auto");
    CHECK_ENUM(tf32, TW_CONFIG_TF32_TRUE, "true");
    CHECK_ENUM(tf32, TW_CONFIG_TF32_FALSE, "false");
    CHECK_ENUM(recompute, TW_CONFIG_RECOMPUTE_NONE, "none");
    CHECK_ENUM(recompute, TW_CONFIG_RECOMPUTE_LIGHT, "light");
    CHECK_ENUM(recompute, TW_CONFIG_RECOMPUTE_BLOCK, "block");
    CHECK_ENUM(device, TW_CONFIG_DEVICE_AUTO, "auto");
    CHECK_ENUM(device, TW_CONFIG_DEVICE_CPU, "cpu");
    CHECK_ENUM(device, TW_CONFIG_DEVICE_CUDA, "cuda");
    tw_config_free(&c);
}
END_TEST

/* Each row's range must be readable and refuse something, and its help be one line. */
START_TEST(every_row_is_sound) {
    tw_config c;
    size_t keys = 0;
    TW_ASSERT_OK(tw_config_init(&c));
    for (size_t i = 0; i < tw_config_row_count; i++) {
        const tw_config_row *row = &tw_config_rows[i];
        if (row->section) continue;
        keys++;
        ck_assert_msg(strlen(row->help) > 0 && !strchr(row->help, '\n'), "%s: help", row->name);
        bool number = row->type == TW_CONFIG_INT || row->type == TW_CONFIG_FLOAT ||
                      row->type == TW_CONFIG_AUTO_INT || row->type == TW_CONFIG_AUTO_FLOAT;
        ck_assert_msg(number == (row->range != NULL), "%s: range", row->name);
        ck_assert_msg((row->type == TW_CONFIG_ENUM) == (row->choices != NULL), "%s: choices", row->name);
        if (number) TW_ASSERT_FAILS(tw_config_set(&c, row->name, "-1", "f:1"), TW_ERR_CONFIG, row->range);
        if (number) TW_ASSERT_FAILS(tw_config_set(&c, row->name, "1e12", "f:1"), TW_ERR_CONFIG, row->name);
        if (row->type == TW_CONFIG_BOOL || row->type == TW_CONFIG_ENUM)
            TW_ASSERT_FAILS(tw_config_set(&c, row->name, "?", "f:1"), TW_ERR_CONFIG, row->name);
    }
    ck_assert_uint_eq(keys, TW_CONFIG_KEYS);
    tw_config_free(&c);
}
END_TEST

START_TEST(yaml_sets_every_type) {
    tw_config c = {0};
    TW_ASSERT_OK(parse(&c, "# a recipe\n"
                           "train-data: data/训练\n"
                           "batch: 128\n"
                           "lr: 2e-5\n"
                           "use_augment: yes\n"
                           "schedule: linear\n"
                           "freeze: [\"*.bias\", 'a, b']\n"
                           "no_decay:\n  - bn\n  - ln\n"
                           "init: ~\n"
                           "name: \"\"\n"));
    ck_assert_str_eq(c.train_data, "data/训练");
    ck_assert_int_eq(c.batch, 128);
    ck_assert_double_eq(c.lr, 2e-5);
    ck_assert(c.use_augment);
    ck_assert_int_eq(c.schedule, TW_CONFIG_SCHEDULE_LINEAR);
    ck_assert_uint_eq(c.freeze.count, 2);
    ck_assert_str_eq(c.freeze.items[1], "a, b"); /* a YAML item is taken as it is */
    ck_assert_uint_eq(c.no_decay.count, 2);
    ck_assert_str_eq(c.init, "");
    ck_assert_str_eq(c.origin[TW_CONFIG_KEY_batch], "r.yaml:3");
    TW_ASSERT_OK(parse(&c, "no_decay: bn, ln, x\nfreeze:\n"));
    ck_assert_uint_eq(c.no_decay.count, 3);
    ck_assert_uint_eq(c.freeze.count, 0);
    TW_ASSERT_OK(parse(&c, "no_decay: []\n"));
    ck_assert_uint_eq(c.no_decay.count, 0);
    tw_config_free(&c);
}
END_TEST

START_TEST(yaml_errors_say_where_and_what) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"lr: 1e-3\nbatchsize: 3\n", "r.yaml:2: unknown key 'batchsize'; did you mean 'batch'?"},
        {"colour: red\n", "r.yaml:1: unknown key 'colour'; 'tuwen train --help' lists the keys"},
        {"\n\nbatch: 0\n", "r.yaml:3: batch: 0 is outside the allowed range [1, 1048576]"},
        {"beta1: 1\n", "r.yaml:1: beta1: 1 is outside the allowed range [0, 1)"},
        {"lr: 0\n", "r.yaml:1: lr: 0 is outside the allowed range (0, 10]"},
        {"lr: nan\n", "r.yaml:1: lr: 'nan' is not a number in (0, 10]"},
        {"batch: 12x\n", "r.yaml:1: batch: '12x' is not an integer in [1, 1048576]"},
        {"batch:\n", "r.yaml:1: batch: '' is not an integer"},
        {"use_augment: maybe\n", "r.yaml:1: use_augment: 'maybe' is neither true nor false"},
        {"schedule: step\n", "r.yaml:1: schedule: 'step' is none of cosine|constant|linear"},
        {"batch: 1\nlr: 1\nbatch: 2\n", "r.yaml:3: batch was set in line 1 already"},
        {"max-steps: 1\nmax_steps: 2\n", "r.yaml:2: max_steps was set in line 1 already"},
        {"batch: [1, 2]\n", "r.yaml:1: batch: takes one value, not a list"},
        {"batch: {a: 1}\n", "r.yaml:1: batch: the configuration is flat"},
        {"freeze: [[a]]\n", "r.yaml:1: a list holds single values"},
        {"freeze: [a, \"\"]\n", "r.yaml:1: freeze: item 2 of the list is empty"},
        {"freeze: [*.bias]\n", "r.yaml:1: "}, /* libyaml reads no such alias */
        {"freeze: [*bias]\n", "r.yaml:1: aliases are not supported; quote a pattern"},
        {"batch: &a 3\n", "r.yaml:1: anchors are not supported"},
        {"batch: !!int 3\n", "r.yaml:1: tags are not supported"},
        {"!!map\nbatch: 3\n", "r.yaml:1: tags are not supported"},
        {"freeze: !x [a]\n", "r.yaml:1: tags are not supported"},
        {"name: !!binary aGk=\n", "r.yaml:1: tags are not supported"},
        {"[batch]: 3\n", "r.yaml:1: a key must be a name"},
        {"- batch\n", "r.yaml:1: expected lines of the form 'key: value'"},
        {"batch\n", "r.yaml:1: expected lines of the form 'key: value'"},
        {"batch: 3\n---\nbatch: 4\n", "r.yaml:2: a second document"},
        {"", "r.yaml: the file is empty"},
        {"# nothing\n", "r.yaml: the file is empty"},
        {"batch: 3\n  lr: 4\n", "r.yaml:1: batch: '3 lr' is not an integer"},
        {"batch: 3\n\tlr: 4\n", "r.yaml:2: not valid YAML"},
        {"batch: 3\nname: \"open\n", "not valid YAML"},
        {"name: \"a\\0b\"\n", "r.yaml:1: a text with a NUL character"},
        {"name: \xff\n", "r.yaml: at byte 6"},
    };
    tw_config c = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        TW_ASSERT_FAILS(parse(&c, cases[i].text), TW_ERR_CONFIG, cases[i].message);
    tw_config_free(&c);
}
END_TEST

/* Every byte of a recipe replaced by each of YAML's own characters and some others: read or refused, never
 * more. */
START_TEST(damaged_files_are_read_or_refused) {
    static const char recipe[] =
        "# r\nbatch: 12\nlr: \"2e-5\"\nfreeze: [\"*.b\", 'c, d']\nno_decay:\n  - bn\n  - ln\n";
    static const char bytes[] = "\0\t\n !\"#%&'*,-:>?@[]{|}~\\a0\x7f\x80\xe5\xff";
    size_t refused = 0, read = 0;
    for (size_t at = 0; at < sizeof recipe - 1; at++)
        for (size_t b = 0; b < sizeof bytes - 1; b++) {
            char text[sizeof recipe];
            tw_config c;
            memcpy(text, recipe, sizeof text);
            text[at] = bytes[b];
            TW_ASSERT_OK(tw_config_init(&c));
            tw_status status = tw_config_parse_yaml(text, sizeof text - 1, "r.yaml", &c);
            ck_assert_msg(status == TW_OK || status == TW_ERR_CONFIG, "%s: %s", text, tw_last_error());
            if (status) ck_assert_msg(strncmp(tw_last_error(), "r.yaml:", 7) == 0, "%s", tw_last_error());
            refused += status != TW_OK;
            read += status == TW_OK;
            tw_config_free(&c);
        }
    ck_assert_uint_gt(refused, 300);
    ck_assert_uint_gt(read, 300);
}
END_TEST

START_TEST(unreadable_files_are_refused) {
    tw_config c;
    TW_ASSERT_OK(tw_config_init(&c));
    TW_ASSERT_FAILS(tw_config_load_yaml("/nowhere/x.yaml", &c), TW_ERR_IO,
                    "cannot open /nowhere/x.yaml: No such");
    TW_ASSERT_FAILS(tw_config_load_yaml("/tmp", &c), TW_ERR_IO, "/tmp: it is a folder");
    TW_ASSERT_FAILS(tw_config_load_yaml("/dev/zero", &c), TW_ERR_IO, "pipe or device");
    char path[] = "/tmp/tw-config-XXXXXX";
    int fd = mkstemp(path);
    ck_assert(fd >= 0 && ftruncate(fd, 2 << 20) == 0 && close(fd) == 0);
    TW_ASSERT_FAILS(tw_config_load_yaml(path, &c), TW_ERR_CONFIG, "larger than 1 MiB");
    unlink(path);
    tw_config_free(&c);
}
END_TEST

START_TEST(yaml_written_reads_back_equal) {
    tw_config a, b;
    char *text = NULL;
    TW_ASSERT_OK(tw_config_init(&a));
    TW_ASSERT_OK(tw_config_init(&b));
    static const char *const strings[] = {
        "plain",       "",          "~",          "null",
        "true",        "- x",       "a: b # c",   "\"quoted\" 'it'",
        "back\\slash", "tab\there", "two\nlines", " lead",
        "trail ",      "图文 🎉",    "\x01\x7f",   "\xc2\x85\xe2\x80\xa8\xef\xbb\xbf",
        "a\r\nb\n\n"};
    const char *const items[] = {"visual.*", "a, b", "*", "[x]", "图"};
    TW_ASSERT_OK(tw_config_set_list(&a, "freeze", items, 5, "test"));
    TW_ASSERT_OK(tw_config_set_list(&a, "no_decay", NULL, 0, "test"));
    TW_ASSERT_OK(tw_config_set(&a, "lr", "0.00033333333333333332", "test"));
    TW_ASSERT_OK(tw_config_set(&a, "use_augment", "1", "test"));
    TW_ASSERT_OK(tw_config_set(&a, "precision", "bf16", "test"));
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        TW_ASSERT_OK(tw_config_set(&a, "name", strings[i], "test"));
        TW_ASSERT_OK(tw_config_to_yaml(&a, &text));
        TW_ASSERT_OK(tw_config_parse_yaml(text, strlen(text), "stored", &b));
        const char *differs = tw_config_difference(&a, &b);
        ck_assert_msg(differs == NULL, "%s differs in\n%s", differs, text);
        free(text);
    }
    TW_ASSERT_OK(tw_config_set(&b, "beta1", "0.90000000000000002", "test")); /* the same double */
    ck_assert_ptr_null(tw_config_difference(&a, &b));
    TW_ASSERT_OK(tw_config_set(&b, "beta1", "0.9000000000000001", "test"));
    ck_assert_str_eq(tw_config_difference(&a, &b), "beta1");
    tw_config_free(&a);
    tw_config_free(&b);
}
END_TEST

START_TEST(values_must_be_utf8) {
    tw_config c;
    TW_ASSERT_OK(tw_config_init(&c));
    TW_ASSERT_FAILS(tw_config_set(&c, "output", "ab\xff", "--output"), TW_ERR_CONFIG,
                    "--output: the value is not UTF-8 at byte 2");
    tw_config_free(&c);
}
END_TEST

static tw_status parse_args(tw_config *config, bool *help, const char *const *args) {
    int argc = 0;
    char *argv[16] = {(char *)(uintptr_t) "train"};
    while (args[argc]) {
        argv[argc + 1] = (char *)(uintptr_t)args[argc];
        argc++;
    }
    tw_config_free(config);
    TRY(tw_config_init(config));
    const tw_options options = {.command = "train", .summary = "Trains.", .example = "tuwen train"};
    return tw_config_parse_args(argc + 1, argv, config, &options, help);
}

#define ARGS(config, ...) parse_args((config), &(bool){false}, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(the_command_line_wins_over_files) {
    char path[] = "/tmp/tw_test_config_XXXXXX", second[] = "/tmp/tw_test_config_XXXXXX";
    FILE *file = fdopen(mkstemp(path), "w");
    fputs("batch: 32\nlr: 1e-3\nepochs: 2\n", file);
    fclose(file);
    file = fdopen(mkstemp(second), "w");
    fputs("epochs: 7\n", file);
    fclose(file);
    tw_config c = {0};
    TW_ASSERT_OK(ARGS(&c, "--batch=16", "--config", path, "--use-augment", "--val_at_start", "false",
                      "--config", second, "--freeze", "visual.*,bert.*"));
    ck_assert_int_eq(c.batch, 16);
    ck_assert_double_eq(c.lr, 1e-3);
    ck_assert_int_eq(c.epochs, 7);
    ck_assert_int_eq(c.warmup, 500);
    ck_assert(c.use_augment);
    ck_assert(!c.val_at_start);
    ck_assert_uint_eq(c.freeze.count, 2);
    ck_assert_str_eq(c.origin[TW_CONFIG_KEY_batch], "--batch");
    tw_config_free(&c);
    remove(path);
    remove(second);
}
END_TEST

START_TEST(command_line_errors_name_the_argument) {
    tw_config c = {0};
    TW_ASSERT_FAILS(ARGS(&c, "--batch", "0"), TW_ERR_CONFIG,
                    "--batch: 0 is outside the allowed range [1, 1048576]");
    ck_assert_ptr_null(strstr(tw_last_error(), "batch: batch"));
    TW_ASSERT_FAILS(ARGS(&c, "--batch_size", "8"), TW_ERR_CONFIG,
                    "unknown option '--batch_size'; did you mean '--batch'?");
    TW_ASSERT_FAILS(ARGS(&c, "--batch", "8", "stray"), TW_ERR_CONFIG, "unexpected argument 'stray'");
    TW_ASSERT_FAILS(ARGS(&c, "--config", "/nowhere.yaml"), TW_ERR_IO, "/nowhere.yaml");
    TW_ASSERT_FAILS(ARGS(&c, "--batch", "8", "--micro-batch", "9"), TW_ERR_CONFIG,
                    "micro_batch 9 (--micro_batch) is larger than batch 8 (--batch)");
    TW_ASSERT_OK(ARGS(&c, "--batch", "8", "--micro-batch", "8"));
    char text[16], *yaml;
    TW_ASSERT_OK(ARGS(&c, "--batch", "8", "--micro-batch", "auto"));
    ck_assert_int_eq(c.micro_batch, TW_CONFIG_AUTO);
    tw_config_value_text(&c, "micro_batch", text, sizeof text);
    ck_assert_str_eq(text, "auto");
    TW_ASSERT_OK(tw_config_to_yaml(&c, &yaml));
    ck_assert_ptr_nonnull(strstr(yaml, "micro_batch: auto"));
    free(yaml);
    TW_ASSERT_FAILS(ARGS(&c, "--micro-batch", "autos"), TW_ERR_CONFIG, "--micro");
    TW_ASSERT_OK(ARGS(&c, "--beta2", "0.5", "--eps", "auto"));
    ck_assert_double_eq(c.beta2, 0.5);
    ck_assert_double_eq(c.eps, TW_CONFIG_AUTO);
    TW_ASSERT_OK(tw_config_to_yaml(&c, &yaml));
    ck_assert(strstr(yaml, "beta2: 0.5\n") && strstr(yaml, "eps: auto\n"));
    free(yaml);
    TW_ASSERT_FAILS(ARGS(&c, "--eps", "autos"), TW_ERR_CONFIG, "--eps");
    TW_ASSERT_FAILS(ARGS(&c, "--val_texts", "t.jsonl"), TW_ERR_CONFIG, "without val_data");
    TW_ASSERT_OK(ARGS(&c, "--batch", "8"));
    TW_ASSERT_FAILS(tw_config_require(&c, "train_data"), TW_ERR_CONFIG,
                    "train_data is not set: give --train_data");
    TW_ASSERT_OK(tw_config_set(&c, "train_data", "x", "test"));
    TW_ASSERT_OK(tw_config_require(&c, "train_data"));
    tw_config_free(&c);
}
END_TEST

static char *generated(void (*print)(FILE *)) {
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    print(memory);
    fclose(memory);
    return text;
}

START_TEST(the_documentation_is_current) {
    char *wanted = generated(tw_config_write_markdown);
    FILE *file = fopen(TW_SOURCE_DIR "/docs/configuration.md", "r");
    ck_assert_ptr_nonnull(file);
    char *found = calloc(1, strlen(wanted) + 2);
    ck_assert_uint_gt(fread(found, 1, strlen(wanted) + 1, file), 0);
    fclose(file);
    ck_assert_msg(strcmp(found, wanted) == 0,
                  "docs/configuration.md is old: run tuwen --configuration-markdown > docs/configuration.md");
    free(found);
    free(wanted);
}
END_TEST

START_TEST(help_names_every_key) {
    char *text = generated(tw_config_print_help);
    for (size_t i = 0; i < tw_config_row_count; i++) {
        char option[64];
        if (!tw_config_rows[i].name) continue;
        snprintf(option, sizeof option, "--%s ", tw_config_rows[i].name);
        ck_assert_msg(strstr(text, option) != NULL, "help lacks %s", option);
    }
    ck_assert_ptr_nonnull(strstr(text, "peak learning rate, (0, 10] (default: 5e-4)"));
    free(text);
}
END_TEST

TW_TEST_MAIN("config", defaults_are_the_originals, enum_constants_stand_in_the_order_of_the_choices,
             every_row_is_sound, yaml_sets_every_type, yaml_errors_say_where_and_what,
             damaged_files_are_read_or_refused, unreadable_files_are_refused, yaml_written_reads_back_equal,
             values_must_be_utf8, the_command_line_wins_over_files, command_line_errors_name_the_argument,
             the_documentation_is_current, help_names_every_key)
