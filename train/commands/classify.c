/* `tuwen classify`: zero-shot classification of a folder of images, FACTS.md §5 and §7. */
#include "data/atomic_file.h"
#include "train/commands/commands.h"
#include "train/commands/encoder_options.h"
#include "train/image_list.h"
#include "train/similarity.h"
#include "train/zeroshot.h"

#include <stdlib.h>

enum { TABLE_CLASSES = 20, SHOWN_PAIRS = 10 };

typedef struct job {
    tw_encoder_options encoder;
    const char *data, *labels, *templates, *output, *predictions, *index, *name;
    tw_log *log;
    tw_label_folder *set;
    tw_prompts prompts;
    tw_encoder model;
    float *weights, *features; /* (classes, dim), (images, dim) */
    float *logits;             /* (images, classes); probabilities in the end */
    bool *ok;                  /* (images) */
    json_t *bad;               /* [{"file", "why"}] */
    tw_zeroshot_scores scores;
    int64_t *order, rows; /* of --index */
} job;

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    const tw_option rows[] = {
        {.name = "data",
         .type = TW_OPTION_STRING,
         .target = &j->data,
         .required = true,
         .value = "FOLDER",
         .help = "folder with test/<label id>/ and label_cn.txt"},
        {.name = "templates",
         .type = TW_OPTION_STRING,
         .target = &j->templates,
         .value = "FILE",
         .help = "prompt templates, one a line, with {} for the label; without it a general set"},
        {.name = "labels",
         .type = TW_OPTION_STRING,
         .target = &j->labels,
         .value = "FILE",
         .help = "labels, one a line; without it label_cn.txt of the folder"},
        {.name = "output",
         .type = TW_OPTION_STRING,
         .target = &j->output,
         .value = "FILE",
         .help = "scores as JSON: top-1, top-5, every class, the whole confusion table"},
        {.name = "predictions",
         .type = TW_OPTION_STRING,
         .target = &j->predictions,
         .value = "FILE",
         .help = "probabilities as the benchmark's site takes them"},
        {.name = "index",
         .type = TW_OPTION_STRING,
         .target = &j->index,
         .value = "FILE",
         .help = "the data set's index.json: the order of the images in --predictions"},
        {.name = "dataset_name",
         .type = TW_OPTION_STRING,
         .target = &j->name,
         .value = "NAME",
         .help = "in --predictions; without it the folder's name"},
        TW_ENCODER_OPTION_ROWS(j->encoder),
    };
    const tw_options options = {
        .command = "classify",
        .summary =
            "Zero-shot classification: labels become texts through prompt templates, and the class whose "
            "text is nearest to an image is its class. Images become RGB before they are resized, as in "
            "the original's evaluation.",
        .example = "tuwen classify --checkpoint model.h5 --data cifar-100 --output scores.json\n"
                   "  tuwen classify --checkpoint model.h5 --data cifar-100 --templates prompts.txt "
                   "--predictions cifar-100.json --index cifar-100/index.json",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, help);
}

static tw_status check(const job *j) {
    if (!j->encoder.checkpoint)
        return FAIL(TW_ERR_CONFIG, "--checkpoint is missing: the model to classify with");
    if (j->index && !j->predictions)
        return FAIL(TW_ERR_CONFIG, "--index orders the rows of --predictions, which is not given");
    return TW_OK;
}

/* Everything small is read, and found wrong, before the model is loaded. */
static tw_status read_inputs(job *j) {
    TRY(tw_label_folder_open(j->data, j->labels, &j->set));
    TRY(j->templates ? tw_templates_load(j->templates, &j->prompts) : tw_templates_default(&j->prompts));
    if (j->set->undecoded)
        tw_log_warning(
            j->log,
            "%lld images are of kinds that are not decoded here (.bmp, .pgm, .ppm, .tif; first %s): "
            "left out; convert them to PNG to have them counted",
            (long long)j->set->undecoded, j->set->first_undecoded);
    if (j->set->undecoded && j->index)
        return FAIL(
            TW_ERR_FORMAT,
            "--index numbers all images of the set, and %lld of them are not decoded here (first %s): "
            "convert them to PNG under the same names but for the ending",
            (long long)j->set->undecoded, j->set->first_undecoded);
    if (j->index) TRY(tw_zeroshot_index_load(j->index, j->set->images, &j->order, &j->rows));
    if (j->set->warning[0]) tw_log_warning(j->log, "%s", j->set->warning);
    return TW_OK;
}

