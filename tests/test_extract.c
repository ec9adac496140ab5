/* Extraction beyond shards: folders and lists of images, texts as lines and from standard input, and runs
 * that were interrupted. */
#include "command_line.h"
#include "data/files.h"
#include "data/image_files.h"
#include "micro_model.h"
#include "train/extraction.h"

#include <fcntl.h>
#include <sys/stat.h>

#define SAMPLES TW_SOURCE_DIR "/tests/golden/images/"

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...) {
    char command[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    ck_assert_msg(system(command) == 0, "failed: %s", command);
}

#define extract(...) run(tw_command_extract, __VA_ARGS__)

/* Enters a folder with model.h5 and photos/: five good images, one cut short, one file of another kind. */
static void setup(void) {
    enter_folder();
    make_micro_model("model.h5", TW_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt", 7);
    shell("mkdir -p photos/b/c photos/a && cp " SAMPLES "jpeg_420.jpg photos/b/1.jpg && cp " SAMPLES
          "jpeg_gray.jpg photos/b/c/2.JPEG && cp " SAMPLES "png_rgb8.png photos/10.png && cp " SAMPLES
          "png_palette8.png photos/9.png && cp " SAMPLES
          "webp_lossless_alpha.webp photos/a/x.webp && head -c 300 " SAMPLES
          "jpeg_444.jpg > photos/a/cut.jpg && echo > photos/notes.txt");
}

static void has_ids(const tw_features *f, const char *const *ids, int64_t n, bool integers) {
    ck_assert_int_eq(f->n, n);
    for (int64_t i = 0; i < n; i++) {
        ck_assert_str_eq(f->ids[i].text, ids[i]);
        ck_assert_int_eq(f->ids[i].is_integer, integers);
    }
}

static const float *row(const tw_features *f, int64_t i) {
    return f->values + i * MICRO_EMBED;
}

START_TEST(a_folder_and_its_list) {
    static const char *const ids[] = {"10.png", "9.png", "a/x.webp", "b/1.jpg", "b/c/2.JPEG"};
    static const char *const numbers[] = {"30", "7", "8"};
    setup();
    TW_ASSERT_OK(extract("--checkpoint model.h5 --images photos --output f --batch 2 --num_workers 3"));
    tw_features *all = load("f/photos_imgs.img_feat.h5");
    has_ids(all, ids, 5, false);
    for (int64_t i = 1; i < 5; i++) ck_assert_mem_ne(row(all, i - 1), row(all, i), MICRO_EMBED * 4);
    ck_assert_int_eq(access("f/.photos_imgs.img_feat.h5.part", F_OK), -1);
    ck_assert_int_eq(access("f/photos_texts.txt_feat.h5", F_OK), -1);
    /* A list has its own order and ids, and may name files by their whole path. */
    char list[512];
    snprintf(list, sizeof list, "30\tb/1.jpg\n\n7\t%s/photos/9.png\n8\tmissing.jpg\n8a\t10.png\n",
             own_folder());
    write_text("photos/list.txt", list);
    TW_ASSERT_OK(extract("--checkpoint model.h5 --images photos/list.txt --name l --output f --format npy"));
    tw_features *some = load("f/l_imgs.img_feat.npy");
    ck_assert_int_eq(some->n, 3);
    ck_assert_str_eq(some->ids[0].text, numbers[0]);
    ck_assert(some->ids[0].is_integer && some->ids[1].is_integer && !some->ids[2].is_integer);
    for (int64_t k = 0; k < MICRO_EMBED; k++) {
        ck_assert_float_eq_tol(row(some, 0)[k], row(all, 3)[k], 1e-5f);
        ck_assert_float_eq_tol(row(some, 1)[k], row(all, 1)[k], 1e-5f);
        ck_assert_float_eq_tol(row(some, 2)[k], row(all, 0)[k], 1e-5f);
    }
    tw_features_free(all);
    tw_features_free(some);
    leave_folder();
}
END_TEST

START_TEST(image_files_are_found) {
    tw_image_files *files;
    setup();
    shell("ln -s ../b photos/a/loop && ln -s ../10.png photos/a/link.png && ln -s nowhere photos/dead.jpg");
    TW_ASSERT_OK(tw_image_files_load("photos/", &files));
    static const char *const ids[] = {"10.png",   "9.png",   "a/cut.jpg", "a/link.png",
                                      "a/x.webp", "b/1.jpg", "b/c/2.JPEG"};
    ck_assert_int_eq(files->n, 7);
    for (int i = 0; i < 7; i++) ck_assert_str_eq(files->ids[i].text, ids[i]);
    ck_assert_int_eq(files->passed_over, 3); /* notes.txt, the link to a folder, the dead link */
    tw_image_files_free(files);
    TW_ASSERT_FAILS(tw_image_files_load("none", &files), TW_ERR_NOT_FOUND, "none");
    shell("mkdir empty && touch empty/x.gif");
    TW_ASSERT_FAILS(tw_image_files_load("empty", &files), TW_ERR_FORMAT, "(1 others)");
    shell("mkdir -p split/imgs && touch split/imgs/data.mdb");
    TW_ASSERT_FAILS(tw_image_files_load("split/imgs", &files), TW_ERR_FORMAT,
                    "holds a shard (data.mdb), not image files: give its split with --data split");
    TW_ASSERT_FAILS(tw_image_files_load("split", &files), TW_ERR_FORMAT, "give it with --data");
    TW_ASSERT_OK(tw_image_files_load("photos/b/1.jpg", &files));
    ck_assert_int_eq(files->n, 1);
    ck_assert_str_eq(files->paths[0], "photos/b/1.jpg");
    ck_assert_str_eq(files->ids[0].text, "1.jpg");
    tw_image_files_free(files);
    write_text("list", "\n \n");
    TW_ASSERT_FAILS(tw_image_files_load("list", &files), TW_ERR_FORMAT, "names no images");
    write_text("list", "1\ta.jpg\n2\tb.jpg\n1\tc.jpg\n");
    TW_ASSERT_FAILS(tw_image_files_load("list", &files), TW_ERR_FORMAT, "list:3: the id '1' is there twice");
    write_text("list", "a.jpg\n\tb.jpg\n");
    TW_ASSERT_FAILS(tw_image_files_load("list", &files), TW_ERR_FORMAT, "list:2");
    write_text("list", "x\t\n");
    TW_ASSERT_FAILS(tw_image_files_load("list", &files), TW_ERR_FORMAT, "list:1: PATH");
    leave_folder();
}
END_TEST

START_TEST(texts_in_every_form) {
    static const char *const lines[] = {"1", "3", "5"};
    setup();
    write_text("q.jsonl", "{\"text_id\": 1, \"text\": \"一只狗\"}\n"
                          "{\"text_id\": 3, \"text\": \"红色的圆\", \"image_ids\": [4]}\n"
                          "{\"text_id\": 5, \"text\": \"{a}\"}\n");
    write_text("q.txt", "一只狗\n\n红色的圆\r\n\xff\xfe\n{a}\n");
    TW_ASSERT_OK(extract("--checkpoint model.h5 --texts q.jsonl --output f"));
    TW_ASSERT_OK(extract("--checkpoint model.h5 --texts q.txt --output f --name lines"));
    int saved = dup(0), file = open("q.txt", O_RDONLY);
    ck_assert_int_eq(dup2(file, 0), 0);
    TW_ASSERT_OK(extract("--checkpoint model.h5 --texts - --output f"));
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    static const char json[] = "{\"text_id\": 1, \"text\": \"一只狗\"}\n";
    ck_assert_int_eq(write(pipes[1], json, strlen(json)), (ssize_t)strlen(json));
    close(pipes[1]);
    ck_assert_int_eq(dup2(pipes[0], 0), 0);
    TW_ASSERT_OK(extract("--checkpoint model.h5 --texts - --output f --name piped --batch 3"));
    dup2(saved, 0), close(saved), close(file), close(pipes[0]);
    tw_features *all[] = {load("f/q_texts.txt_feat.h5"), load("f/lines_texts.txt_feat.h5"),
                          load("f/stdin_texts.txt_feat.h5")};
    for (int i = 0; i < 3; i++) {
        has_ids(all[i], lines, 3, true);
        ck_assert_mem_eq(all[i]->values, all[0]->values, 3 * MICRO_EMBED * sizeof(float));
        if (i) tw_features_free(all[i]);
    }
    tw_features *one = load("f/piped_texts.txt_feat.h5");
    has_ids(one, lines, 1, true);
    for (int k = 0; k < MICRO_EMBED; k++) ck_assert_float_eq_tol(one->values[k], all[0]->values[k], 1e-5f);
    tw_features_free(one);
    tw_features_free(all[0]);
    /* Said to be lines, JSON is text like any other. */
    TW_ASSERT_OK(extract("--checkpoint model.h5 --texts q.jsonl --texts_format lines --output f --name raw"));
    one = load("f/raw_texts.txt_feat.h5");
    static const char *const three[] = {"1", "2", "3"};
    has_ids(one, three, 3, true);
    tw_features_free(one);
    write_text("blank.txt", "\n \n");
    TW_ASSERT_FAILS(extract("--checkpoint model.h5 --texts blank.txt"), TW_ERR_FORMAT, "holds no texts");
    TW_ASSERT_FAILS(extract("--checkpoint model.h5 --texts none.txt"), TW_ERR_NOT_FOUND, "none.txt");
    leave_folder();
}
END_TEST

/* As the original: str(text), and an empty text is [CLS] [SEP]. A text left out would have no prediction. */
START_TEST(empty_texts_and_numbers_are_encoded) {
    static const char *const ids[] = {"1", "2", "3", "4", "5"};
    setup();
    write_text("q.jsonl", "{\"text_id\": 1, \"text\": \"\"}\n{\"text_id\": 2, \"text\": 2020}\n"
                          "{\"text_id\": 3, \"text\": \"2020\"}\n{\"text_id\": 4, \"text\": \" 　\"}\n"
                          "{\"text_id\": 5, \"text\": \"狗\"}\n");
    TW_ASSERT_OK(extract("--checkpoint model.h5 --texts q.jsonl --output f --batch 1"));
    tw_features *f = load("f/q_texts.txt_feat.h5");
    has_ids(f, ids, 5, true);
    ck_assert_mem_eq(row(f, 1), row(f, 2), MICRO_EMBED * 4);
    ck_assert_mem_eq(row(f, 0), row(f, 3), MICRO_EMBED * 4);
    ck_assert_mem_ne(row(f, 0), row(f, 4), MICRO_EMBED * 4);
    tw_features_free(f);
    leave_folder();
}
END_TEST

/* ---- interrupted runs ---- */

typedef struct fixture {
    tw_encoder_options options;
    tw_encoder encoder;
    tw_split_texts texts;
    tw_image_files *files;
} fixture;

static void open_fixture(fixture *f, int64_t batch) {
    *f = (fixture){.options = tw_encoder_defaults()};
    f->options.checkpoint = "model.h5", f->options.batch = batch, f->options.threads = 1;
    TW_ASSERT_OK(tw_encoder_open(&f->options, NULL, &f->encoder));
    TW_ASSERT_OK(tw_split_texts_read("q.txt", TW_TEXTS_AUTO, NULL, &f->texts));
    TW_ASSERT_OK(tw_image_files_load("photos", &f->files));
}

static void close_fixture(fixture *f) {
    tw_image_files_free(f->files);
    tw_split_texts_free(&f->texts);
    tw_encoder_close(&f->encoder);
}

static tw_extraction job(fixture *f, const char *path, bool image) {
    return (tw_extraction){.encoder = &f->encoder,
                           .options = &f->options,
                           .path = path,
                           .files = image ? f->files : NULL,
                           .texts = image ? NULL : &f->texts};
}

static off_t size_of(const char *path) {
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    return info.st_size;
}

/* After an interruption that left the first `bytes` of the .part file, the same file comes out. */
static void resumes(const tw_extraction *e, const char *part, off_t bytes, int64_t expected) {
    tw_extracted out;
    ck_assert_int_eq(truncate(part, bytes), 0);
    unlink(e->path);
    TW_ASSERT_OK(tw_extract(e, &out));
    ck_assert_int_eq(out.resumed, expected);
    shell("cmp %s whole", e->path);
}

static void interrupt(const char *path, const char *part, bool image) {
    fixture f;
    tw_extracted whole;
    open_fixture(&f, 2);
    tw_extraction e = job(&f, path, image);
    TW_ASSERT_OK(tw_extract(&e, &whole));
    int64_t items = image ? f.files->n : f.texts.n;
    ck_assert_int_eq(whole.encoded, items);
    ck_assert_int_eq(whole.rows + whole.left_out, items);
    ck_assert_int_eq(whole.truncated, image ? 0 : 1);
    shell("cp %s whole", path);
    int64_t batches = (items + 1) / 2;
    off_t all = size_of(part), record = (all - 48) / batches;
    ck_assert_int_eq((all - 48) % batches, 0);
    for (int64_t b = 0; b <= batches; b++) {
        int64_t there = 2 * b < items ? 2 * b : items;
        resumes(&e, part, 48 + b * record, there);
        if (b < batches) resumes(&e, part, 48 + b * record + record - 1, there);
    }
    resumes(&e, part, 17, 0); /* not even the header */
    /* A damaged record ends what is used. */
    int fd = open(part, O_RDWR);
    ck_assert_int_eq(pwrite(fd, "x", 1, 48 + record + record / 2), 1);
    close(fd);
    resumes(&e, part, all, 2);
    close_fixture(&f);
    /* Another batch size gives other bits, perhaps: nothing is taken over. */
    open_fixture(&f, 3);
    e = job(&f, path, image);
    TW_ASSERT_OK(tw_extract(&e, &whole));
    ck_assert_int_eq(whole.resumed, 0);
    tw_extract_forget(path);
    ck_assert_int_eq(access(part, F_OK), -1);
    close_fixture(&f);
}

START_TEST(interrupted_runs_go_on) {
    char lines[2048] = "一只狗\n", *at = lines + strlen(lines);
    setup();
    for (int i = 0; i < 60; i++) at += sprintf(at, "很长");
    strcpy(at, "\n三\n四\n五\n");
    write_text("q.txt", lines);
    interrupt("i.h5", ".i.h5.part", true);
    interrupt("i.npy", ".i.npy.part", true);
    interrupt("./t.jsonl", "./.t.jsonl.part", false);
    leave_folder();
}
END_TEST

/* Another model under the same name is another job, and so are other texts. */
START_TEST(work_of_another_job_is_not_used) {
    fixture f;
    tw_extracted out;
    setup();
    write_text("q.txt", "一\n二\n");
    for (int i = 0; i < 3; i++) {
        if (i == 1) make_micro_model("model.h5", TW_SOURCE_DIR "/tests/golden/tokenizer_vocab.txt", 8);
        if (i == 2) write_text("q.txt", "一\n三\n");
        open_fixture(&f, 2);
        tw_extraction e = job(&f, "t.h5", false);
        TW_ASSERT_OK(tw_extract(&e, &out));
        ck_assert_int_eq(out.resumed, 0);
        TW_ASSERT_OK(tw_extract(&e, &out));
        ck_assert_int_eq(out.resumed, 2);
        close_fixture(&f);
    }
    leave_folder();
}
END_TEST

TW_TEST_MAIN("extract", a_folder_and_its_list, image_files_are_found, texts_in_every_form,
             empty_texts_and_numbers_are_encoded, interrupted_runs_go_on, work_of_another_job_is_not_used)
