/* `tuwen extract`: features of a split's images and texts. */
#include "data/files.h"
#include "train/commands/commands.h"
#include "train/commands/encoder_options.h"
#include "train/formats/features.h"

#include <stdlib.h>

typedef struct job {
    tw_encoder_options encoder;
    const char *data, *texts, *output, *name;
    int format;
    bool images_only, texts_only;
    tw_log *log;
    tw_encoder open;
    tw_dataset *dataset;
    char split[256];
} job;

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    const tw_option rows[] = {
        TW_ENCODER_OPTION_ROWS(j->encoder),
        {.name = "data",
         .type = TW_OPTION_STRING,
         .target = &j->data,
         .value = "SPLIT",
         .help = "folder of the split, as data/lmdb/valid; not needed for --texts_only with --texts"},
        {.name = "texts",
         .type = TW_OPTION_STRING,
         .target = &j->texts,
         .value = "FILE",
         .help = "texts as JSON lines; without it the split's texts file, or its pairs"},
        {.name = "output",
         .type = TW_OPTION_STRING,
         .target = &j->output,
         .value = "FOLDER",
         .help = "where the feature files go"},
        {.name = "name",
         .type = TW_OPTION_STRING,
         .target = &j->name,
         .value = "SPLIT",
         .help = "files are NAME_imgs.img_feat.* and NAME_texts.txt_feat.*; without it the split's folder"},
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
            "Writes the L2-normalised features of a split: images in the byte order of their ids, texts "
            "in file order. An image that cannot be decoded is named, counted and left out.",
        .example = "tuwen extract --checkpoint runs/one/best --data data/lmdb/valid --output features",
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
    if (!j->data && !(j->texts_only && j->texts))
        return FAIL(TW_ERR_CONFIG, "--data is missing: the folder of the split");
    if (!j->data && !j->name) return FAIL(TW_ERR_CONFIG, "without --data the files need a --name");
    if (j->name && (!*j->name || strchr(j->name, '/')))
        return FAIL(TW_ERR_CONFIG, "--name: '%s' cannot begin a file's name", j->name);
    return TW_OK;
}

static tw_status write_rows(const job *j, tw_features_kind kind, const tw_rows *rows, const char *path) {
    tw_features_writer *writer;
    TRY(tw_features_create(path, kind, rows->dim, j->open.source, &writer));
    tw_status status = tw_features_append(writer, rows->ids, rows->values, rows->n);
    if (status == TW_OK) return tw_features_commit(writer);
    tw_features_discard(writer);
    return status;
}

static tw_status save(const job *j, tw_features_kind kind, const tw_rows *rows) {
    static const char *const formats[] = {"h5", "npy", "jsonl"};
    bool image = kind == TW_FEATURES_IMAGE;
    char name[512];
    snprintf(name, sizeof name, "%s_%s.%s", j->split, image ? "imgs.img_feat" : "texts.txt_feat",
             formats[j->format]);
    char *path = tw_path_join(j->output, name);
    if (!path) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = write_rows(j, kind, rows, path);
    if (status == TW_OK) {
        const char *unit = image ? "images" : "texts";
        printf("%s: %lld %s, %lld values each, %.1f %s/s", path, (long long)rows->n, unit,
               (long long)rows->dim, (double)rows->n / rows->seconds, unit);
        if (rows->left_out) printf(", %lld bad images left out", (long long)rows->left_out);
        if (rows->truncated) printf(", %lld cut to the context length", (long long)rows->truncated);
        printf("\n");
    }
    free(path);
    return status;
}

static tw_status extract_images(job *j) {
    tw_rows rows;
    TRY(tw_encoder_images(&j->open, j->dataset, &rows));
    tw_status status = save(j, TW_FEATURES_IMAGE, &rows);
    tw_rows_free(&rows);
    return status;
}

static tw_status extract_texts(job *j) {
    tw_split_texts texts;
    tw_rows rows;
    TRY(tw_split_texts_load(j->dataset, j->texts, j->log, &texts));
    tw_status status = tw_encoder_texts(&j->open, &texts, &rows);
    if (status == TW_OK) {
        status = save(j, TW_FEATURES_TEXT, &rows);
        if (status == TW_OK && texts.bad)
            printf("%s: %lld bad records left out\n", texts.source, (long long)texts.bad);
        tw_rows_free(&rows);
    }
    tw_split_texts_free(&texts);
    return status;
}

static tw_status run(job *j) {
    const tw_log_options log = {.console = stderr, .progress_seconds = 10};
    char parent[4096], split[4096];
    TRY(tw_log_open(&log, &j->log));
    if (j->data) {
        TRY(tw_dataset_open(j->data, &j->dataset));
        TRY(tw_split_path(j->data, parent, split, sizeof split));
    }
    snprintf(j->split, sizeof j->split, "%s", j->name ? j->name : split);
    TRY(tw_encoder_open(&j->encoder, j->log, &j->open));
    TRY(tw_make_folders(j->output));
    if (!j->texts_only) TRY(extract_images(j));
    if (!j->images_only) TRY(extract_texts(j));
    return TW_OK;
}

tw_status tw_command_extract(int argc, char **argv) {
    job j = {.encoder = tw_encoder_defaults(), .output = "."};
    bool help = false;
    TRY(parse(argc, argv, &j, &help));
    if (help) return TW_OK;
    TRY(check(&j));
    tw_status status = run(&j);
    tw_encoder_close(&j.open);
    tw_dataset_close(j.dataset);
    tw_status closed = tw_log_close(j.log);
    return status != TW_OK ? status : closed;
}
