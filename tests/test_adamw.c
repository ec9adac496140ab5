#include "optim/adamw.h"
#include "test_device.h"
#include "tw_test.h"

#include <math.h>

/* The original's rule: no decay where the name contains one of these. */
static const char *const no_decay[] = {"bn", "ln", "bias", "logit_scale"};
static const struct {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector; both 0: a scalar */
    bool decays;
} shapes[] = {
    {"visual.ln_1.weight", 6, 0, false},
    {"visual.proj", 4, 5, true},
    {"bert.encoder.layer.0.output.LayerNorm.weight", 5, 0, true}, /* neither "ln" nor "bn" is in it */
    {"bert.encoder.layer.0.output.dense.bias", 3, 0, false},
    {"visual.layer1.0.bn1.weight", 3, 0, false},
    {"visual.layer1.0.downsample.1.weight", 3, 0, true},
    {"frozen.weight", 4, 4, true},
    {"text_projection", 3, 7, true},
    {"logit_scale", 0, 0, false},
};
enum { N = 9, FROZEN = 6, SCALE = 8, MOST = 32 };

typedef struct rig {
    tw_device *device;
    tw_params *set;
    tw_param *p[N];
    tw_adamw *adamw;
    tw_step step, *record;                         /* what is in the record, which is the device's */
    double value[N][MOST], m[N][MOST], v[N][MOST]; /* the reference's state */
    int t;
    tw_adamw_config config;
} rig;

static float start_of(int i, int64_t k) {
    return i == SCALE ? 2.6592f : 0.05f * (float)((i * 7 + k * 3) % 11 - 5);
}

static void open_rig(rig *r, tw_dtype type, float clip) {
    int matched;
    *r = (rig){.config = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 4, clip, 4.6052f}};
    r->step = (tw_step){.seed = 5, .step = 6, .sample = 7};
    TW_ASSERT_OK(tw_test_device(2, &r->device));
    TW_ASSERT_OK(tw_params_create(&r->set));
    for (int i = 0; i < N; i++) {
        int64_t shape[] = {shapes[i].rows, shapes[i].cols};
        int ndim = !shapes[i].rows ? 0 : shapes[i].cols ? 2 : 1;
        TW_ASSERT_OK(tw_params_add(r->set, shapes[i].name, ndim, shape, (tw_init){0}, &r->p[i]));
    }
    TW_ASSERT_OK(tw_params_freeze(r->set, "frozen*", &matched));
    TW_ASSERT_OK(tw_params_allocate(r->set, r->device, type, true));
    for (int i = 0; i < N; i++) {
        float v[MOST];
        for (int64_t k = 0; k < r->p[i]->count; k++) r->value[i][k] = (double)(v[k] = start_of(i, k));
        TW_ASSERT_OK(tw_params_set(r->set, r->p[i], v));
    }
    TW_ASSERT_OK(tw_adamw_create(r->set, r->device, &r->config, &r->adamw));
    TW_ASSERT_OK(r->device->alloc(r->device, sizeof r->step, (void **)&r->record));
    tw_test_give(r->device, r->record, &r->step, sizeof r->step);
}

/* The optimizer's step, and what it wrote into the record. */
static void step_adamw(rig *r, const tw_gradient_report *report, double lr) {
    TW_ASSERT_OK(tw_adamw_step(r->adamw, report, lr, r->record));
    tw_step *read = tw_test_take(r->device, r->record, sizeof *read);
    r->step = *read;
    free(read);
}

static void set_gradient(rig *r, int i, int64_t k, float g) {
    tw_test_give(r->device, (float *)r->p[i]->grad.data + k, &g, sizeof g);
}

static float value_of(const rig *r, int i, int64_t k) {
    float v[MOST];
    TW_ASSERT_OK(tw_params_get(r->set, r->p[i], v));
    return v[k];
}

static void close_rig(rig *r) {
    r->device->release(r->device, r->record);
    tw_adamw_free(r->adamw);
    tw_params_free(r->set);
    tw_device_free(r->device);
}

static float gradient_of(int i, int64_t k, int t) {
    return 0.3f * sinf((float)(i * 31 + (int)k * 7 + t * 3)) + (i == SCALE ? -0.9f : 0.0f);
}

static void set_gradients(rig *r, int t) {
    TW_ASSERT_OK(tw_params_zero_gradients(r->set));
    for (int i = 0; i < N; i++) {
        float g[MOST];
        for (int64_t k = 0; k < r->p[i]->count; k++) g[k] = gradient_of(i, k, t);
        if (i != FROZEN) tw_test_give(r->device, r->p[i]->grad.data, g, (size_t)r->p[i]->count * sizeof *g);
    }
}

