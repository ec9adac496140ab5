/* The order in which a step's work is queued, seen through the device's own calls. */
#include "model_weights.h"
#include "test_device.h"
#include "train/step.h"

enum { BATCH = 4, CONTEXT_MOST = 128, MOST = 64 };

/* What was queued: 's' a stamp, 'z' zeros for gradients, some in a row. */
static char queued[MOST + 1];
static int n_queued;
static tw_status (*device_stamp)(tw_device *d, tw_queue q, tw_event **event);
static tw_status (*device_zero)(tw_device *d, tw_queue q, void *dst, size_t bytes);
static size_t gradient_bytes;
static char *gradients;

static void note(char what) {
    if (n_queued < MOST) queued[n_queued++] = what;
}

static tw_status noting_stamp(tw_device *d, tw_queue q, tw_event **event) {
    note('s');
    return device_stamp(d, q, event);
}

static tw_status noting_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    bool of_gradients = (char *)dst >= gradients && (char *)dst < gradients + gradient_bytes;
    if (of_gradients && (n_queued == 0 || queued[n_queued - 1] != 'z')) note('z');
    return device_zero(d, q, dst, bytes);
}

static void run(tw_stepper *stepper, const tw_samples *samples, int steps) {
    for (int step = 0; step < steps; step++) {
        int64_t size;
        TW_ASSERT_OK(tw_stepper_wait_inputs(stepper));
        TW_ASSERT_OK(tw_stepper_run(stepper, samples, 1, step, NULL, &size));
        ck_assert_int_eq(size, BATCH);
    }
}

/* A small model with a stepper whose results are watched. */
typedef struct fixture {
    tw_device *device;
    tw_comm *comm;
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    tw_step_results *results;
    uint8_t *pixels;
    int32_t ids[BATCH * CONTEXT_MOST], lengths[BATCH];
    tw_samples samples;
} fixture;

static void open_stepper(fixture *f, int micro) {
    TW_ASSERT_OK(tw_stepper_create(f->model, f->towers, f->device, f->comm, NULL, micro, &f->stepper));
    TW_ASSERT_OK(tw_step_results_create(f->device, 1, &f->results));
    tw_stepper_watch(f->stepper, f->results);
}

static void close_stepper(fixture *f) {
    TW_ASSERT_OK(f->device->sync(f->device, TW_QUEUE_COMPUTE));
    tw_step_results_free(f->results);
    tw_stepper_free(f->stepper);
}

