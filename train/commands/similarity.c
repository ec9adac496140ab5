/* `tuwen similarity`: which of some texts an image fits best. Texts and images are taken as the quick API of
 * the original code takes them (FACTS.md §4): texts neither lower-cased nor their quotes replaced, images
 * resized in their own mode. */
#include "train/similarity.h"
#include "train/commands/commands.h"
#include "train/commands/encoder_options.h"
#include "train/image_list.h"

#include <math.h>
#include <stdlib.h>

typedef struct names {
    const char **at; /* room for as many as there are arguments */
    int64_t n;
} names;

typedef struct job {
    tw_encoder_options encoder;
    names images, texts;
    const char *image;
    bool json;
    tw_log *log;
    tw_encoder model;
    float *image_features, *text_features; /* (images, dim), (texts, dim) */
    float *logits, *probabilities;         /* (images, texts) */
} job;

static tw_status add_name(void *target, const char *name, const char *value) {
    (void)name;
    names *list = target;
    list->at[list->n++] = value;
    return TW_OK;
}

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    const tw_option rows[] = {
        {.name = "IMAGE",
         .type = TW_OPTION_POSITIONAL,
         .target = &j->image,
         .required = true,
         .help = "a JPEG, PNG or WebP file"},
        {.name = "TEXT",
         .type = TW_OPTION_POSITIONAL,
         .target = &j->texts,
         .set = add_name,
         .required = true,
         .help = "one or more texts"},
        {.name = "image",
         .type = TW_OPTION_CALL,
         .target = &j->images,
         .set = add_name,
         .value = "FILE",
         .help = "one more image for the same texts; may be repeated"},
        {.name = "json",
         .type = TW_OPTION_FLAG,
         .target = &j->json,
         .help = "print JSON: logits and probabilities of every image"},
        TW_ENCODER_OPTION_ROWS(j->encoder),
    };
    const tw_options options = {
        .command = "similarity",
        .summary = "Which text fits the image best: the softmax over the texts of exp(logit_scale) times the "
                   "cosine of the features, as the quick start of the original code prints it.",
        .example =
            "tuwen similarity --checkpoint model.h5 photo.jpg 一只猫 一条狗 一辆汽车\n"
            "  tuwen similarity --checkpoint model.h5 --image b.jpg --image c.jpg --json a.jpg 红色 蓝色",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, help);
}

static tw_status check(const job *j) {
    if (!j->encoder.checkpoint) return FAIL(TW_ERR_CONFIG, "--checkpoint is missing: the model to ask");
    if (j->texts.n == 0) return FAIL(TW_ERR_CONFIG, "TEXT is missing: give the texts after the image");
    return TW_OK;
}

static tw_status bad_image(void *context, int64_t i, tw_status status, const char *message) {
    (void)context, (void)i, (void)message;
    return status;
}

static tw_status encode_images(job *j) {
    tw_image_list list = {
        .n = j->images.n, .load = tw_image_list_load_file, .self = (const void *)j->images.at};
    tw_image_list_options options = {
        .batch = j->encoder.batch, .threads = (int)j->encoder.num_workers, .on_bad = bad_image};
    return tw_encode_image_list(j->model.towers, j->model.loaded.model, &list, &options, j->image_features);
}

static tw_status encode_texts(job *j) {
    int64_t truncated;
    tw_text *texts = malloc((size_t)j->texts.n * sizeof *texts);
    if (!texts) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; i < j->texts.n; i++)
        texts[i] = (tw_text){.text = j->texts.at[i], .bytes = strlen(j->texts.at[i])};
    j->model.encode.as_is = true;
    j->model.encode.on_progress = NULL;
    tw_status status = tw_encode_texts(j->model.towers, j->model.loaded.model, j->model.loaded.vocab, texts,
                                       j->texts.n, &j->model.encode, j->text_features, &truncated);
    free(texts);
    if (status == TW_OK && truncated)
        tw_log_warning(j->log, "%lld of %lld texts are longer than the context of %d tokens and were cut",
                       (long long)truncated, (long long)j->texts.n, j->model.loaded.model->config.context);
    return status;
}

