/* Times of operations: counted by operation and direction, once each, and only while somebody asks. */
#include "autograd/op_timer.h"
#include "test_device.h"
#include "tw_test.h"

enum { N = 6 };

typedef struct rig {
    tw_device *device;
    tw_call call;
    float *x, *y, *dx, *dy, *norm, *scratch; /* device memory (1, N) */
} rig;

static void open_rig(rig *r) {
    const int64_t shape[] = {1, N};
    const float ones[N] = {1, 2, 3, 4, 5, 6};
    float **blocks[] = {&r->x, &r->y, &r->dx, &r->dy, &r->norm, &r->scratch};
    *r = (rig){0};
    TW_ASSERT_OK(tw_test_device(1, &r->device));
    for (int i = 0; i < 6; i++) {
        TW_ASSERT_OK(r->device->alloc(r->device, sizeof ones, (void **)blocks[i]));
        tw_test_give(r->device, *blocks[i], ones, sizeof ones);
    }
    static tw_l2_normalise_attr attr;
    r->call = (tw_call){
        .op = TW_OP_l2_normalise, .device = r->device, .attr = &attr, .n_inputs = 1, .needs_grad = true};
    r->call.input[0] = tw_tensor_of(r->x, TW_F32, 2, shape);
    TW_ASSERT_OK(tw_op_prepare(&r->call));
    ck_assert_uint_le(r->call.forward_scratch, sizeof ones);
    ck_assert_uint_le(r->call.backward_scratch, sizeof ones);
    r->call.output[0].data = r->y;
    r->call.output[1].data = r->norm;
    r->call.scratch = r->scratch;
    r->call.output_grad[0] = tw_tensor_of(r->dy, TW_F32, 2, shape);
    r->call.input_grad[0] = tw_tensor_of(r->dx, TW_F32, 2, shape);
}

START_TEST(calls_are_counted_and_timed) {
    rig r;
    tw_op_timer *timer, *other;
    open_rig(&r);
    TW_ASSERT_OK(tw_op_forward(&r.call)); /* nobody asks yet */
    TW_ASSERT_OK(tw_op_timer_create(r.device, &timer));
    TW_ASSERT_FAILS(tw_op_timer_create(r.device, &other), TW_ERR_ARGUMENT, "has a timer already");
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < 1500; i++) TW_ASSERT_OK(tw_op_forward(&r.call)); /* more than it begins with */
        TW_ASSERT_OK(tw_op_backward(&r.call));
        TW_ASSERT_OK(tw_op_timer_collect(timer));
        tw_op_time forward = tw_op_timer_total(timer, TW_OP_l2_normalise, false),
                   backward = tw_op_timer_total(timer, TW_OP_l2_normalise, true);
        ck_assert_int_eq(forward.calls, 1500 * round);
        ck_assert_int_eq(backward.calls, round);
        ck_assert(forward.seconds > 0 && forward.seconds < 100 && backward.seconds >= 0);
        ck_assert_int_eq(tw_op_timer_total(timer, TW_OP_linear, false).calls, 0);
    }
    tw_op_timer_reset(timer);
    ck_assert_int_eq(tw_op_timer_total(timer, TW_OP_l2_normalise, false).calls, 0);
    tw_op_timer_free(timer);
    tw_op_timer_free(NULL);
    TW_ASSERT_OK(tw_op_forward(&r.call)); /* and none is left behind */
    TW_ASSERT_OK(tw_op_timer_create(r.device, &timer));
    tw_op_timer_free(timer);
    float *blocks[] = {r.x, r.y, r.dx, r.dy, r.norm, r.scratch};
    for (int i = 0; i < 6; i++) r.device->release(r.device, blocks[i]);
    tw_device_free(r.device);
}
END_TEST

TW_TEST_MAIN("op_timer", calls_are_counted_and_timed)
