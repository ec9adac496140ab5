#include "train/formats/safetensors.h"
#include "tw_test.h"

#include "data/files.h"

#include <inttypes.h>
#include <sys/resource.h>
#include <unistd.h>

#define GOLDEN TW_SOURCE_DIR "/tests/golden/hf/"

static char folder[64];

static void remove_folder(void) {
    tw_remove_folder(folder);
}

static const char *temp_path(const char *name) {
    static char path[160];
    if (!folder[0]) {
        strcpy(folder, "/tmp/tw_safetensors_XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(folder));
        atexit(remove_folder); /* each test is a process of its own */
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Length, header, data: `length` may lie. */
static void write_file(const char *path, uint64_t length, const char *header, size_t size,
                       size_t data_bytes) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < 8; i++) fputc((int)(length >> 8 * i & 255), file);
    fwrite(header, 1, size, file);
    for (size_t i = 0; i < data_bytes; i++) fputc((int)(i & 255), file);
    ck_assert_int_eq(fclose(file), 0);
}

static tw_status open_header(const char *header, size_t data_bytes) {
    const char *path = temp_path("case.safetensors");
    write_file(path, strlen(header), header, strlen(header), data_bytes);
    tw_weights *w;
    tw_status status = tw_safetensors_open(path, &w);
    ck_assert_ptr_eq(status ? w : NULL, NULL);
    tw_weights_close(w);
    return status;
}

#define T(offsets) "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" offsets "]}"
#define AS(type, shape, offsets)                                                                             \
    "{\"t\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" offsets "]}}"

/* The forms that are allowed, so that the cases below are refused for what they are about. */
START_TEST(opens_what_is_allowed) {
    TW_ASSERT_OK(open_header("{}", 0));
    TW_ASSERT_OK(
        open_header(" {\"__metadata__\": {\"a\": \"x\\n\", \"b\": \"\"} , \"t\" :" T("0,8") "} \n ", 8));
    TW_ASSERT_OK(open_header("{\"b\":" T("8,16") ",\"a\":" T("0,8") "}", 16));
    TW_ASSERT_OK(open_header(AS("I64", "[]", "0,8"), 8));
    TW_ASSERT_OK(open_header(AS("U8", "[3,0,5]", "0,0"), 0));
    TW_ASSERT_OK(open_header(AS("BOOL", "[1,1,1,1,1,1,1,3]", "0,3"), 3));
}
END_TEST

static const struct {
    const char *header;
    size_t data;
    tw_status code;
    const char *part;
} hostile[] = {
    /* layout */
    {"{\"a\":" T("0,8") ",\"b\":" T("4,12") "}", 12, TW_ERR_FORMAT, "'a' and 'b' overlap"},
    {"{\"a\":" T("0,8") ",\"b\":" T("0,8") "}", 8, TW_ERR_FORMAT, "overlap"},
    {"{\"a\":" T("0,8") ",\"b\":" T("12,20") "}", 20, TW_ERR_FORMAT, "4 bytes before the data of tensor 'b'"},
    {"{\"a\":" T("8,16") "}", 16, TW_ERR_FORMAT, "8 bytes before the data of tensor 'a'"},
    {"{\"a\":" T("0,8") "}", 9, TW_ERR_FORMAT, "1 bytes after the last tensor"},
    {"{}", 4, TW_ERR_FORMAT, "4 bytes after the last tensor"},
    {"{\"a\":" T("0,8") "}", 7, TW_ERR_FORMAT, "tensor 'a': its data_offsets [0, 8] lie outside the 7 bytes"},
    {AS("F32", "[2]", "8,0"), 8, TW_ERR_FORMAT, "lie outside"},
    {AS("F32", "[2]", "-8,0"), 8, TW_ERR_FORMAT, "lie outside"},
    {AS("F32", "[2]", "9223372036854775800,9223372036854775807"), 8, TW_ERR_FORMAT, "lie outside"},
    {AS("F32", "[2]", "0,18446744073709551616"), 8, TW_ERR_FORMAT, "tensor 't': bad JSON"},
    {AS("F32", "[2]", "0"), 8, TW_ERR_FORMAT, "'data_offsets'"},
    {AS("F32", "[2]", "0,8,8"), 8, TW_ERR_FORMAT, "'data_offsets'"},
    {AS("F32", "[2]", "0,8.0"), 8, TW_ERR_FORMAT, "'data_offsets'"},
    /* shapes and types */
    {AS("F32", "[3]", "0,8"), 8, TW_ERR_FORMAT, "its shape and type make 12 bytes, its data_offsets 8"},
    {AS("F64", "[2]", "0,8"), 8, TW_ERR_FORMAT, "make 16 bytes"},
    {AS("F32", "[1152921504606846976]", "0,8"), 8, TW_ERR_FORMAT, "more than 2^48"},
    {AS("F32", "[4294967296,4294967296]", "0,0"), 0, TW_ERR_FORMAT, "more than 2^48"},
    {AS("F32", "[0,1152921504606846976]", "0,0"), 0, TW_ERR_FORMAT, "more than 2^48"},
    {AS("F32", "[-2]", "0,8"), 8, TW_ERR_FORMAT, "whole number"},
    {AS("F32", "[\"2\"]", "0,8"), 8, TW_ERR_FORMAT, "whole number"},
    {AS("F32", "[2.0]", "0,8"), 8, TW_ERR_FORMAT, "whole number"},
    {AS("F32", "2", "0,8"), 8, TW_ERR_FORMAT, "'shape' is missing or not an array"},
    {AS("F32", "[1,1,1,1,1,1,1,1,2]", "0,8"), 8, TW_ERR_UNSUPPORTED, "9 dimensions"},
    {AS("F8_E4M3", "[8]", "0,8"), 8, TW_ERR_UNSUPPORTED, "tensor 't': data of type 'F8_E4M3'"},
    {"{\"t\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, TW_ERR_FORMAT, "'dtype' is missing"},
    {"{\"t\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, TW_ERR_FORMAT, "'dtype' is missing"},
    {"{\"t\":[1,2]}", 8, TW_ERR_FORMAT, "not a JSON object"},
    {"{\"t\":null}", 8, TW_ERR_FORMAT, "not a JSON object"},
    /* names */
    {"{\"a\":" T("0,8") ",\"a\":" T("8,16") "}", 16, TW_ERR_FORMAT, "'a'"},
    {"{\"a\":" T("0,8") ",\"\\u0061\":" T("8,16") "}", 16, TW_ERR_FORMAT, "'a'"},
    {"{\"t\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, TW_ERR_FORMAT,
     "duplicate"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, TW_ERR_FORMAT, "'__metadata__' is there twice"},
    {"{\"__metadata__\":{\"a\":1}}", 0, TW_ERR_FORMAT, "__metadata__: 'a' is not a string"},
    {"{\"__metadata__\":[]}", 0, TW_ERR_FORMAT, "__metadata__"},
    {"{\"a\\u0000b\":" T("0,8") "}", 8, TW_ERR_FORMAT, "bad JSON"},
    {"{\"a\\u001b[2J\":" T("0,8") "}", 8, TW_ERR_FORMAT, "control characters"},
    {"{\"a\xff\":" T("0,8") "}", 8, TW_ERR_FORMAT, "not UTF-8 at byte 3"},
    /* JSON */
    {"[]", 0, TW_ERR_FORMAT, "'{' expected"},
    {"{\"a\":" T("0,8"), 8, TW_ERR_FORMAT, "the text ends"},
    {"{\"a\":" T("0,8") "}x", 8, TW_ERR_FORMAT, "text after the object"},
    {"{\"a\":" T("0,8") ",}", 8, TW_ERR_FORMAT, "'\"' expected"},
    {"{,}", 8, TW_ERR_FORMAT, "'\"' expected"},
    {"{\"a\" 1}", 0, TW_ERR_FORMAT, "':' expected"},
    {"{\"a\":}", 0, TW_ERR_FORMAT, "a value expected"},
    {"{\"a\":[}]}", 0, TW_ERR_FORMAT, "closes nothing"},
    {"{\"a\":{\"b\":\"\\\"}}", 0, TW_ERR_FORMAT, "does not end"},
    {"{\"a", 0, TW_ERR_FORMAT, "does not end"},
    {"{\"a\\", 0, TW_ERR_FORMAT, "does not end"},
    {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]}", 0, TW_ERR_FORMAT, "nested deeper"},
    {"                    ", 0, TW_ERR_FORMAT, "the text ends"},
};

START_TEST(refuses_hostile_headers) {
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        TW_ASSERT_FAILS(open_header(hostile[i].header, hostile[i].data), hostile[i].code, hostile[i].part);
        ck_assert_ptr_nonnull(strstr(tw_last_error(), "case.safetensors"));
    }
}
END_TEST

START_TEST(refuses_wrong_lengths) {
    const uint64_t lengths[] = {3, 100, 100000001, UINT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7};
    tw_weights *w;
    const char *path = temp_path("length.safetensors");
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_file(path, lengths[i], "{}", 2, 0);
        TW_ASSERT_FAILS(tw_safetensors_open(path, &w), TW_ERR_FORMAT, "not a safetensors file");
    }
    write_file(path, 0, "{}", 2, 0);
    TW_ASSERT_FAILS(tw_safetensors_open(path, &w), TW_ERR_FORMAT, "'{' expected");
    ck_assert_int_eq(truncate(path, 9), 0);
    TW_ASSERT_FAILS(tw_safetensors_open(path, &w), TW_ERR_FORMAT, "too few");
    ck_assert_int_eq(truncate(path, 0), 0);
    TW_ASSERT_FAILS(tw_safetensors_open(path, &w), TW_ERR_FORMAT, "too few");
    TW_ASSERT_FAILS(tw_safetensors_open(temp_path("none"), &w), TW_ERR_NOT_FOUND, "/none");
    TW_ASSERT_FAILS(tw_safetensors_open("/tmp", &w), TW_ERR_IO, "it is a folder");
}
END_TEST