static tw_status compare(job *j) {
    TRY(tw_encoder_open(&j->encoder, j->log, &j->model));
    const tw_dual_encoder *model = j->model.loaded.model;
    int64_t images = j->images.n, texts = j->texts.n, dim = j->model.dim;
    size_t results = (size_t)(images * texts) * sizeof *j->logits;
    j->image_features = malloc((size_t)(images * dim) * sizeof *j->image_features);
    j->text_features = malloc((size_t)(texts * dim) * sizeof *j->text_features);
    j->logits = malloc(results);
    j->probabilities = malloc(results);
    if (!j->image_features || !j->text_features || !j->logits || !j->probabilities)
        return FAIL(TW_ERR_MEMORY, "no memory for %lld images and %lld texts", (long long)images,
                    (long long)texts);
    TRY(encode_images(j));
    TRY(encode_texts(j));
    float scale;
    TRY(tw_params_get(model->params, model->logit_scale, &scale));
    tw_logits(j->image_features, images, j->text_features, texts, dim, exp((double)scale), j->logits);
    memcpy(j->probabilities, j->logits, results);
    tw_softmax_rows(j->probabilities, images, texts);
    return TW_OK;
}

static void print_table(const job *j) {
    for (int64_t i = 0; i < j->images.n; i++) {
        printf("%s%s\n", i ? "\n" : "", j->images.at[i]);
        for (int64_t t = 0; t < j->texts.n; t++)
            printf("  %6.2f %%  %s\n", 100 * (double)j->probabilities[i * j->texts.n + t], j->texts.at[t]);
    }
}

static json_t *row_of(const float *values, int64_t n) {
    json_t *row = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(row, json_real((double)values[i]));
    return row;
}

static tw_status print_json(const job *j) {
    json_t *texts = json_array(), *images = json_array();
    int64_t n = j->texts.n;
    for (int64_t t = 0; t < n; t++) json_array_append_new(texts, json_string(j->texts.at[t]));
    for (int64_t i = 0; i < j->images.n; i++)
        json_array_append_new(images,
                              json_pack("{s:s%, s:o, s:o}", "image", j->images.at[i], strlen(j->images.at[i]),
                                        "logits", row_of(j->logits + i * n, n), "probabilities",
                                        row_of(j->probabilities + i * n, n)));
    json_t *all = json_pack("{s:s, s:o, s:o}", "model", j->model.loaded.model->config.name, "texts", texts,
                            "images", images);
    int failed = !all || (int64_t)json_array_size(images) != j->images.n ||
                 json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0;
    json_decref(all);
    if (failed) return FAIL(TW_ERR_FORMAT, "JSON cannot be printed: is the name of an image not UTF-8?");
    putchar('\n');
    return TW_OK;
}

static tw_status run(job *j) {
    const tw_log_options log = {.console = stderr};
    TRY(tw_log_open(&log, &j->log));
    tw_status status = compare(j);
    if (status == TW_OK && j->json) status = print_json(j);
    if (status == TW_OK && !j->json) print_table(j);
    tw_encoder_close(&j->model);
    tw_status closed = tw_log_close(j->log);
    return status != TW_OK ? status : closed;
}

tw_status tw_command_similarity(int argc, char **argv) {
    bool help;
    job j = {.encoder = tw_encoder_defaults()};
    j.images.at = malloc((size_t)(argc + 1) * sizeof *j.images.at);
    j.texts.at = malloc((size_t)(argc + 1) * sizeof *j.texts.at);
    tw_status status = j.images.at && j.texts.at ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) {
        j.images.n = 1; /* IMAGE comes before all --image, wherever it stands */
        status = parse(argc, argv, &j, &help);
        j.images.at[0] = j.image;
    }
    if (status == TW_OK && !help) status = check(&j);
    if (status == TW_OK && !help) status = run(&j);
    float *blocks[] = {j.image_features, j.text_features, j.logits, j.probabilities};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    free(j.images.at);
    free(j.texts.at);
    return status;
}
