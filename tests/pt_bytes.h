/* A .pt file in memory that a test damages byte by byte, written out and read. */
#ifndef TW_TESTS_PT_BYTES_H
#define TW_TESTS_PT_BYTES_H

#include "pt_files.h"

static const char PLAIN[] = DICT(TENSOR(FOUR, "K\0", "(K\4t", "(K\1t"));

static unsigned char *file; /* the file under test, in memory; capacity well above its size */
static size_t size;

static inline tw_status load_bytes(const unsigned char *bytes, size_t n, float *values) {
    FILE *f = fopen(pt_path(), "wb");
    ck_assert_ptr_nonnull(f);
    if (n) ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
    fclose(f);
    tw_weights *w;
    tw_status status = tw_pt_open(pt_path(), &w);
    if (!status) {
        for (int64_t i = 0; i < tw_weights_count(w) && !status; i++) {
            ck_assert_int_le(tw_weights_at(w, i)->count, 64);
            status = tw_weights_read_f32(w, i, values, tw_weights_at(w, i)->count);
        }
        if (!status && tw_weights_count(w) == 1) ck_assert_str_eq(tw_weights_at(w, 0)->name, "w");
    }
    tw_weights_close(w); /* NULL if it could not be opened */
    return status;
}

/* The file as it is now must be refused. */
static inline void refuse(tw_status code, const char *part) {
    float values[64];
    TW_ASSERT_FAILS(load_bytes(file, size, values), code, part);
    ck_assert_msg(strstr(tw_last_error(), pt_path()) != NULL, "'%s' lacks the file", tw_last_error());
    unlink(pt_path());
    free(file);
    file = NULL;
}

#endif