static double norm_of(const rig *r, int t) {
    double square = 0;
    for (int i = 0; i < N; i++)
        for (int64_t k = 0; i != FROZEN && k < r->p[i]->count; k++)
            square += (double)gradient_of(i, k, t) * (double)gradient_of(i, k, t);
    return sqrt(square);
}

/* torch.optim.AdamW after clip_grad_norm_, then the clamp of logit_scale; f64. */
static void reference_step(rig *r, int t, double lr) {
    double norm = norm_of(r, t), b1 = (double)r->config.beta1, b2 = (double)r->config.beta2;
    double scale = r->config.clip > 0 ? fmin(1, (double)r->config.clip / (norm + 1e-6)) : 1;
    r->t++;
    for (int i = 0; i < N; i++) {
        if (i == FROZEN) continue;
        for (int64_t k = 0; k < r->p[i]->count; k++) {
            double g = scale * (double)gradient_of(i, k, t), *p = &r->value[i][k];
            if (shapes[i].decays) *p *= 1 - lr * (double)r->config.weight_decay;
            r->m[i][k] = b1 * r->m[i][k] + (1 - b1) * g;
            r->v[i][k] = b2 * r->v[i][k] + (1 - b2) * g * g;
            *p -= lr * (r->m[i][k] / (1 - pow(b1, r->t))) /
                  (sqrt(r->v[i][k] / (1 - pow(b2, r->t))) + (double)r->config.eps);
            if (i == SCALE) *p = fmin(fmax(*p, 0), (double)r->config.logit_scale_max);
        }
    }
}

static void compare(const rig *r, double tolerance) {
    for (int i = 0; i < N; i++) {
        float v[MOST];
        TW_ASSERT_OK(tw_params_get(r->set, r->p[i], v));
        for (int64_t k = 0; k < r->p[i]->count; k++) {
            double expected = i == FROZEN ? (double)start_of(i, k) : r->value[i][k];
            if (i == FROZEN && r->p[i]->value.dtype == TW_BF16)
                expected = (double)tw_from_bf16(tw_to_bf16((float)expected));
            ck_assert_msg(fabs((double)v[k] - expected) <= tolerance, "%s[%d] is %.9g, not %.9g",
                          shapes[i].name, (int)k, (double)v[k], expected);
        }
    }
}

static double take_step(rig *r, int t, double lr) {
    tw_gradient_report report;
    set_gradients(r, t);
    TW_ASSERT_OK(tw_adamw_inspect(r->adamw, &report));
    ck_assert_ptr_null(report.offender);
    ck_assert_double_eq_tol(report.norm, norm_of(r, t), 1e-6 * report.norm);
    step_adamw(r, &report, lr);
    reference_step(r, t, lr);
    return report.norm;
}

START_TEST(twenty_steps_equal_the_reference) {
    for (int type = TW_F32; type <= TW_BF16; type++)
        for (int clip = 0; clip <= 2; clip++) { /* off; never reached; always */
            rig r;
            open_rig(&r, (tw_dtype)type, clip == 0 ? 0.0f : clip == 1 ? 100.0f : 0.5f);
            for (int t = 0; t < 20; t++) {
                double norm = take_step(&r, t, 1e-3 * (t + 1));
                ck_assert(norm > 0.5 && norm < 100);
                float scale = r.step.gradient_scale;
                ck_assert_float_eq_tol(scale, clip == 2 ? (float)(0.5 / norm) : 1.0f, 1e-5f);
                ck_assert_int_eq(tw_adamw_steps(r.adamw), t + 1);
                compare(&r, 2e-6);
            }
            ck_assert(r.step.seed == 5 && r.step.step == 6 && r.step.sample == 7); /* not the optimizer's */
            for (int i = 0; i < N; i++) {
                size_t count = (size_t)r.p[i]->count;
                if (r.p[i]->value.dtype != TW_BF16 || i == FROZEN) continue;
                uint16_t *copies = tw_test_take(r.device, r.p[i]->value.data, 2 * count);
                float *masters = tw_test_take(r.device, r.p[i]->master.data, 4 * count);
                for (size_t k = 0; k < count; k++) ck_assert_uint_eq(copies[k], tw_to_bf16(masters[k]));
                free(copies);
                free(masters);
            }
            close_rig(&r);
        }
}
END_TEST