static tw_status reserve(job *j) {
    size_t n = (size_t)j->set->images, classes = (size_t)j->set->classes, dim = (size_t)j->model.dim;
    j->weights = malloc(classes * dim * sizeof *j->weights);
    j->features = malloc(n * dim * sizeof *j->features);
    j->logits = malloc(n * classes * sizeof *j->logits);
    j->ok = malloc(n * sizeof *j->ok);
    j->bad = json_array();
    if (!j->weights || !j->features || !j->logits || !j->ok || !j->bad)
        return FAIL(TW_ERR_MEMORY, "no memory for the probabilities of %zu images and %zu classes", n,
                    classes);
    memset(j->ok, 1, n * sizeof *j->ok);
    return TW_OK;
}

static tw_status on_bad(void *context, int64_t i, tw_status status, const char *message) {
    job *j = context;
    (void)status;
    j->ok[i] = false;
    tw_log_warning(j->log, "%s; left out", message);
    json_t *file = json_string(j->set->files[i]), *why = json_string(message);
    json_t *item = json_pack("{s:o, s:o}", "file", file ? file : json_string("(a name that is not UTF-8)"),
                             "why", why ? why : json_string("(a message that is not UTF-8)"));
    json_array_append_new(j->bad, item);
    return TW_OK;
}

static void on_progress(void *context, int64_t done, int64_t total) {
    tw_log_progress(((job *)context)->log, done, total, "images");
}

static tw_status encode_images(job *j) {
    tw_image_list list = {
        .n = j->set->images, .load = tw_image_list_load_file_rgb_first, .self = (const void *)j->set->files};
    tw_image_list_options options = {.batch = j->encoder.batch,
                                     .threads = (int)j->encoder.num_workers,
                                     .on_bad = on_bad,
                                     .on_progress = on_progress,
                                     .context = j};
    TRY(tw_encode_image_list(j->model.towers, j->model.loaded.model, &list, &options, j->features));
    if ((int64_t)json_array_size(j->bad) < j->set->images) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s: none of its %lld images can be decoded", j->set->path,
                (long long)j->set->images);
}

static tw_status classify(job *j) {
    int64_t truncated, n = j->set->images, classes = j->set->classes;
    TRY(tw_encoder_open(&j->encoder, j->log, &j->model));
    TRY(reserve(j));
    TRY(tw_zeroshot_weights(&j->model, &j->set->labels, &j->prompts, j->weights, &truncated));
    if (truncated)
        tw_log_warning(j->log, "%lld of %lld prompts are longer than the context of %d tokens and were cut",
                       (long long)truncated, (long long)classes * j->prompts.n,
                       j->model.loaded.model->config.context);
    TRY(encode_images(j));
    tw_logits(j->features, n, j->weights, classes, j->model.dim, TW_ZEROSHOT_SCALE, j->logits);
    return tw_zeroshot_score(j->logits, j->set->class_of, j->ok, n, classes, &j->scores);
}

/* ---- what is printed ---- */

/* With few classes the whole table: a row a class, a column for what came first. */
static void print_table(const job *j) {
    int64_t classes = j->scores.classes;
    printf("\nrows: the right class; columns: the class that came first\n     ");
    for (int64_t c = 0; c < classes; c++) printf(" %5lld", (long long)c);
    putchar('\n');
    for (int64_t t = 0; t < classes; t++) {
        printf("%5lld", (long long)t);
        for (int64_t c = 0; c < classes; c++)
            printf(" %5lld", (long long)j->scores.confusion[t * classes + c]);
        printf("  %s\n", j->set->labels.at[t]);
    }
}

/* The most frequent mistakes; of equally frequent ones the earlier. */
static void print_mistakes(const job *j) {
    int64_t classes = j->scores.classes, limit = INT64_MAX, after = -1;
    for (int shown = 0; shown < SHOWN_PAIRS; shown++) {
        int64_t best = -1;
        for (int64_t at = 0; at < classes * classes; at++) {
            int64_t count = j->scores.confusion[at];
            bool later = count < limit || (count == limit && at > after);
            if (at / classes == at % classes || !count || !later) continue;
            if (best < 0 || count > j->scores.confusion[best]) best = at;
        }
        if (best < 0) return;
        if (shown == 0) printf("\nmost frequent mistakes\n");
        limit = j->scores.confusion[best];
        after = best;
        printf("  %lld of %lld  %s -> %s\n", (long long)limit, (long long)j->scores.count[best / classes],
               j->set->labels.at[best / classes], j->set->labels.at[best % classes]);
    }
}

static void print_scores(const job *j) {
    const tw_zeroshot_scores *s = &j->scores;
    printf("top-1 %.2f  top-5 %.2f  mean per class %.2f  (%lld images, %lld classes, %lld templates)\n",
           s->top1, s->top5, s->mean_class, (long long)s->images, (long long)s->classes,
           (long long)j->prompts.n);
    if (json_array_size(j->bad))
        printf("%lld images are bad and not counted\n", (long long)json_array_size(j->bad));
    if (j->set->undecoded)
        printf("%lld images of kinds that are not decoded here are not counted\n",
               (long long)j->set->undecoded);
    if (s->classes <= TABLE_CLASSES) print_table(j);
    print_mistakes(j);
}

