#include "train/formats/zip.h"

#include "train/formats/zip_write.h"
#include "tw_test.h"

#include <unistd.h>

static const char *temporary(void) {
    static char path[256];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/tw_test_zip_%d", folder ? folder : "/tmp", (int)getpid());
    fclose(fopen(path, "w"));
    return path;
}

static unsigned char pattern(size_t i) {
    return (unsigned char)(i * 31 + (i >> 8) * 7);
}

/* Parts of an entry larger than a chunk, before and after its CRC-32 is known to be right. */
START_TEST(reads_parts) {
    enum { SIZE = 700001 };
    unsigned char *data = malloc(SIZE), *got = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) data[i] = pattern(i);
    const char *path = temporary();
    static const struct {
        size_t offset, size;
    } parts[] = {{0, SIZE},        {0, 1},      {SIZE - 1, 1}, {262143, 2},
                 {262144, 262144}, {5, 600000}, {7, 0},        {SIZE, 0}};
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        tw_zip_writer *writer;
        tw_zip *zip;
        TW_ASSERT_OK(tw_zip_writer_open(path, path, &writer));
        TW_ASSERT_OK(tw_zip_writer_add(writer, "a/x", "12345", 5));
        TW_ASSERT_OK(tw_zip_writer_add(writer, "a/y", data, SIZE));
        TW_ASSERT_OK(tw_zip_writer_add(writer, "a/z", NULL, 0));
        TW_ASSERT_OK(tw_zip_writer_finish(writer));
        tw_zip_writer_free(writer);
        TW_ASSERT_OK(tw_zip_open(path, &zip));
        ck_assert_int_eq(tw_zip_count(zip), 3);
        ck_assert_int_eq(tw_zip_find(zip, "a/y"), 1);
        ck_assert_int_eq(tw_zip_find(zip, "a/w"), -1);
        ck_assert_uint_eq(tw_zip_size(zip, 1), SIZE);
        for (int again = 0; again < 2; again++) {
            memset(got, 0, SIZE);
            TW_ASSERT_OK(tw_zip_read(zip, 1, parts[p].offset, parts[p].size, got));
            ck_assert_mem_eq(got, data + parts[p].offset, parts[p].size);
        }
        TW_ASSERT_OK(tw_zip_read(zip, 2, 0, 0, got));
        TW_ASSERT_FAILS(tw_zip_read(zip, 0, 1, 5, got), TW_ERR_ARGUMENT, "has 5 bytes only");
        TW_ASSERT_FAILS(tw_zip_read(zip, 3, 0, 0, got), TW_ERR_ARGUMENT, "no such entry");
        tw_zip_close(zip);
    }
    unlink(path);
    free(data);
    free(got);
}
END_TEST

/* More entries than 16 bits count: the 64-bit directory. */
START_TEST(writes_many_entries) {
    enum { N = 66000 };
    const char *path = temporary();
    char name[32];
    tw_zip_writer *writer;
    tw_zip *zip;
    TW_ASSERT_OK(tw_zip_writer_open(path, path, &writer));
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t/%d", i);
        TW_ASSERT_OK(tw_zip_writer_add(writer, name, &i, sizeof i));
    }
    TW_ASSERT_OK(tw_zip_writer_finish(writer));
    tw_zip_writer_free(writer);
    TW_ASSERT_OK(tw_zip_open(path, &zip));
    ck_assert_int_eq(tw_zip_count(zip), N);
    for (int i = 0; i < N; i += 1000) {
        int got;
        snprintf(name, sizeof name, "t/%d", i);
        ck_assert_int_eq(tw_zip_find(zip, name), i);
        TW_ASSERT_OK(tw_zip_read(zip, i, 0, sizeof got, &got));
        ck_assert_int_eq(got, i);
    }
    tw_zip_close(zip);
    unlink(path);
}
END_TEST

TW_TEST_MAIN("zip", reads_parts, writes_many_entries)
