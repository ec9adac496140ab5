/* Checkpoints: what comes back is bit for bit what went in, or the file is refused with a reason. */
#include "odd_checkpoint.h"

#include "train/formats/fletcher32.h"
#include "train/formats/h5.h"
#include "train/formats/seal.h"
#include "train/formats/xxhash64.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>

START_TEST(round_trip_is_bit_exact) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    tw_checkpoint_meta meta = a_meta();
    TW_ASSERT_OK(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, t, TENSORS));
    ck_assert_int_eq(count_files(), 1);
    tw_checkpoint *c;
    TW_ASSERT_OK(tw_checkpoint_open(in_folder(0, "a.h5"), &c));
    check_meta(tw_checkpoint_get_meta(c));
    ck_assert_int_eq(tw_checkpoint_count(c), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const tw_checkpoint_entry *e = tw_checkpoint_at(c, i);
        ck_assert_str_eq(e->name, t[i].name);
        ck_assert_int_eq(e->ndim, t[i].ndim);
        TW_ASSERT_OK(tw_checkpoint_expect(c, t[i].name, t[i].ndim, t[i].shape));
        for (int part = 0; part < 3; part++) check_part(c, &t[i], (tw_checkpoint_part)part);
    }
    float some[4];
    TW_ASSERT_OK(tw_checkpoint_read_range(c, "bert.matrix", TW_CHECKPOINT_M, 6, some, 4));
    ck_assert_mem_eq(some, matrix + 6, sizeof some);
    tw_checkpoint_close(c);
    remove_folder();
}
END_TEST

/* XXH64's published test values (xxhsum's sanity check: bytes of a generator, and the empty input). */
START_TEST(hash_has_the_published_values) {
    unsigned char sanity[222];
    uint64_t generator = 2654435761u; /* PRIME32 */
    for (size_t i = 0; i < sizeof sanity; i++) {
        sanity[i] = (unsigned char)(generator >> 56);
        generator *= 11400714785074694797u; /* PRIME64 */
    }
    ck_assert_uint_eq(tw_xxh64(NULL, 0, 0), 0xEF46DB3751D8E999u);
    ck_assert_uint_eq(tw_xxh64(NULL, 0, 2654435761u), 0xAC75FDA2929B17EFu);
    ck_assert_uint_eq(tw_xxh64("abc", 3, 0), 0x44BC2CF5AD770999u);
    ck_assert_uint_eq(tw_xxh64(sanity, 1, 0), 0xE934A84ADB052768u);
    ck_assert_uint_eq(tw_xxh64(sanity, 14, 0), 0x8282DCC4994E35C8u);
    ck_assert_uint_eq(tw_xxh64(sanity, 222, 0), 0xB641AE8CB691C174u);
    ck_assert_uint_eq(tw_xxh64(sanity, 222, 2654435761u), 0x20CB8AB7AE10C14Au);
}
END_TEST

/* The definition, one word at a time, as HDF5 computes it. */
static uint32_t plain_fletcher32(const unsigned char *p, size_t size) {
    uint32_t sum1 = 0, sum2 = 0;
    for (size_t i = 0; i + 1 < size; i += 2) {
        sum1 += (uint32_t)p[i] << 8 | p[i + 1];
        sum1 = (sum1 & 0xffff) + (sum1 >> 16);
        sum2 += sum1;
        sum2 = (sum2 & 0xffff) + (sum2 >> 16);
    }
    return sum2 << 16 | sum1;
}

START_TEST(fletcher32_is_that_of_hdf5) {
    static unsigned char bytes[5000];
    for (int fill = 0; fill < 4;
         fill++) { /* zeros, ones in every bit (0 modulo 65535), noise, mostly zeros */
        for (size_t i = 0; i < sizeof bytes; i++) {
            unsigned char noise = (unsigned char)((i * 2654435761u) >> 13);
            bytes[i] = fill == 0 ? 0 : fill == 1 ? 0xff : fill == 2 ? noise : i % 97 == 5 ? noise : 0;
        }
        for (size_t size = 0; size <= sizeof bytes; size += 2)
            ck_assert_uint_eq(tw_fletcher32(bytes, size), plain_fletcher32(bytes, size));
    }
}
END_TEST

START_TEST(same_content_same_bytes) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    tw_checkpoint_meta meta = a_meta();
    TW_ASSERT_OK(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, t, TENSORS));
    TW_ASSERT_OK(tw_checkpoint_write(in_folder(1, "b.h5"), &meta, t, TENSORS));
    size_t na, nb;
    unsigned char *a = load(in_folder(0, "a.h5"), &na), *b = load(in_folder(1, "b.h5"), &nb);
    ck_assert_uint_eq(na, nb);
    ck_assert_int_eq(memcmp(a, b, na), 0);
    free(a);
    free(b);
    remove_folder();
}
END_TEST

