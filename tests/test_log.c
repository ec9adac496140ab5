#include "train/log.h"
#include "tw_test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/tw_test_log_XXXXXX";

static void make_folder(void) {
    snprintf(folder, sizeof folder, "/tmp/tw_test_log_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static char *read_all(const char *path) {
    static char text[1 << 16];
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    size_t n = fread(text, 1, sizeof text - 1, file);
    text[n] = '\0';
    fclose(file);
    return text;
}

static char *log_text(const char *sub) {
    char path[256];
    snprintf(path, sizeof path, "%s%s/log.jsonl", folder, sub);
    return read_all(path);
}

START_TEST(records_are_appended_as_json_lines) {
    make_folder();
    char run[128];
    snprintf(run, sizeof run, "%s/a/b", folder); /* made with its parent */
    const tw_log_options options = {.run_dir = run};
    for (int session = 0; session < 2; session++) {
        tw_log *log = NULL;
        TW_ASSERT_OK(tw_log_open(&options, &log));
        json_t *record = json_pack("{s:s, s:i, s:f}", "event", "step", "step", 10 + session, "loss", 3.25);
        TW_ASSERT_OK(tw_log_record(log, record));
        ck_assert_ptr_null(json_object_get(record, "time")); /* the caller's object is left alone */
        json_decref(record);
        TW_ASSERT_OK(tw_log_close(log));
    }
    char *line = strtok(log_text("/a/b"), "\n");
    for (int session = 0; session < 2; session++, line = strtok(NULL, "\n")) {
        json_error_t error;
        json_t *record = json_loads(line, 0, &error);
        ck_assert_ptr_nonnull(record);
        ck_assert_int_eq(json_integer_value(json_object_get(record, "step")), 10 + session);
        ck_assert_double_eq(json_real_value(json_object_get(record, "loss")), 3.25);
        ck_assert_double_gt(json_real_value(json_object_get(record, "time")), 1.7e9);
        json_decref(record);
    }
    ck_assert_ptr_null(line);
    remove_folder();
}
END_TEST

START_TEST(an_unfinished_last_line_is_cut_off) {
    make_folder();
    char path[128];
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
    /* Longer than the block in which the last newline is looked for. */
    FILE *file = fopen(path, "w");
    fputs("{\"step\":1}\n{\"step\":2,\"text\":\"", file);
    for (int i = 0; i < 10000; i++) fputc('x', file);
    fclose(file);
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    TW_ASSERT_OK(tw_log_close(log));
    ck_assert_str_eq(read_all(path), "{\"step\":1}\n");
    remove_folder();
}
END_TEST

START_TEST(an_unwritable_folder_is_refused) {
    make_folder();
    char path[128];
    snprintf(path, sizeof path, "%s/file", folder);
    fclose(fopen(path, "w"));
    tw_log *log = NULL;
    tw_log_options options = {.run_dir = path};
    TW_ASSERT_FAILS(tw_log_open(&options, &log), TW_ERR_IO, "/file");
    ck_assert_ptr_null(log);
    snprintf(path, sizeof path, "%s/file/run", folder);
    TW_ASSERT_FAILS(tw_log_open(&options, &log), TW_ERR_IO, "cannot make this folder");
    options.run_dir = "/proc/tuwen";
    TW_ASSERT_FAILS(tw_log_open(&options, &log), TW_ERR_IO, "/proc/tuwen");
    remove_folder();
}
END_TEST

START_TEST(a_full_disk_is_reported) {
    make_folder();
    char path[128];
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
    ck_assert_int_eq(symlink("/dev/full", path), 0);
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    json_t *record = json_pack("{s:i}", "step", 1);
    TW_ASSERT_FAILS(tw_log_record(log, record), TW_ERR_IO, "No space left");
    json_decref(record);
    TW_ASSERT_FAILS(tw_log_close(log), TW_ERR_IO, "No space left");
    remove_folder();
}
END_TEST

START_TEST(a_full_console_is_named) {
    make_folder();
    FILE *console = fopen("/dev/full", "w");
    ck_assert_ptr_nonnull(console);
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder, .console = console};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    tw_log_line(log, "a line");
    json_t *record = json_pack("{s:i}", "step", 1);
    TW_ASSERT_FAILS(tw_log_record(log, record), TW_ERR_IO, "the console: cannot be written: No space left");
    json_decref(record);
    TW_ASSERT_FAILS(tw_log_close(log), TW_ERR_IO, "the console");
    fclose(console);
    remove_folder();
}
END_TEST

START_TEST(bad_records_are_refused) {
    make_folder();
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    TW_ASSERT_FAILS(tw_log_record(log, NULL), TW_ERR_MEMORY, "record");
    json_t *array = json_array();
    TW_ASSERT_FAILS(tw_log_record(log, array), TW_ERR_ARGUMENT, "object");
    json_decref(array);
    TW_ASSERT_OK(tw_log_close(log));
    TW_ASSERT_OK(tw_log_close(NULL));
    remove_folder();
}
END_TEST

START_TEST(plain_console_gets_lines_and_no_bar) {
    make_folder();
    char *text = NULL;
    size_t size = 0;
    char path[128];
    snprintf(path, sizeof path, "%s/console", folder);
    FILE *console = fopen(path, "w");
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder, .console = console, .progress_seconds = 3600};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    tw_log_line(log, "step %d", 7);
    tw_log_warning(log, "bad \xff byte");
    tw_log_progress(log, 1, 4, "reading");
    tw_log_progress(log, 2, 4, "reading");
    tw_log_progress(log, 4, 4, "done");
    TW_ASSERT_OK(tw_log_close(log));
    fclose(console);
    text = read_all(path);
    size = strlen(text);
    ck_assert_ptr_nonnull(strstr(text, " | step 7\n"));
    ck_assert_ptr_nonnull(strstr(text, " | warning: bad \xff byte\n"));
    ck_assert_ptr_nonnull(strstr(text, " | 4/4  "));
    ck_assert_ptr_null(strstr(text, "2/4")); /* an hour has not passed */
    ck_assert_ptr_null(memchr(text, '\r', size));
    text = log_text("");
    ck_assert_ptr_nonnull(strstr(text, "\"event\":\"line\",\"text\":\"step 7\""));
    ck_assert_ptr_nonnull(strstr(text, "\"event\":\"warning\",\"text\":\"bad ? byte\""));
    remove_folder();
}
END_TEST

