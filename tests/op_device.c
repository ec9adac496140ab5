#include "op_device.h"

enum { MAX_MIRRORS = 2 * (TW_MAX_INPUTS + TW_MAX_OUTPUTS) + 4 };

typedef struct mirror {
    void *host, *device;
    size_t bytes, shift; /* shift: bytes of the device's memory before the copy */
    bool constant;       /* does not come back */
} mirror;

typedef struct mirrors {
    tw_device *device;
    mirror list[MAX_MIRRORS];
    int count;
} mirrors;

/* Replaces *pointer by device memory with the same contents. */
static tw_status to_device(mirrors *m, void **pointer, size_t bytes, size_t shift) {
    if (!*pointer) return TW_OK;
    if (m->count == MAX_MIRRORS) return FAIL(TW_ERR_ARGUMENT, "too many buffers");
    mirror *new = &m->list[m->count];
    *new = (mirror){.host = *pointer, .bytes = bytes, .shift = shift};
    TRY(m->device->alloc(m->device, bytes + shift, &new->device));
    m->count++;
    *pointer = (char *)new->device + shift;
    return m->device->upload(m->device, TW_QUEUE_COMPUTE, *pointer, new->host, bytes);
}

static tw_status constant_to_device(mirrors *m, const void **pointer, size_t bytes) {
    void *p = (void *)*pointer;
    int before = m->count;
    TRY(to_device(m, &p, bytes, 0));
    if (m->count > before) m->list[before].constant = true;
    *pointer = p;
    return TW_OK;
}

static tw_status tensors_to_device(mirrors *m, tw_tensor *tensors, int n, const size_t *bytes, size_t shift) {
    for (int i = 0; i < n; i++)
        TRY(to_device(m, &tensors[i].data, (bytes ? bytes[i] : tw_tensor_bytes(&tensors[i])) + OP_GUARD,
                      shift * tw_dtype_size(tensors[i].dtype)));
    return TW_OK;
}

static tw_status call_to_device(mirrors *m, tw_call *c, bool backward, const size_t *input_bytes,
                                size_t shift) {
    TRY(tensors_to_device(m, c->input, c->n_inputs, input_bytes, shift));
    TRY(tensors_to_device(m, c->output, c->n_outputs, NULL, shift));
    if (backward) {
        TRY(tensors_to_device(m, c->input_grad, c->n_inputs, NULL, shift));
        TRY(tensors_to_device(m, c->output_grad, c->n_results, NULL, shift));
    }
    size_t scratch = backward ? c->backward_scratch : c->forward_scratch;
    TRY(to_device(m, &c->scratch, scratch + OP_GUARD, 0));
    return constant_to_device(m, (const void **)&c->step, sizeof *c->step);
}

/* The segments of adamw, finite_norm and gradient_rule are device memory too. */
static tw_status attr_to_device(mirrors *m, tw_call *c, tw_adamw_attr *adamw, tw_finite_norm_attr *norm,
                                tw_gradient_rule_attr *rule) {
    if (c->op == TW_OP_adamw) {
        *adamw = *(const tw_adamw_attr *)c->attr;
        c->attr = adamw;
        return constant_to_device(m, (const void **)&adamw->segments,
                                  (size_t)adamw->count * sizeof *adamw->segments);
    }
    if (c->op == TW_OP_gradient_rule) {
        *rule = *(const tw_gradient_rule_attr *)c->attr;
        c->attr = rule;
        return constant_to_device(m, (const void **)&rule->rest, (size_t)rule->n_rest * sizeof *rule->rest);
    }
    if (c->op != TW_OP_finite_norm) return TW_OK;
    *norm = *(const tw_finite_norm_attr *)c->attr;
    c->attr = norm;
    return constant_to_device(m, (const void **)&norm->segments,
                              (size_t)norm->count * sizeof *norm->segments);
}

tw_status op_run_on_device(const tw_call *call, bool backward, const size_t input_bytes[TW_MAX_INPUTS],
                           size_t shift) {
    tw_device *d = call->device;
    mirrors m = {.device = d};
    tw_call c = *call;
    tw_adamw_attr adamw;
    tw_finite_norm_attr norm;
    tw_gradient_rule_attr rule;
    tw_status status = call_to_device(&m, &c, backward, input_bytes, shift);
    if (status == TW_OK) status = attr_to_device(&m, &c, &adamw, &norm, &rule);
    if (status == TW_OK) status = backward ? tw_op_backward(&c) : tw_op_forward(&c);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    for (int i = 0; status == TW_OK && i < m.count; i++)
        if (!m.list[i].constant)
            status = d->download(d, TW_QUEUE_COMPUTE, m.list[i].host,
                                 (char *)m.list[i].device + m.list[i].shift, m.list[i].bytes);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    for (int i = 0; i < m.count; i++) d->release(d, m.list[i].device);
    return status;
}
