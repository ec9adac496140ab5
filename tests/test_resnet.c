/* The ModifiedResNet image tower in training, with its batch norm, against the reference implementation
 * (tests/golden/resnet.h5, computed in f64; see scripts/make_golden_resnet.py for its layout): features,
 * every gradient, running statistics, 20 AdamW steps, micro-batches, frozen statistics, evaluation. */
#include "golden_file.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "test_device.h"
#include "train/model_file.h"
#include "train/step.h"

#include <math.h>

static const double tolerance = 1e-5;
/* Gradients through batch statistics: those of the stem cancel to a hundredth of their terms, and a value
 * within rounding of zero may fall on ReLU's other side. The reference's own f32 run is up to 2.5e-5 from its
 * f64 run (make_golden_resnet.py, seeds 1 to 6); how we round depends on the kernels that oneDNN has for a
 * processor. On a GPU the order of a convolution's sums is its library's, another one for each engine, device
 * and version: other values fall on ReLU's other side there, and nobody has tuned this to them. */
static double statistics_tolerance(const tw_device *d) {
    return tw_on_cpu(d) ? 4e-5 : 1e-4;
}

typedef struct rig {
    hid_t file;
    tw_model_config config;
    int batch;
    tw_device *device;
    tw_comm *comm;
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    float *pixels;
    int32_t *ids, *lengths;
} rig;

static tw_model_config config_of(hid_t file) {
#define SIZE(name) golden_int(file, "/main", name)
    tw_model_config c = {.name = "golden", .embed = SIZE("embed_dim"), .context = SIZE("context_length")};
    c.image = (tw_image_config){.kind = TW_RESNET,
                                .resolution = SIZE("image_resolution"),
                                .width = SIZE("vision_width"),
                                .heads = SIZE("heads"),
                                .pixel_std = {1, 1, 1}};
    int64_t stages[TW_RESNET_STAGES];
    hid_t a = H5Aopen_by_name(file, "/main", "vision_layers", H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(a >= 0 && H5Aread(a, H5T_NATIVE_INT64, stages) >= 0);
    H5Aclose(a);
    for (int i = 0; i < TW_RESNET_STAGES; i++) c.image.stages[i] = (int)stages[i];
    c.text = golden_text_config(file, "/main");
#undef SIZE
    return c;
}

/* Of all rigs of the process, for what cuDNN compiles for a shape lies in the device, seconds a step's
 * shapes; it goes with the process (scripts/gpu_check.sh has one process for all tests). */
static tw_device *device(void) {
    static tw_device *d;
    if (!d) TW_ASSERT_OK(tw_test_device(2, &d));
    return d;
}

/* freeze: a pattern, or NULL. */
static void open_rig(rig *r, tw_dtype type, tw_recompute recompute, int micro, const char *freeze) {
    *r = (rig){.file = golden_open(TW_SOURCE_DIR "/tests/golden/resnet.h5")};
    r->config = config_of(r->file);
    r->batch = golden_int(r->file, "/main", "batch");
    int64_t side = r->config.image.resolution, n = 21 * r->batch, context = r->config.context;
    r->pixels = golden_f32(r->file, "main/batch/pixels", n * 3 * side * side);
    r->ids = golden_i32(r->file, "main/batch/ids", n * context);
    r->lengths = calloc((size_t)n, sizeof *r->lengths);
    for (int64_t i = 0; i < n * context; i++) r->lengths[i / context] += r->ids[i] != 0;
    r->device = device();
    TW_ASSERT_OK(tw_comm_self(r->device, &r->comm));
    TW_ASSERT_OK(tw_dual_encoder_create(&r->config, &r->model));
    int matched;
    if (freeze) TW_ASSERT_OK(tw_params_freeze(r->model->params, freeze, &matched));
    TW_ASSERT_OK(tw_dual_encoder_allocate(r->model, r->device, type, true));
    TW_ASSERT_OK(tw_towers_create(r->model, r->device, recompute, TW_F32, &r->towers));
    TW_ASSERT_OK(tw_stepper_create(r->model, r->towers, r->device, r->comm, NULL, micro, &r->stepper));
}

static void close_rig(rig *r) {
    tw_stepper_free(r->stepper);
    tw_towers_free(r->towers);
    tw_dual_encoder_free(r->model);
    tw_comm_free(r->comm);
    free(r->pixels);
    free(r->ids);
    free(r->lengths);
    H5Fclose(r->file);
}

static float *golden_of(const rig *r, const char *group, const tw_param *p) {
    char name[400];
    snprintf(name, sizeof name, "main/%s/%s", group, p->name);
    return golden_f32(r->file, name, p->count);
}

static void load_params(rig *r, const char *group) {
    for (int i = 0; i < tw_params_count(r->model->params); i++) {
        tw_param *p = tw_params_at(r->model->params, i);
        float *v = golden_of(r, group, p);
        TW_ASSERT_OK(tw_params_set(r->model->params, p, v));
        free(v);
    }
}

static double run_step(rig *r, int step) {
    int64_t side = r->config.image.resolution, first = (int64_t)step * r->batch, size;
    tw_samples samples = {r->batch, r->pixels + first * 3 * side * side, r->ids + first * r->config.context,
                          r->lengths + first};
    double loss;
    TW_ASSERT_OK(tw_stepper_run(r->stepper, &samples, 1, step, &loss, &size));
    return loss;
}

static double distance(const float *a, const float *b, int64_t n, double *norm) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        s += pow((double)b[i], 2);
    }
    *norm = sqrt(s);
    return sqrt(d);
}

