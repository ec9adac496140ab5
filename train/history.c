#include "train/history.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void tw_history_free(tw_history *h) {
    if (!h) return;
    free(h->points);
    free(h->validations);
    *h = (tw_history){0};
}

/* Room for one more element: capacities are powers of two, so they follow from the count. */
static tw_status grow(void *array, size_t count, size_t size) {
    if (count & (count - 1)) return TW_OK;
    void *grown = realloc(*(void **)array, (count ? 2 * count : 1) * size);
    if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
    *(void **)array = grown;
    return TW_OK;
}

tw_status tw_history_add_point(tw_history *h, const tw_report_point *point) {
    TRY(grow(&h->points, h->n_points, sizeof *h->points));
    h->points[h->n_points++] = *point;
    return TW_OK;
}

tw_status tw_history_add_validation(tw_history *h, const tw_report_validation *validation) {
    TRY(grow(&h->validations, h->n_validations, sizeof *h->validations));
    h->validations[h->n_validations++] = *validation;
    return TW_OK;
}

/* JSON has no NaN or infinity: null stands for both. */
static json_t *number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

static double real_at(const json_t *row, size_t i) {
    const json_t *x = json_array_get(row, i);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static json_t *row_of(const double *values, size_t n) {
    json_t *row = json_array();
    for (size_t i = 0; row && i < n; i++) json_array_append_new(row, number(values[i]));
    return row;
}

static json_t *point_row(const tw_report_point *p) {
    double v[] = {(double)p->step, p->epoch, p->loss, p->lr, p->logit_scale, p->grad_norm, p->pairs_per_s};
    return row_of(v, sizeof v / sizeof *v);
}

static json_t *validation_row(const tw_report_validation *v) {
    double x[] = {(double)v->step, v->t2i.r1,  v->t2i.r5,   v->t2i.r10,        v->t2i.mean,       v->i2t.r1,
                  v->i2t.r5,       v->i2t.r10, v->i2t.mean, (double)v->n_text, (double)v->n_image};
    return row_of(x, sizeof x / sizeof *x);
}

tw_status tw_history_to_json(const tw_history *h, char **text) {
    json_t *points = json_array(), *validations = json_array();
    for (size_t i = 0; i < h->n_points; i++) json_array_append_new(points, point_row(&h->points[i]));
    for (size_t i = 0; i < h->n_validations; i++)
        json_array_append_new(validations, validation_row(&h->validations[i]));
    json_t *root =
        json_pack("{s:o,s:o,s:f,s:I,s:I}", "points", points, "validations", validations, "train_seconds",
                  h->train_seconds, "pairs", (json_int_t)h->pairs, "bad_images", (json_int_t)h->bad_images);
    *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    return *text ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

static tw_status read_point(tw_history *h, const json_t *row) {
    tw_report_point p = {.step = (int64_t)real_at(row, 0),
                         .epoch = real_at(row, 1),
                         .loss = real_at(row, 2),
                         .lr = real_at(row, 3),
                         .logit_scale = real_at(row, 4),
                         .grad_norm = real_at(row, 5),
                         .pairs_per_s = real_at(row, 6)};
    return tw_history_add_point(h, &p);
}

static tw_status read_validation(tw_history *h, const json_t *row) {
    tw_report_validation v = {.step = (int64_t)real_at(row, 0),
                              .t2i = {real_at(row, 1), real_at(row, 2), real_at(row, 3), real_at(row, 4)},
                              .i2t = {real_at(row, 5), real_at(row, 6), real_at(row, 7), real_at(row, 8)},
                              .n_text = (int64_t)real_at(row, 9),
                              .n_image = (int64_t)real_at(row, 10)};
    return tw_history_add_validation(h, &v);
}

tw_status tw_history_from_json(tw_history *h, const char *text) {
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);
    if (!root) return FAIL(TW_ERR_FORMAT, "the run's history does not parse: %s", error.text);
    tw_status status = TW_OK;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(root, "points"), i, row) if (status == TW_OK) status =
        read_point(h, row);
    json_array_foreach(json_object_get(root, "validations"), i, row) if (status == TW_OK) status =
        read_validation(h, row);
    h->train_seconds = json_number_value(json_object_get(root, "train_seconds"));
    h->pairs = json_integer_value(json_object_get(root, "pairs"));
    h->bad_images = json_integer_value(json_object_get(root, "bad_images"));
    json_decref(root);
    return status;
}
