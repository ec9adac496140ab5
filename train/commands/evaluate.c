/* `tuwen evaluate`: R@1, R@5, R@10 and mean recall, of prediction files or of a checkpoint. */
#include "train/comm_open.h"
#include "train/commands/commands.h"
#include "train/commands/encoder_options.h"
#include "train/last_word.h"
#include "train/launch.h"
#include "train/recall.h"
#include "train/scores.h"

#include <stdlib.h>
#include <sys/stat.h>

enum { BOTH = TW_DIRECTIONS };

typedef struct job {
    tw_encoder_options encoder;
    const char *predictions, *texts, *data, *output;
    int direction;
    bool follows;           /* another rank has the scores */
    tw_log *log, *rank_log; /* what all ranks would say, by rank 0 alone; each rank's own */
    tw_reference *reference;
    tw_scores scores[TW_DIRECTIONS];
    int64_t truncated; /* texts longer than the context; of a checkpoint */
} job;

static tw_status parse(int argc, char **argv, job *j, bool *help) {
    const tw_option rows[] = {
        {.name = "predictions",
         .type = TW_OPTION_STRING,
         .target = &j->predictions,
         .value = "FILE",
         .help = "scores this prediction file; needs --texts"},
        {.name = "texts",
         .type = TW_OPTION_STRING,
         .target = &j->texts,
         .value = "FILE",
         .help = "texts with their images, as JSON lines; with --checkpoint the default is the split's own"},
        {.name = "data",
         .type = TW_OPTION_STRING,
         .target = &j->data,
         .value = "SPLIT",
         .help = "folder of the split, as data/lmdb/valid; with --checkpoint"},
        {.name = "direction",
         .type = TW_OPTION_CHOICE,
         .target = &j->direction,
         .choices = "t2i|i2t|both",
         .help = "text-to-image, image-to-text; a prediction file tells its own"},
        {.name = "output",
         .type = TW_OPTION_STRING,
         .target = &j->output,
         .value = "FILE",
         .help = "score file in the original's JSON; of both directions, image-to-text is a member of it"},
        TW_ENCODER_OPTION_ROWS(j->encoder),
    };
    const tw_options options = {
        .command = "evaluate",
        .summary =
            "Scores predictions as the original's scorer does, or a checkpoint in one go: R@1, R@5, R@10 "
            "and mean recall over the whole pool. Image-to-text answers are derived from the texts file.",
        .example =
            "tuwen evaluate --checkpoint runs/one/best --data data/lmdb/valid --output scores.json\n"
            "  tuwen evaluate --predictions predictions/valid_predictions.jsonl --texts valid_texts.jsonl",
        .rows = rows,
        .count = sizeof rows / sizeof rows[0],
    };
    return tw_options_parse(&options, argc, argv, help);
}

static tw_status check(const job *j) {
    if (!j->predictions == !j->encoder.checkpoint)
        return FAIL(TW_ERR_CONFIG, "give either --predictions with --texts, or --checkpoint with --data");
    if (j->predictions && !j->texts)
        return FAIL(TW_ERR_CONFIG, "--texts is missing: the texts file with the right answers");
    if (j->predictions && j->data)
        return FAIL(TW_ERR_CONFIG, "--data has no use with --predictions: give --texts");
    if (j->encoder.checkpoint && !j->data)
        return FAIL(TW_ERR_CONFIG, "--data is missing: the folder of the split");
    return TW_OK;
}

static void show(const job *j, tw_direction direction) {
    const tw_scores *s = &j->scores[direction];
    printf("%s: R@1 %.2f  R@5 %.2f  R@10 %.2f  mean recall %.2f  (%lld %s)\n", tw_direction_name(direction),
           s->r1, s->r5, s->r10, s->mean, (long long)s->queries,
           direction == TW_TEXT_TO_IMAGE ? "texts" : "images");
}

/* Programs that read the score file must not find the one of an earlier run: one rank says so, the one whose
 * error counts, or rank 0 where the ranks do not know of each other. The first error stays, and was said
 * already if there are other ranks. */
static tw_status fail(const job *j, tw_status status) {
    char message[1024];
    bool writes = j->output && (tw_comm_was_opened() || tw_launch_find().rank == 0);
    snprintf(message, sizeof message, "%s", tw_last_error());
    if (!writes || tw_scores_write_failure(j->output, message) == TW_OK) return FAIL(status, "%s", message);
    if (tw_last_word_said()) tw_log_warning(j->rank_log, "%s", tw_last_error());
    return FAIL(status, "%s; %s", message, tw_last_error());
}

