/* Feature files: three formats, one table; bytes as NumPy and Python write them. */
#include "tw_test.h"

#include "data/files.h"
#include "data/python_float.h"
#include "train/formats/features.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char GOLDEN[] = TW_SOURCE_DIR "/tests/golden/";
static char folder[64], buffer[4][512];

static void make_folder(void) {
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(folder, sizeof folder, "%s/tw_features_XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static const char *in_folder(int slot, const char *name) {
    snprintf(buffer[slot], sizeof buffer[slot], "%s/%s", folder, name);
    return buffer[slot];
}

static void store(const char *path, const char *text, size_t size) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, size, f), size);
    ck_assert_int_eq(fclose(f), 0);
}

enum { ROWS = 5, DIM = 7 };

/* The table of scripts/make_golden_features.py. */
static void fill(float values[ROWS * DIM]) {
    for (int i = 0; i < ROWS * DIM; i++) values[i] = ((float)i * (float)i - 100.0f) / 977.0f;
}

static void write_table(const char *path, const char *const ids[ROWS], const bool integer[ROWS]) {
    float values[ROWS * DIM];
    tw_id id[ROWS];
    fill(values);
    for (int i = 0; i < ROWS; i++) id[i] = (tw_id){ids[i], strlen(ids[i]), integer[i]};
    tw_features_writer *w;
    TW_ASSERT_OK(tw_features_create(path, TW_FEATURES_IMAGE, DIM, "tiny.h5 step 7", &w));
    TW_ASSERT_OK(tw_features_append(w, id, values, 2));
    ck_assert_msg(access(path, F_OK) != 0, "seen before it was complete");
    TW_ASSERT_OK(tw_features_append(w, id, values, 0));
    TW_ASSERT_OK(tw_features_append(w, id + 2, values + 2 * DIM, ROWS - 2));
    TW_ASSERT_OK(tw_features_commit(w));
}

static const char *const NUMBERS[ROWS] = {"1", "1001", "2001", "3001", "4001"};
static const char *const TEXTS[ROWS] = {"a", "012", "\xe5\x9b\xbe\xe6\x96\x87", "say \"x\"\\", "7"};
static const char *const EXTREMES[ROWS] = {"9223372036854775807", "-9223372036854775808", "0", "5", "5"};
static const bool ALL[ROWS] = {true, true, true, true, true}, NONE[ROWS] = {false},
                  MIXED[ROWS] = {false, false, false, false, true};

static void check_table(const char *path, const char *const ids[ROWS], const bool integer[ROWS]) {
    float values[ROWS * DIM];
    tw_features *f;
    fill(values);
    TW_ASSERT_OK(tw_features_load(path, &f));
    ck_assert_int_eq(f->n, ROWS);
    ck_assert_int_eq(f->dim, DIM);
    ck_assert_mem_eq(f->values, values, sizeof values);
    for (int i = 0; i < ROWS; i++) {
        ck_assert_str_eq(f->ids[i].text, ids[i]);
        ck_assert_uint_eq(f->ids[i].size, strlen(ids[i]));
        ck_assert_int_eq(f->ids[i].is_integer, integer[i]);
    }
    tw_features_free(f);
}

START_TEST(every_format_keeps_values_and_ids) {
    const char *const names[] = {"f.h5", "f.hdf5", "f.npy", "f.jsonl"};
    make_folder();
    for (int i = 0; i < 4; i++) {
        const char *path = in_folder(0, names[i]);
        write_table(path, NUMBERS, ALL);
        check_table(path, NUMBERS, ALL);
        unlink(path);
        write_table(path, TEXTS, NONE);
        check_table(path, TEXTS, NONE);
        unlink(path);
        write_table(path, TEXTS, MIXED);
        check_table(path, TEXTS, MIXED);
        unlink(path);
        write_table(path, EXTREMES, ALL);
        check_table(path, EXTREMES, ALL);
    }
    tw_features *f;
    TW_ASSERT_OK(tw_features_load(in_folder(0, "f.h5"), &f));
    ck_assert_int_eq(f->kind, TW_FEATURES_IMAGE);
    ck_assert_str_eq(f->model, "tiny.h5 step 7");
    tw_features_free(f);
    tw_remove_folder(folder);
}
END_TEST

