#include "optim/gradient_norm.h"

#include "autograd/op.h"
#include "autograd/ops/split_math.h"

#include <stddef.h>
#include <stdlib.h>

_Static_assert(sizeof((tw_gradient_found *)0)->norm == TW_SPLIT * sizeof(float), "the norm is split");
_Static_assert(offsetof(tw_gradient_found, blocks) == offsetof(tw_gradient_found, steps) + sizeof(int32_t),
               "the operation sees both as one tensor");

enum { UNIT = TW_PARTITION_UNIT };

struct tw_gradient_norm {
    tw_params *params;
    tw_device *device;
    tw_comm *comm;
    const tw_partition *partition;
    /* With one rank the rule measures all units by itself, and what follows is NULL up to n_units. */
    tw_segment *device_units; /* this rank's units, in the order of its pieces */
    tw_segment *device_rest;  /* (n_rest) where the slab keeps this rank's own part of the sum */
    int64_t n_rest;
    int64_t *unit_counts;         /* (ranks) */
    int32_t *unit_at, *device_at; /* (n_units) where the norm of the slab's unit u is after the gather */
    float *device_norms;          /* (n_units), gathered by ranks */
    int64_t n_units;              /* of the slab */
    tw_gradient_found *found;     /* device */
    void *scratch;                /* the rule's */
};

/* Finds where every unit's norm will be, and lists this rank's units into `own`. */
static void make_units(tw_gradient_norm *a, tw_segment *own) {
    const tw_partition *p = a->partition;
    int32_t at = 0;
    int64_t n = 0;
    for (int r = 0; r < p->ranks; r++) {
        int32_t first = at;
        for (int i = 0; i < p->count; i++) {
            const tw_bucket *b = &p->buckets[i];
            int64_t begin = b->offset, end;
            for (int q = 0; q < r; q++) begin += b->counts[q];
            end = begin + b->counts[r];
            for (int64_t u = begin; u < end; u += UNIT) {
                a->unit_at[u / UNIT] = at++;
                if (r == p->rank)
                    own[n++] = (tw_segment){.offset = u, .count = end - u < UNIT ? end - u : UNIT};
            }
        }
        a->unit_counts[r] = at - first;
    }
}

/* Beside this rank's pieces: before and behind each. */
static tw_status make_rest(tw_gradient_norm *a) {
    tw_device *d = a->device;
    const tw_partition *p = a->partition;
    tw_segment *rest = calloc(2 * (size_t)p->count + 1, sizeof *rest);
    if (!rest) return FAIL(TW_ERR_MEMORY, "out of memory: the gradient's norms");
    for (int i = 0; i < p->count; i++) {
        const tw_bucket *b = &p->buckets[i];
        int64_t end = b->own + b->own_count;
        if (b->own > b->offset)
            rest[a->n_rest++] = (tw_segment){.offset = b->offset, .count = b->own - b->offset};
        if (b->offset + b->count > end)
            rest[a->n_rest++] = (tw_segment){.offset = end, .count = b->offset + b->count - end};
    }
    size_t bytes = (size_t)a->n_rest * sizeof *rest;
    tw_status status = d->alloc(d, bytes, (void **)&a->device_rest);
    if (status == TW_OK) status = d->upload(d, TW_QUEUE_COMPUTE, a->device_rest, rest, bytes);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    free(rest);
    return status;
}

