/* .pt files put together by hand, for the tests with hostile files. */
#ifndef TW_TESTS_PT_FILES_H
#define TW_TESTS_PT_FILES_H

#include "train/formats/pt.h"
#include "train/formats/zip_write.h"
#include "tw_test.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MARKER "/tmp/tw_hostile_marker1"

/* Pieces of pickles. Lengths and numbers are written as one byte each. */
#define U(length, text) "X" length "\0\0\0" text
#define STORAGE(type, key_length, key, count)                                                                \
    "(" U("\7", "storage") "ctorch\n" type "\n" U(key_length, key) U("\3", "cpu") count "tQ"
#define FOUR STORAGE("FloatStorage", "\1", "0", "K\4")
#define TENSOR(storage, offset, size, stride)                                                                \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset size stride "\x89"                                 \
    "ccollections\nOrderedDict\n)RtR"
#define DICT(value) "\x80\2}(" U("\1", "w") value "u."

static inline const char *pt_path(void) {
    static char path[256];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/tw_hostile_%d.pt", folder ? folder : "/tmp", (int)getpid());
    return path;
}

/* In TorchScript's archives: an object of a class, and one with attributes. */
#define NEW(class) "c__torch__\n" class "\n)\x81"
#define MODULE(attributes) NEW("M") "}(" attributes "ub"

/* An archive with this pickle and one storage, "0", of the floats 1, 2, 3, 4: of torch.save, or of
 * torch.jit.save (with a program that no reader may look at). */
static inline const char *pt_archive_of(bool script, const char *pickle, size_t size) {
    static const float storage[] = {1, 2, 3, 4};
    const char *path = pt_path();
    tw_zip_writer *zip;
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fclose(file);
    TW_ASSERT_OK(tw_zip_writer_open(path, path, &zip));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/data.pkl", pickle, size));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/byteorder", "little", 6));
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/data/0", storage, sizeof storage));
    if (script) {
        TW_ASSERT_OK(tw_zip_writer_add(zip, "a/code/__torch__.py", "import os", 9));
        TW_ASSERT_OK(tw_zip_writer_add(zip, "a/constants.pkl", "cos\nsystem\n.", 12));
    }
    TW_ASSERT_OK(tw_zip_writer_add(zip, "a/version", "3\n", 2));
    TW_ASSERT_OK(tw_zip_writer_finish(zip));
    tw_zip_writer_free(zip);
    return path;
}

static inline const char *pt_archive(const char *pickle, size_t size) {
    return pt_archive_of(false, pickle, size);
}

/* From here on this process (Check runs each test in one of its own) gets no more memory than twice a file of
 * `size` bytes and `beside`, so that whoever asks for more fails with TW_ERR_MEMORY. Sanitizers need all of
 * the address space. */
static inline void limit_memory_to(size_t size, size_t beside) {
#ifndef __SANITIZE_ADDRESS__
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (!f || fscanf(f, "%lu", &pages) != 1) ck_abort_msg("cannot read /proc/self/statm");
    fclose(f);
    size_t bytes = pages * (size_t)sysconf(_SC_PAGESIZE) + 2 * size + beside;
    struct rlimit limit = {bytes, bytes};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
#else
    (void)size;
    (void)beside;
#endif
}

static inline void limit_memory(size_t size) {
    limit_memory_to(size, 20u << 20);
}

/* Opens the file and reads all of it, in less than 10 s; nothing in it runs. */
static inline tw_status load(const char *path) {
    tw_weights *w;
    struct stat s;
    ck_assert_int_eq(stat(path, &s), 0);
    clock_t start = clock();
    tw_status status = tw_pt_open(path, &w);
    if (!status) {
        for (int64_t i = 0; i < tw_weights_count(w) && !status; i++) {
            int64_t count = tw_weights_at(w, i)->count;
            float *f = malloc((size_t)count * sizeof *f + 1);
            ck_assert_ptr_nonnull(f);
            status = tw_weights_read_f32(w, i, f, count);
            free(f);
        }
        tw_weights_close(w);
    }
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    ck_assert_msg(seconds < 10, "took %.1f s", seconds);
    ck_assert_msg(access(MARKER, F_OK) != 0, "the file was executed");
    return status;
}

typedef struct hostile {
    const char *name;
    const char *pickle;
    size_t size;
    tw_status code;
    const char *part; /* of the message */
} hostile;
#define PICKLE(literal) literal, sizeof(literal) - 1

#endif
