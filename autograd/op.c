#include "autograd/op_timer.h"
#include "autograd/progress.h"

#ifdef TW_WITH_CUDA
#define FORWARD(name)                                                                                        \
    { tw_##name##_forward_cpu, tw_##name##_forward_cuda }
#define BACKWARD(name)                                                                                       \
    { tw_##name##_backward_cpu, tw_##name##_backward_cuda }
#else
#define FORWARD(name)                                                                                        \
    { tw_##name##_forward_cpu }
#define BACKWARD(name)                                                                                       \
    { tw_##name##_backward_cpu }
#endif

const tw_op_info tw_op_table[TW_OP_COUNT] = {
#define ROW(name, inputs, gradient, backward)                                                                \
    [TW_OP_##name] = {#name,    #name " backward", inputs,        sizeof(struct tw_##name##_attr),           \
                      gradient, tw_##name##_shape, FORWARD(name), backward},
#define OP(name, inputs) ROW(name, inputs, true, BACKWARD(name))
#define KERNEL(name, inputs) ROW(name, inputs, false, {NULL})
#include "autograd/ops.def"
#undef OP
#undef KERNEL
};

tw_tensor tw_absent(void) {
    return (tw_tensor){.ndim = -1, .value = -1};
}

tw_status tw_op_prepare(tw_call *call) {
    const tw_op_info *info = &tw_op_table[call->op];
    if (call->n_inputs > info->max_inputs)
        return FAIL(TW_ERR_ARGUMENT, "%s: %d inputs given, it takes at most %d", info->name, call->n_inputs,
                    info->max_inputs);
    for (int i = call->n_inputs; i < TW_MAX_INPUTS; i++) call->input[i] = tw_absent();
    call->n_outputs = 0, call->n_results = 1;
    call->saved_inputs = call->saved_outputs = call->no_gradient = 0;
    call->forward_scratch = call->backward_scratch = 0;
    call->restore_inputs = 0, call->restorable = false;
    return info->shape(call);
}

static tw_status run(const tw_call *call, bool backward) {
    const tw_op_info *info = &tw_op_table[call->op];
    tw_device *d = call->device;
    tw_op_run function = backward ? info->backward[d->kind] : info->forward[d->kind];
    const char *direction = backward ? "backward" : "forward";
    if (!function) return FAIL(TW_ERR_UNSUPPORTED, "%s has no %s on %s", info->name, direction, d->name);
    tw_progress_begin(backward ? info->backward_name : info->name);
    if (d->timer) TRY(tw_op_timer_begin(d->timer, call->op, backward));
    d->range(d, backward ? info->backward_name : info->name);
    tw_status status = function(call);
    d->range(d, NULL);
    if (status != TW_OK) return tw_fail_context(status, "%s %s on %s", info->name, direction, d->name);
    return d->timer ? tw_op_timer_end(d->timer) : TW_OK;
}

tw_status tw_op_forward(const tw_call *call) {
    return run(call, false);
}

tw_status tw_op_backward(const tw_call *call) {
    return run(call, true);
}

void tw_call_output(tw_call *call, int i, tw_dtype dtype, int ndim, const int64_t *shape) {
    call->output[i] = tw_tensor_of(NULL, dtype, ndim, shape);
    if (call->n_outputs <= i) call->n_outputs = i + 1;
}

tw_status tw_call_check_rows(const tw_call *call, int i, const char *what) {
    const tw_tensor *t = &call->input[i];
    const char *name = tw_op_table[call->op].name;
    char shape[64];
    int64_t stride;
    if (!tw_present(t)) return FAIL(TW_ERR_ARGUMENT, "%s: %s is missing", name, what);
    if (t->dtype != TW_F32 && t->dtype != TW_BF16)
        return FAIL(TW_ERR_SHAPE, "%s: %s is %s, f32 or bf16 is needed", name, what, tw_dtype_name(t->dtype));
    if (t->ndim < 1 || !tw_tensor_is_rows(t, &stride))
        return FAIL(TW_ERR_SHAPE, "%s: %s %s is not rows of contiguous elements a constant distance apart",
                    name, what, tw_tensor_shape_text(t, shape));
    return TW_OK;
}

tw_status tw_call_check(const tw_call *call, int i, const char *what, tw_dtype dtype, int ndim,
                        const int64_t *shape) {
    const tw_tensor *t = &call->input[i];
    const char *name = tw_op_table[call->op].name;
    char got[64], wanted[64];
    if (!tw_present(t)) return FAIL(TW_ERR_ARGUMENT, "%s: %s is missing", name, what);
    tw_tensor expected = tw_tensor_of(NULL, dtype, ndim, shape);
    if (t->dtype != dtype || !tw_tensor_same_shape(t, &expected))
        return FAIL(TW_ERR_SHAPE, "%s: %s is %s %s, %s %s is needed", name, what, tw_dtype_name(t->dtype),
                    tw_tensor_shape_text(t, got), tw_dtype_name(dtype),
                    tw_tensor_shape_text(&expected, wanted));
    if (!tw_tensor_is_contiguous(t)) return FAIL(TW_ERR_SHAPE, "%s: %s is not contiguous", name, what);
    return TW_OK;
}
