/* Retrieval scores as the original's scorer computes them (FACTS.md §7): the right answers of a split in both
 * directions, ranked answers from prediction files or straight from a search, and R@1, R@5, R@10. Ids are
 * equal if both their type and their text are, as in Python. */
#ifndef TW_TRAIN_SCORES_H
#define TW_TRAIN_SCORES_H

#include "train/id_lines.h"

enum { TW_SCORED_ANSWERS = 10 };

/* ---- right answers ---- */

typedef struct tw_reference tw_reference;

tw_status tw_reference_create(tw_reference **out) TW_MUST_CHECK;
void tw_reference_free(tw_reference *reference); /* accepts NULL */
/* A text and the n >= 0 images that belong to it. A text id that comes again replaces the images of the
 * earlier record as text-to-image answers; image-to-text, both count: the original's reading of its file. */
tw_status tw_reference_add(tw_reference *reference, const tw_id *text, const tw_id *images,
                           int64_t n) TW_MUST_CHECK;
/* All records of a texts file. Strict: what is wrong is TW_ERR_FORMAT with file and line. */
tw_status tw_reference_load(const char *texts_path, tw_reference **out) TW_MUST_CHECK;
/* Distinct queries: texts with or without images; images that at least one text names. */
int64_t tw_reference_queries(const tw_reference *reference, tw_direction direction);

/* ---- ranked answers ---- */

typedef struct tw_ranking {
    tw_direction direction;
    int64_t queries;  /* the reference's */
    int64_t *answers; /* (queries, 10), best first; numbers of the reference; -1: no answer */
    bool *answered;   /* (queries) */
    int *best;        /* (queries), what tw_score finds: the best right answer's rank from 0, 10 if none */
    int64_t repeated; /* queries that came again: their last answers stand */
    int64_t unknown;  /* predictions for queries that the reference does not have: not scored */
    char first_repeated[64], first_unknown[64];
} tw_ranking;

/* All queries unanswered. The reference must be complete, and outlive the ranking. */
tw_status tw_ranking_create(const tw_reference *reference, tw_direction direction,
                            tw_ranking *out) TW_MUST_CHECK;
void tw_ranking_free(tw_ranking *ranking);
/* The first 10 of n distinct answers to a query. */
tw_status tw_ranking_set(tw_ranking *ranking, tw_reference *reference, const tw_id *query,
                         const tw_id *const *answers, int64_t n) TW_MUST_CHECK;
/* A prediction file, as demanding as the original's scorer: every query of the reference once or more, with
 * exactly 10 distinct answers, of the reference's type of ids. TW_ERR_FORMAT names file and line, or the
 * queries that are missing. Freed with tw_ranking_free. */
tw_status tw_ranking_load(const char *path, tw_direction direction, tw_reference *reference,
                          tw_ranking *out) TW_MUST_CHECK;

/* ---- scores ---- */

typedef struct tw_scores {
    double r1, r5, r10, mean; /* percent; bit for bit the original's */
    int64_t queries;
    int64_t unanswered; /* of them, counted as misses */
} tw_scores;

/* Without a single query all are 0. */
tw_scores tw_score(const tw_reference *reference, tw_ranking *ranking);

/* Writes the original's score file, {"success": true, "score": ..., "scoreJson": {...}}, atomically. With
 * `second` (else NULL), the scores of image-to-text, they follow as a member "image_to_text" of the same
 * form; with `truncated`, the number of texts that were longer than the context, as "truncated". */
tw_status tw_scores_write(const char *path, const tw_scores *scores, const tw_scores *second,
                          int64_t truncated) TW_MUST_CHECK;
/* The original's file for predictions that cannot be scored: {"errorDetail": ..., "success": false}. */
tw_status tw_scores_write_failure(const char *path, const char *message) TW_MUST_CHECK;

#endif