/* A real file cut at any byte, and with any byte of its header changed, is refused or still whole. */
START_TEST(survives_damage) {
    uint8_t *data;
    size_t size;
    TW_ASSERT_OK(tw_read_file(GOLDEN "types.safetensors", &data, &size));
    const char *path = temp_path("damaged.safetensors");
    for (size_t i = 0; i < size; i += i < 64 ? 1 : 7) {
        FILE *file = fopen(path, "wb");
        fwrite(data, 1, i, file);
        fclose(file);
        tw_weights *w;
        ck_assert_int_ne(tw_safetensors_open(path, &w), TW_OK);
    }
    for (size_t i = 0; i < size; i++) {
        data[i] ^= (uint8_t)(1 + i % 255);
        FILE *file = fopen(path, "wb");
        fwrite(data, 1, size, file);
        fclose(file);
        data[i] ^= (uint8_t)(1 + i % 255);
        tw_weights *w;
        char bytes[4096];
        if (tw_safetensors_open(path, &w)) continue;
        for (int64_t k = 0; k < tw_weights_count(w); k++) {
            ck_assert_int_le(tw_weights_at(w, k)->count, 4096 / 8);
            if (tw_weights_at(w, k)->count) TW_ASSERT_OK(tw_weights_read(w, k, bytes));
        }
        tw_weights_close(w);
    }
    free(data);
}
END_TEST

