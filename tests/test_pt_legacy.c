/* Damaged and lying .pt files of the legacy form, which is no archive, and files that torch.save did not
 * write. */
#include "pt_bytes.h"

static const char MAGIC[] = "\x80\2\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.";
static const char VERSION[] = "\x80\2M\xe9\3.";
static const char SYSTEM[] = "\x80\2}X\x0d\0\0\0little_endian\x88s.";
static const char KEYS[] = "\x80\2]" U("\1", "0") "a.";
static const float VALUES[] = {1, 2, 3, 4};

static void append(const void *bytes, size_t n) {
    memcpy(file + size, bytes, n);
    size += n;
}
#define APPEND(literal) append(literal, sizeof(literal) - 1)

static void legacy(const char *system, size_t system_size, const char *keys, size_t keys_size,
                   int64_t count) {
    file = calloc(1, 1 << 16);
    size = 0;
    APPEND(MAGIC);
    APPEND(VERSION);
    append(system, system_size);
    APPEND(PLAIN);
    append(keys, keys_size);
    append(&count, sizeof count);
    append(VALUES, sizeof VALUES);
}

START_TEST(refuses_legacy_lies) {
    float values[64] = {0};
    legacy(SYSTEM, sizeof SYSTEM - 1, KEYS, sizeof KEYS - 1, 4);
    TW_ASSERT_OK(load_bytes(file, size, values));
    ck_assert(values[0] == 1 && values[3] == 4);
    for (size_t n = 0; n < size; n++)
        ck_assert_msg(load_bytes(file, n, values) != TW_OK, "accepted when cut to %zu bytes", n);
    for (size_t i = 0; i < size - sizeof VALUES; i++) { /* no crash, whatever it says */
        file[i] ^= 0xff;
        if (load_bytes(file, size, values) != TW_OK) ck_assert_str_ne(tw_last_error(), "");
        file[i] ^= 0xff;
    }
    free(file);
    legacy(SYSTEM, sizeof SYSTEM - 1, KEYS, sizeof KEYS - 1, (int64_t)1 << 60);
    refuse(TW_ERR_FORMAT, "storage '0' has 1152921504606846976 elements, 4 are expected");
    legacy(SYSTEM, sizeof SYSTEM - 1, KEYS, sizeof KEYS - 1, -1);
    refuse(TW_ERR_FORMAT, "has -1 elements");
    static const char big[] = "\x80\2}X\x0d\0\0\0little_endian\x89s.", silent[] = "\x80\2}.";
    legacy(big, sizeof big - 1, KEYS, sizeof KEYS - 1, 4);
    refuse(TW_ERR_UNSUPPORTED, "big-endian");
    legacy(silent, sizeof silent - 1, KEYS, sizeof KEYS - 1, 4);
    refuse(TW_ERR_FORMAT, "does not say its byte order");
    static const char none[] = "\x80\2].", other[] = "\x80\2]" U("\1", "7") "a.",
                      twice[] = "\x80\2](" U("\1", "0") U("\1", "0") "e.", code[] = "cos\nsystem\n(Vid\ntR.";
    legacy(SYSTEM, sizeof SYSTEM - 1, none, sizeof none - 1, 4);
    refuse(TW_ERR_FORMAT, "list of storages does not match");
    legacy(SYSTEM, sizeof SYSTEM - 1, other, sizeof other - 1, 4);
    refuse(TW_ERR_FORMAT, "list of storages does not match");
    legacy(SYSTEM, sizeof SYSTEM - 1, twice, sizeof twice - 1, 4);
    refuse(TW_ERR_FORMAT, "list of storages does not match");
    legacy(SYSTEM, sizeof SYSTEM - 1, code, sizeof code - 1, 4);
    refuse(TW_ERR_UNSUPPORTED, "GLOBAL");
    legacy(code, sizeof code - 1, KEYS, sizeof KEYS - 1, 4);
    refuse(TW_ERR_UNSUPPORTED, "GLOBAL");
}
END_TEST

START_TEST(says_what_else_it_may_be) {
    static const struct {
        const char *bytes, *part;
    } others[] = {{"<!DOCTYPE html>", "may be a web page"},
                  {"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"},
                  {"\x89HDF\r\n\x1a\n", "HDF5"},
                  {"12345678{\"a\":", "safetensors"},
                  {"\x80\2}.", "not a file of torch.save"}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        file = calloc(1, 64);
        size = strlen(others[i].bytes);
        memcpy(file, others[i].bytes, size);
        refuse(TW_ERR_FORMAT, others[i].part);
    }
    file = calloc(1, 1);
    size = 0;
    refuse(TW_ERR_FORMAT, "the file is empty");
    tw_weights *w;
    TW_ASSERT_FAILS(tw_pt_open("/nonexistent.pt", &w), TW_ERR_IO, "cannot open /nonexistent.pt");
    TW_ASSERT_FAILS(tw_pt_open("/tmp", &w), TW_ERR_IO, "/tmp: it is a folder, not a file");
}
END_TEST

TW_TEST_MAIN("pt_legacy", refuses_legacy_lies, says_what_else_it_may_be)
