/* Scores of predictions, against counts worked out by hand, and what a prediction file must not be. The files
 * and scores as a whole are compared in test_evaluate.c. */
#include "train/scores.h"
#include "tw_test.h"

#include <unistd.h>

static char folder[] = "/tmp/tw-scores-XXXXXX";
static bool made;

static const char *path_of(const char *name) {
    static char paths[4][128];
    static int turn;
    if (!made) ck_assert_ptr_nonnull(mkdtemp(folder));
    made = true;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static const char *write_text(const char *name, const char *text) {
    const char *path = path_of(name);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

static void remove_folder(void) {
    static const char *const names[] = {"texts.jsonl", "predictions.jsonl", "scores.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(path_of(names[i]));
    rmdir(folder);
    strcpy(folder, "/tmp/tw-scores-XXXXXX");
    made = false;
}

static char *read_text(const char *path) {
    static char text[4096];
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

/* Seven texts over images 100, 101, ...: found first, fifth, sixth, tenth, not at all; one without images;
 * and one with two images, of which the later one ranks better. */
static const char texts[] = "{\"text_id\": 1, \"text\": \"a\", \"image_ids\": [100]}\n"
                            "{\"text_id\": 2, \"text\": \"b\", \"image_ids\": [104]}\n"
                            "{\"text_id\": 3, \"text\": \"c\", \"image_ids\": [105]}\n"
                            "{\"text_id\": 4, \"text\": \"d\", \"image_ids\": [109]}\n"
                            "{\"text_id\": 5, \"text\": \"e\", \"image_ids\": [110]}\n"
                            "{\"text_id\": 6, \"text\": \"f\", \"image_ids\": []}\n"
                            "{\"text_id\": 7, \"text\": \"g\", \"image_ids\": [109, 100]}\n";
static const char in_order[] = "100, 101, 102, 103, 104, 105, 106, 107, 108, 109";

/* Predictions for the texts of `ids`, all with the same answers. */
static const char *write_predictions(const int *ids, int n, const char *answers) {
    char text[4096] = "";
    for (int i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "{\"text_id\": %d, \"image_ids\": [%s]}\n",
                 ids[i], answers);
    return write_text("predictions.jsonl", text);
}

static const int all_ids[] = {1, 2, 3, 4, 5, 6, 7};

START_TEST(counts_hits_by_rank) {
    tw_reference *reference;
    tw_ranking ranking;
    TW_ASSERT_OK(tw_reference_load(write_text("texts.jsonl", texts), &reference));
    ck_assert_int_eq(tw_reference_queries(reference, TW_TEXT_TO_IMAGE), 7);
    ck_assert_int_eq(tw_reference_queries(reference, TW_IMAGE_TO_TEXT), 5);
    TW_ASSERT_OK(
        tw_ranking_load(write_predictions(all_ids, 7, in_order), TW_TEXT_TO_IMAGE, reference, &ranking));
    tw_scores s = tw_score(reference, &ranking);
    ck_assert_double_eq(s.r1, 2.0 / 7 * 100);
    ck_assert_double_eq(s.r5, 3.0 / 7 * 100);
    ck_assert_double_eq(s.r10, 5.0 / 7 * 100);
    ck_assert_double_eq(s.mean, (2.0 / 7 + 3.0 / 7 + 5.0 / 7) / 3.0 * 100);
    ck_assert_int_eq(s.queries, 7);
    ck_assert_int_eq(s.unanswered, 0);
    const int best[] = {0, 4, 5, 9, 10, 10, 0};
    for (int i = 0; i < 7; i++) ck_assert_int_eq(ranking.best[i], best[i]);
    tw_ranking_free(&ranking);
    tw_reference_free(reference);
    remove_folder();
}
END_TEST

/* Image 100 belongs to texts 1 and 7: found if either is. Queries come from the annotation, in any order. */
START_TEST(image_to_text_is_the_reverse) {
    tw_reference *reference;
    tw_ranking ranking;
    char text[4096] = "";
    for (int image = 110; image >= 100; image--)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "{\"image_id\": %d, \"text_ids\": [7, 2, 3, 4, 5, 6, 8, 9, 10, 11]}\n", image);
    TW_ASSERT_OK(tw_reference_load(write_text("texts.jsonl", texts), &reference));
    const char *path = write_text("predictions.jsonl", text);
    tw_direction direction;
    TW_ASSERT_OK(tw_id_lines_direction(path, &direction));
    ck_assert_int_eq(direction, TW_IMAGE_TO_TEXT);
    TW_ASSERT_OK(tw_ranking_load(path, direction, reference, &ranking));
    ck_assert_int_eq(ranking.unknown, 6); /* 101, 102, 103, 106, 107, 108 belong to no text */
    ck_assert_str_eq(ranking.first_unknown, "108");
    tw_scores s = tw_score(reference, &ranking); /* 100: rank 0 (7); 104: 1; 105: 2; 109: 0 (7); 110: 4 */
    ck_assert_double_eq(s.r1, 2.0 / 5 * 100);
    ck_assert_double_eq(s.r5, 100);
    ck_assert_double_eq(s.r10, 100);
    tw_ranking_free(&ranking);
    tw_reference_free(reference);
    remove_folder();
}
END_TEST

/* As in a Python dict: the last record of an id stands, in the annotation and in the predictions. */
START_TEST(the_last_record_stands) {
    tw_reference *reference;
    tw_ranking ranking;
    char text[1024];
    TW_ASSERT_OK(tw_reference_load(write_text("texts.jsonl", "{\"text_id\": 1, \"image_ids\": [100]}\n"
                                                             "{\"text_id\": 2, \"image_ids\": [100]}\n"
                                                             "{\"text_id\": 1, \"image_ids\": [105]}\n"),
                                   &reference));
    ck_assert_int_eq(tw_reference_queries(reference, TW_TEXT_TO_IMAGE), 2);
    snprintf(text, sizeof text,
             "{\"text_id\": 2, \"image_ids\": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}\n{\"text_id\": 1, "
             "\"image_ids\": [%s]}\n"
             "{\"text_id\": 2, \"image_ids\": [%s]}\n",
             in_order, in_order);
    TW_ASSERT_OK(
        tw_ranking_load(write_text("predictions.jsonl", text), TW_TEXT_TO_IMAGE, reference, &ranking));
    ck_assert_int_eq(ranking.repeated, 1);
    ck_assert_str_eq(ranking.first_repeated, "2");
    tw_score(reference, &ranking);
    ck_assert_int_eq(ranking.best[0], 5); /* text 1: image 105, no longer 100 */
    ck_assert_int_eq(ranking.best[1], 0); /* text 2: the second answers */
    tw_ranking_free(&ranking);
    tw_reference_free(reference);
    remove_folder();
}
END_TEST

START_TEST(ids_differ_by_type) {
    tw_reference *reference;
    TW_ASSERT_OK(tw_reference_create(&reference));
    const tw_id integer = {"5", 1, true}, string = {"5", 1, false}, text = {"t", 1, false},
                other = {"u", 1, false};
    TW_ASSERT_OK(tw_reference_add(reference, &text, &integer, 1));
    TW_ASSERT_OK(tw_reference_add(reference, &other, &string, 1));
    ck_assert_int_eq(tw_reference_queries(reference, TW_IMAGE_TO_TEXT), 2);
    tw_ranking ranking;
    TW_ASSERT_OK(tw_ranking_create(reference, TW_TEXT_TO_IMAGE, &ranking));
    const tw_id *answers[] = {&string};
    TW_ASSERT_OK(tw_ranking_set(&ranking, reference, &text, answers, 1));
    tw_scores s = tw_score(reference, &ranking);
    ck_assert_double_eq(s.r10, 0);
    ck_assert_int_eq(s.unanswered, 1);
    TW_ASSERT_OK(tw_ranking_set(&ranking, reference, &other, answers, 1));
    s = tw_score(reference, &ranking);
    ck_assert_double_eq(s.r1, 50);
    ck_assert_int_eq(s.unanswered, 0);
    tw_ranking_free(&ranking);
    tw_reference_free(reference);
}
END_TEST

static void refused(const char *predictions, const char *part) {
    tw_reference *reference;
    tw_ranking ranking;
    TW_ASSERT_OK(tw_reference_load(path_of("texts.jsonl"), &reference));
    const char *path = write_text("predictions.jsonl", predictions);
    TW_ASSERT_FAILS(tw_ranking_load(path, TW_TEXT_TO_IMAGE, reference, &ranking), TW_ERR_FORMAT, part);
    ck_assert_ptr_null(ranking.answers);
    tw_reference_free(reference);
}

START_TEST(refuses_what_the_original_refuses) {
    write_text("texts.jsonl", texts);
    char good[512], two[1200];
    snprintf(good, sizeof good, "{\"text_id\": 1, \"image_ids\": [%s]}\n", in_order);
    refused("{\"text_id\": 1, \"image_ids\": [100, 101, 102, 103, 104, 105, 106, 107, 108]}\n",
            "predictions.jsonl:1: text_id 1 has 9 image_ids, scoring needs exactly 10");
    refused("{\"text_id\": 1, \"image_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}\n", "has 11 image_ids");
    refused("{\"text_id\": 1, \"image_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]}\n",
            "text_id 1 has 1 twice among its image_ids (ranks 1 and 10)");
    refused("{\"text_id\": 1, \"image_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, \"10\"]}\n",
            "'image_ids': 10 is a string, but in the texts file these ids are integers");
    refused("{\"text_id\": \"1\", \"image_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}\n",
            "'text_id': 1 is a string");
    refused("{\"text_id\": 1, \"image_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10.0]}\n",
            "rank 10 of 'image_ids': an id must be an integer or a string");
    refused("{\"text_id\": true, \"image_ids\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}\n",
            "'text_id': an id must be");
    refused("{\"text_id\": 1, \"image_ids\": 5}\n", "'image_ids' must be an array");
    refused("{\"text_id\": 1}\n", "the field 'image_ids' is missing");
    refused("{\"image_id\": 1, \"text_ids\": []}\n", "the field 'text_id' is missing");
    refused("[1, 2]\n", "not a JSON object");
    refused("{\"text_id\": 1, \n", "bad JSON at column");
    snprintf(two, sizeof two, "%s\n%s", good, good);
    refused(two, "predictions.jsonl:2: the line is blank");
    refused(good, "6 of 7 queries of the texts file have no prediction: text_id 2, 3, 4, 5, 6, ...");
    refused("", "7 of 7 queries");
    remove_folder();
}
END_TEST

START_TEST(refuses_bad_annotations) {
    tw_reference *reference;
    tw_direction direction;
    TW_ASSERT_FAILS(tw_reference_load(write_text("texts.jsonl", ""), &reference), TW_ERR_FORMAT,
                    "holds no texts");
    ck_assert_ptr_null(reference);
    TW_ASSERT_FAILS(
        tw_reference_load(write_text("texts.jsonl", "{\"text_id\": 1, \"text\": \"a\"}\n"), &reference),
        TW_ERR_FORMAT, "texts.jsonl:1: the field 'image_ids' is missing");
    TW_ASSERT_FAILS(tw_reference_load(path_of("none.jsonl"), &reference), TW_ERR_NOT_FOUND, "none.jsonl");
    TW_ASSERT_FAILS(tw_id_lines_direction(write_text("predictions.jsonl", "{\"a\": 1}\n"), &direction),
                    TW_ERR_FORMAT, "neither 'text_id' with 'image_ids' nor");
    TW_ASSERT_FAILS(tw_id_lines_direction(write_text("predictions.jsonl", "nonsense\n"), &direction),
                    TW_ERR_FORMAT, "predictions.jsonl:1: bad JSON");
    TW_ASSERT_FAILS(tw_id_lines_direction(write_text("predictions.jsonl", ""), &direction), TW_ERR_FORMAT,
                    "holds no predictions");
    remove_folder();
}
END_TEST

/* The bytes that the original's scorer writes for 3/7, 5/7 and 6/7. */
START_TEST(score_file_is_the_originals) {
    double r1 = 3.0 / 7, r5 = 5.0 / 7, r10 = 6.0 / 7;
    tw_scores s = {.r1 = r1 * 100, .r5 = r5 * 100, .r10 = r10 * 100, .mean = (r1 + r5 + r10) / 3.0 * 100};
    const char *path = path_of("scores.json");
    TW_ASSERT_OK(tw_scores_write(path, &s, NULL, 0));
    ck_assert_str_eq(
        read_text(path),
        "{\"success\": true, \"score\": 66.66666666666666, \"scoreJson\": {\"score\": 66.66666666666666, "
        "\"mean_recall\": 66.66666666666666, \"r1\": 42.857142857142854, \"r5\": 71.42857142857143, \"r10\": "
        "85.71428571428571}}");
    tw_scores whole = {.r1 = 0, .r5 = 50, .r10 = 100, .mean = 50};
    TW_ASSERT_OK(tw_scores_write(path, &s, &whole, 3));
    ck_assert_ptr_nonnull(
        strstr(read_text(path),
               "\"image_to_text\": {\"score\": 50.0, \"scoreJson\": {\"score\": 50.0, "
               "\"mean_recall\": 50.0, \"r1\": 0.0, \"r5\": 50.0, \"r10\": 100.0}}, \"truncated\": 3}"));
    TW_ASSERT_OK(tw_scores_write_failure(path, "line 3: \"quoted\""));
    ck_assert_str_eq(
        read_text(path),
        "{\"errorDetail\": \"line 3: \\\"quoted\\\"\", \"errorMsg\": \"line 3: \\\"quoted\\\"\", "
        "\"score\": 0, \"scoreJson\": {}, \"success\": false}");
    TW_ASSERT_FAILS(tw_scores_write("/nowhere/at/all.json", &s, NULL, 0), TW_ERR_IO, "/nowhere/at/all.json");
    remove_folder();
}
END_TEST

START_TEST(lines_read_back) {
    const tw_id query = {"12", 2, true}, a = {"7", 1, false}, b = {"-3", 2, true},
                c = {"\xe5\x9b\xbe\"", 4, false};
    const tw_id answers[] = {b, c, a};
    const int32_t order[] = {2, 0, 1};
    const char *path = path_of("predictions.jsonl");
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    TW_ASSERT_OK(tw_id_line_write(f, TW_TEXT_TO_IMAGE, &query, answers, order, 3));
    TW_ASSERT_OK(tw_id_line_write(f, TW_IMAGE_TO_TEXT, &a, answers, order, 0));
    fclose(f);
    ck_assert_str_eq(read_text(path), "{\"text_id\": 12, \"image_ids\": [\"7\", -3, \"\\u56FE\\\"\"]}\n"
                                      "{\"image_id\": \"7\", \"text_ids\": []}\n");
    tw_id_lines *lines;
    tw_id id;
    const tw_id *ids;
    int64_t n;
    bool end;
    TW_ASSERT_OK(tw_id_lines_open(path, TW_TEXT_TO_IMAGE, &lines));
    TW_ASSERT_OK(tw_id_lines_next(lines, &id, &ids, &n, &end));
    ck_assert(!end && n == 3 && id.is_integer && !ids[0].is_integer && ids[1].is_integer);
    ck_assert_str_eq(ids[2].text, c.text);
    tw_id_lines_close(lines);
    remove_folder();
}
END_TEST

TW_TEST_MAIN("scores", counts_hits_by_rank, image_to_text_is_the_reverse, the_last_record_stands,
             ids_differ_by_type, refuses_what_the_original_refuses, refuses_bad_annotations,
             score_file_is_the_originals, lines_read_back)
