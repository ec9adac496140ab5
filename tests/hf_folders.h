/* A folder of a test's own, for files as Hugging Face folders have them. */
#ifndef TW_TESTS_HF_FOLDERS_H
#define TW_TESTS_HF_FOLDERS_H

#include "data/files.h"
#include "tw_test.h"

#include <sys/stat.h>

#define GOLDEN TW_SOURCE_DIR "/tests/golden/hf/"

static char hf_test_folder[64];

static inline void remove_folder(void) {
    tw_remove_folder(hf_test_folder);
}

/* A path in a folder of this test's own. */
static inline char *temp_path(const char *name) {
    static char paths[8][160];
    static int next;
    if (!hf_test_folder[0]) {
        strcpy(hf_test_folder, "/tmp/tw_hf_XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(hf_test_folder));
        atexit(remove_folder); /* each test is a process of its own */
    }
    char *path = paths[next++ % 8];
    snprintf(path, 160, "%s/%s", hf_test_folder, name);
    return path;
}

static inline void write_text(const char *name, const char *text) {
    FILE *file = fopen(temp_path(name), "wb");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

#endif