/* DESIGN's measure: ||d|| <= tol ||g|| + 1e-7 ||g of all parameters||. bf16's rounding does not shrink with a
 * gradient that cancels: PyTorch's own bf16 is 27 % away from the truth in conv1's and 40 % in
 * layer2.0.conv2's here.
 */
static void check_gradients(const rig *r, const char *group, double tol) {
    int n = tw_params_count(r->model->params);
    double *d = calloc((size_t)n, sizeof *d), *norm = calloc((size_t)n, sizeof *norm), all = 0;
    for (int i = 0; i < n; i++) {
        const tw_param *p = tw_params_at(r->model->params, i);
        if (p->statistic) continue;
        float *g = golden_of(r, group, p), *got = tw_test_take(r->device, p->grad.data, (size_t)p->count * 4);
        d[i] = distance(got, g, p->count, &norm[i]);
        all += norm[i] * norm[i];
        free(g);
        free(got);
    }
    double floor = (tol > 1e-4 ? 5e-2 : 1e-7) * sqrt(all);
    for (int i = 0; i < n; i++)
        ck_assert_msg(d[i] <= tol * norm[i] + floor, "%s %s: distance %g of %g (all %g)", group,
                      tw_params_at(r->model->params, i)->name, d[i], norm[i], sqrt(all));
    free(d);
    free(norm);
}

static void check_rows(const rig *r, const char *name, const tw_tape *tape, const tw_tensor *rows,
                       double tol) {
    double norm;
    int64_t n = (int64_t)r->batch * r->config.embed;
    float *got = malloc((size_t)n * sizeof *got), *want = golden_f32(r->file, name, n);
    TW_ASSERT_OK(tw_tape_download((tw_tape *)(uintptr_t)tape, rows, got));
    double d = distance(got, want, n, &norm);
    ck_assert_msg(d <= tol * norm, "%s: distance %g of %g", name, d, norm);
    free(got);
    free(want);
}

/* The tape that step 0's texts went through. */
static const tw_tower_tape *first_tape(const rig *r) {
    const tw_tower_tape *t;
    TW_ASSERT_OK(tw_towers_get_texts(r->towers, TW_TOWERS_TRAIN, r->batch, r->lengths, &t));
    return t;
}

static void check_features(const rig *r, const char *group, double tol) {
    char name[64];
    const tw_tower_tape *t = first_tape(r);
    snprintf(name, sizeof name, "main/%s/image_features", group);
    check_rows(r, name, t->tape, t->image, tol);
}

static void check_loss(const rig *r, const char *group, double loss, double tol) {
    char name[64];
    snprintf(name, sizeof name, "main/%s/loss", group);
    double *want = golden_f64(r->file, name, 1);
    ck_assert_msg(fabs(loss - *want) <= tol * *want, "%s: loss %.9g, reference %.9g", group, loss, *want);
    free(want);
}