static void open_fixture(fixture *f) {
    tw_model_config config = described("micro");
    int64_t side = config.image.resolution, context = config.context;
    *f = (fixture){.pixels = calloc((size_t)(BATCH * side * side * 3), 1)};
    ck_assert_ptr_nonnull(f->pixels);
    ck_assert_int_le(context, CONTEXT_MOST);
    for (int64_t i = 0; i < BATCH * side * side * 3; i++) f->pixels[i] = (uint8_t)(i * i % 251);
    for (int64_t i = 0; i < BATCH * context; i++) f->ids[i] = 1 + (int32_t)(i % 7);
    for (int i = 0; i < BATCH; i++) f->lengths[i] = (int32_t)context;
    f->samples = (tw_samples){BATCH, f->pixels, f->ids, f->lengths};
    TW_ASSERT_OK(tw_test_device(1, &f->device));
    TW_ASSERT_OK(tw_comm_self(f->device, &f->comm));
    TW_ASSERT_OK(tw_dual_encoder_create(&config, &f->model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(f->model, f->device, TW_F32, true));
    TW_ASSERT_OK(tw_params_initialise(f->model->params, 1));
    TW_ASSERT_OK(tw_towers_create(f->model, f->device, TW_RECOMPUTE_NONE, TW_U8, &f->towers));
}

static void close_fixture(fixture *f) {
    tw_towers_free(f->towers);
    tw_dual_encoder_free(f->model);
    tw_comm_free(f->comm);
    tw_device_free(f->device);
    free(f->pixels);
}

/* What backward does not write of the gradients becomes zero once a step, behind the stamp that its first
 * input is there: before it the time would count as waiting for data. */
START_TEST(zeroing_gradients_is_no_waiting_for_data) {
    fixture f;
    open_fixture(&f);
    tw_device *device = f.device;
    for (int micro = 0; micro <= 2; micro += 2) {
        open_stepper(&f, micro);
        gradients = (char *)tw_params_gradients(f.model->params);
        gradient_bytes = (size_t)tw_params_trainable(f.model->params) * sizeof(float);
        device_stamp = device->stamp, device_zero = device->zero;
        device->stamp = noting_stamp, device->zero = noting_zero;
        memset(queued, 0, sizeof queued), n_queued = 0;
        run(f.stepper, &f.samples, 2);
        device->stamp = device_stamp, device->zero = device_zero;
        ck_assert_str_eq(queued, "sszssz"); /* begin, ready, zeros */
        close_stepper(&f);
    }
    close_fixture(&f);
}
END_TEST

/* ---- a step that is dropped ---- */

static int calls_left;

static bool should_stop(void *context) {
    (void)context;
    return calls_left > 0 && --calls_left == 0;
}

/* Step `step` from its begin to its results; the gradient is the caller's to free. */
static float *whole_step(fixture *f, int64_t step) {
    int64_t size;
    TW_ASSERT_OK(tw_stepper_wait_inputs(f->stepper));
    TW_ASSERT_OK(tw_stepper_run(f->stepper, &f->samples, 1, step, NULL, &size));
    TW_ASSERT_OK(tw_step_results_end(f->results, step, size, tw_stepper_tallies(f->stepper), NULL));
    return tw_test_take(f->device, tw_params_gradients(f->model->params),
                        (size_t)tw_params_trainable(f->model->params) * sizeof(float));
}

/* Dropped at any of its calls while the device still works, and done again: the same gradient, and results of
 * whole steps only. */
START_TEST(a_dropped_step_leaves_nothing) {
    enum {
        CALLS = 7
    }; /* two micro-batches, on to the loss, two back, on to the gradients; a last one too late */
    fixture f;
    tw_step_result r;
    bool taken;
    open_fixture(&f);
    size_t bytes = (size_t)tw_params_trainable(f.model->params) * sizeof(float);
    open_stepper(&f, 2);
    tw_stepper_heed(f.stepper, should_stop, NULL);
    float *wanted = whole_step(&f, 0);
    for (int call = 1; call < CALLS; call++) {
        int64_t size;
        calls_left = call;
        TW_ASSERT_OK(tw_stepper_wait_inputs(f.stepper));
        tw_status status = tw_stepper_run(f.stepper, &f.samples, 1, 0, NULL, &size);
        ck_assert_msg(status == TW_ERR_INTERRUPTED, "call %d: %s", call, tw_status_name(status));
        float *now = whole_step(&f, 0);
        ck_assert_msg(memcmp(now, wanted, bytes) == 0, "call %d: another gradient", call);
        free(now);
        TW_ASSERT_OK(tw_step_results_take(f.results, true, &r, &taken));
        ck_assert(taken && r.step == 0 && r.pairs == BATCH && r.waited >= 0);
    }
    TW_ASSERT_OK(tw_step_results_take(f.results, true, &r, &taken));
    ck_assert(taken); /* one a whole step, the first included */
    TW_ASSERT_OK(tw_step_results_take(f.results, true, &r, &taken));
    ck_assert(!taken);
    calls_left = CALLS;
    free(whole_step(&f, 0));
    ck_assert_int_gt(calls_left, 0);
    free(wanted);
    close_stepper(&f);
    close_fixture(&f);
}
END_TEST

TW_TEST_MAIN("step order", zeroing_gradients_is_no_waiting_for_data, a_dropped_step_leaves_nothing)
