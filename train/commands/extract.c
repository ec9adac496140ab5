/* `tuwen extract`: features of images and texts. */
#include "data/files.h"
#include "train/commands/commands.h"
#include "train/commands/encoder_options.h"
#include "train/extraction.h"
#include "train/launch.h"

#include <stdlib.h>

typedef struct job {
    tw_encoder_options encoder;
    const char *data, *images, *texts, *output, *name;
    int format, texts_format;
    bool images_only, texts_only;
    tw_log *log, *rank_log; /* what all ranks would say, by rank 0 alone; each rank's own */
    tw_encoder open;
    tw_dataset *dataset;
    tw_image_files *files;
    tw_split_texts split_texts;
    char split[256];
    char *image_path, *text_path; /* NULL: not asked for */
} job;

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    const tw_option rows[] = {
        TW_ENCODER_OPTION_ROWS(j->encoder),
        {.name = "data",
         .type = TW_OPTION_STRING,
         .target = &j->data,
         .value = "SPLIT",
         .help = "folder of a split, as data/lmdb/valid: its images and its texts"},
        {.name = "images",
         .type = TW_OPTION_STRING,
         .target = &j->images,
         .value = "PATH",
         .help = "images of a folder and those below it, whose ids are their paths in it; or of a list file, "
                 "one PATH or ID<TAB>PATH a line"},
        {.name = "texts",
         .type = TW_OPTION_STRING,
         .target = &j->texts,
         .value = "FILE",
         .help = "texts: JSON lines, or one text a line whose id is its line's number; - is standard input. "
                 "Without it the split's texts file, or its pairs"},
        {.name = "texts_format",
         .type = TW_OPTION_CHOICE,
         .target = &j->texts_format,
         .choices = "auto|jsonl|lines",
         .help = "auto: JSON lines if the name ends in .jsonl or the first line begins with {"},
        {.name = "output",
         .type = TW_OPTION_STRING,
         .target = &j->output,
         .value = "FOLDER",
         .help = "where the feature files go"},
        {.name = "name",
         .type = TW_OPTION_STRING,
         .target = &j->name,
         .value = "SPLIT",
         .help =
             "files are NAME_imgs.img_feat.* and NAME_texts.txt_feat.*; without it the name of the split's "
             "folder, of the images or of the texts"},
        {.name = "format",
         .type = TW_OPTION_CHOICE,
         .target = &j->format,
         .choices = "h5|npy|jsonl",
         .help = "HDF5, NumPy (ids beside it), or the original's JSON lines"},
        {.name = "images_only", .type = TW_OPTION_FLAG, .target = &j->images_only, .help = "no texts"},
        {.name = "texts_only", .type = TW_OPTION_FLAG, .target = &j->texts_only, .help = "no images"},
    };
    const tw_options options = {
        .command = "extract",
        .summary =
            "Writes L2-normalised features: images of a split in the byte order of their ids, texts in file "
            "order. An image that cannot be decoded is named, counted and left out. A run that was "
            "interrupted goes on where it stopped when it is started again; its files are the same.",
        .example = "tuwen extract --checkpoint runs/one/best --data data/lmdb/valid --output features\n"
                   "  tuwen extract --checkpoint runs/one/best --images photos --format npy\n"
                   "  cat queries.txt | tuwen extract --checkpoint runs/one/best --texts - --name queries",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, help);
}

static tw_status check(const job *j) {
    if (!j->encoder.checkpoint) return FAIL(TW_ERR_CONFIG, "--checkpoint is missing");
    if (j->images_only && j->texts_only)
        return FAIL(TW_ERR_CONFIG, "--images_only and --texts_only leave nothing to do");
    if (j->images_only && j->texts) return FAIL(TW_ERR_CONFIG, "--texts has no use with --images_only");
    if (j->texts_only && j->images) return FAIL(TW_ERR_CONFIG, "--images has no use with --texts_only");
    if (!j->data && !j->images && !j->texts)
        return FAIL(TW_ERR_CONFIG, "--data is missing: the folder of the split; or give --images or --texts");
    if (!j->data && ((j->images_only && !j->images) || (j->texts_only && !j->texts)))
        return FAIL(TW_ERR_CONFIG, "--data is missing: the folder of the split");
    if (j->texts && strcmp(j->texts, "-") == 0 && tw_launch_find().ranks > 1)
        return FAIL(
            TW_ERR_CONFIG,
            "--texts -: standard input reaches rank 0 alone; write the texts to a file for several ranks");
    if (j->name && (!*j->name || strchr(j->name, '/')))
        return FAIL(TW_ERR_CONFIG, "--name: '%s' cannot begin a file's name", j->name);
    return TW_OK;
}

/* ---- what there is to do ---- */

/* "queries" of "data/queries.txt", "valid" of "valid_texts.jsonl". */
static tw_status find_name(job *j) {
    char parent[4096], name[4096];
    if (j->name) {
        snprintf(j->split, sizeof j->split, "%s", j->name);
        return TW_OK;
    }
    const char *from = j->data ? j->data : j->images ? j->images : j->texts;
    if (strcmp(from, "-") == 0) from = "stdin";
    TRY(tw_split_path(from, parent, name, sizeof name));
    char *dot = j->data ? NULL : strrchr(name, '.');
    if (dot && dot > name) *dot = '\0';
    static const char *const endings[] = {"_texts", "_imgs"};
    for (int i = 0; i < 2 && !j->data; i++) {
        size_t n = strlen(name), end = strlen(endings[i]);
        if (n > end && strcmp(name + n - end, endings[i]) == 0) name[n - end] = '\0';
    }
    snprintf(j->split, sizeof j->split, "%.255s", name);
    return TW_OK;
}