#ifndef __SANITIZE_ADDRESS__
static long peak_kib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}
#endif

/* Headers of 24 MB that a JSON tree would make twenty times as large. */
START_TEST(memory_stays_within_twice_the_file) {
#ifdef __SANITIZE_ADDRESS__
    TW_SKIP("the sanitizer's own memory would be measured");
#else
    static const char *const heads[] = {"{\"__metadata__\":{", "{", "{\"a\":[0", "{\"a\":{"};
    static const char *const bodies[] = {"\"%07d\":\"\",",
                                         "\"%07d\":{\"dtype\":\"U8\",\"shape\":[],"
                                         "\"data_offsets\":[0,0]},",
                                         ",%d", "\"%d\":[],"};
    const size_t bytes = 24 << 20;
    char *text = malloc(bytes + 128);
    const char *path = temp_path("large.safetensors");
    for (int kind = 0; kind < 4; kind++) {
        size_t n = (size_t)sprintf(text, "%s", heads[kind]);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        for (int i = 0; n < bytes; i++) n += (size_t)sprintf(text + n, bodies[kind], i);
#pragma GCC diagnostic pop
        write_file(path, n, text, n, 0);
        long before = peak_kib();
        tw_weights *w;
        ck_assert_int_ne(tw_safetensors_open(path, &w), TW_OK);
        long grown = peak_kib() - before;
        ck_assert_msg(grown <= (long)(2 * bytes >> 10), "case %d took %ld KiB for %zu", kind, grown,
                      bytes >> 10);
    }
    free(text);
#endif
}
END_TEST

/* ---- writing ---- */

static tw_status copy_fill(void *self, int64_t i, void *dst) {
    tw_weights *w = self;
    return tw_weights_at(w, i)->count ? tw_weights_read(w, i, dst) : TW_OK;
}

/* The items of w in reverse order, to see that the writer sorts. */
typedef struct reversed {
    tw_weights *w;
    int64_t n;
} reversed;

