/* JSON numbers and feature lines read without a tree: every number as strtod has it, every line as jansson
 * reads it, or left to it. */
#include "tw_test.h"

#include "autograd/random.h"
#include "data/files.h"
#include "data/python_float.h"
#include "train/formats/features_line.h"
#include "train/formats/json_number.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <unistd.h>

/* True if it was read; then it must be what strtod makes of it, to the bit. */
static bool agrees(const char *text) {
    double x, y = strtod(text, NULL);
    const char *end = text + strlen(text);
    if (!tw_json_number(text, end, &x)) return false;
    if (!strpbrk(text, ".eE") && y == 0) y = 0.0; /* the integer -0 */
    ck_assert_msg(memcmp(&x, &y, sizeof x) == 0, "'%s' is read as %.17g, strtod says %.17g", text, x, y);
    return true;
}

static uint64_t draw(uint32_t sample, uint32_t element) {
    tw_draw d = {.seed = 5, .sample = sample};
    return (uint64_t)tw_random_u32(&d, 2 * element) << 32 | tw_random_u32(&d, 2 * element + 1);
}

START_TEST(floats_of_features_are_read_exactly) {
    const int64_t n = 400000;
    char text[64];
    int64_t read = 0;
    float back[2];
    for (int64_t i = 0; i < n; i++) {
        tw_draw d = {.seed = 7, .sample = (uint32_t)i};
        float x;
        tw_random_normal(&d, 0.0f, 0.044f, back, 2);
        x = back[0];
        if (i % 4 == 0) tw_python_float((double)x, text);
        if (i % 4 == 1) snprintf(text, sizeof text, "%.17g", (double)x);
        if (i % 4 == 2) snprintf(text, sizeof text, "%.9g", (double)x);
        if (i % 4 == 3) snprintf(text, sizeof text, "%.*e", (int)(i / 4 % 19), (double)x);
        read += agrees(text);
    }
    ck_assert_int_ge(read, n - n / 100); /* "e+00" and the like apart, all of them */
}
END_TEST

/* Digits and exponents of every kind, and decimals on and beside the middle between two doubles. */
START_TEST(any_decimal_is_read_as_strtod_does) {
    char text[128];
    int64_t read = 0;
    for (uint32_t i = 0; i < 300000; i++) {
        uint64_t r = draw(i, 0), m = draw(i, 1) >> (r % 64);
        int digits = snprintf(text, sizeof text, "%llu", (unsigned long long)m), power = (int)(r >> 8 & 31);
        if (digits > power + 1) { /* a point inside */
            memmove(text + digits - power + 1, text + digits - power, (size_t)power + 1);
            text[digits - power] = '.';
            if (power == 0) strcat(text, "0");
        } else {
            snprintf(text + digits, sizeof text - (size_t)digits, "e-%d", power);
        }
        read += agrees(text);
    }
    ck_assert_int_ge(read, 200000);
    read = 0;
    for (uint32_t i = 0; i < 300000; i++) { /* (2 m + 1) / 2^k has few digits: ties, and their neighbours */
        uint64_t m = (draw(i, 2) >> 11 | (uint64_t)1 << 52) * 2 + 1;
        int k = (int)(draw(i, 3) % 4);
        snprintf(text, sizeof text, "%llu%s", (unsigned long long)(m >> k),
                 (const char *[]){".0", ".5", ".25", ".125"}[k]);
        read += agrees(text);
        snprintf(text, sizeof text, "%llu.0", (unsigned long long)(2 * m + i % 3 - 1));
        read += agrees(text);
    }
    ck_assert_int_ge(read, 400000);
}
END_TEST

START_TEST(what_is_no_json_number_is_left_alone) {
    static const char *const none[] = {"",
                                       "-",
                                       "+1",
                                       ".5",
                                       "1.",
                                       "01",
                                       "00",
                                       "-01",
                                       "1e",
                                       "1e+",
                                       "1.e5",
                                       "NaN",
                                       "-NaN",
                                       "inf",

                                       "-.5",
                                       "1e400",
                                       "1e-400",
                                       "1e9999999999",
                                       "12345678901234567890",
                                       "1.23456789012345678901"};
    double x;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        ck_assert_msg(!tw_json_number(none[i], none[i] + strlen(none[i]), &x), "'%s' was read", none[i]);
    static const struct {
        const char *text;
        size_t size;
        double x;
    } some[] = {{"0", 1, 0.0},
                {"-0", 2, 0.0},
                {"-0.0", 4, -0.0},
                {"0.5]", 3, 0.5},
                {"12345678 ", 8, 12345678},
                {"1e-2,", 4, 0.01},
                {"-1.5E-0}", 7, -1.5},
                {"0e5", 3, 0.0},
                {"0.00000000000000000000000001", 28, 1e-26},
                {"999999999999999999", 18, 1e18}};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        const char *end = tw_json_number(some[i].text, some[i].text + strlen(some[i].text), &x);
        ck_assert_msg(end == some[i].text + some[i].size, "'%s'", some[i].text);
        ck_assert_mem_eq(&x, &some[i].x, sizeof x);
    }
    /* nothing behind the end is looked at */
    const char digits[8] = "12345678";
    ck_assert_ptr_eq(tw_json_number(digits, digits + 3, &x), digits + 3);
    ck_assert_double_eq(x, 123);
}
END_TEST

