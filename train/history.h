/* What a run has shown so far: the points of its curves and its validations. Travels in checkpoints, so that
 * a resumed run's report has the whole story. */
#ifndef TW_TRAIN_HISTORY_H
#define TW_TRAIN_HISTORY_H

#include "train/report.h"

typedef struct tw_history {
    tw_report_point *points;
    tw_report_validation *validations;
    size_t n_points, n_validations;
    double train_seconds; /* steps only, without validation and saving */
    int64_t pairs;        /* trained on */
    int64_t bad_images;   /* left out of training batches */
} tw_history;

void tw_history_free(tw_history *h);
tw_status tw_history_add_point(tw_history *h, const tw_report_point *point) TW_MUST_CHECK;
tw_status tw_history_add_validation(tw_history *h, const tw_report_validation *validation) TW_MUST_CHECK;
/* As JSON text and back; the caller frees *text. Numbers come back bit for bit. */
tw_status tw_history_to_json(const tw_history *h, char **text) TW_MUST_CHECK;
tw_status tw_history_from_json(tw_history *h, const char *text) TW_MUST_CHECK;

#endif