START_TEST(a_flipped_bit_in_any_byte_is_refused) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    unsigned char *bytes = small_checkpoint(path, &size);
    int refused = 0, fd = open(path, O_WRONLY);
    for (size_t i = 0; i < size; i++) {
        unsigned char flipped = bytes[i] ^ (unsigned char)(1u << (i % 8));
        ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)i), 1);
        tw_status status = read_all(path);
        ck_assert_int_eq(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
        if (status == TW_OK) continue;
        ck_assert_int_eq(status, TW_ERR_FORMAT);
        ck_assert_ptr_nonnull(strstr(tw_last_error(), path));
        refused++;
    }
    ck_assert_int_eq(refused, (int)size);
    close(fd);
    TW_ASSERT_OK(read_all(path));
    free(bytes);
    remove_folder();
}
END_TEST

START_TEST(any_truncation_is_refused) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    unsigned char *bytes = small_checkpoint(path, &size);
    for (size_t n = size; n-- > 0;) {
        ck_assert_int_eq(truncate(path, (off_t)n), 0);
        TW_ASSERT_FAILS(read_all(path), TW_ERR_FORMAT, n == 0 ? "is empty" : n < 8 ? "not a" : "truncated");
    }
    store(path, bytes, size + 1); /* load() gives one byte more */
    TW_ASSERT_FAILS(read_all(path), TW_ERR_FORMAT, "damaged");
    free(bytes);
    remove_folder();
}
END_TEST

/* What the seal cannot see, damage before it was made, fletcher32 finds in the data sets. */
START_TEST(fletcher32_guards_the_values) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    unsigned char *bytes = small_checkpoint(path, &size), *at = NULL;
    for (size_t i = 512; i + sizeof matrix <= size && !at; i++)
        if (memcmp(bytes + i, matrix, sizeof matrix) == 0) at = bytes + i;
    ck_assert_ptr_nonnull(at);
    at[17] ^= 4;
    store(path, bytes, size);
    TW_ASSERT_OK(tw_seal_write(path, "checkpoint", 0));
    tw_checkpoint *c;
    float values[15];
    TW_ASSERT_OK(tw_checkpoint_open(path, &c));
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "bert.matrix", TW_CHECKPOINT_PARAM, values, 15), TW_ERR_FORMAT,
                    "params/bert.matrix does not match its checksum");
    TW_ASSERT_OK(tw_checkpoint_read(c, "bert.matrix", TW_CHECKPOINT_M, values, 15));
    tw_checkpoint_close(c);
    free(bytes);
    remove_folder();
}
END_TEST

/* A reader may prepare memory for the parameters, the moments not counted, before anything is checked. */
START_TEST(the_seal_tells_what_memory_to_want) {
    make_folder();
    size_t size;
    const char *path = in_folder(0, "a.h5");
    unsigned char *bytes = small_checkpoint(path, &size);
    ck_assert_uint_eq(tw_seal_memory(path), 1 << 20);
    uint64_t digest = tw_seal_digest(path);
    ck_assert_uint_ne(digest, 0);
    bytes[12] ^= 1; /* not as it was sealed: nothing is told */
    store(path, bytes, size);
    ck_assert_uint_eq(tw_seal_memory(path), 0);
    ck_assert_uint_eq(tw_seal_digest(path), 0);
    ck_assert_uint_eq(tw_seal_memory(in_folder(1, "none.h5")), 0);
    ck_assert_uint_eq(tw_seal_digest(in_folder(1, "none.h5")), 0);
    bytes[12] ^= 1; /* one value is another: so is the digest of its seal */
    bytes[size - 1] ^= 1;
    store(path, bytes, size);
    TW_ASSERT_OK(tw_seal_write(path, "checkpoint", 1));
    ck_assert_uint_ne(tw_seal_digest(path), digest);
    free(bytes);
    remove_folder();
}
END_TEST

START_TEST(names_what_does_not_fit) {
    make_folder();
    size_t size;
    const char *path = in_folder(0, "a.h5");
    free(small_checkpoint(path, &size));
    tw_checkpoint *c;
    float values[16];
    const int64_t other[] = {5, 3};
    TW_ASSERT_OK(tw_checkpoint_open(path, &c));
    ck_assert_ptr_null(tw_checkpoint_find(c, "visual.proj"));
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "visual.proj", TW_CHECKPOINT_PARAM, values, 1), TW_ERR_NOT_FOUND,
                    "visual.proj");
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "bert.matrix", TW_CHECKPOINT_PARAM, values, 16), TW_ERR_SHAPE,
                    "15 values, 16");
    TW_ASSERT_FAILS(tw_checkpoint_read(c, "visual.odd", TW_CHECKPOINT_V, values, 7), TW_ERR_NOT_FOUND,
                    "second moment");
    TW_ASSERT_FAILS(tw_checkpoint_read_range(c, "visual.proj", TW_CHECKPOINT_M, 0, values, 1),
                    TW_ERR_NOT_FOUND, "visual.proj");
    TW_ASSERT_FAILS(tw_checkpoint_read_range(c, "bert.matrix", TW_CHECKPOINT_M, 12, values, 4), TW_ERR_SHAPE,
                    "15 values: not the 4 from number 12 on");
    TW_ASSERT_FAILS(tw_checkpoint_read_range(c, "visual.odd", TW_CHECKPOINT_V, 0, values, 1),
                    TW_ERR_NOT_FOUND, "second moment");
    TW_ASSERT_FAILS(tw_checkpoint_expect(c, "bert.matrix", 2, other), TW_ERR_SHAPE,
                    "(3,5), the model wants (5,3)");
    TW_ASSERT_FAILS(tw_checkpoint_expect(c, "logit_scale", 1, other), TW_ERR_SHAPE, "()");
    TW_ASSERT_FAILS(tw_checkpoint_expect(c, "none", 0, NULL), TW_ERR_NOT_FOUND, "none");
    tw_checkpoint_close(c);
    remove_folder();
}
END_TEST

