#include "optim/adamw.h"

#include <math.h>
#include <stdlib.h>

struct tw_adamw {
    tw_params *params;
    tw_device *device;
    tw_adamw_config config; /* no_decay is not kept */
    int64_t steps;
    int64_t count; /* segments: one a trainable parameter */
    tw_segment *segments, *device_segments;
    const tw_param **owners; /* of the segments */
    float *m, *v, *device_norms, *norms;
};

static bool name_contains_any(const char *name, const char *const *parts, int n) {
    for (int i = 0; i < n; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}

static void make_segments(tw_adamw *a, const tw_adamw_config *config) {
    for (int i = 0; i < tw_params_count(a->params); i++) {
        const tw_param *p = tw_params_at(a->params, i);
        if (!tw_param_is_trained(p)) continue;
        bool decay = !name_contains_any(p->name, config->no_decay, config->n_no_decay);
        tw_segment s = {.offset = p->offset,
                        .count = p->count,
                        .weight_decay = decay ? config->weight_decay : 0.0f,
                        .low = -INFINITY,
                        .high = INFINITY};
        if (strcmp(p->name, "logit_scale") == 0) s.low = 0.0f, s.high = config->logit_scale_max;
        a->owners[a->count] = p;
        a->segments[a->count++] = s;
    }
}

static tw_status allocate(tw_adamw *a, const tw_adamw_config *config) {
    tw_device *d = a->device;
    size_t n = (size_t)tw_params_count(a->params) + 1,
           bytes = (size_t)tw_params_trainable(a->params) * sizeof(float);
    a->segments = calloc(n, sizeof *a->segments);
    a->owners = calloc(n, sizeof *a->owners);
    a->norms = calloc(n, sizeof *a->norms);
    if (!a->segments || !a->owners || !a->norms) return FAIL(TW_ERR_MEMORY, "out of memory");
    make_segments(a, config);
    TRY(d->alloc(d, n * sizeof *a->segments, (void **)&a->device_segments));
    TRY(d->alloc(d, n * sizeof *a->norms, (void **)&a->device_norms));
    TRY(d->upload(d, TW_QUEUE_COMPUTE, a->device_segments, a->segments,
                  (size_t)a->count * sizeof *a->segments));
    TRY(d->alloc(d, bytes, (void **)&a->m));
    TRY(d->alloc(d, bytes, (void **)&a->v));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, a->m, bytes));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, a->v, bytes));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

tw_status tw_adamw_create(tw_params *params, tw_device *device, const tw_adamw_config *config,
                          tw_adamw **out) {
    *out = NULL;
    if (!tw_params_gradients(params))
        return FAIL(TW_ERR_ARGUMENT, "the parameters are not allocated for training");
    tw_adamw *a = calloc(1, sizeof *a);
    if (!a) return FAIL(TW_ERR_MEMORY, "out of memory");
    a->params = params;
    a->device = device;
    a->config = *config;
    a->config.no_decay = NULL;
    tw_status status = allocate(a, config);
    if (status != TW_OK) {
        tw_adamw_free(a);
        return status;
    }
    *out = a;
    return TW_OK;
}

void tw_adamw_free(tw_adamw *adamw) {
    if (!adamw) return;
    tw_device *d = adamw->device;
    d->release(d, adamw->device_segments);
    d->release(d, adamw->device_norms);
    d->release(d, adamw->m);
    d->release(d, adamw->v);
    free(adamw->segments);
    free(adamw->owners);
    free(adamw->norms);
    free(adamw);
}

/* A slab as a vector for the kernels. */
static tw_tensor slab(const tw_adamw *a, void *data, tw_dtype dtype) {
    int64_t n = tw_params_trainable(a->params);
    return tw_tensor_of(data, dtype, 1, &n);
}

tw_status tw_adamw_inspect(tw_adamw *a, tw_gradient_report *report) {
    tw_finite_norm_attr attr = {a->device_segments, a->count};
    tw_call call = {.op = TW_OP_finite_norm, .device = a->device, .attr = &attr, .n_inputs = 1};
    call.input[0] = slab(a, tw_params_gradients(a->params), TW_F32);
    TRY(tw_op_prepare(&call));
    call.output[0].data = a->device_norms;
    TRY(tw_op_forward(&call));
    tw_device *d = a->device;
    TRY(d->download(d, TW_QUEUE_COMPUTE, a->norms, a->device_norms, (size_t)a->count * sizeof *a->norms));
    TRY(d->sync(d, TW_QUEUE_COMPUTE));
    *report = (tw_gradient_report){0};
    double square = 0;
    for (int64_t i = 0; i < a->count; i++) {
        square += (double)a->norms[i] * (double)a->norms[i];
        if (!report->offender && !isfinite(a->norms[i])) report->offender = a->owners[i]->name;
    }
    report->norm = sqrt(square);
    return TW_OK;
}

