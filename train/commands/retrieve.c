/* `tuwen retrieve`: exact search between feature files, both ways. */
#include "data/atomic_file.h"
#include "data/files.h"
#include "train/clock.h"
#include "train/commands/commands.h"
#include "train/device_open.h"
#include "train/formats/features.h"
#include "train/id_lines.h"
#include "train/options.h"
#include "train/recall.h"

#include <stdlib.h>

typedef struct job {
    const char *images_path, *texts_path, *output, *name;
    int64_t k, threads;
    int direction; /* TW_DIRECTIONS: both */
    int device_choice;
    char prefix[512]; /* "valid_" or "" */
    tw_features *images, *texts;
    tw_device *device;
} job;

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    const tw_option rows[] = {
        {.name = "images",
         .type = TW_OPTION_STRING,
         .target = &j->images_path,
         .required = true,
         .value = "FILE",
         .help = "image features (.h5, .npy or .jsonl)"},
        {.name = "texts",
         .type = TW_OPTION_STRING,
         .target = &j->texts_path,
         .required = true,
         .value = "FILE",
         .help = "text features"},
        {.name = "output",
         .type = TW_OPTION_STRING,
         .target = &j->output,
         .value = "FOLDER",
         .help = "where the prediction files go"},
        {.name = "name",
         .type = TW_OPTION_STRING,
         .target = &j->name,
         .value = "SPLIT",
         .help = "files are NAME_predictions.jsonl and NAME_tr_predictions.jsonl; without it what the text "
                 "features' name begins with"},
        {.name = "k",
         .type = TW_OPTION_INT,
         .target = &j->k,
         .range = "[1, 10000]",
         .help = "answers a query"},
        {.name = "direction",
         .type = TW_OPTION_CHOICE,
         .target = &j->direction,
         .choices = "t2i|i2t|both",
         .help = "text-to-image, image-to-text"},
        {.name = "device",
         .type = TW_OPTION_CHOICE,
         .target = &j->device_choice,
         .choices = TW_DEVICE_CHOICES,
         .help = TW_DEVICE_HELP},
        {.name = "threads",
         .type = TW_OPTION_INT,
         .target = &j->threads,
         .range = "[0, 1024]",
         .help = "compute threads; 0 = all cores, or as many as a CPU quota allows"},
    };
    const tw_options options = {
        .command = "retrieve",
        .summary =
            "Finds the k images nearest to each text and the k texts nearest to each image, exactly, and "
            "writes both as the original's prediction files; equal scores keep the files' order.",
        .example = "tuwen retrieve --images features/valid_imgs.img_feat.h5 \\\n"
                   "      --texts features/valid_texts.txt_feat.h5 --output predictions",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, help);
}

static tw_status load(const char *path, tw_features_kind kind, tw_features **out) {
    TRY(tw_features_load(path, out));
    tw_features *f = *out;
    const char *expected = kind == TW_FEATURES_IMAGE ? "image" : "text";
    if (f->kind != TW_FEATURES_UNKNOWN && f->kind != kind)
        return FAIL(TW_ERR_FORMAT, "%s holds %s features, %s features are needed here", path,
                    f->kind == TW_FEATURES_IMAGE ? "image" : "text", expected);
    if (!f->ids) /* of a .npy file alone */
        return FAIL(TW_ERR_FORMAT, "%s: the ids are missing; they belong in %.*s.ids.jsonl", path,
                    (int)(strlen(path) - strlen(".npy")), path);
    if (f->n == 0) return FAIL(TW_ERR_FORMAT, "%s: holds no features", path);
    return TW_OK;
}

/* "valid_" of "features/valid_texts.txt_feat.h5", or "" where the name is another. */
static tw_status find_prefix(job *j) {
    if (j->name) {
        if (!*j->name || strchr(j->name, '/') || strlen(j->name) > 255)
            return FAIL(TW_ERR_CONFIG, "--name: '%.300s' cannot begin a file's name", j->name);
        snprintf(j->prefix, sizeof j->prefix, "%s_", j->name);
        return TW_OK;
    }
    const char *slash = strrchr(j->texts_path, '/'), *file = slash ? slash + 1 : j->texts_path;
    const char *end = strstr(file, "_texts.");
    if (end) snprintf(j->prefix, sizeof j->prefix, "%.*s_", (int)(end - file), file);
    return TW_OK;
}

