/* The writer of shards beside what it writes (test_shards.c): growth, old splits, targets that cannot be
 * written, full disks. */
#include "data/atomic_file.h"
#include "data/shard_writer.h"
#include "data/shards.h"
#include "shard_split.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

/* Much more than the first map holds, in values of every size. */
START_TEST(grows_its_map) {
    tw_shard_writer *w;
    TW_ASSERT_OK(tw_shard_writer_open(temp_path("big"), &(tw_shard_options){.shards = 1}, &w));
    size_t size = 6 << 20, total = 0;
    uint8_t *data = calloc(1, size);
    memcpy(data, "\xff\xd8\xff", 3);
    char number[16];
    int images = 0;
    for (int k = 0; total < (size_t)200 << 20; k++, images++, total += size) {
        snprintf(number, sizeof number, "%d", k);
        tw_id id = id_of(number, true);
        TW_ASSERT_OK(tw_shard_writer_image(w, &id, data, k % 3 ? size : 1000));
    }
    for (int k = 0; k < 20000; k++) {
        snprintf(number, sizeof number, "%d", k);
        tw_id id = id_of(number, true);
        TW_ASSERT_OK(tw_shard_writer_pair(w, &id, &id, "文", 3));
    }
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
    free(data);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(temp_path("big"), &d));
    ck_assert_int_eq(tw_dataset_images(d), images);
    ck_assert_int_eq(tw_dataset_pairs(d), 20000);
    tw_dataset_close(d);
    remove_folder();
}
END_TEST

START_TEST(keeps_or_replaces_an_old_split) {
    tw_shard_writer *w;
    write_split("s", 2, TW_SHARDS_RAW);
    TW_ASSERT_FAILS(tw_shard_writer_open(temp_path("s"), &(tw_shard_options){0}, &w), TW_ERR_CONFIG,
                    "already");
    write_bytes("s/notes.txt", "mine", 4);
    /* Given up: the old one stays. */
    TW_ASSERT_OK(tw_shard_writer_open(temp_path("s"), &(tw_shard_options){.replace = true}, &w));
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s", tw_shard_writer_folder(w));
    ck_assert_int_eq(access(temporary, F_OK), 0);
    tw_shard_writer_close(w);
    ck_assert_int_ne(access(temporary, F_OK), 0);
    check_split("s");
    TW_ASSERT_OK(tw_shard_writer_open(temp_path("s"), &(tw_shard_options){.replace = true}, &w));
    tw_id id = id_of("5", true);
    TW_ASSERT_OK(tw_shard_writer_image(w, &id, "\xff\xd8\xff", 3));
    TW_ASSERT_OK(tw_shard_writer_finish(w));
    tw_shard_writer_close(w);
    tw_dataset *d;
    TW_ASSERT_OK(tw_dataset_open(temp_path("s"), &d));
    ck_assert_int_eq(tw_dataset_images(d), 1);
    ck_assert_int_eq(tw_dataset_pairs(d), 0);
    tw_dataset_close(d);
    ck_assert_int_eq(access(temp_path("s/notes.txt"), F_OK), 0);
    ck_assert_int_ne(access(temp_path("s/imgs-00000-of-00002"), F_OK), 0);
    ck_assert_int_ne(access(temporary, F_OK), 0);
    remove_folder();
}
END_TEST

/* ".s.tmp-<this host>.<rest>" */
static const char *leftover(const char *rest) {
    static char name[200];
    char label[TW_WRITER_LABEL];
    tw_writer_label(label);
    snprintf(name, sizeof name, ".s.tmp-%.*s.%s", (int)(strrchr(label, '.') - label), label, rest);
    return temp_path(name);
}