START_TEST(decay_goes_by_name) {
    rig r;
    open_rig(&r, TW_F32, 0);
    for (int i = 0; i < N; i++)
        ck_assert_msg(tw_adamw_decays(r.adamw, r.p[i]) == (shapes[i].decays && i != FROZEN), "%s",
                      shapes[i].name);
    /* With no gradient a step is decay alone. */
    tw_gradient_report report;
    TW_ASSERT_OK(tw_params_zero_gradients(r.set));
    TW_ASSERT_OK(tw_adamw_inspect(r.adamw, &report));
    ck_assert_double_eq(report.norm, 0);
    step_adamw(&r, &report, 0.5);
    for (int i = 0; i < N; i++)
        for (int64_t k = 0; k < r.p[i]->count; k++) {
            float expected = start_of(i, k) * (shapes[i].decays && i != FROZEN ? 0.9f : 1.0f);
            ck_assert_float_eq_tol(value_of(&r, i, k), expected, 1e-7f);
        }
    close_rig(&r);
}
END_TEST

START_TEST(logit_scale_stays_in_its_range) {
    rig r;
    open_rig(&r, TW_F32, 0);
    for (int down = 0; down < 2; down++)
        for (int t = 0; t < 30; t++) {
            tw_gradient_report report;
            TW_ASSERT_OK(tw_params_zero_gradients(r.set));
            set_gradient(&r, SCALE, 0, down ? 1.0f : -1.0f);
            set_gradient(&r, 1, 0, down ? 1.0f : -1.0f); /* others may go where they like */
            TW_ASSERT_OK(tw_adamw_inspect(r.adamw, &report));
            step_adamw(&r, &report, 0.5);
            float scale = value_of(&r, SCALE, 0);
            ck_assert(scale >= 0 && scale <= 4.6052f);
            if (t == 29) ck_assert_float_eq(scale, down ? 0 : 4.6052f);
        }
    ck_assert(value_of(&r, 1, 0) < 0);
    close_rig(&r);
}
END_TEST

static void collect_queued(rig *r, tw_gradient_report *report) {
    TW_ASSERT_OK(tw_adamw_queue(r->adamw, r->record));
    tw_gradient_found *found = tw_test_take(r->device, tw_adamw_found(r->adamw), sizeof *found);
    TW_ASSERT_OK(tw_adamw_collect(r->adamw, found, report));
    tw_step *read = tw_test_take(r->device, r->record, sizeof *read);
    r->step = *read;
    free(read);
    free(found);
}

static void check_skipped(const rig *r, const float *before, const uint16_t *copies, size_t bytes) {
    ck_assert_int_ne(r->step.skip, 0);
    ck_assert_int_eq(tw_adamw_steps(r->adamw), 1);
    float *values = tw_test_take(r->device, tw_params_values(r->set), bytes);
    ck_assert_mem_eq(before, values, bytes);
    free(values);
    if (!copies) return;
    uint16_t *now = tw_test_take(r->device, tw_params_copies(r->set), bytes / 2);
    ck_assert_mem_eq(copies, now, bytes / 2);
    free(now);
}

/* The factors come from the device then. */
START_TEST(queued_steps_equal_the_reference) {
    for (int clip = 0; clip <= 1; clip++) {
        rig r;
        open_rig(&r, clip ? TW_BF16 : TW_F32, clip ? 0.5f : 0.0f);
        for (int t = 0; t < 20; t++) {
            double lr = 1e-3 * (t + 1);
            tw_gradient_report report;
            r.step.lr = (float)lr;
            r.step.skip = 7;
            tw_test_give(r.device, r.record, &r.step, sizeof r.step);
            set_gradients(&r, t);
            collect_queued(&r, &report);
            reference_step(&r, t, lr);
            ck_assert_ptr_null(report.offender);
            ck_assert_double_eq_tol(report.norm, norm_of(&r, t), 1e-6 * report.norm);
            ck_assert_float_eq_tol(r.step.gradient_scale, clip ? (float)(0.5 / report.norm) : 1.0f, 1e-5f);
            ck_assert(r.step.seed == 5 && r.step.step == 6 && r.step.sample == 7 && r.step.skip == 0);
            ck_assert_int_eq(tw_adamw_steps(r.adamw), t + 1);
            compare(&r, 2e-6);
        }
        close_rig(&r);
    }
}
END_TEST