static void check_same_file(const char *path, const char *golden) {
    uint8_t *a, *b;
    size_t na, nb;
    TW_ASSERT_OK(tw_read_file(path, &a, &na));
    TW_ASSERT_OK(tw_read_file(golden, &b, &nb));
    ck_assert_uint_eq(na, nb);
    ck_assert_mem_eq(a, b, na);
    free(a);
    free(b);
}

START_TEST(bytes_are_those_of_numpy_and_json_dumps) {
    make_folder();
    char golden[512];
    snprintf(golden, sizeof golden, "%sfeatures.jsonl", GOLDEN);
    write_table(in_folder(0, "f.jsonl"), NUMBERS, ALL);
    check_same_file(in_folder(0, "f.jsonl"), golden);
    check_table(golden, NUMBERS, ALL);
    snprintf(golden, sizeof golden, "%sfeatures.npy", GOLDEN);
    write_table(in_folder(0, "f.npy"), NUMBERS, ALL);
    check_same_file(in_folder(0, "f.npy"), golden);
    float values[ROWS * DIM];
    fill(values);
    TW_ASSERT_OK(tw_npy_write(in_folder(0, "g.npy"), values, ROWS, DIM));
    check_same_file(in_folder(0, "g.npy"), golden);
    tw_features *f; /* without ids beside it */
    TW_ASSERT_OK(tw_features_load(golden, &f));
    ck_assert_ptr_null(f->ids);
    ck_assert_int_eq(f->n, ROWS);
    tw_features_free(f);
    tw_remove_folder(folder);
}
END_TEST

START_TEST(numbers_print_as_in_python) {
    char path[512], line[128], text[TW_PYTHON_FLOAT_BYTES];
    snprintf(path, sizeof path, "%spython_floats.txt", GOLDEN);
    FILE *in = fopen(path, "r");
    ck_assert_ptr_nonnull(in);
    int lines = 0;
    for (; fgets(line, sizeof line, in); lines++) {
        unsigned bits;
        char wanted[64];
        float x;
        ck_assert_int_eq(sscanf(line, "%x %63s", &bits, wanted), 2);
        memcpy(&x, &bits, sizeof x);
        int n = tw_python_float((double)x, text);
        ck_assert_msg(strcmp(text, wanted) == 0, "%08x is '%s', Python prints '%s'", bits, text, wanted);
        ck_assert_int_eq(n, (int)strlen(text));
    }
    fclose(in);
    ck_assert_int_ge(lines, 800);
}
END_TEST

/* Several blocks of HDF5 and a last one in part; order and place of every value. */
START_TEST(many_rows_in_odd_portions) {
    enum { N = 3001, D = 193 };
    make_folder();
    const char *path = in_folder(0, "many.h5");
    float *values = malloc(sizeof *values * N * D);
    tw_id *ids = malloc(sizeof *ids * N);
    char(*texts)[16] = malloc(sizeof *texts * N);
    for (int i = 0; i < N * D; i++) values[i] = (float)i;
    for (int i = 0; i < N; i++) ids[i] = (tw_id){texts[i], (size_t)snprintf(texts[i], 16, "%d", 3 * i), true};
    tw_features_writer *w;
    TW_ASSERT_OK(tw_features_create(path, TW_FEATURES_TEXT, D, NULL, &w));
    for (int i = 0, step = 1; i < N; i += step, step = step * 2 + 1) {
        if (step > N - i) step = N - i;
        TW_ASSERT_OK(tw_features_append(w, ids + i, values + (size_t)i * D, step));
    }
    TW_ASSERT_OK(tw_features_commit(w));
    tw_features *f;
    TW_ASSERT_OK(tw_features_load(path, &f));
    ck_assert_int_eq(f->n, N);
    ck_assert_int_eq(f->kind, TW_FEATURES_TEXT);
    ck_assert_ptr_null(f->model);
    ck_assert_int_eq(memcmp(f->values, values, sizeof *values * N * D), 0);
    ck_assert_str_eq(f->ids[N - 1].text, "9000");
    tw_features_free(f);
    free(values);
    free(ids);
    free(texts);
    tw_remove_folder(folder);
}
END_TEST

