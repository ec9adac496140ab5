/* A folder of the test's own for the files that it writes. It is made when a path in it is first asked for,
 * and removed when the test ends, which is a process of its own. One that fails leaves it behind: Check ends
 * it with _exit. */
#ifndef TW_TESTS_OWN_FOLDER_H
#define TW_TESTS_OWN_FOLDER_H

#include "tw_test.h"

#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

static char own_folder_path[64];

/* With all that is in it. What is asked for next makes another one. */
static inline void remove_folder(void) {
    char command[128];
    if (!own_folder_path[0]) return;
    snprintf(command, sizeof command, "rm -rf %s", own_folder_path);
    if (system(command) != 0) fprintf(stderr, "%s could not be removed\n", own_folder_path);
    own_folder_path[0] = '\0';
}

static inline const char *own_folder(void) {
    static bool registered;
    if (own_folder_path[0]) return own_folder_path;
    snprintf(own_folder_path, sizeof own_folder_path, "/tmp/tw-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(own_folder_path));
    if (!registered) ck_assert_int_eq(atexit(remove_folder), 0);
    registered = true;
    return own_folder_path;
}

/* A path in it; good until the eighth one after it. */
static inline char *temp_path(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", own_folder(), name);
    return path;
}

static inline void write_bytes(const char *name, const void *data, size_t size) {
    FILE *file = fopen(temp_path(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

static inline void write_text(const char *name, const char *text) {
    write_bytes(name, text, strlen(text));
}

#endif
