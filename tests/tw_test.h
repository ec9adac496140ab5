/* What every Check program of this project shares. A test file ends in
 *     TW_TEST_MAIN("tokenizer", tokenizes_words, refuses_bad_utf8)
 * where each name is a START_TEST. A test that lacks what it needs says TW_SKIP("why"). */
#ifndef TW_TESTS_TW_TEST_H
#define TW_TESTS_TW_TEST_H

#include "autograd/status.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Check sends itself a message for each assertion, also for those that hold, and moves 8 KB for each it
 * reads: of what holds millions of times not all are sent. They tell where a test
 * was when it crashed: past the first thousand, "after this point" may be that many assertions earlier. */
static inline void tw_test_passed(const char *file, int line) {
    static __thread long passed;
    if (passed++ < 1000 || passed % 1000 == 0) _mark_point(file, line);
}
#undef ck_assert_msg
#define ck_assert_msg(condition, ...)                                                                        \
    ((condition) ? tw_test_passed(__FILE__, __LINE__)                                                        \
                 : _ck_assert_failed(__FILE__, __LINE__, "Assertion '" #condition "' failed", __VA_ARGS__))

#define TW_ASSERT_OK(call)                                                                                   \
    do {                                                                                                     \
        tw_status status_ = (call);                                                                          \
        ck_assert_msg(status_ == TW_OK, "%s failed (%s): %s", #call, tw_status_name(status_),                \
                      tw_last_error());                                                                      \
    } while (0)

/* The call must fail with `code` and a message that contains `part`. */
#define TW_ASSERT_FAILS(call, code, part)                                                                    \
    do {                                                                                                     \
        tw_status status_ = (call);                                                                          \
        ck_assert_msg(status_ == (code), "%s gave '%s' (%s), expected '%s'", #call, tw_status_name(status_), \
                      status_ ? tw_last_error() : "", tw_status_name(code));                                 \
        ck_assert_msg(strstr(tw_last_error(), (part)) != NULL, "message '%s' lacks '%s'", tw_last_error(),   \
                      (part));                                                                               \
    } while (0)

/* scripts/test.sh counts these lines. */
#define TW_SKIP(why)                                                                                         \
    do {                                                                                                     \
        printf("SKIP %s: %s\n", __func__, (why));                                                            \
        fflush(stdout);                                                                                      \
        return;                                                                                              \
    } while (0)

/* For a main that adds its tests itself: loops, a fixture. The time only ends what hangs (Check's own is 4
 * s): sanitizers on a crowded machine take long. CTest's is longer, so that the test is named. */
static inline int tw_test_run_case(const char *name, TCase *tcase) {
    tcase_set_timeout(tcase, 1500);
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int tw_test_run(const char *name, const TTest *const *tests, size_t count) {
    TCase *tcase = tcase_create(name);
    for (size_t i = 0; i < count; i++) tcase_add_test(tcase, tests[i]);
    return tw_test_run_case(name, tcase);
}

#define TW_TEST_MAIN(name, ...)                                                                              \
    int main(void) {                                                                                         \
        const TTest *const tests_[] = {__VA_ARGS__};                                                         \
        return tw_test_run(name, tests_, sizeof tests_ / sizeof tests_[0]);                                  \
    }

#endif