/* The lists of units, by which ranks share the measuring. */
static tw_status list_units(tw_gradient_norm *a) {
    tw_device *d = a->device;
    const tw_partition *p = a->partition;
    size_t n = (size_t)a->n_units + 1;
    a->unit_counts = calloc((size_t)p->ranks, sizeof *a->unit_counts);
    a->unit_at = calloc(n, sizeof *a->unit_at);
    TRY(d->alloc(d, n * sizeof *a->device_norms, (void **)&a->device_norms));
    TRY(d->alloc(d, n * sizeof *a->device_at, (void **)&a->device_at));
    TRY(make_rest(a));
    tw_segment *own = calloc(n, sizeof *own);
    tw_status status = TW_OK;
    if (!a->unit_counts || !a->unit_at || !own)
        status = FAIL(TW_ERR_MEMORY, "out of memory: the gradient's norms");
    if (status == TW_OK) make_units(a, own);
    size_t bytes = status == TW_OK ? (size_t)a->unit_counts[p->rank] * sizeof *own : 0;
    if (status == TW_OK) status = d->alloc(d, bytes, (void **)&a->device_units);
    if (status == TW_OK) status = d->upload(d, TW_QUEUE_COMPUTE, a->device_units, own, bytes);
    if (status == TW_OK)
        status = d->upload(d, TW_QUEUE_COMPUTE, a->device_at, a->unit_at, (n - 1) * sizeof *a->unit_at);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    free(own);
    return status;
}

/* The call that says what the norms mean, but for where its results go. */
static tw_status prepare_rule(const tw_gradient_norm *a, tw_gradient_rule_attr *attr, tw_call *call) {
    const int64_t two = 2;
    attr->unit = UNIT, attr->rest = a->device_rest, attr->n_rest = a->n_rest;
    *call = (tw_call){.op = TW_OP_gradient_rule, .device = a->device, .attr = attr, .n_inputs = 4};
    call->input[0] = call->input[1] = tw_absent();
    if (a->device_norms) {
        call->input[0] = tw_tensor_of(a->device_norms, TW_F32, 1, &a->n_units);
        call->input[1] = tw_tensor_of(a->device_at, TW_I32, 1, &a->n_units);
    }
    call->input[2] = tw_tensor_of(tw_params_gradients(a->params), TW_F32, 1, &a->partition->elements);
    call->input[3] = tw_tensor_of(&a->found->steps, TW_I32, 1, &two);
    return tw_op_prepare(call);
}

static tw_status allocate(tw_gradient_norm *a) {
    tw_device *d = a->device;
    tw_gradient_rule_attr attr = {0};
    tw_call call;
    a->n_units = (a->partition->elements + UNIT - 1) / UNIT;
    TRY(d->alloc(d, sizeof *a->found, (void **)&a->found));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, a->found, sizeof *a->found));
    if (a->partition->ranks > 1) TRY(list_units(a));
    TRY(prepare_rule(a, &attr, &call));
    TRY(d->alloc(d, call.forward_scratch, &a->scratch));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

tw_status tw_gradient_norm_create(tw_params *params, tw_device *device, tw_comm *comm,
                                  const tw_partition *partition, tw_gradient_norm **out) {
    *out = NULL;
    tw_gradient_norm *a = calloc(1, sizeof *a);
    if (!a) return FAIL(TW_ERR_MEMORY, "out of memory");
    *a = (tw_gradient_norm){.params = params, .device = device, .comm = comm, .partition = partition};
    tw_status status = allocate(a);
    if (status != TW_OK) {
        tw_gradient_norm_free(a);
        return status;
    }
    *out = a;
    return TW_OK;
}

void tw_gradient_norm_free(tw_gradient_norm *a) {
    if (!a) return;
    a->device->release(a->device, a->device_units);
    a->device->release(a->device, a->device_rest);
    a->device->release(a->device, a->device_norms);
    a->device->release(a->device, a->device_at);
    a->device->release(a->device, a->found);
    a->device->release(a->device, a->scratch);
    free(a->unit_counts);
    free(a->unit_at);
    free(a);
}

/* Every unit's norm, to every rank's device_norms. */
static tw_status gather_norms(tw_gradient_norm *a) {
    const tw_partition *p = a->partition;
    int64_t before = 0;
    for (int r = 0; r < p->rank; r++) before += a->unit_counts[r];
    float *own = a->device_norms + before;
    tw_finite_norm_attr attr = {a->device_units, a->unit_counts[p->rank]};
    tw_call call = {.op = TW_OP_finite_norm, .device = a->device, .attr = &attr, .n_inputs = 1};
    call.input[0] = tw_tensor_of(tw_params_gradients(a->params), TW_F32, 1, &p->elements);
    TRY(tw_op_prepare(&call));
    call.output[0].data = own;
    TRY(tw_op_forward(&call));
    TRY(a->comm->all_gather(a->comm, own, a->device_norms, a->unit_counts));
    return a->comm->sync(a->comm);
}