START_TEST(an_empty_table_is_a_table) {
    const char *const names[] = {"e.h5", "e.npy"};
    make_folder();
    for (int i = 0; i < 2; i++) {
        tw_features_writer *w;
        tw_features *f;
        TW_ASSERT_OK(tw_features_create(in_folder(0, names[i]), TW_FEATURES_TEXT, 3, NULL, &w));
        TW_ASSERT_OK(tw_features_commit(w));
        TW_ASSERT_OK(tw_features_load(in_folder(0, names[i]), &f));
        ck_assert(f->n == 0 && f->dim == 3);
        tw_features_free(f);
    }
    tw_remove_folder(folder);
}
END_TEST

START_TEST(refuses_to_write_what_it_should_not) {
    make_folder();
    tw_features_writer *w;
    const float bad[2] = {1, NAN};
    const tw_id id = {"42", 2, true};
    TW_ASSERT_FAILS(tw_features_create(in_folder(0, "f.csv"), TW_FEATURES_TEXT, 3, NULL, &w), TW_ERR_CONFIG,
                    "must end in .h5, .npy or .jsonl");
    const char *const names[] = {"f.h5", "f.npy", "f.jsonl"};
    for (int i = 0; i < 3; i++) {
        char none[64];
        snprintf(none, sizeof none, "none/%s", names[i]);
        TW_ASSERT_FAILS(tw_features_create(in_folder(0, none), TW_FEATURES_TEXT, 3, NULL, &w), TW_ERR_IO,
                        "No such file");
        TW_ASSERT_OK(tw_features_create(in_folder(0, names[i]), TW_FEATURES_TEXT, 2, NULL, &w));
        TW_ASSERT_FAILS(tw_features_append(w, &id, bad, 1), TW_ERR_NUMERIC, "of 42 is not finite (value 1)");
        tw_features_discard(w);
    }
    ck_assert_int_eq(rmdir(folder), 0); /* nothing was left */
}
END_TEST

START_TEST(a_full_disk_is_an_error) {
    make_folder();
    const char *const names[] = {"f.h5", "f.npy", "f.jsonl"};
    float *values = calloc(100000, sizeof *values);
    const tw_id id = {"42", 2, true};
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        const struct rlimit small = {40000, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
        tw_features_writer *w;
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        TW_ASSERT_OK(tw_features_create(in_folder(0, names[i]), TW_FEATURES_TEXT, 100000, NULL, &w));
        tw_status status = tw_features_append(w, &id, values, 1);
        if (status == TW_OK)
            status = tw_features_commit(w);
        else
            tw_features_discard(w);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
        ck_assert_int_eq(status, TW_ERR_IO);
        ck_assert_int_ne(access(in_folder(0, names[i]), F_OK), 0);
    }
    free(values);
    tw_remove_folder(folder);
}
END_TEST

START_TEST(bad_lines_are_named) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "holds no features"},
        {"{\"image_id\": 1, \"feature\": [1]}\nnonsense\n", "f.jsonl:2: no JSON"},
        {"{\"image_id\": 1, \"feature\": [1]}\n\n{\"image_id\": 1, \"feature\": [1, 2]}",
         "f.jsonl:3: the feature has 2"},
        {"{\"image_id\": 1}", "f.jsonl:1: lacks"},
        {"{\"feature\": [1]}", "f.jsonl:1: lacks"},
        {"[1]", "f.jsonl:1: lacks"},
        {"{\"image_id\": 1, \"feature\": []}", "has 0 values"},
        {"{\"image_id\": 1, \"feature\": [1, \"x\"]}", "value 1"},
        {"{\"image_id\": 1, \"feature\": [1, 1e39]}", "value 1"},
        {"{\"image_id\": 1.5, \"feature\": [1]}", "the id is no integer"},
        {"{\"image_id\": \"\", \"feature\": [1]}", "the id is no integer"},
        {"{\"image_id\": 1, \"feature\": [1]}\n{\"text_id\": 1, \"feature\": [1]}", "f.jsonl:2: has text_id"},
        {"{\"image_id\": 1, \"feature\": [NaN]}", "f.jsonl:1: no JSON"},
    };
    make_folder();
    const char *path = in_folder(0, "f.jsonl");
    tw_features *f;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        store(path, cases[i].text, strlen(cases[i].text));
        TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, cases[i].part);
    }
    tw_remove_folder(folder);
}
END_TEST

