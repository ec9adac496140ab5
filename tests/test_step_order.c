/* The order in which a step's work is queued, seen through the device's own calls. */
#include "model_weights.h"
#include "test_device.h"
#include "train/step.h"

enum { BATCH = 4, CONTEXT_MOST = 128, MOST = 64 };

/* What was queued: 's' a stamp, 'z' the gradients' zeros. */
static char queued[MOST + 1];
static int n_queued;
static tw_status (*device_stamp)(tw_device *d, tw_queue q, tw_event **event);
static tw_status (*device_zero)(tw_device *d, tw_queue q, void *dst, size_t bytes);
static size_t gradient_bytes;

static void note(char what) {
    if (n_queued < MOST) queued[n_queued++] = what;
}

static tw_status noting_stamp(tw_device *d, tw_queue q, tw_event **event) {
    note('s');
    return device_stamp(d, q, event);
}

static tw_status noting_zero(tw_device *d, tw_queue q, void *dst, size_t bytes) {
    if (bytes >= gradient_bytes) note('z');
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

/* Gradients become zero once a step, behind the stamp that its first input is there: before it the time would
 * count as waiting for data. */
START_TEST(zeroing_gradients_is_no_waiting_for_data) {
    tw_model_config config = described("micro");
    int64_t side = config.image.resolution, context = config.context;
    tw_device *device;
    tw_comm *comm;
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    tw_step_results *results;
    uint8_t *pixels = calloc((size_t)(BATCH * side * side * 3), 1);
    int32_t ids[BATCH * CONTEXT_MOST], lengths[BATCH];
    ck_assert_ptr_nonnull(pixels);
    ck_assert_int_le(context, CONTEXT_MOST);
    for (int64_t i = 0; i < BATCH * context; i++) ids[i] = 1 + (int32_t)(i % 7);
    for (int i = 0; i < BATCH; i++) lengths[i] = (int32_t)context;
    TW_ASSERT_OK(tw_test_device(1, &device));
    TW_ASSERT_OK(tw_comm_self(device, &comm));
    TW_ASSERT_OK(tw_dual_encoder_create(&config, &model));
    TW_ASSERT_OK(tw_dual_encoder_allocate(model, device, TW_F32, true));
    TW_ASSERT_OK(tw_params_initialise(model->params, 1));
    TW_ASSERT_OK(tw_towers_create(model, device, TW_RECOMPUTE_NONE, TW_U8, &towers));
    for (int micro = 0; micro <= 2; micro += 2) {
        TW_ASSERT_OK(tw_stepper_create(model, towers, device, comm, NULL, micro, &stepper));
        TW_ASSERT_OK(tw_step_results_create(device, 1, &results));
        tw_stepper_watch(stepper, results);
        gradient_bytes = (size_t)tw_params_trainable(model->params) * sizeof(float);
        device_stamp = device->stamp, device_zero = device->zero;
        device->stamp = noting_stamp, device->zero = noting_zero;
        memset(queued, 0, sizeof queued), n_queued = 0;
        run(stepper, &(tw_samples){BATCH, pixels, ids, lengths}, 2);
        device->stamp = device_stamp, device->zero = device_zero;
        ck_assert_str_eq(queued, "sszssz"); /* begin, ready, zeros */
        TW_ASSERT_OK(device->sync(device, TW_QUEUE_COMPUTE));
        tw_step_results_free(results);
        tw_stepper_free(stepper);
    }
    tw_towers_free(towers);
    tw_dual_encoder_free(model);
    tw_comm_free(comm);
    tw_device_free(device);
    free(pixels);
}
END_TEST

TW_TEST_MAIN("step order", zeroing_gradients_is_no_waiting_for_data)