static tw_status path_of(const job *j, const char *part, char **out) {
    static const char *const formats[] = {"h5", "npy", "jsonl"};
    char name[512];
    snprintf(name, sizeof name, "%s_%s.%s", j->split, part, formats[j->format]);
    *out = tw_path_join(j->output, name);
    return *out ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

static tw_status open_images(job *j) {
    if (!j->images) return TW_OK;
    TRY(tw_image_files_load(j->images, &j->files));
    if (j->files->passed_over)
        tw_log_line(j->log, "%s: %lld files are no .jpg, .jpeg, .png or .webp or have no usable name (%s%s)",
                    j->images, (long long)j->files->passed_over, j->files->first_passed_over,
                    j->files->passed_over > 1 ? ", ..." : "");
    return TW_OK;
}

static tw_status open_texts(job *j) {
    char found[4096];
    if (j->texts)
        return tw_split_texts_read(j->texts, (tw_texts_format)j->texts_format, j->log, &j->split_texts);
    tw_status status = tw_captions_find(j->data, found, sizeof found);
    if (status != TW_OK && status != TW_ERR_NOT_FOUND) return status;
    if (status == TW_OK) return tw_split_texts_read(found, TW_TEXTS_JSONL, j->log, &j->split_texts);
    return tw_split_texts_load(j->dataset, NULL, j->log, &j->split_texts);
}

/* For the rank that names the images: pairs tell whether ids are strings. */
static tw_status open_named(job *j) {
    tw_status status = tw_dataset_open(j->data, &j->dataset);
    if (status != TW_ERR_FORMAT) return status;
    char why[512];
    snprintf(why, sizeof why, "%s", tw_last_error());
    TRY(tw_dataset_open_images(j->data, &j->dataset)); /* unless these are what is damaged */
    tw_log_warning(j->log, "%s; the images are extracted without them, ids in digits as integers", why);
    return TW_OK;
}

/* What is needed of the split, and no more: that may be neither its images nor its pairs. */
static tw_status open_split(job *j, bool images, bool texts) {
    if (texts && !j->texts && tw_split_texts_are_pairs(j->data)) return tw_dataset_open(j->data, &j->dataset);
    if (!images || j->images) return TW_OK;
    return tw_launch_find().rank == 0 ? open_named(j) : tw_dataset_open_images(j->data, &j->dataset);
}

/* Everything that can be wrong with the input is said before the model is loaded. */
static tw_status open_input(job *j) {
    bool images = !j->texts_only && (j->data || j->images), texts = !j->images_only && (j->data || j->texts);
    if (j->data) TRY(open_split(j, images, texts));
    TRY(find_name(j));
    if (images) TRY(open_images(j));
    if (texts) TRY(open_texts(j));
    if (images) TRY(path_of(j, "imgs.img_feat", &j->image_path));
    if (texts) TRY(path_of(j, "texts.txt_feat", &j->text_path));
    return TW_OK;
}

/* ---- doing it ---- */

static tw_status extract(job *j, bool image) {
    const tw_extraction e = {.encoder = &j->open,
                             .options = &j->encoder,
                             .path = image ? j->image_path : j->text_path,
                             .dataset = image && !j->files ? j->dataset : NULL,
                             .files = image ? j->files : NULL,
                             .texts = image ? NULL : &j->split_texts};
    const char *unit = image ? "images" : "texts";
    tw_extracted done;
    TRY(tw_extract(&e, &done));
    if (!tw_encoder_leads(&j->open)) return TW_OK;
    printf("%s: %lld %s, %lld values each", e.path, (long long)done.rows, unit, (long long)j->open.dim);
    if (done.encoded) printf(", %.1f %s/s", (double)done.encoded / done.seconds, unit);
    if (done.resumed) printf(", %lld of an interrupted run", (long long)done.resumed);
    if (done.left_out) printf(", %lld bad images left out", (long long)done.left_out);
    if (done.truncated)
        printf(", %lld longer than the context of %d tokens and cut", (long long)done.truncated,
               j->open.loaded.model->config.context);
    printf("\n");
    if (!image && j->split_texts.bad)
        printf("%s: %lld bad or blank records left out\n", j->split_texts.source,
               (long long)j->split_texts.bad);
    return TW_OK;
}

static tw_status run(job *j) {
    const tw_log_options log = {.console = stderr, .progress_seconds = 10};
    TRY(tw_log_open(&log, &j->rank_log));
    if (tw_launch_find().rank == 0) j->log = j->rank_log;
    TRY(tw_encoder_join(&j->encoder, j->rank_log, &j->open));
    TRY(tw_encoder_load(&j->encoder, open_input(j), &j->open));
    TRY(tw_make_folders(j->output));
    if (j->image_path) TRY(extract(j, true));
    if (j->text_path) TRY(extract(j, false));
    if (!tw_encoder_leads(&j->open)) return TW_OK;
    if (j->image_path) tw_extract_forget(j->image_path);
    if (j->text_path) tw_extract_forget(j->text_path);
    return TW_OK;
}

tw_status tw_command_extract(int argc, char **argv) {
    job j = {.encoder = tw_encoder_defaults(), .output = "."};
    bool help = false;
    TRY(parse(argc, argv, &j, &help));
    if (help) return TW_OK;
    TRY(check(&j));
    j.encoder.ranks = true;
    tw_status status = tw_encoder_end(&j.open, run(&j));
    tw_encoder_close(&j.open);
    tw_split_texts_free(&j.split_texts);
    tw_image_files_free(j.files);
    tw_dataset_close(j.dataset);
    free(j.image_path);
    free(j.text_path);
    tw_status closed = tw_log_close(j.rank_log);
    return status != TW_OK ? status : closed;
}
