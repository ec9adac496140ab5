/* A folder with the files of a made-up system in it, for code that reads /proc and /sys below a root. */
#ifndef TW_TESTS_FAKE_SYSTEM_H
#define TW_TESTS_FAKE_SYSTEM_H

#include "tests/tw_test.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fake_system {
    char root[32];
} fake_system;

static inline void fake_open(fake_system *s) {
    strcpy(s->root, "/tmp/tw_system.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(s->root));
}

/* Writes a file, and the folders above it. */
static inline void fake_file(const fake_system *s, const char *path, const char *content) {
    char full[512];
    int n = snprintf(full, sizeof full, "%s%s", s->root, path);
    ck_assert_int_lt(n, (int)sizeof full);
    for (char *at = strchr(full + strlen(s->root) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(full, 0700); /* most are there */
        *at = '/';
    }
    FILE *file = fopen(full, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(content, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static inline uint64_t fake_inode(const fake_system *s, const char *path) {
    char full[512];
    struct stat info;
    snprintf(full, sizeof full, "%s%s", s->root, path);
    ck_assert_int_eq(stat(full, &info), 0);
    return (uint64_t)info.st_ino;
}

static inline int fake_unlink(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info, (void)kind, (void)at;
    return remove(path);
}

static inline void fake_close(fake_system *s) {
    ck_assert_int_eq(nftw(s->root, fake_unlink, 8, FTW_DEPTH | FTW_PHYS), 0);
}

#endif