/* No shorter decimal reads back, and of those of this length none is nearer: by trying them with the C
 * library. */
static void check_shortest(double x) {
    char text[TW_PYTHON_FLOAT_BYTES], shorter[64], other[64];
    int n = tw_python_float(x, text), count = 0, zeros = 0;
    ck_assert_msg(strtod(text, NULL) == x && n == (int)strlen(text), "%s for %.17g", text, x);
    for (const char *c = text; *c && *c != 'e'; c++) {
        if (*c < '0' || *c > '9' || (count == 0 && *c == '0')) continue;
        count++;
        zeros = *c == '0' ? zeros + 1 : 0;
    }
    count -= zeros; /* significant digits; "100.0" has one */
    if (count > 1) {
        snprintf(shorter, sizeof shorter, "%.*e", count - 2, x);
        ck_assert_msg(strtod(shorter, NULL) != x, "%s for %s", text, shorter);
    }
    snprintf(other, sizeof other, "%.*e", count - 1, x); /* the nearest of this length */
    long double far = strtold(text, NULL) - (long double)x, near = strtold(other, NULL) - (long double)x;
    if (strtod(other, NULL) == x)
        ck_assert_msg((far < 0 ? -far : far) <= (near < 0 ? -near : near), "%s, not %s", text, other);
}

START_TEST(numbers_are_written_as_short_as_they_can_be) {
    for (int e = -40; e < 60; e++) {
        double x = ldexp(1.0, e);
        check_shortest(x), check_shortest(nextafter(x, 0)), check_shortest(nextafter(x, 1e300));
    }
    check_shortest(-7.2904775137787e-310), check_shortest(5e-324), check_shortest(DBL_MAX);
    for (int e = -14; e < 20; e++) {
        double x = pow(10, e);
        check_shortest(x), check_shortest(nextafter(x, 0)), check_shortest(nextafter(x, 1e300));
    }
    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t r = draw(i, 4);
        double x = ldexp((double)(r >> 11), (int)(draw(i, 5) % 100) - 100);
        check_shortest(x);
        check_shortest((double)(float)x);
        check_shortest((double)(r >> 40) / 1e6);
    }
}
END_TEST

/* ---- lines ---- */

enum { DIM = 5 };

/* What the general reader makes of a line: NULL if it is not this record. */
static bool jansson_agrees(const char *line, size_t size, const float *values, tw_features_kind kind,
                           const tw_id *id) {
    char text[64];
    json_error_t error;
    json_t *record = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error);
    const json_t *key = json_object_get(record, kind == TW_FEATURES_IMAGE ? "image_id" : "text_id");
    const json_t *feature = json_object_get(record, "feature");
    bool good = json_object_size(record) == 2 && json_array_size(feature) == DIM;
    if (json_is_integer(key)) {
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(key));
        good = good && id->is_integer && strlen(text) == id->size && memcmp(text, id->text, id->size) == 0;
    } else {
        good = good && !id->is_integer && json_string_length(key) == id->size &&
               memcmp(json_string_value(key), id->text, id->size) == 0;
    }
    for (size_t k = 0; k < DIM && good; k++) {
        float x = (float)json_number_value(json_array_get(feature, k));
        good = memcmp(&x, &values[k], sizeof x) == 0;
    }
    json_decref(record);
    return good;
}

static const char *const SEEDS[] = {
    "{\"image_id\": 1, \"feature\": [0.03128465265035629, -0.5, 1e-05, 0.0, -0.0]}",
    "{\"text_id\": \"a-b\", \"feature\": [1, 2, 3.25, -4.5e-3, 0]}",
    "{ \"image_id\" :-12 ,\"feature\":[ 1.0 ,2.0\t,3.0,4.0,5.0 ] } \r",
    "{\"text_id\":\"7\",\"feature\":[0.1,0.2,0.3,0.4,0.12345678901234568]}",
};
enum { N_SEEDS = sizeof SEEDS / sizeof SEEDS[0] };