/* A killed process's number is this one's now, as in a container that is started anew. */
START_TEST(removes_what_a_namesake_left) {
    char mine[64], parents[64], containers[64], hosts[64];
    snprintf(mine, sizeof mine, "%ld-1", (long)getpid());
    snprintf(parents, sizeof parents, "%ld", (long)getppid()); /* it lives, and may have written this */
    snprintf(containers, sizeof containers, "%ld-1-1", (long)getpid());
    snprintf(hosts, sizeof hosts, ".s.tmp-elsewhere.%ld-1", (long)getpid());
    ck_assert_int_eq(mkdir(leftover(mine), 0700), 0);
    ck_assert_int_eq(mkdir(leftover(parents), 0700), 0);
    ck_assert_int_eq(mkdir(leftover(containers), 0700), 0);
    ck_assert_int_eq(mkdir(temp_path(hosts), 0700), 0);
    write_split("s", 1, TW_SHARDS_RAW);
    check_split("s");
    ck_assert_int_ne(access(leftover(mine), F_OK), 0);
    ck_assert_int_eq(access(leftover(parents), F_OK), 0);
    ck_assert_int_eq(access(leftover(containers), F_OK), 0);
    ck_assert_int_eq(access(temp_path(hosts), F_OK), 0);
    remove_folder();
}
END_TEST

START_TEST(refuses_bad_targets) {
    tw_shard_writer *w;
    write_bytes("file", "x", 1);
    TW_ASSERT_FAILS(tw_shard_writer_open(temp_path("file/train"), &(tw_shard_options){0}, &w), TW_ERR_IO,
                    "there is a file of that name");
    TW_ASSERT_FAILS(tw_shard_writer_open("/proc/none/train", &(tw_shard_options){0}, &w), TW_ERR_IO,
                    "/proc/none");
    TW_ASSERT_FAILS(tw_shard_writer_open("..", &(tw_shard_options){0}, &w), TW_ERR_ARGUMENT, "does not name");
    TW_ASSERT_FAILS(tw_shard_writer_open(temp_path("s"), &(tw_shard_options){.shards = 5000}, &w),
                    TW_ERR_CONFIG, "1 to 1000");
    TW_ASSERT_FAILS(tw_shard_writer_open(temp_path("s"),
                                         &(tw_shard_options){.shards = 2, .format = TW_SHARDS_ORIGINAL}, &w),
                    TW_ERR_CONFIG, "one environment");
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(own_folder(), 0555), 0);
        TW_ASSERT_FAILS(tw_shard_writer_open(temp_path("s"), &(tw_shard_options){0}, &w), TW_ERR_IO,
                        "Permission");
        ck_assert_int_eq(chmod(own_folder(), 0755), 0);
    }
    remove_folder();
}
END_TEST

/* Writes until it fails; nothing may stay behind. */
static void fill_the_disk(const char *part) {
    tw_shard_writer *w;
    uint8_t *data = calloc(1, 1 << 20);
    memcpy(data, "\xff\xd8\xff", 3);
    TW_ASSERT_OK(tw_shard_writer_open(temp_path("s"), &(tw_shard_options){0}, &w));
    tw_status status = TW_OK;
    char number[16];
    for (int k = 0; k < 40 && status == TW_OK; k++) {
        snprintf(number, sizeof number, "%d", k);
        tw_id id = id_of(number, true);
        status = tw_shard_writer_image(w, &id, data, 1 << 20);
    }
    if (status == TW_OK) status = tw_shard_writer_finish(w);
    ck_assert_int_eq(status, TW_ERR_IO);
    ck_assert_msg(strstr(tw_last_error(), part) != NULL, "%s", tw_last_error());
    char temporary[256];
    snprintf(temporary, sizeof temporary, "%s", tw_shard_writer_folder(w));
    tw_shard_writer_close(w);
    ck_assert_int_ne(access(temporary, F_OK), 0);
    ck_assert_int_ne(access(temp_path("s"), F_OK), 0);
    free(data);
}

START_TEST(says_when_the_disk_is_full) {
    if (mount("tmpfs", own_folder(), "tmpfs", 0, "size=8m") != 0) {
        remove_folder();
        TW_SKIP("no right to mount a small file system");
    }
    fill_the_disk("full");
    ck_assert_int_eq(umount(own_folder()), 0);
    remove_folder();
}
END_TEST

START_TEST(says_when_the_file_may_not_grow) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, small = {8 << 20, RLIM_INFINITY};
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    fill_the_disk("s.tmp-"); /* EFBIG, or a write that was cut short */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    remove_folder();
}
END_TEST

TW_TEST_MAIN("shard_writer", grows_its_map, keeps_or_replaces_an_old_split, removes_what_a_namesake_left,
             refuses_bad_targets, says_when_the_disk_is_full, says_when_the_file_may_not_grow)