static void check_statistics(const rig *r, const char *group, double tol) {
    for (int i = 0; i < tw_params_count(r->model->params); i++) {
        const tw_param *p = tw_params_at(r->model->params, i);
        if (!p->statistic) continue;
        float *want = golden_of(r, group, p), *got = malloc((size_t)p->count * sizeof *got);
        double norm;
        TW_ASSERT_OK(tw_params_get(r->model->params, p, got));
        double d = distance(got, want, p->count, &norm);
        ck_assert_msg(d <= tol * norm, "%s %s: distance %g of %g", group, p->name, d, norm);
        free(want);
        free(got);
    }
}

static void update(const rig *r, tw_adamw *adamw, double lr) {
    tw_gradient_report report;
    TW_ASSERT_OK(tw_adamw_inspect(adamw, &report));
    ck_assert_ptr_null(report.offender);
    TW_ASSERT_OK(tw_adamw_step(adamw, &report, lr, tw_stepper_record(r->stepper)));
}

START_TEST(features_gradients_and_statistics_agree) {
    for (int recompute = TW_RECOMPUTE_NONE; recompute <= TW_RECOMPUTE_BLOCK; recompute++) {
        rig r;
        open_rig(&r, TW_F32, (tw_recompute)recompute, 0, NULL);
        ck_assert_int_eq(golden_int(r.file, "/main", "n_parameters"), 98);
        load_params(&r, "step0/params");
        check_loss(&r, "step0", run_step(&r, 0), tolerance);
        check_features(&r, "step0", tolerance);
        check_gradients(&r, "step0/grads", statistics_tolerance(r.device));
        check_statistics(&r, "step0/params", 0); /* a forward and a backward move nothing */
        tw_adamw *adamw = golden_adamw(r.file, "/main", r.model->params, r.device);
        update(&r, adamw, 0.0);
        check_statistics(&r, "step0/after", 1e-6);
        tw_adamw_free(adamw);
        close_rig(&r);
    }
}
END_TEST

/* A micro-batch is normalised by its own statistics; the running ones move once, by the average. */
START_TEST(micro_batches_are_virtual_ranks) {
    for (int recompute = TW_RECOMPUTE_NONE; recompute <= TW_RECOMPUTE_BLOCK; recompute++) {
        rig r;
        open_rig(&r, TW_F32, (tw_recompute)recompute, 4, NULL);
        load_params(&r, "step0/params");
        check_loss(&r, "halves", run_step(&r, 0), tolerance);
        check_gradients(&r, "halves/grads", statistics_tolerance(r.device));
        tw_adamw *adamw = golden_adamw(r.file, "/main", r.model->params, r.device);
        update(&r, adamw, 0.0);
        check_statistics(&r, "halves/after", 1e-6);
        tw_adamw_free(adamw);
        close_rig(&r);
    }
}
END_TEST

/* Frozen statistics: gains and biases still learn, and any micro-batch gives the whole batch's gradient. */
START_TEST(frozen_statistics_agree_for_any_micro_batch) {
    for (int micro = 0; micro <= 6; micro += 3) {
        rig r;
        open_rig(&r, TW_F32, TW_RECOMPUTE_NONE, micro, "visual.*.running_*");
        ck_assert_int_eq(tw_params_statistics(r.model->params), 0);
        load_params(&r, "step20/params");
        check_loss(&r, "frozen", run_step(&r, 0), tolerance);
        if (micro == 0) check_features(&r, "frozen", tolerance);
        check_gradients(&r, "frozen/grads", tolerance);
        tw_adamw *adamw = golden_adamw(r.file, "/main", r.model->params, r.device);
        update(&r, adamw, 1e-4);
        check_statistics(&r, "step20/params", 0);
        tw_adamw_free(adamw);
        close_rig(&r);
    }
}
END_TEST

/* A frozen tower's batch norm evaluates: its features are those of evaluation mode, and nothing in it moves.
 */
