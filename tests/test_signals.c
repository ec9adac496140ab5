#include "train/signals.h"
#include "tw_test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Check runs each test in a process of its own, so signals do not reach the others. */
static void check_signal(int number, int code, const char *reason) {
    TW_ASSERT_OK(tw_signals_install());
    ck_assert(!tw_stop_requested(NULL));
    ck_assert_int_eq(tw_stop_signal(), 0);
    raise(number);
    ck_assert(tw_stop_requested(NULL));
    ck_assert_int_eq(tw_stop_signal(), number);
    ck_assert_int_eq(tw_stop_exit_code(), code);
    ck_assert_str_eq(tw_stop_reason(), reason);
    tw_stop_reset();
    ck_assert(!tw_stop_requested(""));
}

START_TEST(sigint_asks_to_stop) {
    check_signal(SIGINT, 130, "SIGINT");
}
END_TEST

START_TEST(sigterm_asks_to_stop) {
    check_signal(SIGTERM, 143, "SIGTERM");
    raise(SIGTERM); /* and a second one still only asks */
    ck_assert(tw_stop_requested(NULL));
}
END_TEST

START_TEST(sigusr1_asks_to_stop) {
    check_signal(SIGUSR1, 0, "SIGUSR1");
}
END_TEST

START_TEST(sighup_asks_to_stop) {
    signal(SIGHUP, SIG_DFL); /* the tests may run under nohup */
    check_signal(SIGHUP, 129, "SIGHUP");
}
END_TEST

START_TEST(sighup_is_ignored_under_nohup) {
    signal(SIGHUP, SIG_IGN);
    TW_ASSERT_OK(tw_signals_install());
    raise(SIGHUP);
    ck_assert(!tw_stop_requested(NULL));
}
END_TEST

START_TEST(the_first_signal_decides) {
    TW_ASSERT_OK(tw_signals_install());
    raise(SIGUSR1);
    raise(SIGTERM);
    ck_assert_int_eq(tw_stop_signal(), SIGUSR1);
}
END_TEST

START_TEST(a_second_sigint_kills) {
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (tw_signals_install() != TW_OK) _exit(1);
        raise(SIGINT);
        if (!tw_stop_requested(NULL)) _exit(2);
        raise(SIGINT);
        _exit(3); /* not reached */
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(WTERMSIG(status), SIGINT);
}
END_TEST

START_TEST(a_file_asks_to_stop) {
    char path[] = "/tmp/tw_test_stop_XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert(tw_stop_requested(path));
    ck_assert_int_eq(tw_stop_signal(), 0);
    ck_assert_int_eq(tw_stop_exit_code(), 0);
    ck_assert_str_eq(tw_stop_reason(), "the stop file");
    TW_ASSERT_OK(tw_stop_file_remove(path));
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert(tw_stop_requested(path)); /* the request stands */
    tw_stop_reset();
    ck_assert(!tw_stop_requested(path));
    ck_assert_str_eq(tw_stop_reason(), "nothing");
    TW_ASSERT_OK(tw_stop_file_remove(path)); /* gone already */
    TW_ASSERT_FAILS(tw_stop_file_remove("/proc/version"), TW_ERR_IO, "/proc/version");
}
END_TEST

TW_TEST_MAIN("signals", sigint_asks_to_stop, sigterm_asks_to_stop, sigusr1_asks_to_stop, sighup_asks_to_stop,
             sighup_is_ignored_under_nohup, the_first_signal_decides, a_second_sigint_kills,
             a_file_asks_to_stop)
