/* Reading and writing at a place of an open file. */
#include "data/files.h"

#include "tests/tw_test.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int scratch_file(void) {
    char path[] = "/tmp/tw_files.XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unlink(path), 0);
    return fd;
}

START_TEST(reads_exactly_what_is_asked_for) {
    char read[8] = "";
    int fd = scratch_file();
    ck_assert_int_eq(tw_write_at(fd, 3, "abcdef", 6), 0);
    ck_assert_int_eq(tw_read_at(fd, 4, read, 5), 0);
    ck_assert_str_eq(read, "bcdef");
    ck_assert_int_eq(tw_read_at(fd, 9, read, 0), 0);
    ck_assert_int_eq(tw_read_at(fd, 4, read, 6), TW_READ_SHORT);
    ck_assert_int_eq(tw_read_at(fd, 100, read, 1), TW_READ_SHORT);
    ck_assert_int_eq(tw_write_at(fd, 0, "XY", 2), 0); /* what is behind stays */
    ck_assert_int_eq(tw_read_at(fd, 0, read, 4), 0);
    ck_assert_mem_eq(read, "XY\0a", 4);
    ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(tells_why_it_cannot) {
    char byte = 0;
    int ends[2], full = open("/dev/full", O_RDWR), null = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(tw_read_at(ends[0], 0, &byte, 1), ESPIPE);
    ck_assert_int_eq(tw_write_at(ends[1], 0, &byte, 1), ESPIPE);
    ck_assert_int_eq(tw_read_at(-1, 0, &byte, 1), EBADF);
    ck_assert_int_eq(tw_write_at(null, 0, &byte, 1), EBADF);
    ck_assert_int_eq(tw_write_at(full, 0, &byte, 1), ENOSPC);
    close(ends[0]), close(ends[1]), close(full), close(null);
}
END_TEST

TW_TEST_MAIN("files", reads_exactly_what_is_asked_for, tells_why_it_cannot)
