/* Run folders: which checkpoints stay, and which one a run goes on from. */
#include "tw_test.h"

#include "data/atomic_file.h"
#include "data/files.h"
#include "train/formats/run_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64], buffer[4][512];

static void make_folder(void) {
    bool memory = access("/dev/shm", W_OK) == 0;
    snprintf(folder, sizeof folder, "%s/tw_run_folder_XXXXXX", memory ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static const char *in_folder(int slot, const char *name) {
    snprintf(buffer[slot], sizeof buffer[slot], "%s/%s", folder, name);
    return buffer[slot];
}

static bool there(const char *name) {
    struct stat info;
    return lstat(in_folder(3, name), &info) == 0;
}

/* Saves a checkpoint that says which step was the best. */
static void save_after(int64_t epoch, int64_t step, int64_t best_step, bool best, int keep) {
    float value = (float)step;
    const tw_checkpoint_tensor t = {"w", 0, {0}, &value, NULL, NULL};
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    meta.epoch = epoch, meta.step = step, meta.best_step = best_step;
    TW_ASSERT_OK(tw_run_folder_save(folder, &meta, &t, 1, best, keep));
}

static void save(int64_t epoch, int64_t step, bool best, int keep) {
    save_after(epoch, step, -1, best, keep);
}

/* What the link points to. */
static const char *linked(const char *name) {
    static char target[64];
    memset(target, 0, sizeof target);
    ck_assert_int_gt(readlink(in_folder(3, name), target, sizeof target - 1), 0);
    return target;
}

static void touch(const char *name) {
    int fd = open(in_folder(3, name), O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

/* Flips one bit in the middle. */
static void damage(const char *name) {
    int fd = open(in_folder(3, name), O_RDWR);
    char byte;
    ck_assert_int_eq(pread(fd, &byte, 1, 700), 1);
    byte = (char)(byte ^ 1);
    ck_assert_int_eq(pwrite(fd, &byte, 1, 700), 1);
    close(fd);
}

static void expect_open(int64_t step, const char *note) {
    tw_checkpoint *c;
    char *notes;
    TW_ASSERT_OK(tw_run_folder_open(folder, &c, &notes));
    ck_assert_int_eq(tw_checkpoint_get_meta(c)->step, step);
    if (note)
        ck_assert_msg(notes && strstr(notes, note), "notes are '%s'", notes ? notes : "(null)");
    else
        ck_assert_ptr_null(notes);
    free(notes);
    tw_checkpoint_close(c);
}

START_TEST(keeps_the_newest_and_the_linked) {
    make_folder();
    save(0, 10, true, 2);
    save(0, 20, false, 2);
    touch("notes.txt");
    touch("epoch_0_step_5.h5.bak");
    save(1, 30, false, 2);
    save(1, 100, false, 2);                 /* newer than 30 by number, not by text */
    ck_assert(there("epoch_0_step_10.h5")); /* best */
    ck_assert(!there("epoch_0_step_20.h5"));
    ck_assert(there("epoch_1_step_30.h5") && there("epoch_1_step_100.h5"));
    ck_assert(there("notes.txt") && there("epoch_0_step_5.h5.bak"));
    TW_ASSERT_OK(tw_run_folder_link(folder, "latest", in_folder(0, "epoch_1_step_30.h5")));
    TW_ASSERT_OK(tw_run_folder_prune(folder, 1));
    ck_assert(there("epoch_0_step_10.h5") && there("epoch_1_step_30.h5") && there("epoch_1_step_100.h5"));
    save(1, 110, true, 1);
    ck_assert(!there("epoch_0_step_10.h5") && !there("epoch_1_step_30.h5") && !there("epoch_1_step_100.h5"));
    ck_assert_str_eq(linked("best"), "epoch_1_step_110.h5");
    save(1, 120, false, 0);
    save(1, 130, false, -1);
    ck_assert(there("epoch_1_step_110.h5") && there("epoch_1_step_120.h5"));
    tw_remove_folder(folder);
}
END_TEST

START_TEST(opens_latest_or_the_newest_that_is_whole) {
    make_folder();
    tw_checkpoint *c;
    char *notes;
    TW_ASSERT_FAILS(tw_run_folder_open(folder, &c, &notes), TW_ERR_NOT_FOUND, "holds no checkpoint");
    for (int step = 1; step <= 4; step++) save(0, step, false, 0);
    expect_open(4, NULL);
    TW_ASSERT_OK(tw_checkpoint_open(folder, &c));
    ck_assert_int_eq(tw_checkpoint_get_meta(c)->step, 4);
    tw_checkpoint_close(c);
    TW_ASSERT_OK(tw_run_folder_link(folder, "latest", "epoch_0_step_2.h5"));
    expect_open(2, NULL); /* the link decides, not the number */
    damage("epoch_0_step_2.h5");
    TW_ASSERT_FAILS(tw_checkpoint_open(folder, &c), TW_ERR_FORMAT, "damaged");
    expect_open(4, "damaged");
    expect_open(4, "epoch_0_step_4.h5: is used instead");
    damage("epoch_0_step_4.h5");
    expect_open(3, "epoch_0_step_4.h5");
    ck_assert_int_eq(unlink(in_folder(0, "latest")), 0);
    expect_open(3, "latest");
    TW_ASSERT_OK(tw_run_folder_link(folder, "latest", "gone.h5"));
    expect_open(3, "gone.h5");
    damage("epoch_0_step_1.h5");
    damage("epoch_0_step_3.h5");
    TW_ASSERT_FAILS(tw_run_folder_open(folder, &c, &notes), TW_ERR_IO, "no checkpoint can be used");
    ck_assert_ptr_null(notes);
    ck_assert_ptr_null(c);
    tw_remove_folder(folder);
}
END_TEST

static void mend(void) {
    tw_checkpoint *c;
    char *notes;
    TW_ASSERT_OK(tw_run_folder_open(folder, &c, &notes));
    TW_ASSERT_OK(tw_run_folder_mend(folder, c));
    free(notes);
    tw_checkpoint_close(c);
}

/* Killed after `latest` was moved and before `best` was. */
START_TEST(mends_the_link_to_the_best) {
    make_folder();
    save_after(0, 1, 1, true, 0);
    save_after(0, 2, 1, false, 0);
    mend();
    ck_assert_str_eq(linked("best"), "epoch_0_step_1.h5");
    save_after(0, 3, 3, false, 0);
    mend();
    ck_assert_str_eq(linked("best"), "epoch_0_step_3.h5");
    ck_assert_int_eq(rename(in_folder(0, "epoch_0_step_3.h5"), in_folder(1, "mine.h5")), 0);
    TW_ASSERT_OK(tw_run_folder_link(folder, "latest", "mine.h5"));
    TW_ASSERT_OK(tw_run_folder_link(folder, "best", "mine.h5"));
    mend(); /* the user's own name for it stays */
    ck_assert_str_eq(linked("best"), "mine.h5");
    tw_remove_folder(folder);
}
END_TEST

static void check_temporaries(bool at_start) {
    make_folder();
    /* A process that is surely gone: a child that has been waited for. */
    char *dead = NULL, *alive = NULL, *old = NULL;
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        char *temp = NULL;
        if (tw_atomic_begin(in_folder(0, "epoch_0_step_1.h5"), &temp) != TW_OK) _exit(1);
        ssize_t n = write(ends[1], temp, strlen(temp));
        _exit(n == (ssize_t)strlen(temp) ? 0 : 1);
    }
    int how;
    waitpid(child, &how, 0);
    ck_assert_int_eq(how, 0);
    dead = calloc(1, 512);
    ck_assert_int_gt(read(ends[0], dead, 511), 0);
    TW_ASSERT_OK(tw_atomic_begin(in_folder(0, "epoch_0_step_2.h5"), &alive));
    /* A process that is gone, whose number another has by now: this one. Its start was another. */
    char other[600], *start = strstr(alive, ".tw-tmp");
    ck_assert_ptr_nonnull(start);
    while (start > alive && start[-1] != '.') start--; /* the number, behind the host */
    start = strchr(start, '-');
    ck_assert_ptr_nonnull(start);
    snprintf(other, sizeof other, "%.*s-1.tw-tmp", (int)(start - alive), alive);
    /* The same of another container, whose numbers tell nothing here. */
    char foreign[600];
    snprintf(foreign, sizeof foreign, "%.*s-1-1.tw-tmp", (int)(start - alive), alive);
    touch(strrchr(other, '/') + 1);
    touch(strrchr(foreign, '/') + 1);
    TW_ASSERT_OK(tw_atomic_begin(in_folder(0, "epoch_0_step_3.h5"), &old));
    const struct timespec long_ago[2] = {{1000, 0}, {1000, 0}};
    ck_assert_int_eq(utimensat(AT_FDCWD, old, long_ago, 0), 0);
    ck_assert_int_eq(access(dead, F_OK), 0);
    TW_ASSERT_OK(at_start ? tw_run_folder_mend(folder, NULL) : tw_run_folder_prune(folder, 3));
    ck_assert_int_ne(access(dead, F_OK), 0);
    ck_assert_int_ne(access(other, F_OK), 0);
    ck_assert_int_eq(access(foreign, F_OK), 0);
    ck_assert_int_ne(access(old, F_OK), 0);
    ck_assert_int_eq(access(alive, F_OK), 0); /* ours: being written */
    free(dead);
    free(alive);
    free(old);
    tw_remove_folder(folder);
}

START_TEST(a_save_removes_what_killed_writers_left) {
    check_temporaries(false);
}
END_TEST

START_TEST(a_start_removes_what_killed_writers_left) {
    check_temporaries(true);
}
END_TEST

TW_TEST_MAIN("run_folder", keeps_the_newest_and_the_linked, opens_latest_or_the_newest_that_is_whole,
             mends_the_link_to_the_best, a_save_removes_what_killed_writers_left,
             a_start_removes_what_killed_writers_left)
