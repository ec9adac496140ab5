#include "train/options.h"
#include "train/values.h"
#include "tw_test.h"

#include <math.h>

typedef struct settings {
    bool strict;
    int64_t top;
    double rate;
    const char *output, *data, *more;
    int format;
} settings;

/* Parses with every type of row; the last argument is NULL. */
static tw_status parse(settings *s, bool *help, const char *const *args) {
    int argc = 0;
    char *argv[16] = {(char *)(uintptr_t) "demo"};
    while (args[argc]) {
        argv[argc + 1] = (char *)(uintptr_t)args[argc];
        argc++;
    }
    *s = (settings){.top = 10, .rate = 0.5, .format = 1};
    const tw_option rows[] = {
        {.name = "DATA",
         .type = TW_OPTION_POSITIONAL,
         .target = &s->data,
         .required = true,
         .help = "the data"},
        {.name = "MORE", .type = TW_OPTION_POSITIONAL, .target = &s->more, .help = "more data"},
        {.name = "strict", .type = TW_OPTION_FLAG, .target = &s->strict, .help = "refuse bad records"},
        {.name = "top_k", .type = TW_OPTION_INT, .target = &s->top, .range = "[1, 100]", .help = "answers"},
        {.name = "rate", .type = TW_OPTION_FLOAT, .target = &s->rate, .range = "[0, 1)", .help = "a rate"},
        {.name = "output", .type = TW_OPTION_STRING, .target = &s->output, .help = "file to write"},
        {.name = "format",
         .type = TW_OPTION_CHOICE,
         .target = &s->format,
         .choices = "h5|npy",
         .help = "its format"},
    };
    const tw_options options = {.command = "demo",
                                .summary = "Shows off.",
                                .example = "tuwen demo x",
                                .rows = rows,
                                .count = sizeof rows / sizeof rows[0]};
    return tw_options_parse(&options, argc + 1, argv, help);
}

#define PARSE(s, ...) parse((s), &(bool){false}, (const char *const[]){__VA_ARGS__, NULL})

START_TEST(all_forms_are_read) {
    settings s;
    TW_ASSERT_OK(
        PARSE(&s, "data", "--top-k", "7", "--rate=0.25", "--strict", "--format", "h5", "--output=a=b"));
    ck_assert_str_eq(s.data, "data");
    ck_assert_ptr_null(s.more);
    ck_assert_int_eq(s.top, 7);
    ck_assert_double_eq(s.rate, 0.25);
    ck_assert(s.strict);
    ck_assert_int_eq(s.format, 0);
    ck_assert_str_eq(s.output, "a=b");
}
END_TEST

START_TEST(defaults_stay_and_the_last_value_stands) {
    settings s;
    TW_ASSERT_OK(PARSE(&s, "data", "--top_k=3", "--top_k=4"));
    ck_assert_int_eq(s.top, 4);
    ck_assert_double_eq(s.rate, 0.5);
    ck_assert(!s.strict);
    ck_assert_int_eq(s.format, 1);
    ck_assert_ptr_null(s.output);
}
END_TEST

START_TEST(flags_take_a_word_but_not_a_positional) {
    settings s;
    TW_ASSERT_OK(PARSE(&s, "--strict", "false", "data"));
    ck_assert(!s.strict);
    TW_ASSERT_OK(PARSE(&s, "--strict", "1"));
    ck_assert(s.strict);
    ck_assert_str_eq(s.data, "1");
    TW_ASSERT_OK(PARSE(&s, "--strict=0", "data"));
    ck_assert(!s.strict);
}
END_TEST

START_TEST(positionals_fill_in_order) {
    settings s;
    TW_ASSERT_OK(PARSE(&s, "-", "--top_k", "5", "--", "--data"));
    ck_assert_str_eq(s.data, "-");
    ck_assert_str_eq(s.more, "--data");
    TW_ASSERT_FAILS(PARSE(&s, "a", "b", "c"), TW_ERR_CONFIG, "unexpected argument 'c'");
    TW_ASSERT_FAILS(PARSE(&s, "--strict"), TW_ERR_CONFIG, "DATA is missing");
}
END_TEST