START_TEST(refuses_impossible_tensors) {
    make_folder();
    tw_checkpoint_meta meta = a_meta();
    float one[2] = {1, 2};
    const struct {
        tw_checkpoint_tensor tensors[2];
        const char *part;
    } cases[] = {
        {{{"a", 1, {2}, one, 0, 0}, {"a", 1, {2}, one, 0, 0}}, "write params/a"},
        {{{"", 1, {2}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "cannot be called ''"},
        {{{"a/b", 1, {2}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "cannot be called 'a/b'"},
        {{{"a", 1, {2}, NULL, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "a has no values"},
        {{{"a", 1, {0}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "is 0"},
        {{{"a", 5, {2}, one, 0, 0}, {"b", 1, {2}, one, 0, 0}}, "5 dimensions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tw_status status = tw_checkpoint_write(in_folder(0, "a.h5"), &meta, cases[i].tensors, 2);
        ck_assert_int_ne(status, TW_OK);
        ck_assert_msg(strstr(tw_last_error(), cases[i].part) != NULL, "%s", tw_last_error());
        ck_assert_int_eq(count_files(), 0);
    }
    remove_folder();
}
END_TEST

/* A run that goes on counts from these. */
START_TEST(refuses_impossible_counts) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    fill_tensors(t);
    for (int i = 0; i < 6; i++) {
        tw_checkpoint_meta meta = a_meta();
        int64_t *counts[] = {&meta.step,       &meta.epoch,   &meta.position,
                             &meta.adam_steps, &meta.skipped, &meta.skipped_total};
        *counts[i] = i % 2 ? -1 : INT64_MAX;
        TW_ASSERT_OK(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, t, TENSORS));
        tw_checkpoint *c;
        TW_ASSERT_FAILS(tw_checkpoint_open(in_folder(0, "a.h5"), &c), TW_ERR_FORMAT,
                        i % 2 ? "damaged: -1 where" : "damaged: 9223372036854775807 where");
    }
    remove_folder();
}
END_TEST

START_TEST(refuses_other_files) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    tw_checkpoint *c;
    tw_h5 *f;
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_IO, "No such file");
    TW_ASSERT_FAILS(tw_checkpoint_open(odd_folder, &c), TW_ERR_IO, "latest");
    store(path, (const unsigned char *)"PK\3\4 and so on", 14);
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_FORMAT, "zip");
    /* Written by h5py 3 with default settings: one data set "x" of 4 floats. */
    TW_ASSERT_FAILS(tw_checkpoint_open(TW_SOURCE_DIR "/tests/golden/h5py_plain.h5", &c), TW_ERR_FORMAT,
                    "not a tuwen checkpoint: it is an HDF5 file of another program");
    TW_ASSERT_OK(tw_h5_create(path, "features", 1, &f));
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_FORMAT, "it is a tuwen features file");
    TW_ASSERT_OK(tw_h5_create(path, "checkpoint", TW_CHECKPOINT_VERSION + 1, &f));
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_UNSUPPORTED, "newer tuwen");
    TW_ASSERT_OK(tw_h5_create(path, "checkpoint", TW_CHECKPOINT_VERSION, &f));
    TW_ASSERT_OK(tw_h5_commit(f));
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_FORMAT, "lacks the attribute context_length");
    /* A seal of a later layout: version 2 with a right checksum. */
    size_t size;
    unsigned char *bytes = load(path, &size);
    bytes[8] = 2;
    uint64_t check = tw_xxh64(bytes, 504, 0);
    memcpy(bytes + 504, &check, sizeof check);
    store(path, bytes, size);
    TW_ASSERT_FAILS(tw_checkpoint_open(path, &c), TW_ERR_UNSUPPORTED, "newer tuwen");
    free(bytes);
    remove_folder();
}
END_TEST

TW_TEST_MAIN("checkpoint", round_trip_is_bit_exact, hash_has_the_published_values, fletcher32_is_that_of_hdf5,
             same_content_same_bytes, a_flipped_bit_in_any_byte_is_refused, any_truncation_is_refused,
             fletcher32_guards_the_values, the_seal_tells_what_memory_to_want, names_what_does_not_fit,
             refuses_impossible_tensors, refuses_impossible_counts, refuses_other_files)