START_TEST(bad_npy_files_are_named) {
    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        {"<f4", "<f8", "holds values of type '<f8'"},
        {"False", "True ", "Fortran"},
        {"(5, 7)", "(5, )  ", "a table (n, dim) is needed"},
        {"(5, 7)", "(5, 0)", "a table (n, dim) is needed"},
        {"(5, 7)", "(-5,7)", "a table (n, dim) is needed"},
        {"(5, 7)", "(6, 7)", "is truncated"},
        {"(5, 7)", "(4, 7)", "is longer"},
        {"NUMPY", "NUMPZ", "is not a .npy file"},
        {"(5, 7), }        ", "(99999999999, 9)}", "is truncated"},
        {"(5, 7), }                    ", "(4611686018427387904, 7), }  ", "a table (n, dim) is needed"},
    };
    make_folder();
    char golden[512];
    uint8_t *bytes;
    size_t size;
    const char *path = in_folder(0, "f.npy");
    tw_features *f;
    snprintf(golden, sizeof golden, "%sfeatures.npy", GOLDEN);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        TW_ASSERT_OK(tw_read_file(golden, &bytes, &size));
        uint8_t *at = memmem(bytes, size, cases[i].from, strlen(cases[i].from));
        ck_assert_ptr_nonnull(at);
        memcpy(at, cases[i].to, strlen(cases[i].to));
        store(path, (const char *)bytes, size);
        TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, cases[i].part);
        free(bytes);
    }
    TW_ASSERT_OK(tw_read_file(golden, &bytes, &size));
    for (size_t n = 0; n < size; n++) {
        store(path, (const char *)bytes, n);
        TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, "truncated");
    }
    store(path, (const char *)bytes, size);
    free(bytes);
    store(in_folder(1, "f.ids.jsonl"), "1\n2\n", 4);
    TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, "has 2 ids for 5 rows");
    store(in_folder(1, "f.ids.jsonl"), "1\n2.5\n", 6);
    TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, "f.ids.jsonl:2: is no id");
    TW_ASSERT_FAILS(tw_features_load(in_folder(2, "g.npy"), &f), TW_ERR_NOT_FOUND, "No such file");
    tw_remove_folder(folder);
}
END_TEST

START_TEST(a_damaged_hdf5_file_is_refused) {
    make_folder();
    const char *path = in_folder(0, "f.h5");
    tw_features *f;
    uint8_t *bytes;
    size_t size;
    write_table(path, TEXTS, MIXED);
    TW_ASSERT_OK(tw_read_file(path, &bytes, &size));
    for (size_t i = 0; i < size; i += 97) {
        bytes[i] ^= 0x10;
        store(path, (const char *)bytes, size);
        bytes[i] ^= 0x10;
        TW_ASSERT_FAILS(tw_features_load(path, &f), TW_ERR_FORMAT, path);
    }
    free(bytes);
    char golden[512];
    snprintf(golden, sizeof golden, "%sh5py_plain.h5", GOLDEN);
    TW_ASSERT_FAILS(tw_features_load(golden, &f), TW_ERR_FORMAT, "not a tuwen features");
    tw_remove_folder(folder);
}
END_TEST

TW_TEST_MAIN("features", every_format_keeps_values_and_ids, bytes_are_those_of_numpy_and_json_dumps,
             numbers_print_as_in_python, many_rows_in_odd_portions, an_empty_table_is_a_table,
             refuses_to_write_what_it_should_not, a_full_disk_is_an_error, bad_lines_are_named,
             bad_npy_files_are_named, a_damaged_hdf5_file_is_refused)