START_TEST(a_bad_gradient_changes_nothing) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int type = TW_F32; type <= TW_BF16; type++) {
        rig r;
        open_rig(&r, (tw_dtype)type, 1.0f);
        take_step(&r, 0, 1e-2);
        size_t bytes = (size_t)tw_params_trainable(r.set) * 4;
        float *before = tw_test_take(r.device, tw_params_values(r.set), bytes);
        uint16_t *copies =
            type == TW_BF16 ? tw_test_take(r.device, tw_params_copies(r.set), bytes / 2) : NULL;
        for (int k = 0; k < 3; k++)
            for (int first = 0; first < N; first++) {
                tw_gradient_report report;
                if (first == FROZEN) continue;
                set_gradients(&r, 1);
                /* The last element of this one, and another too: the first in the slab is named. */
                bool later = r.p[SCALE]->offset >= r.p[first]->offset;
                const char *name = shapes[later ? first : SCALE].name;
                set_gradient(&r, first, r.p[first]->count - 1, bad[k]);
                set_gradient(&r, SCALE, 0, bad[k]);
                TW_ASSERT_OK(tw_adamw_inspect(r.adamw, &report));
                ck_assert_ptr_nonnull(report.offender);
                ck_assert_str_eq(report.offender, name);
                ck_assert(!isfinite(report.norm));
                step_adamw(&r, &report, 1e-2);
                check_skipped(&r, before, copies, bytes);
                collect_queued(&r, &report); /* the same without waiting */
                ck_assert_str_eq(report.offender, name);
                ck_assert_int_eq(report.rank, 0);
                ck_assert(!isfinite(report.norm));
                check_skipped(&r, before, copies, bytes);
            }
        take_step(&r, 1, 1e-2); /* and the next step goes on as if nothing had been */
        ck_assert_int_eq(r.step.skip, 0);
        compare(&r, 2e-6);
        free(copies);
        free(before);
        close_rig(&r);
    }
}
END_TEST

START_TEST(moments_go_out_and_in) {
    rig a, b;
    open_rig(&a, TW_F32, 0);
    for (int t = 0; t < 3; t++) take_step(&a, t, 1e-2);
    open_rig(&b, TW_F32, 0);
    ck_assert_uint_eq(tw_adamw_bytes(a.adamw), (size_t)tw_params_trainable(a.set) * 8);
    float *slab = calloc((size_t)tw_params_trainable(a.set), sizeof *slab);
    for (int i = 0; i < N; i++) {
        float *x = slab + a.p[i]->offset;
        if (i == FROZEN) continue;
        for (int second = 0; second < 2; second++) {
            TW_ASSERT_OK(tw_adamw_get_moments(a.adamw, second, slab));
            for (int64_t k = 0; k < a.p[i]->count; k++)
                ck_assert_double_eq_tol((double)x[k], second ? a.v[i][k] : a.m[i][k], 1e-6);
            TW_ASSERT_OK(tw_adamw_set_moment(b.adamw, b.p[i], second, x));
        }
        TW_ASSERT_OK(tw_params_get(a.set, a.p[i], x));
        TW_ASSERT_OK(tw_params_set(b.set, b.p[i], x));
    }
    TW_ASSERT_OK(tw_adamw_set_steps(b.adamw, tw_adamw_steps(a.adamw)));
    for (int t = 3; t < 6; t++) { /* a resumed run has the same bits */
        take_step(&a, t, 1e-2);
        take_step(&b, t, 1e-2);
        size_t bytes = (size_t)tw_params_trainable(a.set) * 4;
        float *x = tw_test_take(a.device, tw_params_values(a.set), bytes);
        float *y = tw_test_take(b.device, tw_params_values(b.set), bytes);
        ck_assert_mem_eq(x, y, bytes);
        free(x);
        free(y);
    }
    TW_ASSERT_FAILS(tw_adamw_set_moment(a.adamw, a.p[FROZEN], true, slab), TW_ERR_ARGUMENT, "frozen.weight");
    free(slab);
    close_rig(&b);
    close_rig(&a);
}
END_TEST

START_TEST(needs_gradients) {
    tw_device *device;
    tw_params *set;
    tw_param *p;
    tw_adamw *adamw;
    const int64_t n = 3;
    const tw_adamw_config config = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 4, 0, 4.6052f};
    TW_ASSERT_OK(tw_device_cpu(1, &device));
    TW_ASSERT_OK(tw_params_create(&set));
    TW_ASSERT_OK(tw_params_add(set, "w", 1, &n, (tw_init){0}, &p));
    TW_ASSERT_OK(tw_params_allocate(set, device, TW_F32, false));
    TW_ASSERT_FAILS(tw_adamw_create(set, device, &config, &adamw), TW_ERR_ARGUMENT,
                    "not allocated for training");
    ck_assert_ptr_null(adamw);
    tw_adamw_free(NULL);
    tw_params_free(set);
    tw_device_free(device);
}
END_TEST

TW_TEST_MAIN("adamw", twenty_steps_equal_the_reference, queued_steps_equal_the_reference, decay_goes_by_name,
             logit_scale_stays_in_its_range, a_bad_gradient_changes_nothing, moments_go_out_and_in,
             needs_gradients)