START_TEST(a_frozen_tower_evaluates) {
    rig r;
    open_rig(&r, TW_F32, TW_RECOMPUTE_NONE, 0, "visual.*");
    load_params(&r, "step0/params");
    (void)run_step(&r, 0);
    const tw_tower_tape *t = first_tape(&r);
    check_rows(&r, "main/step0/evaluation", t->tape, t->image, tolerance);
    tw_adamw *adamw = golden_adamw(r.file, "/main", r.model->params, r.device);
    update(&r, adamw, 1e-3);
    check_statistics(&r, "step0/params", 0);
    const tw_param *scale = tw_params_find(r.model->params, "logit_scale");
    ck_assert(scale->grad.data && !tw_params_find(r.model->params, "visual.bn1.weight")->grad.data);
    tw_adamw_free(adamw);
    close_rig(&r);
}
END_TEST

/* Inference between two steps, as validation does it, reads the running statistics and leaves them. */
START_TEST(evaluation_agrees) {
    rig r;
    open_rig(&r, TW_F32, TW_RECOMPUTE_NONE, 0, NULL);
    load_params(&r, "step20/params");
    const tw_tower_tape *t;
    TW_ASSERT_OK(tw_towers_get(r.towers, TW_TOWER_IMAGE, r.batch, &t));
    int64_t side = r.config.image.resolution;
    TW_ASSERT_OK(tw_tape_upload(t->tape, t->pixels, r.pixels + 20 * r.batch * 3 * side * side));
    TW_ASSERT_OK(tw_tape_forward(t->tape, tw_stepper_record(r.stepper)));
    check_rows(&r, "main/step20/evaluation", t->tape, t->image, tolerance);
    check_statistics(&r, "step20/params", 0);
    close_rig(&r);
}
END_TEST

START_TEST(twenty_adamw_steps_agree) {
    rig r;
    open_rig(&r, TW_F32, TW_RECOMPUTE_NONE, 0, NULL);
    load_params(&r, "step0/params");
    tw_adamw *adamw = golden_adamw(r.file, "/main", r.model->params, r.device);
    tw_schedule schedule = {TW_SCHEDULE_COSINE, golden_number(r.file, "/main", "lr"),
                            golden_int(r.file, "/main", "warmup"), 20};
    double *losses = golden_f64(r.file, "main/losses", 20);
    for (int step = 0; step < 20; step++) {
        double loss = run_step(&r, step);
        ck_assert_msg(fabs(loss - losses[step]) <= tolerance * losses[step],
                      "step %d: loss %.9g, reference %.9g", step, loss, losses[step]);
        update(&r, adamw, tw_schedule_rate(&schedule, step));
    }
    check_statistics(&r, "step20/params", 1e-4); /* trajectories drift more in weights than in losses */
    free(losses);
    tw_adamw_free(adamw);
    close_rig(&r);
}
END_TEST

START_TEST(a_skipped_step_moves_no_statistics) {
    rig r;
    open_rig(&r, TW_F32, TW_RECOMPUTE_NONE, 0, NULL);
    load_params(&r, "step0/params");
    tw_adamw *adamw = golden_adamw(r.file, "/main", r.model->params, r.device);
    r.pixels[5] = NAN;
    (void)run_step(&r, 0);
    tw_gradient_report report;
    TW_ASSERT_OK(tw_adamw_inspect(adamw, &report));
    ck_assert_ptr_nonnull(report.offender);
    TW_ASSERT_OK(tw_adamw_step(adamw, &report, 1e-3, tw_stepper_record(r.stepper)));
    check_statistics(&r, "step0/params", 0);
    tw_adamw_free(adamw);
    close_rig(&r);
}
END_TEST

START_TEST(bf16_is_near) {
    rig r;
    open_rig(&r, TW_BF16, TW_RECOMPUTE_NONE, 0, "visual.*.running_*");
    load_params(&r, "step20/params");
    check_loss(&r, "frozen", run_step(&r, 0), 3e-2);
    check_features(&r, "frozen", 5e-2);
    check_gradients(&r, "frozen/grads", 0.3);
    close_rig(&r);
}
END_TEST

