/* Tensors in HDF5 are read past the library where their chunks are as tuwen writes them: every value in its
 * place, and a damaged one found. */
#include "tw_test.h"

#include "train/formats/h5_private.h"
#include "train/formats/seal.h"

#include <sys/stat.h>
#include <unistd.h>

static const char KIND[] = "checkpoint";
static char path[64];

static void make_path(void) {
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, sizeof path, "%s/tw_h5_direct_%d.h5", folder, (int)getpid());
}

/* One chunk; several; a last one in part; a cut side behind others; scalars. */
static const struct {
    const char *name;
    int ndim;
    int64_t shape[TW_H5_MAX_DIMS];
} arrays[] = {
    {"scalar", 0, {0}},
    {"one", 1, {7}},
    {"row", 1, {1 << 20}},
    {"odd_row", 1, {(1 << 19) + 5}},
    {"table", 2, {1025, 513}},
    {"wide", 2, {3, (1 << 18) + 1}},
    {"deep", 4, {2, 3, 5, 70001}},
};
enum { ARRAYS = sizeof arrays / sizeof arrays[0] };

static int64_t count_of(int i) {
    int64_t n = 1;
    for (int k = 0; k < arrays[i].ndim; k++) n *= arrays[i].shape[k];
    return n;
}

static float *fill(int i) {
    int64_t n = count_of(i);
    float *values = malloc((size_t)n * sizeof *values);
    for (int64_t k = 0; k < n; k++) values[k] = (float)(k * 7 + i);
    return values;
}

static void write_all(void) {
    tw_h5 *f;
    TW_ASSERT_OK(tw_h5_create(path, KIND, 1, &f));
    for (int i = 0; i < ARRAYS; i++) {
        float *values = fill(i);
        TW_ASSERT_OK(tw_h5_write_f32(f, arrays[i].name, arrays[i].ndim, arrays[i].shape, values));
        free(values);
    }
    TW_ASSERT_OK(tw_h5_commit(f));
}

START_TEST(every_value_comes_to_its_place) {
    make_path();
    write_all();
    tw_h5 *f;
    TW_ASSERT_OK(tw_h5_open(path, KIND, 1, &f));
    for (int i = 0; i < ARRAYS; i++) {
        size_t bytes = (size_t)count_of(i) * sizeof(float);
        float *values = fill(i), *read = malloc(bytes);
        memset(read, 0xff, bytes);
        TW_ASSERT_OK(tw_h5_read_f32(f, arrays[i].name, read, count_of(i)));
        ck_assert_msg(memcmp(values, read, bytes) == 0, "%s", arrays[i].name);
        ck_assert_msg(f->base >= 0, "%s was not read past HDF5", arrays[i].name);
        free(values);
        free(read);
    }
    tw_h5_close(f);
    unlink(path);
}
END_TEST

/* The first value, the last one, some in the middle (over several chunks where there are), all, none. */
static void check_ranges(tw_h5 *f, int i) {
    enum { GUARD = 3 };
    const float guard = -1.5f;
    int64_t n = count_of(i);
    const int64_t ranges[][2] = {{0, 1},     {n - 1, 1},         {n / 3, n / 2},
                                 {0, n},     {0, n / 2},         {n / 2, n - n / 2},
                                 {n / 2, 1}, {n - n / 5, n / 5}, {n, 0}};
    float *values = fill(i), *read = malloc((size_t)(n + 2 * GUARD) * sizeof *read);
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
        int64_t first = ranges[k][0], count = ranges[k][1];
        for (int64_t v = 0; v < n + 2 * GUARD; v++) read[v] = guard;
        TW_ASSERT_OK(tw_h5_read_f32_range(f, arrays[i].name, first, read + GUARD, count));
        if (count > 0)
            ck_assert_msg(memcmp(read + GUARD, values + first, (size_t)count * sizeof *read) == 0,
                          "%s, range %zu", arrays[i].name, k);
        for (int g = 0; g < GUARD; g++) {
            ck_assert_float_eq(read[g], guard);
            ck_assert_float_eq(read[GUARD + count + g], guard);
        }
    }
    const int64_t beyond[][2] = {{-1, 1}, {n, 1},         {0, n + 1},    {n / 2 + 1, n},
                                 {0, -1}, {1, INT64_MAX}, {INT64_MAX, 1}};
    for (size_t k = 0; k < sizeof beyond / sizeof beyond[0]; k++)
        TW_ASSERT_FAILS(tw_h5_read_f32_range(f, arrays[i].name, beyond[k][0], read, beyond[k][1]),
                        TW_ERR_SHAPE, arrays[i].name);
    free(values);
    free(read);
}

