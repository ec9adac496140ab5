#include "tw_test.h"

static tw_status inner(void) {
    return FAIL(TW_ERR_SHAPE, "a is (%d,%d)", 2, 3);
}

static tw_status outer(void) {
    TRY(inner());
    return TW_OK;
}

START_TEST(passes_code_and_message_on) {
    TW_ASSERT_FAILS(outer(), TW_ERR_SHAPE, "a is (2,3)");
    ck_assert_ptr_nonnull(strstr(tw_last_error_place(), "test_status.c:"));
}
END_TEST

START_TEST(context_is_put_before_the_message) {
    ck_assert_int_eq(tw_fail_context(inner(), "file.tsv line %d", 7), TW_ERR_SHAPE);
    ck_assert_str_eq(tw_last_error(), "file.tsv line 7: a is (2,3)");
}
END_TEST

START_TEST(long_messages_are_cut_not_overrun) {
    char big[4096];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    ck_assert_int_eq(FAIL(TW_ERR_IO, "%s", big), TW_ERR_IO);
    ck_assert_uint_eq(strlen(tw_last_error()), 1023);
}
END_TEST

TW_TEST_MAIN("status", passes_code_and_message_on, context_is_put_before_the_message,
             long_messages_are_cut_not_overrun)
