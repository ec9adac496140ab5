/* Checkpoints that cannot be written, or whose writer is killed: the one before is intact, and nothing else
 * is left. */
#include "odd_checkpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- no space, no permission ---- */

/* After a failed write: an old checkpoint is intact, no temporary is left, and writing still works elsewhere.
 */
static void check_survival(const char *path) {
    TW_ASSERT_OK(read_all(path));
    ck_assert_int_eq(count_files(), 1);
}

/* A file system of 4 MB, full after the first megabytes of a 9 MB checkpoint. */
START_TEST(a_full_disk_leaves_the_previous_checkpoint) {
    make_folder();
    if (mount("none", odd_folder, "tmpfs", 0, "size=4m") != 0) {
        rmdir(odd_folder);
        TW_SKIP("mounting a small file system needs root");
    }
    tw_checkpoint_tensor t[TENSORS];
    tw_checkpoint_meta meta = a_meta();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    fill_tensors(t);
    free(small_checkpoint(path, &size));
    for (int i = 0; i < 3; i++) { /* the space of a failed write comes back */
        TW_ASSERT_FAILS(tw_checkpoint_write(path, &meta, t, TENSORS), TW_ERR_IO, "No space left on device");
        check_survival(path);
    }
    /* Every other amount of space, so that each stage of writing is hit. */
    for (size_t left = 0; left < size + 65536; left += 4096) {
        char *filler = strdup(in_folder(1, "filler"));
        int fd = open(filler, O_CREAT | O_WRONLY | O_TRUNC, 0600);
        ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)((4 << 20) - 4096 * ((size + 4095) / 4096) - left)),
                         0);
        close(fd);
        tw_status status = tw_checkpoint_write(path, &meta, t, TENSORS - 1);
        unlink(filler);
        free(filler);
        if (status != TW_OK)
            ck_assert_msg(strstr(tw_last_error(), "No space left on device") != NULL, "%s", tw_last_error());
        ck_assert_int_eq(status, left < size ? TW_ERR_IO : status);
        check_survival(path);
    }
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, t, TENSORS - 1));
    check_survival(path);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(umount(odd_folder), 0);
    rmdir(odd_folder);
}
END_TEST

START_TEST(a_file_size_limit_leaves_the_previous_checkpoint) {
    make_folder();
    tw_checkpoint_tensor t[TENSORS];
    tw_checkpoint_meta meta = a_meta();
    const char *path = in_folder(0, "a.h5");
    size_t size;
    fill_tensors(t);
    free(small_checkpoint(path, &size));
    signal(SIGXFSZ, SIG_IGN);
    for (size_t limit = 512; limit < size; limit += 1000) {
        struct rlimit small = {limit, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
        tw_status status = tw_checkpoint_write(path, &meta, t, TENSORS - 1);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
        ck_assert_msg(status == TW_ERR_IO, "%s", tw_last_error());
        ck_assert_msg(strstr(tw_last_error(), "File too large") != NULL, "%s", tw_last_error());
        check_survival(path);
    }
    TW_ASSERT_OK(tw_checkpoint_write(path, &meta, t, TENSORS));
    remove_folder();
}
END_TEST

START_TEST(an_unwritable_folder_is_named) {
    make_folder();
    tw_checkpoint_meta meta = a_meta();
    char *missing = strdup(in_folder(0, "none/a.h5"));
    TW_ASSERT_FAILS(tw_checkpoint_write(missing, &meta, NULL, 0), TW_ERR_IO, "none/a.h5: No such file");
    free(missing);
    ck_assert_int_eq(chmod(odd_folder, 0555), 0);
    if (geteuid() == 0) ck_assert_int_eq(seteuid(65534), 0);
    TW_ASSERT_FAILS(tw_checkpoint_write(in_folder(0, "a.h5"), &meta, NULL, 0), TW_ERR_IO,
                    "Permission denied");
    if (getuid() == 0) ck_assert_int_eq(seteuid(0), 0);
    remove_folder();
}
END_TEST

/* ---- SIGKILL ---- */

/* A version's values and step are its number. */
static tw_status write_version(const char *path, int version) {
    static float values[200000];
    const tw_checkpoint_tensor t = {"w", 1, {200000}, values, values, NULL};
    tw_checkpoint_meta meta;
    tw_checkpoint_meta_init(&meta);
    meta.step = version;
    for (int i = 0; i < 200000; i++) values[i] = (float)version;
    return tw_checkpoint_write(path, &meta, &t, 1);
}

/* A child writes versions 1, 2, 3, ... over one name until it is killed. */
static void write_forever(const char *path) {
    for (int version = 1;; version++)
        if (write_version(path, version) != TW_OK) _exit(1);
}

START_TEST(a_kill_leaves_a_complete_version) {
    make_folder();
    const char *path = in_folder(0, "a.h5");
    static float values[200000];
    const useconds_t random_microseconds[] = {20011, 50021, 33037, 71039, 25057, 61051, 44071, 90073,
                                              38083, 55091, 21101, 67103, 49109, 83117, 30127, 58129,
                                              72139, 41141, 26153, 64157, 52163, 47171, 35179, 88181};
    enum { BEFORE = 1000000 };
    TW_ASSERT_OK(write_version(path, BEFORE)); /* so that every kill has something to lose */
    enum { ROUNDS = sizeof random_microseconds / sizeof random_microseconds[0], LONGER = 10 };
    int replaced = 0;
    /* Where a disk takes longer than that for one version, further rounds last twice as long each. */
    for (int i = 0; i < ROUNDS || (replaced == 0 && i < ROUNDS + LONGER); i++) {
        pid_t child = fork();
        if (child == 0) write_forever(path);
        useconds_t nap = random_microseconds[i % ROUNDS];
        usleep(i < ROUNDS ? nap : nap << (i - ROUNDS + 1));
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        ck_assert_msg(WIFSIGNALED(how), "the writer ended by itself");
        tw_checkpoint *c;
        TW_ASSERT_OK(tw_checkpoint_open(path, &c));
        float version = (float)tw_checkpoint_get_meta(c)->step;
        replaced += version < BEFORE;
        ck_assert(version >= 1);
        for (int part = 0; part < 2; part++) {
            TW_ASSERT_OK(tw_checkpoint_read(c, "w", (tw_checkpoint_part)part, values, 200000));
            int wrong = 0;
            for (int k = 0; k < 200000; k++) wrong += values[k] != version;
            ck_assert_int_eq(wrong, 0);
        }
        tw_checkpoint_close(c);
    }
    ck_assert_msg(replaced > 0, "no child lived long enough to write one version");
    remove_folder();
}
END_TEST

TW_TEST_MAIN("checkpoint_lost", a_full_disk_leaves_the_previous_checkpoint,
             a_file_size_limit_leaves_the_previous_checkpoint, an_unwritable_folder_is_named,
             a_kill_leaves_a_complete_version)
