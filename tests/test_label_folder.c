/* Folders, labels and templates of zero-shot classification. */
#include "data/label_folder.h"
#include "tw_test.h"

#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/tw-labels-XXXXXX";

static void setup(void) {
    strcpy(folder, "/tmp/tw-labels-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
}

static void teardown(void) {
    char command[128];
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static void write_bytes(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, n, f), n);
    fclose(f);
}

static void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

/* An empty file with its folders. */
static void touch(const char *path) {
    char command[256];
    snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s')\" && : >'%s'", path, path);
    ck_assert_int_eq(system(command), 0);
}

/* test/000 to test/<n - 1>, in each one image. */
static void make_classes(int n, const char *format) {
    for (int i = 0; i < n; i++) {
        char name[32], path[64];
        snprintf(name, sizeof name, format, i);
        snprintf(path, sizeof path, "test/%s/1.jpg", name);
        touch(path);
    }
}

START_TEST(the_order_is_that_of_the_reference) {
    setup();
    /* sorted(os.walk()) sorts by the folder's whole path: sub, sub-b, sub/a. */
    static const char *const files[] = {
        "test/000/b.JPG",       "test/000/a.png",     "test/000/sub/z.webp", "test/000/sub/a/x.Jpeg",
        "test/000/sub-b/y.bmp", "test/000/sub/c.txt", "test/000/README",     "test/001/deep/er/1.png"};
    static const char *const expected[] = {"test/000/a.png", "test/000/b.JPG", "test/000/sub/z.webp",
                                           "test/000/sub/a/x.Jpeg", "test/001/deep/er/1.png"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) touch(files[i]);
    write_text("label_cn.txt", "猫\n狗\n");
    tw_label_folder *set;
    TW_ASSERT_OK(tw_label_folder_open(".", NULL, &set));
    ck_assert_int_eq(set->classes, 2);
    ck_assert_str_eq(set->folders[1], "001");
    ck_assert_str_eq(set->labels.at[1], "狗");
    ck_assert_int_eq(set->images, 5);
    ck_assert_int_eq(set->ignored, 2);
    ck_assert_int_eq(set->undecoded, 1);
    ck_assert_str_eq(set->first_undecoded, "./test/000/sub-b/y.bmp");
    ck_assert_str_eq(set->warning, "");
    for (int i = 0; i < 5; i++) {
        ck_assert_str_eq(set->files[i] + 2, expected[i]);
        ck_assert_int_eq(set->class_of[i], i == 4);
    }
    tw_label_folder_free(set);
    /* The folder of the classes itself, with the labels above it. */
    TW_ASSERT_OK(tw_label_folder_open("test", NULL, &set));
    ck_assert_str_eq(set->files[0], "test/000/a.png");
    tw_label_folder_free(set);
    write_text("other.txt", "a\nb");
    TW_ASSERT_OK(tw_label_folder_open(folder, "other.txt", &set));
    ck_assert_str_eq(set->labels.at[1], "b");
    tw_label_folder_free(set);
    tw_label_folder_free(NULL);
    teardown();
}
END_TEST

START_TEST(labels_and_folders_must_match) {
    setup();
    tw_label_folder *set;
    make_classes(12, "%03d");
    write_text("label_cn.txt", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n");
    TW_ASSERT_OK(tw_label_folder_open(".", NULL, &set));
    ck_assert_int_eq(set->classes, 12);
    tw_label_folder_free(set);
    ck_assert_int_eq(system("rm -r test/007"), 0);
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT, "no folder for label 7, '7'");
    ck_assert_ptr_null(set);
    write_text("label_cn.txt", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT,
                    "10 labels, ./test has 11 class folders: folder '010' has no label");
    ck_assert_int_eq(system("mkdir test/007 && touch test/007/notes.txt"), 0);
    write_text("label_cn.txt", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n");
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT,
                    "test/007: a class without an image");
    touch("test/007/2.TIFF");
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT,
                    "test/007: all 1 images of this class are of kinds that are not decoded");
    ck_assert_int_eq(unlink("label_cn.txt"), 0);
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_NOT_FOUND, "there is no ./label_cn.txt");
    TW_ASSERT_FAILS(tw_label_folder_open("none", NULL, &set), TW_ERR_NOT_FOUND, "none");
    ck_assert_int_eq(system("rm -r test/*"), 0);
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT, "test: no class folder");
    teardown();
}
END_TEST