static tw_status reversed_fill(void *self, int64_t i, void *dst) {
    const reversed *r = self;
    return copy_fill(r->w, r->n - 1 - i, dst);
}

static void assert_same_bytes(const char *a, const char *b) {
    uint8_t *x, *y;
    size_t m, n;
    TW_ASSERT_OK(tw_read_file(a, &x, &m));
    TW_ASSERT_OK(tw_read_file(b, &y, &n));
    ck_assert_uint_eq(m, n);
    ck_assert_mem_eq(x, y, m);
    free(x);
    free(y);
}

START_TEST(writes_what_the_reference_writes) {
    tw_weights *w;
    TW_ASSERT_OK(tw_safetensors_open(GOLDEN "types.safetensors", &w));
    int64_t n = tw_weights_count(w);
    ck_assert_int_eq(n, 21);
    tw_weight items[32];
    for (int64_t i = 0; i < n; i++) items[i] = *tw_weights_at(w, n - 1 - i);
    reversed r = {w, n};
    tw_weights_output output = {items, n, reversed_fill, &r};
    TW_ASSERT_OK(tw_safetensors_write(temp_path("types.safetensors"), &output));
    assert_same_bytes(GOLDEN "types.safetensors", temp_path("types.safetensors"));
    int64_t at = tw_weights_find(w, "一 \"quoted\" \\ name");
    ck_assert_int_ge(at, 0);
    ck_assert_int_eq(tw_weights_at(w, at)->ndim, 0);
    float value;
    TW_ASSERT_OK(tw_weights_read_f32(w, at, &value, 1));
    ck_assert_float_eq(value, 1.5f);
    tw_weights_close(w);
}
END_TEST

static tw_status failing_fill(void *self, int64_t i, void *dst) {
    (void)self;
    if (i == 1) return FAIL(TW_ERR_NUMERIC, "no value");
    memset(dst, 1, 8);
    return TW_OK;
}

START_TEST(a_failed_write_leaves_the_older_file) {
    tw_weight items[2] = {{.name = "a", .type = TW_WEIGHT_F32, .ndim = 1, .shape = {2}, .count = 2},
                          {.name = "b", .type = TW_WEIGHT_F32, .ndim = 1, .shape = {2}, .count = 2}};
    tw_weights_output output = {items, 1, failing_fill, NULL};
    char path[160], copy[160];
    strcpy(path, temp_path("old.safetensors"));
    strcpy(copy, temp_path("copy.safetensors"));
    TW_ASSERT_OK(tw_safetensors_write(path, &output));
    TW_ASSERT_OK(tw_safetensors_write(copy, &output));
    output.n = 2;
    TW_ASSERT_FAILS(tw_safetensors_write(path, &output), TW_ERR_NUMERIC, "no value");
    assert_same_bytes(path, copy);
    items[1].name = "a", items[1].type = TW_WEIGHT_I32;
    TW_ASSERT_FAILS(tw_safetensors_write(path, &output), TW_ERR_ARGUMENT, "'a' is there twice");
    items[1].name = "\xff";
    TW_ASSERT_FAILS(tw_safetensors_write(path, &output), TW_ERR_ARGUMENT, "cannot be the name");
    TW_ASSERT_FAILS(tw_safetensors_write("/nowhere/x.safetensors", &output), TW_ERR_IO, "/nowhere/x");
    assert_same_bytes(path, copy);
}
END_TEST

START_TEST(a_file_that_shrinks_is_an_error) {
    const char header[] = "{\"t\":" T("0,8") "}", *path = temp_path("shrinks.safetensors");
    write_file(path, sizeof header - 1, header, sizeof header - 1, 8);
    tw_weights *w;
    char data[8];
    TW_ASSERT_OK(tw_safetensors_open(path, &w));
    TW_ASSERT_OK(tw_weights_read(w, 0, data));
    for (int i = 0; i < 8; i++) ck_assert_int_eq(data[i], i);
    ck_assert_int_eq(truncate(path, 20), 0);
    TW_ASSERT_FAILS(tw_weights_read(w, 0, data), TW_ERR_IO, "tensor 't'");
    tw_weights_close(w);
}
END_TEST

TW_TEST_MAIN("safetensors", opens_what_is_allowed, refuses_hostile_headers, refuses_wrong_lengths,
             survives_damage, memory_stays_within_twice_the_file, writes_what_the_reference_writes,
             a_failed_write_leaves_the_older_file, a_file_that_shrinks_is_an_error)