/* ---- what is written ---- */

static json_t *numbers(const int64_t *values, int64_t n) {
    json_t *row = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(row, json_integer((json_int_t)values[i]));
    return row;
}

static double percent(int64_t part, int64_t all) {
    return all ? 100 * (double)part / (double)all : 0;
}

static json_t *scores_json(const job *j) {
    const tw_zeroshot_scores *s = &j->scores;
    json_t *classes = json_array(), *confusion = json_array();
    for (int64_t c = 0; c < s->classes; c++) {
        json_t *folder = json_string(j->set->folders[c]);
        json_array_append_new(classes,
                              json_pack("{s:o, s:s, s:I, s:f, s:f}", "folder", folder ? folder : json_null(),
                                        "label", j->set->labels.at[c], "images", (json_int_t)s->count[c],
                                        "top1", percent(s->right[c], s->count[c]), "top5",
                                        percent(s->right5[c], s->count[c])));
        json_array_append_new(confusion, numbers(s->confusion + c * s->classes, s->classes));
    }
    return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:I, s:O, s:o, s:o}", "model",
                     j->model.loaded.model->config.name, "images", (json_int_t)s->images, "templates",
                     (json_int_t)j->prompts.n, "top1", s->top1, "top5", s->top5, "mean_per_class",
                     s->mean_class, "undecoded_images", (json_int_t)j->set->undecoded, "bad_images", j->bad,
                     "classes", classes, "confusion", confusion);
}

static tw_status write_scores(const job *j) {
    tw_atomic_file file;
    json_t *scores = scores_json(j);
    if (!scores) return FAIL(TW_ERR_MEMORY, "no memory for %s", j->output);
    tw_status status = tw_atomic_file_open(&file, j->output);
    if (status == TW_OK) {
        int failed = json_dumpf(scores, file.stream, JSON_COMPACT) != 0 || fputc('\n', file.stream) == EOF;
        if (failed) status = FAIL(TW_ERR_IO, "%s: cannot be written", j->output);
        status = tw_atomic_file_end(&file, status);
    }
    json_decref(scores);
    return status;
}

/* As the original counts: batch norm's running averages are no parameters. */
static void count_params(const tw_dual_encoder *model, int64_t *all, int64_t *visual) {
    *all = *visual = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        if (p->statistic) continue;
        *all += p->count;
        if (strncmp(p->name, "visual.", 7) == 0) *visual += p->count;
    }
}

static tw_status write_predictions(const job *j) {
    if (json_array_size(j->bad))
        return FAIL(TW_ERR_FORMAT, "%s is not written: it needs a row for every image, and %zu are bad",
                    j->predictions, json_array_size(j->bad));
    char *folder = realpath(j->data, NULL), *slash = folder ? strrchr(folder, '/') : NULL, model[128];
    (void)snprintf(model, sizeof model, "CN-CLIP-%s", j->model.loaded.model->config.name);
    tw_softmax_rows(j->logits, j->set->images, j->set->classes);
    tw_zeroshot_predictions p = {.model = model,
                                 .dataset = j->name ? j->name
                                            : slash ? slash + 1
                                                    : j->data,
                                 .probabilities = j->logits,
                                 .images = j->set->images,
                                 .classes = j->set->classes,
                                 .order = j->order,
                                 .rows = j->order ? j->rows : j->set->images};
    count_params(j->model.loaded.model, &p.params, &p.visual_params);
    tw_status status = tw_zeroshot_predictions_write(j->predictions, &p);
    free(folder);
    return status;
}

static tw_status run(job *j) {
    const tw_log_options log = {.console = stderr};
    TRY(tw_log_open(&log, &j->log));
    tw_status status = read_inputs(j);
    if (status == TW_OK) status = classify(j);
    if (status == TW_OK) print_scores(j);
    if (status == TW_OK && j->output) status = write_scores(j);
    if (status == TW_OK && j->predictions) status = write_predictions(j);
    tw_encoder_close(&j->model);
    tw_status closed = tw_log_close(j->log);
    return status != TW_OK ? status : closed;
}

tw_status tw_command_classify(int argc, char **argv) {
    bool help;
    job j = {.encoder = tw_encoder_defaults()};
    TRY(parse(argc, argv, &j, &help));
    if (help) return TW_OK;
    TRY(check(&j));
    tw_status status = run(&j);
    tw_label_folder_free(j.set);
    tw_prompts_free(&j.prompts);
    tw_zeroshot_scores_free(&j.scores);
    json_decref(j.bad);
    free(j.weights);
    free(j.features);
    free(j.logits);
    free(j.ok);
    free(j.order);
    return status;
}