/* The original derives a second annotation for image-to-text; here it is derived on the way. */
static tw_status refuse_reversed(const char *path) {
    struct stat info;
    tw_direction direction;
    if (!path || stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return TW_OK;
    if (tw_id_lines_direction(path, &direction) != TW_OK || direction == TW_TEXT_TO_IMAGE) return TW_OK;
    const char *end = strstr(path, ".tr.jsonl");
    return FAIL(
        TW_ERR_FORMAT,
        "--texts: %s is the original's reversed annotation (image_id with text_ids): give the texts file "
        "that it was made from (text_id with image_ids)%s%.*s%s; image-to-text answers are derived from "
        "that",
        path, end ? ", " : "", end ? (int)(end - path) : 0, path, end ? ".jsonl" : "");
}

/* ---- prediction files ---- */

static tw_status rank_file(job *j) {
    tw_direction direction;
    tw_ranking ranking;
    TRY(refuse_reversed(j->texts));
    TRY(tw_reference_load(j->texts, &j->reference));
    TRY(tw_id_lines_direction(j->predictions, &direction));
    if (j->direction != BOTH && j->direction != (int)direction)
        return FAIL(TW_ERR_FORMAT, "%s holds %s predictions, --direction says %s", j->predictions,
                    tw_direction_name(direction), j->direction == TW_TEXT_TO_IMAGE ? "t2i" : "i2t");
    TRY(tw_ranking_load(j->predictions, direction, j->reference, &ranking));
    if (ranking.repeated)
        tw_log_warning(j->log, "%s: %lld predictions came again (first for %s %s); the last one counts",
                       j->predictions, (long long)ranking.repeated, tw_direction_query(direction),
                       ranking.first_repeated);
    if (ranking.unknown)
        tw_log_warning(j->log,
                       "%s: %lld predictions are for queries that %s does not have (first %s %s): not scored",
                       j->predictions, (long long)ranking.unknown, j->texts, tw_direction_query(direction),
                       ranking.first_unknown);
    j->scores[direction] = tw_score(j->reference, &ranking);
    j->direction = (int)direction;
    tw_ranking_free(&ranking);
    return TW_OK;
}

/* Little work, and nothing to share: rank 0 does it alone. */
static tw_status score_file(job *j) {
    j->follows = tw_launch_find().rank > 0;
    if (j->follows) return TW_OK;
    tw_status status = rank_file(j);
    return status == TW_OK ? TW_OK : fail(j, status);
}

/* ---- a checkpoint ---- */

static tw_status rank_all(job *j, const tw_rows *queries, const tw_rows *gallery, const int32_t *indexes,
                          int k, tw_ranking *ranking) {
    for (int64_t i = 0; i < queries->n; i++) {
        const tw_id *answers[TW_SCORED_ANSWERS];
        for (int r = 0; r < k; r++) answers[r] = &gallery->ids[indexes[i * k + r]];
        TRY(tw_ranking_set(ranking, j->reference, &queries->ids[i], answers, k));
    }
    return TW_OK;
}

static tw_status score_direction(job *j, tw_device *device, tw_direction direction, const tw_rows *queries,
                                 const tw_rows *gallery) {
    int k = TW_SCORED_ANSWERS;
    tw_ranking ranking;
    TRY(tw_ranking_create(j->reference, direction, &ranking));
    int32_t *indexes = malloc((size_t)queries->n * TW_SCORED_ANSWERS * sizeof *indexes + 1);
    tw_status status = indexes ? TW_OK : FAIL(TW_ERR_MEMORY, "no memory for the answers");
    if (status == TW_OK)
        status = tw_retrieve(device, queries->values, queries->n, gallery->values, gallery->n, queries->dim,
                             k, indexes, NULL, &k);
    if (status == TW_OK) status = rank_all(j, queries, gallery, indexes, k, &ranking);
    if (status == TW_OK) {
        j->scores[direction] = tw_score(j->reference, &ranking);
        if (j->scores[direction].unanswered)
            tw_log_warning(
                j->log, "%lld of %lld %s that the texts name are missing or bad: counted as misses",
                (long long)j->scores[direction].unanswered, (long long)j->scores[direction].queries,
                direction == TW_TEXT_TO_IMAGE ? "texts" : "images");
    }
    free(indexes);
    tw_ranking_free(&ranking);
    return status;
}

static tw_status fill_reference(job *j, const tw_split_texts *texts) {
    TRY(tw_reference_create(&j->reference));
    for (int64_t i = 0; i < texts->n; i++) {
        int64_t first = texts->images_start[i], n = texts->images_start[i + 1] - first;
        TRY(tw_reference_add(j->reference, &texts->ids[i], n ? &texts->image_ids[first] : NULL, n));
    }
    return TW_OK;
}

static tw_status score_features(job *j, tw_device *device, const tw_rows *images, const tw_rows *texts) {
    if (j->direction != TW_IMAGE_TO_TEXT) TRY(score_direction(j, device, TW_TEXT_TO_IMAGE, texts, images));
    if (j->direction != TW_TEXT_TO_IMAGE) TRY(score_direction(j, device, TW_IMAGE_TO_TEXT, images, texts));
    return TW_OK;
}

/* Everything that can be wrong with the input is said before the model is loaded. */
static tw_status open_split(job *j, tw_dataset **dataset, tw_split_texts *texts) {
    TRY(refuse_reversed(j->texts));
    /* Rank 0 names the images, and pairs tell whether ids are strings. */
    bool pairs = tw_launch_find().rank == 0 || (!j->texts && tw_split_texts_are_pairs(j->data));
    TRY(pairs ? tw_dataset_open(j->data, dataset) : tw_dataset_open_images(j->data, dataset));
    TRY(tw_split_texts_load(*dataset, j->texts, j->log, texts));
    return fill_reference(j, texts);
}

static void tell_truncated(job *j, const tw_encoder *encoder, const tw_rows *texts) {
    j->truncated = texts->truncated;
    if (texts->truncated)
        tw_log_warning(j->log, "%lld of %lld texts are longer than the context of %d tokens and were cut",
                       (long long)texts->truncated, (long long)texts->n,
                       encoder->loaded.model->config.context);
}

static tw_status score_split(job *j, tw_encoder *encoder, const tw_dataset *dataset,
                             const tw_split_texts *texts) {
    tw_rows image_rows = {0}, text_rows = {0};
    tw_status status = tw_encoder_images(encoder, dataset, &image_rows);
    if (status == TW_OK) status = tw_encoder_texts(encoder, texts, &text_rows);
    if (status == TW_OK && !j->follows) tell_truncated(j, encoder, &text_rows);
    if (status == TW_OK && !j->follows) status = score_features(j, encoder->device, &image_rows, &text_rows);
    if (status == TW_OK && !j->follows)
        printf("%s on %s: %lld images (%.1f/s), %lld texts (%.1f/s)\n", encoder->source, j->data,
               (long long)image_rows.n, (double)image_rows.n / image_rows.seconds, (long long)text_rows.n,
               (double)text_rows.n / text_rows.seconds);
    tw_rows_free(&image_rows);
    tw_rows_free(&text_rows);
    return status;
}

static tw_status score_checkpoint(job *j) {
    tw_split_texts texts = {0};
    tw_dataset *dataset = NULL;
    tw_encoder encoder;
    j->encoder.ranks = true;
    tw_status joined = tw_encoder_join(&j->encoder, j->rank_log, &encoder);
    if (joined != TW_OK) return fail(j, joined);
    j->follows = !tw_encoder_leads(&encoder);
    tw_status status = tw_encoder_load(&j->encoder, open_split(j, &dataset, &texts), &encoder);
    if (status == TW_OK) status = score_split(j, &encoder, dataset, &texts);
    status = tw_encoder_end(&encoder, status);
    if (status != TW_OK) status = fail(j, status); /* this rank's alone: it may not get to close all */
    tw_encoder_close(&encoder);
    tw_split_texts_free(&texts);
    tw_dataset_close(dataset);
    return status;
}

/* ---- both ---- */

static tw_status finish(const job *j) {
    if (j->follows) return TW_OK;
    for (tw_direction d = 0; d < TW_DIRECTIONS; d++)
        if (j->direction == BOTH || j->direction == (int)d) show(j, d);
    if (!j->output) return TW_OK;
    if (j->direction == BOTH)
        return tw_scores_write(j->output, &j->scores[TW_TEXT_TO_IMAGE], &j->scores[TW_IMAGE_TO_TEXT],
                               j->truncated);
    return tw_scores_write(j->output, &j->scores[j->direction], NULL, j->truncated);
}

tw_status tw_command_evaluate(int argc, char **argv) {
    job j = {.encoder = tw_encoder_defaults(), .direction = BOTH};
    bool help = false;
    const tw_log_options log = {.console = stderr, .progress_seconds = 10};
    TRY(parse(argc, argv, &j, &help));
    if (help) return TW_OK;
    TRY(check(&j));
    TRY(tw_log_open(&log, &j.rank_log));
    if (tw_launch_find().rank == 0) j.log = j.rank_log;
    tw_status status = j.predictions ? score_file(&j) : score_checkpoint(&j);
    if (status == TW_OK) status = finish(&j);
    tw_reference_free(j.reference);
    tw_status closed = tw_log_close(j.rank_log);
    return status != TW_OK ? status : closed;
}
