#include "train/scores.h"

#include "data/atomic_file.h"
#include "data/python_float.h"
#include "data/string_map.h"
#include "train/recall.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { TEXTS, IMAGES, SIDES };

typedef struct side {
    tw_string_map ids;         /* keys "i12" and "s12": the integer and the string; unknown ids of predictions
                                  come to stand behind the reference's */
    int64_t integers, strings; /* of the reference */
    int64_t known;             /* ids of the reference */
} side;

struct tw_reference {
    side side[SIDES];
    /* Links in the order of the records. */
    int64_t *text, *image, links, capacity;
    /* (texts known): where the links of the text's last record are. */
    int64_t *first, *count, texts_capacity;
};

tw_status tw_reference_create(tw_reference **out) {
    *out = calloc(1, sizeof **out);
    return *out ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

void tw_reference_free(tw_reference *reference) {
    if (!reference) return;
    for (int i = 0; i < SIDES; i++) tw_string_map_free(&reference->side[i].ids);
    free(reference->text);
    free(reference->image);
    free(reference->first);
    free(reference->count);
    free(reference);
}

static tw_status number_of(side *s, const tw_id *id, int64_t *number) {
    char key[TW_ID_MAX_BYTES + 2];
    if (id->size > TW_ID_MAX_BYTES)
        return FAIL(TW_ERR_FORMAT, "an id is longer than %d bytes", TW_ID_MAX_BYTES);
    key[0] = id->is_integer ? 'i' : 's';
    memcpy(key + 1, id->text, id->size);
    return tw_string_map_add(&s->ids, key, id->size + 1, number, NULL);
}

/* Like number_of, for an id of the reference. */
static tw_status know(side *s, const tw_id *id, int64_t *number) {
    TRY(number_of(s, id, number));
    if (*number < s->known) return TW_OK;
    s->known = *number + 1;
    if (id->is_integer)
        s->integers++;
    else
        s->strings++;
    return TW_OK;
}

static tw_status grow(int64_t **a, int64_t **b, int64_t *capacity, int64_t needed) {
    if (needed <= *capacity) return TW_OK;
    int64_t larger = needed + needed / 2 + 1024;
    int64_t *p = realloc(*a, (size_t)larger * sizeof *p);
    if (p) *a = p;
    int64_t *q = realloc(*b, (size_t)larger * sizeof *q);
    if (q) *b = q;
    if (!p || !q) return FAIL(TW_ERR_MEMORY, "no memory for %lld records", (long long)needed);
    *capacity = larger;
    return TW_OK;
}

tw_status tw_reference_add(tw_reference *reference, const tw_id *text, const tw_id *images, int64_t n) {
    int64_t number, image;
    TRY(know(&reference->side[TEXTS], text, &number));
    TRY(grow(&reference->first, &reference->count, &reference->texts_capacity, number + 1));
    TRY(grow(&reference->text, &reference->image, &reference->capacity, reference->links + n));
    reference->first[number] = reference->links;
    reference->count[number] = n;
    for (int64_t i = 0; i < n; i++) {
        TRY(know(&reference->side[IMAGES], &images[i], &image));
        reference->text[reference->links] = number;
        reference->image[reference->links++] = image;
    }
    return TW_OK;
}

tw_status tw_reference_load(const char *texts_path, tw_reference **out) {
    *out = NULL;
    tw_id_lines *file;
    tw_reference *reference = NULL;
    TRY(tw_id_lines_open(texts_path, TW_TEXT_TO_IMAGE, &file));
    tw_status status = tw_reference_create(&reference);
    for (bool end = false; status == TW_OK && !end;) {
        tw_id text;
        const tw_id *images;
        int64_t n;
        status = tw_id_lines_next(file, &text, &images, &n, &end);
        if (status == TW_OK && !end) status = tw_reference_add(reference, &text, images, n);
    }
    tw_id_lines_close(file);
    if (status == TW_OK && reference->side[TEXTS].known == 0)
        status = FAIL(TW_ERR_FORMAT, "%s: holds no texts", texts_path);
    if (status) {
        tw_reference_free(reference);
        return status;
    }
    *out = reference;
    return TW_OK;
}

int64_t tw_reference_queries(const tw_reference *reference, tw_direction direction) {
    return reference->side[direction == TW_TEXT_TO_IMAGE ? TEXTS : IMAGES].known;
}

/* ---- rankings ---- */

tw_status tw_ranking_create(const tw_reference *reference, tw_direction direction, tw_ranking *out) {
    int64_t n = tw_reference_queries(reference, direction);
    *out = (tw_ranking){.direction = direction,
                        .queries = n,
                        .answers = malloc((size_t)n * TW_SCORED_ANSWERS * sizeof *out->answers + 1),
                        .answered = calloc((size_t)n + 1, sizeof *out->answered),
                        .best = malloc((size_t)n * sizeof *out->best + 1)};
    if (!out->answers || !out->answered || !out->best) {
        tw_ranking_free(out);
        return FAIL(TW_ERR_MEMORY, "no memory for the answers to %lld queries", (long long)n);
    }
    for (int64_t i = 0; i < n * TW_SCORED_ANSWERS; i++) out->answers[i] = -1;
    return TW_OK;
}

void tw_ranking_free(tw_ranking *ranking) {
    free(ranking->answers);
    free(ranking->answered);
    free(ranking->best);
    *ranking = (tw_ranking){0};
}

static side *queries_of(tw_reference *reference, tw_direction direction) {
    return &reference->side[direction == TW_TEXT_TO_IMAGE ? TEXTS : IMAGES];
}

static side *answers_of(tw_reference *reference, tw_direction direction) {
    return &reference->side[direction == TW_TEXT_TO_IMAGE ? IMAGES : TEXTS];
}

tw_status tw_ranking_set(tw_ranking *ranking, tw_reference *reference, const tw_id *query,
                         const tw_id *const *answers, int64_t n) {
    int64_t number;
    TRY(number_of(queries_of(reference, ranking->direction), query, &number));
    if (number >= ranking->queries) {
        if (ranking->unknown++ == 0)
            snprintf(ranking->first_unknown, sizeof ranking->first_unknown, "%s", query->text);
        return TW_OK;
    }
    if (ranking->answered[number] && ranking->repeated++ == 0)
        snprintf(ranking->first_repeated, sizeof ranking->first_repeated, "%s", query->text);
    ranking->answered[number] = true;
    int64_t *row = ranking->answers + number * TW_SCORED_ANSWERS;
    for (int64_t i = 0; i < TW_SCORED_ANSWERS; i++) {
        row[i] = -1;
        if (i < n) TRY(number_of(answers_of(reference, ranking->direction), answers[i], &row[i]));
    }
    return TW_OK;
}

static tw_status check_type(const side *s, const char *field, const tw_id *id) {
    if (id->is_integer ? s->integers > 0 || s->strings == 0 : s->strings > 0 || s->integers == 0)
        return TW_OK;
    return FAIL(TW_ERR_FORMAT, "'%s': %s is %s, but in the texts file these ids are %s", field, id->text,
                id->is_integer ? "an integer" : "a string", id->is_integer ? "strings" : "integers");
}

/* One line of a prediction file. */
static tw_status check_prediction(tw_reference *reference, tw_direction direction, const tw_id *query,
                                  const tw_id *answers, int64_t n) {
    const char *query_name = tw_direction_query(direction), *name = tw_direction_answers(direction);
    TRY(check_type(queries_of(reference, direction), query_name, query));
    if (n != TW_SCORED_ANSWERS)
        return FAIL(TW_ERR_FORMAT, "%s %s has %lld %s, scoring needs exactly %d", query_name, query->text,
                    (long long)n, name, TW_SCORED_ANSWERS);
    for (int64_t i = 0; i < n; i++) {
        TRY(check_type(answers_of(reference, direction), name, &answers[i]));
        for (int64_t j = 0; j < i; j++)
            if (answers[i].is_integer == answers[j].is_integer && answers[i].size == answers[j].size &&
                memcmp(answers[i].text, answers[j].text, answers[i].size) == 0)
                return FAIL(TW_ERR_FORMAT, "%s %s has %s twice among its %s (ranks %lld and %lld)",
                            query_name, query->text, answers[i].text, name, (long long)j + 1,
                            (long long)i + 1);
    }
    return TW_OK;
}

static tw_status read_predictions(tw_id_lines *file, tw_reference *reference, tw_ranking *ranking) {
    for (;;) {
        tw_id query;
        const tw_id *answers, *ranked[TW_SCORED_ANSWERS];
        int64_t n;
        bool end;
        TRY(tw_id_lines_next(file, &query, &answers, &n, &end));
        if (end) return TW_OK;
        tw_status status = check_prediction(reference, ranking->direction, &query, answers, n);
        if (status) return tw_fail_context(status, "%s", tw_id_lines_place(file));
        for (int i = 0; i < TW_SCORED_ANSWERS; i++) ranked[i] = &answers[i];
        TRY(tw_ranking_set(ranking, reference, &query, ranked, n));
    }
}

/* Every query must be answered; those that are not are counted, and the first few named. */
static tw_status check_complete(const char *path, tw_reference *reference, const tw_ranking *ranking) {
    enum { NAMED = 5 };
    char names[512] = "";
    int64_t missing = 0;
    for (int64_t i = 0; i < ranking->queries; i++) {
        if (ranking->answered[i] || missing++ >= NAMED) continue;
        size_t size, used = strlen(names);
        const char *key = tw_string_map_key(&queries_of(reference, ranking->direction)->ids, i, &size);
        snprintf(names + used, sizeof names - used, "%s%.80s", used ? ", " : "", key + 1);
    }
    if (!missing) return TW_OK;
    return FAIL(TW_ERR_FORMAT, "%s: %lld of %lld queries of the texts file have no prediction: %s %s%s", path,
                (long long)missing, (long long)ranking->queries, tw_direction_query(ranking->direction),
                names, missing > NAMED ? ", ..." : "");
}

tw_status tw_ranking_load(const char *path, tw_direction direction, tw_reference *reference,
                          tw_ranking *out) {
    *out = (tw_ranking){0};
    tw_id_lines *file;
    TRY(tw_id_lines_open(path, direction, &file));
    tw_status status = tw_ranking_create(reference, direction, out);
    if (status == TW_OK) status = read_predictions(file, reference, out);
    tw_id_lines_close(file);
    if (status == TW_OK) status = check_complete(path, reference, out);
    if (status) tw_ranking_free(out);
    return status;
}

/* ---- scores ---- */

static int rank_of(const int64_t *answers, int64_t right) {
    int rank = 0;
    while (rank < TW_SCORED_ANSWERS && answers[rank] != right) rank++;
    return rank;
}

/* best[query]: the best rank of one of its right answers, TW_SCORED_ANSWERS if there is none. */
static void find_ranks(const tw_reference *r, const tw_ranking *ranking, int *best) {
    bool to_image = ranking->direction == TW_TEXT_TO_IMAGE;
    for (int64_t i = 0; i < ranking->queries; i++) best[i] = TW_SCORED_ANSWERS;
    for (int64_t k = 0; k < r->links; k++) {
        int64_t text = r->text[k], query = to_image ? text : r->image[k];
        bool replaced = to_image && (k < r->first[text] || k >= r->first[text] + r->count[text]);
        if (replaced) continue;
        int rank = rank_of(ranking->answers + query * TW_SCORED_ANSWERS, to_image ? r->image[k] : text);
        if (rank < best[query]) best[query] = rank;
    }
}

tw_scores tw_score(const tw_reference *reference, tw_ranking *ranking) {
    tw_recall_count count = {0};
    int64_t unanswered = 0;
    find_ranks(reference, ranking, ranking->best);
    for (int64_t i = 0; i < ranking->queries; i++) {
        tw_recall_add(&count, ranking->best[i]);
        unanswered += !ranking->answered[i];
    }
    tw_recall r = tw_recall_counted(&count);
    return (tw_scores){r.r1, r.r5, r.r10, r.mean, ranking->queries, unanswered};
}

/* "score": 85.67, "scoreJson": {...} */
static void print_scores(FILE *out, const tw_scores *s) {
    char mean[TW_PYTHON_FLOAT_BYTES], r1[TW_PYTHON_FLOAT_BYTES], r5[TW_PYTHON_FLOAT_BYTES],
        r10[TW_PYTHON_FLOAT_BYTES];
    tw_python_float(s->mean, mean);
    tw_python_float(s->r1, r1);
    tw_python_float(s->r5, r5);
    tw_python_float(s->r10, r10);
    fprintf(out,
            "\"score\": %s, \"scoreJson\": {\"score\": %s, \"mean_recall\": %s, \"r1\": %s, \"r5\": %s, "
            "\"r10\": %s}",
            mean, mean, mean, r1, r5, r10);
}

tw_status tw_scores_write(const char *path, const tw_scores *scores, const tw_scores *second,
                          int64_t truncated) {
    tw_atomic_file file;
    TRY(tw_atomic_file_open(&file, path));
    fputs("{\"success\": true, ", file.stream);
    print_scores(file.stream, scores);
    if (second) {
        fputs(", \"image_to_text\": {", file.stream);
        print_scores(file.stream, second);
        fputs("}", file.stream);
    }
    if (truncated) fprintf(file.stream, ", \"truncated\": %lld", (long long)truncated);
    fputs("}", file.stream);
    return tw_atomic_file_commit(&file);
}

tw_status tw_scores_write_failure(const char *path, const char *message) {
    json_t *object = json_pack("{s:s, s:s, s:i, s:{}, s:b}", "errorDetail", message, "errorMsg", message,
                               "score", 0, "scoreJson", "success", 0);
    char *text = object ? json_dumps(object, JSON_ENSURE_ASCII) : NULL;
    json_decref(object);
    if (!text) return FAIL(TW_ERR_FORMAT, "%s: the failure's message cannot be written as JSON", path);
    tw_atomic_file file;
    tw_status status = tw_atomic_file_open(&file, path);
    if (status == TW_OK) {
        fputs(text, file.stream);
        status = tw_atomic_file_commit(&file);
    }
    free(text);
    return status;
}