START_TEST(a_range_is_that_of_the_whole) {
    make_path();
    write_all();
    tw_h5 *f;
    TW_ASSERT_OK(tw_h5_open(path, KIND, 1, &f));
    for (int i = 0; i < ARRAYS; i++) check_ranges(f, i);
    ck_assert_int_ge(f->base, 0);
    int fd = f->fd;
    f->fd = -1; /* through HDF5, as where the file is not as expected */
    for (int i = 0; i < ARRAYS; i++) check_ranges(f, i);
    f->fd = fd;
    tw_h5_close(f);
    unlink(path);
}
END_TEST

/* Values that another program wrote are not in chunks. */
START_TEST(a_range_of_another_layout) {
    make_path();
    tw_h5 *f;
    const hsize_t sides[] = {5, 7};
    float values[35], read[20];
    for (int i = 0; i < 35; i++) values[i] = (float)i;
    TW_ASSERT_OK(tw_h5_create(path, KIND, 1, &f));
    hid_t space = H5Screate_simple(2, sides, NULL);
    hid_t data = H5Dcreate2(f->id, "plain", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert_int_ge(H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
    H5Dclose(data);
    H5Sclose(space);
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_OK(tw_h5_open(path, KIND, 1, &f));
    TW_ASSERT_OK(tw_h5_read_f32_range(f, "plain", 11, read, 20));
    ck_assert_mem_eq(read, values + 11, sizeof read);
    TW_ASSERT_FAILS(tw_h5_read_f32_range(f, "plain", 16, read, 20), TW_ERR_SHAPE,
                    "35 values: not the 20 from number 16 on");
    tw_h5_close(f);
    unlink(path);
}
END_TEST

/* One bit of a value in the middle of the file, sealed anew. */
START_TEST(a_damaged_value_is_found) {
    make_path();
    write_all();
    const float wanted[2] = {(float)(300000 * 7 + 2), (float)(300001 * 7 + 2)}; /* of "row" */
    struct stat info;
    FILE *file = fopen(path, "r+b");
    ck_assert(file && stat(path, &info) == 0);
    char *bytes = malloc((size_t)info.st_size);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)info.st_size, file), (size_t)info.st_size);
    char *at = memmem(bytes, (size_t)info.st_size, wanted, sizeof wanted);
    ck_assert_ptr_nonnull(at);
    fseek(file, at - bytes, SEEK_SET);
    fputc(*at ^ 4, file);
    fclose(file);
    free(bytes);
    TW_ASSERT_OK(tw_seal_write(path, KIND, 0));
    tw_h5 *f;
    float *values = malloc(sizeof *values << 20);
    TW_ASSERT_OK(tw_h5_open(path, KIND, 1, &f));
    TW_ASSERT_OK(tw_h5_read_f32(f, "table", values, count_of(4)));
    TW_ASSERT_FAILS(tw_h5_read_f32(f, "row", values, count_of(2)), TW_ERR_FORMAT,
                    "row does not match its checksum");
    /* Of 4 chunks of 2^18 values the second is damaged: the others alone are read where they are wanted. */
    TW_ASSERT_OK(tw_h5_read_f32_range(f, "row", 0, values, 1 << 18));
    TW_ASSERT_OK(tw_h5_read_f32_range(f, "row", 2 << 18, values, 2 << 18));
    TW_ASSERT_FAILS(tw_h5_read_f32_range(f, "row", 0, values, (1 << 18) + 1), TW_ERR_FORMAT,
                    "row does not match its checksum");
    TW_ASSERT_FAILS(tw_h5_read_f32_range(f, "row", (2 << 18) - 1, values, 2), TW_ERR_FORMAT,
                    "row does not match its checksum");
    free(values);
    tw_h5_close(f);
    unlink(path);
}
END_TEST

TW_TEST_MAIN("h5_direct", every_value_comes_to_its_place, a_range_is_that_of_the_whole,
             a_range_of_another_layout, a_damaged_value_is_found)