tw_status tw_gradient_norm_queue(tw_gradient_norm *a, const tw_gradient_rule_config *rule, tw_step *record) {
    tw_gradient_rule_attr attr = {
        .record = record, .clip = rule->clip, .beta1 = rule->beta1, .beta2 = rule->beta2};
    tw_call call;
    if (a->partition->ranks > 1) TRY(gather_norms(a));
    TRY(prepare_rule(a, &attr, &call));
    call.scratch = a->scratch;
    call.output[0].data = a->found->norm;
    call.output[1].data = &a->found->unit;
    return tw_op_forward(&call);
}

const tw_gradient_found *tw_gradient_norm_found(const tw_gradient_norm *a) {
    return a->found;
}

tw_status tw_gradient_norm_set_steps(tw_gradient_norm *a, int64_t steps) {
    tw_device *d = a->device;
    int32_t count = (int32_t)steps;
    TRY(d->upload(d, TW_QUEUE_COMPUTE, &a->found->steps, &count, sizeof count));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

/* Which rank brought it: of the owner's own part only the sum is left, so it is blamed when no other is. */
static tw_status find_rank(tw_gradient_norm *a, int owner, int32_t finite, tw_gradient_report *report) {
    const tw_partition *p = a->partition;
    report->rank = owner;
    report->ranks = 1;
    if (p->ranks == 1) return TW_OK;
    int32_t *all = calloc((size_t)p->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = a->comm->gather_all(a->comm, &finite, sizeof finite, all);
    int bad = 0;
    for (int r = p->ranks - 1; status == TW_OK && r >= 0; r--)
        if (!all[r]) report->rank = r, report->ranks = ++bad;
    free(all);
    return status;
}

/* Names what is wrong in the unit that was found: only its owner knows the element. Returns the owner. */
static tw_status name_offender(tw_gradient_norm *a, const tw_gradient_found *found,
                               tw_gradient_report *report, int *owner) {
    int64_t at = (int64_t)found->unit * UNIT + found->element;
    *owner = tw_partition_owner_of(a->partition, (int64_t)found->unit * UNIT);
    TRY(a->comm->broadcast(a->comm, &at, sizeof at, *owner));
    int64_t nearest = -1; /* the last to begin before it; in bf16 the slab has another order than the set */
    for (int i = 0; i < tw_params_count(a->params); i++) {
        const tw_param *q = tw_params_at(a->params, i);
        if (!tw_param_is_trained(q) || at < q->offset || q->offset < nearest) continue;
        nearest = q->offset;
        report->offender = q->name;
    }
    return TW_OK;
}

tw_status tw_gradient_norm_report(tw_gradient_norm *a, const tw_gradient_found *host,
                                  tw_gradient_report *report) {
    int owner;
    *report = (tw_gradient_report){.norm = tw_joined(host->norm), .rank = -1};
    if (host->unit < 0) return TW_OK;
    TRY(name_offender(a, host, report, &owner));
    return find_rank(a, owner, host->own_finite, report);
}

tw_status tw_gradient_norm_measure(tw_gradient_norm *a, tw_gradient_report *report) {
    tw_device *d = a->device;
    tw_gradient_found found;
    TRY(tw_gradient_norm_queue(a, &(tw_gradient_rule_config){0}, NULL));
    TRY(d->download(d, TW_QUEUE_COMPUTE, &found, a->found, sizeof found));
    TRY(d->sync(d, TW_QUEUE_COMPUTE));
    return tw_gradient_norm_report(a, &found, report);
}