/* What a terminal shows arrives in pieces: reads until a line that begins after `last` has ended. */
static void read_terminal(int master, char *text, size_t size, const char *last) {
    size_t used = 0;
    struct pollfd ready = {.fd = master, .events = POLLIN};
    while (used + 1 < size && poll(&ready, 1, 5000) == 1) {
        ssize_t n = read(master, text + used, size - 1 - used);
        ck_assert_int_gt(n, 0);
        used += (size_t)n;
        text[used] = '\0';
        const char *found = strstr(text, last);
        if (found && strchr(found, '\n')) return;
    }
}

/* Columns up to the end of the line: wide characters count twice. */
static size_t columns_of(const char *line) {
    size_t columns = 0;
    for (const char *at = line; *at && *at != '\r' && *at != '\n'; at++) {
        if ((*at & 0xc0) == 0x80) continue;
        columns += (*at & 0x80) ? 2 : 1;
    }
    return columns;
}

#define WIDE "图文图文图文图文图文图文图文图文图文图文图文图文图文图文图文图文图文图文图文图文"

/* What is trained behind it goes on, and the file tells of it. */
START_TEST(a_terminal_may_be_closed) {
    make_folder();
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) TW_SKIP("no pseudo-terminal here");
    int end = open(ptsname(master), O_RDWR | O_NOCTTY);
    FILE *console = fdopen(end, "w");
    ck_assert_ptr_nonnull(console);
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder, .console = console};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    tw_log_progress(log, 1, 4, "loss %.2f", 3.5);
    close(master);
    ck_assert_int_eq(write(end, "x", 1), -1);
    tw_log_line(log, "a line");
    tw_log_progress(log, 4, 4, "loss %.2f", 2.5);
    json_t *record = json_pack("{s:i}", "step", 1);
    TW_ASSERT_OK(tw_log_record(log, record));
    json_decref(record);
    TW_ASSERT_OK(tw_log_close(log));
    fclose(console);
    remove_folder();
}
END_TEST

START_TEST(a_terminal_gets_a_bar) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) TW_SKIP("no pseudo-terminal here");
    FILE *console = fopen(ptsname(master), "w");
    ck_assert_ptr_nonnull(console);
    tw_log *log = NULL;
    const tw_log_options options = {.console = console};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    tw_log_progress(log, 1, 4, "loss %.2f", 3.5);
    tw_log_line(log, "a line");
    /* New bars, whose rates are not known yet, so that the wide text begins at an odd and at an even column.
     */
    tw_log_progress(log, 5, 5, WIDE);
    tw_log_progress(log, 6, 6, "x" WIDE);
    TW_ASSERT_OK(tw_log_close(log));
    char text[8192] = "";
    read_terminal(master, text, sizeof text, "] 6/6");
    fclose(console);
    close(master);
    ck_assert_ptr_nonnull(strstr(text, " 25% [######..................] 1/4"));
    ck_assert_ptr_nonnull(strstr(text, "loss 3.50"));
    ck_assert_ptr_nonnull(strstr(text, " | a line\r\n\r\033[K 25%")); /* the bar is drawn again below */
    const char *even = strstr(text, "100% [########################] 5/5");
    const char *odd = strstr(text, "100% [########################] 6/6");
    ck_assert_ptr_nonnull(even);
    ck_assert_ptr_nonnull(odd);
    /* The 80th column would wrap, and half of a character cannot be shown. */
    ck_assert_uint_eq(columns_of(even) + columns_of(odd), 79 + 78);
}
END_TEST

static void *write_lines(void *log) {
    for (int i = 0; i < 200; i++) tw_log_line(log, "line %d", i);
    return NULL;
}

START_TEST(lines_of_several_threads_stay_whole) {
    make_folder();
    tw_log *log = NULL;
    const tw_log_options options = {.run_dir = folder};
    TW_ASSERT_OK(tw_log_open(&options, &log));
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, write_lines, log), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    TW_ASSERT_OK(tw_log_close(log));
    int count = 0;
    char path[128];
    snprintf(path, sizeof path, "%s/log.jsonl", folder);
    FILE *file = fopen(path, "r");
    json_t *record = NULL;
    while ((record = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL))) {
        json_decref(record);
        count++;
    }
    fclose(file);
    ck_assert_int_eq(count, 800);
    remove_folder();
}
END_TEST

START_TEST(durations_read_as_clock_times) {
    char text[32];
    const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0:00"}, {7.4, "0:07"}, {754, "12:34"}, {3723, "1:02:03"}, {-1, "0:00"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tw_log_duration_text(cases[i].seconds, text, sizeof text);
        ck_assert_str_eq(text, cases[i].text);
    }
}
END_TEST

TW_TEST_MAIN("log", records_are_appended_as_json_lines, an_unfinished_last_line_is_cut_off,
             an_unwritable_folder_is_refused, a_full_disk_is_reported, a_full_console_is_named,
             a_terminal_may_be_closed, bad_records_are_refused, plain_console_gets_lines_and_no_bar,
             a_terminal_gets_a_bar, lines_of_several_threads_stay_whole, durations_read_as_clock_times)