static tw_status write_all(FILE *out, tw_direction direction, const tw_features *queries,
                           const tw_features *gallery, const int32_t *indexes, int k) {
    for (int64_t i = 0; i < queries->n; i++)
        TRY(tw_id_line_write(out, direction, &queries->ids[i], gallery->ids, indexes + i * k, k));
    return TW_OK;
}

static tw_status write_file(const char *path, tw_direction direction, const tw_features *queries,
                            const tw_features *gallery, const int32_t *indexes, int k) {
    tw_atomic_file file;
    TRY(tw_atomic_file_open(&file, path));
    return tw_atomic_file_end(&file, write_all(file.stream, direction, queries, gallery, indexes, k));
}

static tw_status search(const job *j, tw_direction direction) {
    bool to_image = direction == TW_TEXT_TO_IMAGE;
    const tw_features *queries = to_image ? j->texts : j->images, *gallery = to_image ? j->images : j->texts;
    char name[600];
    snprintf(name, sizeof name, "%s%spredictions.jsonl", j->prefix, to_image ? "" : "tr_");
    char *path = tw_path_join(j->output, name);
    int k = j->k < gallery->n ? (int)j->k : (int)gallery->n;
    int32_t *indexes = malloc((size_t)queries->n * (size_t)k * sizeof *indexes);
    double start = tw_seconds(), searched = 0;
    tw_status status = path && indexes ? TW_OK : FAIL(TW_ERR_MEMORY, "no memory for the answers");
    if (status == TW_OK)
        status = tw_retrieve(j->device, queries->values, queries->n, gallery->values, gallery->n,
                             queries->dim, k, indexes, NULL, &k);
    searched = tw_seconds();
    if (status == TW_OK) status = write_file(path, direction, queries, gallery, indexes, k);
    if (status == TW_OK) {
        printf("%s: %lld %s, the best %d of %lld %s each, searched in %.2f s, written in %.2f s\n", path,
               (long long)queries->n, to_image ? "texts" : "images", k, (long long)gallery->n,
               to_image ? "images" : "texts", searched - start, tw_seconds() - searched);
        if (k < j->k) printf("there are only %d: --k %lld was cut to that\n", k, (long long)j->k);
    }
    free(indexes);
    free(path);
    return status;
}

static tw_status run(job *j) {
    TRY(find_prefix(j));
    TRY(tw_device_open((enum tw_config_device)j->device_choice, (int)j->threads, 0,
                       &j->device)); /* sets the threads that read as well */
    TRY(load(j->images_path, TW_FEATURES_IMAGE, &j->images));
    TRY(load(j->texts_path, TW_FEATURES_TEXT, &j->texts));
    if (j->images->dim != j->texts->dim)
        return FAIL(TW_ERR_SHAPE, "%s has %lld values a feature, %s has %lld: they are of different models",
                    j->images_path, (long long)j->images->dim, j->texts_path, (long long)j->texts->dim);
    TRY(tw_make_folders(j->output));
    if (j->direction != TW_IMAGE_TO_TEXT) TRY(search(j, TW_TEXT_TO_IMAGE));
    return j->direction != TW_TEXT_TO_IMAGE ? search(j, TW_IMAGE_TO_TEXT) : TW_OK;
}

tw_status tw_command_retrieve(int argc, char **argv) {
    job j = {.output = ".", .k = 10, .direction = TW_DIRECTIONS, .device_choice = TW_CONFIG_DEVICE_AUTO};
    bool help = false;
    TRY(parse(argc, argv, &j, &help));
    if (help) return TW_OK;
    tw_status status = run(&j);
    if (j.device) tw_device_free(j.device);
    tw_features_free(j.images);
    tw_features_free(j.texts);
    return status;
}