START_TEST(usual_lines_are_accepted) {
    for (int i = 0; i < N_SEEDS; i++) {
        float values[DIM];
        tw_features_kind kind;
        tw_id id;
        ck_assert_msg(tw_features_line(SEEDS[i], strlen(SEEDS[i]), DIM, values, &kind, &id), "%s", SEEDS[i]);
        ck_assert(jansson_agrees(SEEDS[i], strlen(SEEDS[i]), values, kind, &id));
        ck_assert(!tw_features_line(SEEDS[i], strlen(SEEDS[i]), DIM - 1, values, &kind, &id));
    }
}
END_TEST

/* Every line one or two bytes away from a good one: accepted only if jansson reads the same. */
START_TEST(changed_lines_are_read_alike_or_not_at_all) {
    static const char bytes[] = "{}[]:,\"\\ \t\n\r-+.eE0123456789aimgtx_\x01\x7f\x80\xe5";
    int64_t accepted = 0, refused = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        char line[256], *exact;
        strcpy(line, SEEDS[i % N_SEEDS]);
        size_t size = strlen(line);
        for (uint32_t k = 0; k <= i / N_SEEDS % 2; k++) {
            uint64_t r = draw(i, 10 + k);
            size_t at = r % size, what = r >> 32 & 3;
            char byte = bytes[(r >> 40) % (sizeof bytes - 1)];
            if (what == 0) line[at] = byte;
            if (what >= 1) memmove(line + at + (what == 1), line + at + (what > 1), size - at - (what > 1));
            if (what == 1) line[at] = byte;
            size = what == 0 ? size : what == 1 ? size + 1 : size - 1;
        }
        exact = malloc(size + 1); /* the sanitizer sees a byte read behind it */
        memcpy(exact, line, size);
        float values[DIM];
        tw_features_kind kind;
        tw_id id;
        bool good = tw_features_line(exact, size, DIM, values, &kind, &id);
        if (good) ck_assert_msg(jansson_agrees(exact, size, values, kind, &id), "%.*s", (int)size, line);
        good ? accepted++ : refused++;
        free(exact);
    }
    ck_assert_int_ge(accepted, 10000);
    ck_assert_int_ge(refused, 20000);
}
END_TEST

/* Usual and unusual lines side by side, over several batches; order, values and the first error's line. */
START_TEST(a_file_of_both_kinds_of_lines) {
    enum { ROWS = 3000, WIDE = 600 };
    char folder[] = "/tmp/tw_features_line_XXXXXX", number[TW_PYTHON_FLOAT_BYTES];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    char *path = tw_path_join(folder, "f.jsonl");
    FILE *out = fopen(path, "w");
    ck_assert_ptr_nonnull(out);
    for (int i = 0; i < ROWS; i++) {
        if (i % 100 == 7) fputs("\n \n", out);
        fprintf(out, i % 50 == 3 ? "{\"feature\": [" : "{\"image_id\": %d, \"feature\": [", i);
        for (int k = 0; k < WIDE; k++) {
            tw_python_float((double)((float)(i + k) / 7.0f), number);
            fprintf(out, "%s%s", k ? ", " : "", i % 50 == 5 && k == 2 ? "1e5" : number);
        }
        fprintf(out, i % 50 == 3 ? "], \"note\": null, \"image_id\": \"\\u56fe%d\"}\r\n" : "]}\n", i);
    }
    ck_assert_int_eq(fclose(out), 0);
    tw_features *f;
    TW_ASSERT_OK(tw_features_load(path, &f));
    ck_assert(f->n == ROWS && f->dim == WIDE && f->kind == TW_FEATURES_IMAGE);
    for (int i = 0; i < ROWS; i++) {
        char id[32];
        snprintf(id, sizeof id, i % 50 == 3 ? "\xe5\x9b\xbe%d" : "%d", i);
        ck_assert_str_eq(f->ids[i].text, id);
        ck_assert_int_eq(f->ids[i].is_integer, i % 50 != 3);
        for (int k = 0; k < WIDE; k++) {
            float x = i % 50 == 5 && k == 2 ? 1e5f : (float)(i + k) / 7.0f;
            ck_assert_mem_eq(&f->values[i * WIDE + k], &x, sizeof x);
        }
    }
    tw_features_free(f);
    out = fopen(path, "a");
    fputs("{\"image_id\": 1, \"feature\": [1]}\nnonsense\n", out);
    ck_assert_int_eq(fclose(out), 0);
    TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, "f.jsonl:3061: the feature has 1 values");
    free(path);
    tw_remove_folder(folder);
}
END_TEST

TW_TEST_MAIN("features_line", floats_of_features_are_read_exactly, any_decimal_is_read_as_strtod_does,
             what_is_no_json_number_is_left_alone, numbers_are_written_as_short_as_they_can_be,
             usual_lines_are_accepted, changed_lines_are_read_alike_or_not_at_all,
             a_file_of_both_kinds_of_lines)