/* The reference takes the rank of the sorted name, whatever number the name is. */
START_TEST(ranks_that_are_not_ids_are_warned_of) {
    setup();
    tw_label_folder *set;
    make_classes(11, "%d"); /* 0, 1, 10, 2, ... */
    write_text("label_cn.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n");
    TW_ASSERT_OK(tw_label_folder_open(".", NULL, &set));
    ck_assert_str_eq(set->folders[2], "10");
    ck_assert_ptr_nonnull(strstr(set->warning, "folder '10' is number 3 of the sorted folders"));
    tw_label_folder_free(set);
    ck_assert_int_eq(system("rm -r test; mkdir -p test/n02 test/n01 && touch test/n02/1.jpg test/n01/2.jpg"),
                     0);
    write_text("label_cn.txt", "a\nb\n");
    TW_ASSERT_OK(tw_label_folder_open(".", NULL, &set));
    ck_assert_str_eq(set->warning, "");
    tw_label_folder_free(set);
    write_text("label_cn.txt", "a\nb\nc");
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT, "no folder for label 2, 'c'");
    teardown();
}
END_TEST

START_TEST(links_are_followed_but_not_in_circles) {
    setup();
    tw_label_folder *set;
    touch("elsewhere/1.png");
    ck_assert_int_eq(mkdir("test", 0700), 0);
    ck_assert_int_eq(symlink("../elsewhere", "test/0"), 0);
    write_text("label_cn.txt", "x\n");
    TW_ASSERT_OK(tw_label_folder_open(".", NULL, &set));
    ck_assert_int_eq(set->images, 1);
    tw_label_folder_free(set);
    ck_assert_int_eq(symlink("../elsewhere", "elsewhere/again"), 0);
    TW_ASSERT_FAILS(tw_label_folder_open(".", NULL, &set), TW_ERR_FORMAT, "symbolic link back");
    teardown();
}
END_TEST

START_TEST(labels_are_lines_as_python_reads_them) {
    setup();
    tw_prompts labels;
    write_text("l", "\xef\xbb\xbf 猫\t\n\n狗\xe3\x80\x80\r\n a b \r鸟");
    TW_ASSERT_OK(tw_labels_load("l", &labels));
    static const char *const expected[] = {"猫", "", "狗", "a b", "鸟"};
    ck_assert_int_eq(labels.n, 5);
    for (int i = 0; i < 5; i++) ck_assert_str_eq(labels.at[i], expected[i]);
    tw_prompts_free(&labels);
    write_text("l", "a\n\n");
    TW_ASSERT_OK(tw_labels_load("l", &labels));
    ck_assert_int_eq(labels.n, 2);
    tw_prompts_free(&labels);
    write_text("l", "a\nb\xff\n");
    TW_ASSERT_FAILS(tw_labels_load("l", &labels), TW_ERR_FORMAT, "l:2:");
    write_bytes("l", "a\nb\0c\n", 6);
    TW_ASSERT_FAILS(tw_labels_load("l", &labels), TW_ERR_FORMAT, "l:2: a zero byte");
    write_text("l", "");
    TW_ASSERT_FAILS(tw_labels_load("l", &labels), TW_ERR_FORMAT, "empty");
    TW_ASSERT_FAILS(tw_labels_load("none", &labels), TW_ERR_NOT_FOUND, "none");
    teardown();
}
END_TEST

static void filled(const char *text, const char *label, const char *expected) {
    char *got = tw_template_fill(text, label);
    ck_assert_str_eq(got, expected);
    free(got);
}

START_TEST(templates) {
    setup();
    tw_prompts t;
    write_text("t", "一张{}的照片\n\n  {}  \n一张{}的照片\n");
    TW_ASSERT_OK(tw_templates_load("t", &t));
    ck_assert_int_eq(t.n, 3);
    ck_assert_str_eq(t.at[1], "{}");
    ck_assert_str_eq(t.at[2], t.at[0]);
    tw_prompts_free(&t);
    write_text("t", "{}\n一张照片\n");
    TW_ASSERT_FAILS(tw_templates_load("t", &t), TW_ERR_FORMAT, "t:2: '一张照片' has no {}");
    write_text("t", "\n \n");
    TW_ASSERT_FAILS(tw_templates_load("t", &t), TW_ERR_FORMAT, "no template");
    TW_ASSERT_OK(tw_templates_default(&t));
    ck_assert_int_ge(t.n, 20);
    for (int64_t i = 0; i < t.n; i++) {
        ck_assert_ptr_nonnull(strstr(t.at[i], "{}"));
        for (int64_t k = 0; k < i; k++) ck_assert_str_ne(t.at[i], t.at[k]);
    }
    tw_prompts_free(&t);
    filled("一张{}的照片", "猫", "一张猫的照片");
    filled("{}和{}", "{}", "{}和{}");
    filled("{}", "", "");
    filled("{ } {", "x", "{ } {");
    teardown();
}
END_TEST

TW_TEST_MAIN("label_folder", the_order_is_that_of_the_reference, labels_and_folders_must_match,
             ranks_that_are_not_ids_are_warned_of, links_are_followed_but_not_in_circles,
             labels_are_lines_as_python_reads_them, templates)
