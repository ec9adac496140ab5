/* Steps of the golden file's models (tests/golden/towers.h5), from its weights and with its batches, and what
 * they give against what the reference implementation gave there in f64. Any device. */
#ifndef TW_TESTS_STEP_GOLDEN_H
#define TW_TESTS_STEP_GOLDEN_H

#include "golden_file.h"
#include "test_device.h"
#include "train/step.h"

#include <math.h>

typedef struct fixture {
    hid_t file;
    const char *group; /* "main" or "odd" */
    tw_model_config config;
    int batch;
    tw_device *device;
    tw_comm *comm;
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    float *pixels;
    int32_t *ids, *lengths;
} fixture;

/* Reads a whole data set of the group as `type`; count must match. */
static inline void read_set(const fixture *f, const char *path, hid_t type, void *out, int64_t count) {
    char full[512];
    size_t size = H5Tget_size(type);
    snprintf(full, sizeof full, "%s/%s", f->group, path);
    void *values = golden_array(f->file, full, type, size, count);
    memcpy(out, values, (size_t)count * size);
    free(values);
}

static inline void read_batches(fixture *f, int steps) {
    int64_t r = f->config.image.resolution, n = (int64_t)steps * f->batch, context = f->config.context;
    f->pixels = malloc((size_t)(n * 3 * r * r) * sizeof(float));
    f->ids = malloc((size_t)(n * context) * sizeof(int32_t));
    f->lengths = calloc((size_t)n, sizeof(int32_t));
    read_set(f, "batch/pixels", H5T_NATIVE_FLOAT, f->pixels, n * 3 * r * r);
    read_set(f, "batch/ids", H5T_NATIVE_INT32, f->ids, n * context);
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < context; t++) f->lengths[i] += f->ids[i * context + t] != 0;
}

static inline void open_masked(fixture *f, const char *group, int steps, tw_dtype type,
                               tw_recompute recompute, int micro, double mask_ratio) {
    *f = (fixture){.group = group};
    f->file = golden_open(TW_SOURCE_DIR "/tests/golden/towers.h5");
    f->config = golden_model_config(f->file, group);
    f->batch = golden_int(f->file, group, "batch");
    f->config.image.mask_ratio = mask_ratio;
    read_batches(f, steps);
    TW_ASSERT_OK(tw_test_device(2, &f->device));
    TW_ASSERT_OK(tw_comm_self(f->device, &f->comm));
    TW_ASSERT_OK(tw_dual_encoder_create(&f->config, &f->model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(f->model, f->device, type, true));
    TW_ASSERT_OK(tw_towers_create(f->model, f->device, recompute, TW_F32, &f->towers));
    TW_ASSERT_OK(tw_stepper_create(f->model, f->towers, f->device, f->comm, NULL, micro, &f->stepper));
}

static inline void open_fixture(fixture *f, const char *group, int steps, tw_dtype type,
                                tw_recompute recompute, int micro) {
    open_masked(f, group, steps, type, recompute, micro, 0.0);
}

static inline void close_fixture(fixture *f) {
    tw_stepper_free(f->stepper);
    tw_towers_free(f->towers);
    tw_dual_encoder_free(f->model);
    tw_comm_free(f->comm);
    tw_device_free(f->device);
    free(f->pixels);
    free(f->ids);
    free(f->lengths);
    H5Fclose(f->file);
}

static inline void load_params(fixture *f, int step) {
    for (int i = 0; i < tw_params_count(f->model->params); i++) {
        tw_param *p = tw_params_at(f->model->params, i);
        float *v = malloc((size_t)p->count * sizeof *v);
        char path[400];
        snprintf(path, sizeof path, "step%d/params/%s", step, p->name);
        read_set(f, path, H5T_NATIVE_FLOAT, v, p->count);
        TW_ASSERT_OK(tw_params_set(f->model->params, p, v));
        free(v);
    }
}

static inline double run_step(fixture *f, int step) {
    int64_t r = f->config.image.resolution, first = (int64_t)step * f->batch, size;
    tw_samples samples = {f->batch, f->pixels + first * 3 * r * r, f->ids + first * f->config.context,
                          f->lengths + first};
    double loss;
    TW_ASSERT_OK(tw_stepper_run(f->stepper, &samples, 1, step, &loss, &size));
    ck_assert_int_eq(size, f->batch);
    return loss;
}

static inline double distance(const float *a, const float *b, int64_t n, double *norm) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        s += pow((double)b[i], 2);
    }
    *norm = sqrt(s);
    return sqrt(d);
}

/* DESIGN's measure: ||d|| <= tol ||g|| + 1e-7 ||g of all parameters|| (key biases have a true gradient of
 * zero). */
static inline void check_gradients_of(fixture *f, const char *set, double tolerance) {
    int n = tw_params_count(f->model->params);
    double *d = calloc((size_t)n, sizeof *d), *norm = calloc((size_t)n, sizeof *norm), all = 0;
    for (int i = 0; i < n; i++) {
        const tw_param *p = tw_params_at(f->model->params, i);
        float *g = malloc((size_t)p->count * sizeof *g);
        char path[400];
        snprintf(path, sizeof path, "%s/%s", set, p->name);
        read_set(f, path, H5T_NATIVE_FLOAT, g, p->count);
        float *got = tw_test_take(f->device, p->grad.data, (size_t)p->count * sizeof *got);
        d[i] = distance(got, g, p->count, &norm[i]);
        all += norm[i] * norm[i];
        free(got);
        free(g);
    }
    all = sqrt(all);
    double floor =
        tolerance > 1e-4 ? 1e-3 : 1e-7; /* bf16's rounding does not shrink with a gradient that cancels */
    for (int i = 0; i < n; i++)
        ck_assert_msg(d[i] <= tolerance * norm[i] + floor * all, "%s/%s: distance %g of %g (all %g)", set,
                      tw_params_at(f->model->params, i)->name, d[i], norm[i], all);
    free(d);
    free(norm);
}

#endif