/* The published architecture: FACTS of the family, 76,989,537 parameters; what checkpoints name and shape. */
START_TEST(rn50_has_its_parameters) {
    tw_model_config config, again;
    tw_dual_encoder *model;
    char *yaml;
    TW_ASSERT_OK(tw_model_config_load("RN50", &config));
    TW_ASSERT_OK(tw_model_config_to_yaml(&config, &yaml));
    TW_ASSERT_OK(tw_model_config_parse(yaml, strlen(yaml), "copy", &again));
    ck_assert_mem_eq(&config.image, &again.image, sizeof config.image);
    free(yaml);
    TW_ASSERT_OK(tw_dual_encoder_create(&config, &model));
    int64_t count = 0, statistics = 0;
    for (int i = 0; i < tw_params_count(model->params); i++) {
        const tw_param *p = tw_params_at(model->params, i);
        *(p->statistic ? &statistics : &count) += p->count;
    }
    ck_assert_int_eq(count, 76989537);
    ck_assert_int_eq(statistics, 2 * 26624);
    const tw_param *w = tw_params_find(model->params, "visual.layer4.0.downsample.0.weight");
    ck_assert(w && w->shape[0] == 2048 && w->shape[1] == 1024 && w->shape[2] == 1);
    w = tw_params_find(model->params, "visual.attnpool.positional_embedding");
    ck_assert(w && w->shape[0] == 50 && w->shape[1] == 2048);
    ck_assert(tw_params_find(model->params, "visual.layer3.5.bn3.running_var")->statistic);
    ck_assert_float_eq(tw_params_find(model->params, "visual.layer1.0.bn3.weight")->init.a, 0);
    ck_assert_float_eq(tw_params_find(model->params, "visual.bn3.weight")->init.a, 1);
    tw_dual_encoder_free(model);
    config.image.resolution = 100;
    TW_ASSERT_FAILS(tw_dual_encoder_create(&config, &model), TW_ERR_CONFIG,
                    "resolution 100 (a multiple of 32)");
}
END_TEST

static void refuse(const char *image, const char *message) {
    char yaml[512];
    tw_model_config config;
    snprintf(
        yaml, sizeof yaml,
        "name: x\nembed_dim: 8\ncontext_length: 8\nimage:\n%s"
        "text: {vocabulary: 0, positions: 8, types: 2, hidden: 8, layers: 1, heads: 1, intermediate: 8}\n",
        image);
    TW_ASSERT_FAILS(tw_model_config_parse(yaml, strlen(yaml), "x.yaml", &config), TW_ERR_CONFIG, message);
}

START_TEST(descriptions_of_the_wrong_kind_are_refused) {
#define COMMON "  resolution: 64\n  width: 8\n  heads: 2\n"
    refuse(COMMON "  kind: resnet\n", "image.stages is missing");
    refuse(COMMON "  kind: resnet\n  stages: [1, 1, 1, 1]\n  patch: 8\n",
           "image.patch is no key of an image tower of kind resnet");
    refuse(COMMON "  patch: 8\n  layers: 1\n  stages: [1, 1, 1, 1]\n",
           "image.stages is no key of an image tower of kind vit");
    refuse(COMMON "  kind: resnet\n  stages: [1, 1, 1]\n", "x.yaml:9: stages takes a list of 4 numbers");
    refuse(COMMON "  kind: resnet\n  stages: 3\n", "stages takes a list of 4 numbers");
    refuse(COMMON "  kind: resnet\n  stages: [1, 1, 0, 1]\n", "x.yaml:9: stages");
    refuse(COMMON "  kind: resnet\n  stages: [1, 1, [1], 1]\n", "a number is expected here");
    refuse(COMMON "  kind: vit\n  kind: vit\n", "kind is given twice");
    refuse(COMMON "  kind: cnn\n", "an image tower of kind 'cnn'; it is vit or resnet");
    refuse("  resolution: [64]\n", "resolution takes 1 number");
#undef COMMON
}
END_TEST

TW_TEST_MAIN("resnet", features_gradients_and_statistics_agree, micro_batches_are_virtual_ranks,
             frozen_statistics_agree_for_any_micro_batch, a_frozen_tower_evaluates, evaluation_agrees,
             twenty_adamw_steps_agree, a_skipped_step_moves_no_statistics, bf16_is_near,
             rn50_has_its_parameters, descriptions_of_the_wrong_kind_are_refused)