START_TEST(errors_name_the_argument) {
    settings s;
    TW_ASSERT_FAILS(PARSE(&s, "a", "--topk", "5"), TW_ERR_CONFIG,
                    "unknown option '--topk'; did you mean '--top_k'?");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--zzzzzz"), TW_ERR_CONFIG, "'tuwen demo --help' lists");
    TW_ASSERT_FAILS(PARSE(&s, "a", "-o", "x"), TW_ERR_CONFIG, "'-o'; options begin with two dashes");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--top-k", "0"), TW_ERR_CONFIG,
                    "--top_k: 0 is outside the allowed range [1, 100]");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--top-k", "x"), TW_ERR_CONFIG, "--top_k: 'x' is not an integer");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--rate", "1"), TW_ERR_CONFIG,
                    "--rate: 1 is outside the allowed range [0, 1)");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--format", "csv"), TW_ERR_CONFIG, "--format: 'csv' is none of h5|npy");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--strict=maybe"), TW_ERR_CONFIG,
                    "--strict: 'maybe' is neither true nor false");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--output"), TW_ERR_CONFIG, "--output needs a value");
    TW_ASSERT_FAILS(PARSE(&s, "a", "--output", "--strict"), TW_ERR_CONFIG, "--output needs a value");
    char huge[400] = "--";
    memset(huge + 2, 'x', sizeof huge - 3);
    TW_ASSERT_FAILS(PARSE(&s, "a", huge), TW_ERR_CONFIG, "unknown option");
}
END_TEST

START_TEST(help_shows_rows_defaults_and_example) {
    settings s;
    bool help = false;
    char path[] = "/tmp/tw_test_options_XXXXXX", text[4096] = "";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_ptr_nonnull(freopen(path, "w", stdout));
    const char *const args[] = {"--help", NULL}; /* though DATA is missing */
    TW_ASSERT_OK(parse(&s, &help, args));
    fflush(stdout);
    FILE *file = fdopen(fd, "r");
    ck_assert_uint_gt(fread(text, 1, sizeof text - 1, file), 0);
    fclose(file);
    remove(path);
    ck_assert(help);
    static const char *const parts[] = {"usage: tuwen demo [options] DATA [MORE]",
                                        "Shows off.",
                                        "tuwen demo x",
                                        "--top_k N",
                                        "answers, [1, 100] (default: 10)",
                                        "--format h5|npy",
                                        "(default: npy)",
                                        "DATA",
                                        "(required)",
                                        "(default: 0.5)"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        ck_assert_msg(strstr(text, parts[i]) != NULL, "help lacks '%s':\n%s", parts[i], text);
}
END_TEST

START_TEST(numbers_are_read_whole) {
    int64_t n = 0;
    double x = 0;
    TW_ASSERT_OK(tw_value_int("-9223372036854775808", NULL, &n));
    ck_assert(n == INT64_MIN);
    TW_ASSERT_OK(tw_value_int("64", "[1, 64]", &n));
    ck_assert_int_eq(n, 64);
    static const char *const not_integers[] = {
        "", " 1", "1 ", "0x10", "1.0", "1e3", "--1", "+", "9223372036854775808"};
    for (size_t i = 0; i < sizeof not_integers / sizeof *not_integers; i++)
        TW_ASSERT_FAILS(tw_value_int(not_integers[i], NULL, &n), TW_ERR_CONFIG, not_integers[i]);
    ck_assert_int_eq(n, 64); /* untouched by errors */
    TW_ASSERT_OK(tw_value_float("5e-4", "(0, inf)", &x));
    ck_assert_double_eq(x, 5e-4);
    static const char *const not_numbers[] = {"", "nan", "inf", "0x1p3", "1e999", "1.2.3", "e", "1,5", " 1"};
    for (size_t i = 0; i < sizeof not_numbers / sizeof *not_numbers; i++)
        TW_ASSERT_FAILS(tw_value_float(not_numbers[i], NULL, &x), TW_ERR_CONFIG, not_numbers[i]);
    TW_ASSERT_FAILS(tw_value_float("0", "(0, inf)", &x), TW_ERR_CONFIG, "(0, inf)");
}
END_TEST

START_TEST(float_texts_read_back_as_the_same_bits) {
    const double values[] = {
        0, 5e-4, 0.1, 4.6052, 1.0 / 3, 1e-6, 123456789.123456789, 5e-324, 1.7976931348623157e308};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[40];
        double back = NAN;
        tw_float_text(values[i], text, sizeof text);
        TW_ASSERT_OK(tw_value_float(text, NULL, &back));
        ck_assert(memcmp(&back, &values[i], sizeof back) == 0);
    }
    char text[40];
    tw_float_text(0.1, text, sizeof text);
    ck_assert_str_eq(text, "0.1");
}
END_TEST

