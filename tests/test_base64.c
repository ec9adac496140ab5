#include "data/base64.h"
#include "tw_test.h"

/* A copy without a byte to spare, so that ASan sees any read or write past the end. */
static tw_status decode(const char *text, size_t size, uint8_t **out, size_t *n) {
    char *exact = malloc(size ? size : 1);
    memcpy(exact, text, size);
    *out = malloc(tw_base64_decoded_bound(size));
    tw_status status = tw_base64_decode(exact, size, *out, n);
    free(exact);
    return status;
}

static void expect(const char *text, const char *bytes, size_t size) {
    uint8_t *out;
    size_t n;
    TW_ASSERT_OK(decode(text, strlen(text), &out, &n));
    ck_assert_msg(n == size && memcmp(out, bytes, size) == 0, "'%s' gave %zu bytes", text, n);
    free(out);
}

static void refuse(const char *text, const char *part) {
    uint8_t *out;
    size_t n;
    TW_ASSERT_FAILS(decode(text, strlen(text), &out, &n), TW_ERR_FORMAT, part);
    free(out);
}

/* Each of these is what Python's base64.urlsafe_b64decode gives. */
START_TEST(decodes_as_python) {
    expect("", "", 0);
    expect(" \n", "", 0);
    expect("YQ==", "a", 1);
    expect("YWI=", "ab", 2);
    expect("YWJj", "abc", 3);
    expect("YWJjZA==\n", "abcd", 4);
    expect("+/+/", "\xfb\xff\xbf", 3);
    expect("-_-_", "\xfb\xff\xbf", 3);
    expect("+_-/", "\xfb\xff\xbf", 3);
    expect("Y W\tJ\r\nj\v\f", "abc", 3);
    expect("YQ= =", "a", 1);
    expect("YQ\n==", "a", 1);
    expect("YWJj=", "abc", 3);
    expect("YWJj====", "abc", 3);
    expect("YQ====", "a", 1);
    expect("YR==", "a", 1); /* bits that are left over are dropped */
}
END_TEST

/* Refused by Python as well. */
START_TEST(refuses_as_python) {
    refuse("YQ", "padding");
    refuse("YQ=", "padding");
    refuse("YWI", "padding");
    refuse("YWJjZ", "position 5");
    refuse("Y", "position 1");
}
END_TEST

/* Python drops these characters silently: here they are errors with a position. */
START_TEST(says_where) {
    refuse("YWJj!WJj", "'!' at position 4");
    refuse("YWJjYW\xffj", "0xff at position 6");
    refuse("=YWJj", "position 0");
    refuse("Y===", "position 1");
    refuse("YQ=Q", "position 3");
    refuse("YQ==YQ==", "position 4");
    refuse("YWJj=YWJj", "position 5");
    refuse("YQ==!", "position 4");
}
END_TEST

START_TEST(round_trips_every_length) {
    uint8_t bytes[200], *out;
    char text[300];
    size_t n;
    for (size_t size = 0; size <= sizeof bytes; size++) {
        for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(i * 89 + size * 7);
        tw_base64_encode(bytes, size, text);
        for (int safe = 0; safe < 2; safe++) {
            size_t length = tw_base64_encoded_size(size);
            for (size_t i = 0; safe && i < length; i++)
                text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
            TW_ASSERT_OK(decode(text, length, &out, &n));
            ck_assert_uint_eq(n, size);
            ck_assert(size == 0 || memcmp(out, bytes, size) == 0);
            free(out);
        }
    }
}
END_TEST

/* Any bytes: no crash; what is accepted is never longer than promised, and encodes to the same again. */
START_TEST(survives_any_bytes) {
    uint32_t state = 1;
    static const char likely[] = "ABab01+/-_== \nYWJj\x80!";
    for (int round = 0; round < 200000; round++) {
        char text[24], again[64];
        uint8_t *out;
        size_t n, size = (size_t)round % sizeof text;
        for (size_t i = 0; i < size; i++) {
            state = state * 1664525u + 1013904223u;
            text[i] = likely[(state >> 16) % (sizeof likely - 1)];
        }
        if (decode(text, size, &out, &n) == TW_OK) {
            ck_assert_uint_le(n, tw_base64_decoded_bound(size));
            tw_base64_encode(out, n, again);
            uint8_t *second;
            size_t m;
            TW_ASSERT_OK(decode(again, tw_base64_encoded_size(n), &second, &m));
            ck_assert(m == n && (n == 0 || memcmp(out, second, n) == 0));
            free(second);
        }
        free(out);
    }
}
END_TEST

TW_TEST_MAIN("base64", decodes_as_python, refuses_as_python, says_where, round_trips_every_length,
             survives_any_bytes)