/* Batch norm's running averages: PyTorch's momentum, for every model of the family. */
static tw_status move_statistics(const tw_adamw *a, const tw_step *step) {
    int64_t first = tw_params_trainable(a->params), n = tw_params_statistics(a->params);
    tw_move_statistics_attr attr = {.rate = 0.1f};
    tw_call call = {
        .op = TW_OP_move_statistics, .device = a->device, .attr = &attr, .n_inputs = 2, .step = step};
    if (n == 0) return TW_OK;
    call.input[0] = tw_tensor_of(tw_params_values(a->params) + first, TW_F32, 1, &n);
    call.input[1] = tw_tensor_of(tw_params_gradients(a->params) + first, TW_F32, 1, &n);
    TRY(tw_op_prepare(&call));
    return tw_op_forward(&call);
}

tw_status tw_adamw_step(tw_adamw *a, const tw_gradient_report *report, double lr, tw_step *step) {
    tw_device *d = a->device;
    tw_step host;
    TRY(d->download(d, TW_QUEUE_COMPUTE, &host, step, sizeof host));
    TRY(d->sync(d, TW_QUEUE_COMPUTE));
    double t = (double)(a->steps + 1);
    bool clip = a->config.clip > 0.0f && report->norm > (double)a->config.clip;
    host.lr = (float)lr;
    host.bias_correction1 = (float)(1.0 - pow((double)a->config.beta1, t));
    host.bias_correction2 = (float)(1.0 - pow((double)a->config.beta2, t));
    host.gradient_scale = clip ? (float)((double)a->config.clip / (report->norm + 1e-6)) : 1.0f;
    host.skip = report->offender != NULL;
    TRY(d->upload(d, TW_QUEUE_COMPUTE, step, &host, sizeof host));
    tw_adamw_attr attr = {a->device_segments, a->count, a->config.beta1, a->config.beta2, a->config.eps};
    tw_call call = {.op = TW_OP_adamw, .device = d, .attr = &attr, .n_inputs = 5, .step = step};
    call.input[0] = slab(a, tw_params_values(a->params), TW_F32);
    call.input[1] = slab(a, tw_params_gradients(a->params), TW_F32);
    call.input[2] = slab(a, a->m, TW_F32);
    call.input[3] = slab(a, a->v, TW_F32);
    call.input[4] = tw_params_copies(a->params) ? slab(a, tw_params_copies(a->params), TW_BF16) : tw_absent();
    TRY(tw_op_prepare(&call));
    TRY(tw_op_forward(&call));
    TRY(move_statistics(a, step));
    TRY(d->sync(d, TW_QUEUE_COMPUTE)); /* `host` is read until here */
    if (!host.skip) a->steps++;
    return TW_OK;
}

int64_t tw_adamw_steps(const tw_adamw *adamw) {
    return adamw->steps;
}

void tw_adamw_set_steps(tw_adamw *adamw, int64_t steps) {
    adamw->steps = steps;
}

bool tw_adamw_decays(const tw_adamw *adamw, const tw_param *param) {
    for (int64_t i = 0; i < adamw->count; i++)
        if (adamw->owners[i] == param) return adamw->segments[i].weight_decay != 0.0f;
    return false;
}

static tw_status check_has_moments(const tw_param *param) {
    if (!tw_param_is_trained(param))
        return FAIL(TW_ERR_ARGUMENT, "%s is %s: it has no moments", param->name,
                    param->frozen ? "frozen" : "a statistic");
    return TW_OK;
}

tw_status tw_adamw_get_moment(const tw_adamw *a, const tw_param *param, bool second, float *out) {
    TRY(check_has_moments(param));
    const float *at = (second ? a->v : a->m) + param->offset;
    TRY(a->device->download(a->device, TW_QUEUE_COMPUTE, out, at, (size_t)param->count * sizeof *at));
    return a->device->sync(a->device, TW_QUEUE_COMPUTE);
}

tw_status tw_adamw_set_moment(tw_adamw *a, const tw_param *param, bool second, const float *values) {
    TRY(check_has_moments(param));
    float *at = (second ? a->v : a->m) + param->offset;
    TRY(a->device->upload(a->device, TW_QUEUE_COMPUTE, at, values, (size_t)param->count * sizeof *at));
    return a->device->sync(a->device, TW_QUEUE_COMPUTE);
}

size_t tw_adamw_bytes(const tw_adamw *adamw) {
    return (size_t)tw_params_trainable(adamw->params) * 2 * sizeof(float);
}