START_TEST(lists_are_split_at_commas) {
    tw_string_list list = {0};
    TW_ASSERT_OK(tw_string_list_split(&list, "visual.*, bert.* ,x"));
    ck_assert_uint_eq(list.count, 3);
    ck_assert_str_eq(list.items[1], "bert.*");
    TW_ASSERT_FAILS(tw_string_list_split(&list, "a,,b"), TW_ERR_CONFIG, "empty item");
    TW_ASSERT_FAILS(tw_string_list_split(&list, "a,"), TW_ERR_CONFIG, "empty item");
    ck_assert_uint_eq(list.count, 3);
    TW_ASSERT_OK(tw_string_list_split(&list, ""));
    ck_assert_uint_eq(list.count, 0);
    tw_string_list_free(&list);
    tw_string_list_free(NULL);
}
END_TEST

START_TEST(the_nearest_name_is_found) {
    static const char *const names[] = {"batch", NULL, "micro_batch", "epochs", "eps", "lr"};
    const struct {
        const char *name, *nearest;
    } cases[] = {{"batchsize", "batch"}, {"batsh", "batch"}, {"micro-batc", "micro_batch"},
                 {"epoch", "epochs"},    {"LR", "lr"},       {"", NULL},
                 {"quality", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *found = tw_nearest_name(cases[i].name, names, sizeof names / sizeof names[0]);
        if (!cases[i].nearest) {
            ck_assert_msg(found == NULL, "'%s' gave '%s'", cases[i].name, found);
            continue;
        }
        ck_assert_ptr_nonnull(found);
        ck_assert_str_eq(found, cases[i].nearest);
    }
}
END_TEST

static tw_status add_word(void *target, const char *name, const char *value) {
    char *words = target;
    ck_assert_str_eq(name, "WORDS");
    strcat(strcat(words, value), "|");
    return TW_OK;
}

START_TEST(a_positional_with_a_setter_takes_the_rest) {
    char words[64] = "", *argv[] = {(char *)"demo", (char *)"a", (char *)"--deep", (char *)"b", (char *)"--",
                                    (char *)"--c",  NULL},
         printed[1024] = "";
    const char *first = NULL;
    bool deep = false, help;
    const tw_option rows[] = {
        {.name = "FIRST", .type = TW_OPTION_POSITIONAL, .target = &first, .required = true, .help = "one"},
        {.name = "WORDS",
         .type = TW_OPTION_POSITIONAL,
         .target = words,
         .set = add_word,
         .required = true,
         .help = "the others"},
        {.name = "deep", .type = TW_OPTION_FLAG, .target = &deep, .help = "a flag"},
    };
    const tw_options options = {.command = "demo", .summary = "s", .rows = rows, .count = 3};
    TW_ASSERT_OK(tw_options_parse(&options, 6, argv, &help));
    ck_assert_str_eq(first, "a");
    ck_assert_str_eq(words, "b|--c|");
    ck_assert(deep);
    FILE *out = fmemopen(printed, sizeof printed, "w");
    tw_options_print_help(&options, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(printed, "usage: tuwen demo [options] FIRST WORDS..."));
}
END_TEST

TW_TEST_MAIN("options", all_forms_are_read, defaults_stay_and_the_last_value_stands,
             flags_take_a_word_but_not_a_positional, positionals_fill_in_order,
             a_positional_with_a_setter_takes_the_rest, errors_name_the_argument,
             help_shows_rows_defaults_and_example, numbers_are_read_whole,
             float_texts_read_back_as_the_same_bits, lists_are_split_at_commas, the_nearest_name_is_found)
