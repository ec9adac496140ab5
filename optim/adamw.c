#include "optim/adamw.h"

#include <math.h>
#include <stdlib.h>

/* A run of the slab that this rank updates with one call: its moments lie together, from `state` on. */
typedef struct range {
    int64_t offset, count, state;
    int64_t segments, n_segments; /* the segments' offsets count from the range's start */
} range;

struct tw_adamw {
    tw_params *params;
    tw_device *device;
    tw_comm *comm, *own_comm; /* own: of one made for a single rank */
    const tw_partition *partition;
    tw_partition *own_partition;
    bool sharded;
    tw_adamw_config config; /* no_decay is not kept */
    int64_t steps;
    float *decay; /* (parameters) */
    range *ranges;
    int64_t n_ranges;
    tw_segment *device_segments;
    int64_t *vector_counts; /* (buckets, ranks) in shares: of each rank's piece what all ranks keep in f32 */
    float *m, *v;
    tw_gradient_norm *norm;
};

static bool name_contains_any(const char *name, const char *const *parts, int n) {
    for (int i = 0; i < n; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}

static bool is_sharded(const tw_adamw *a) {
    return a->sharded && a->partition->ranks > 1;
}

static bool in_shares(const tw_adamw *a) {
    return tw_params_in_shares(a->params);
}

static int64_t state_count(const tw_adamw *a) {
    return is_sharded(a) ? a->partition->state : a->partition->elements;
}

/* The part of parameter p inside a range; count <= 0: none. */
static tw_segment overlap(const range *r, const tw_param *p) {
    int64_t begin = p->offset > r->offset ? p->offset : r->offset, end = p->offset + p->count;
    if (end > r->offset + r->count) end = r->offset + r->count;
    return (tw_segment){
        .offset = begin - r->offset, .count = end - begin, .low = -INFINITY, .high = INFINITY};
}

static void make_ranges(tw_adamw *a) {
    const tw_partition *p = a->partition;
    if (!is_sharded(a)) {
        a->ranges[a->n_ranges++] = (range){.count = p->elements};
        return;
    }
    for (int i = 0; i < p->count; i++)
        a->ranges[a->n_ranges++] = (range){
            .offset = p->buckets[i].own, .count = p->buckets[i].own_count, .state = p->buckets[i].state};
}

/* Cuts the parameters at the ranges; `segments` has room for one a parameter and one a range. */
static int64_t make_segments(tw_adamw *a, tw_segment *segments) {
    int64_t n = 0;
    for (int64_t k = 0; k < a->n_ranges; k++) {
        range *r = &a->ranges[k];
        r->segments = n;
        for (int i = 0; i < tw_params_count(a->params); i++) {
            const tw_param *p = tw_params_at(a->params, i);
            if (!tw_param_is_trained(p)) continue;
            tw_segment s = overlap(r, p);
            if (s.count <= 0) continue;
            s.weight_decay = a->decay[i];
            if (strcmp(p->name, "logit_scale") == 0) s.low = 0.0f, s.high = a->config.logit_scale_max;
            segments[n++] = s;
        }
        r->n_segments = n - r->segments;
    }
    return n;
}

/* The vectors come first in the slab, and so in a bucket and in each piece. */
static void count_vectors(tw_adamw *a) {
    const tw_partition *p = a->partition;
    for (int i = 0; i < p->count; i++) {
        int64_t left = tw_params_vectors(a->params) - p->buckets[i].offset;
        for (int r = 0; r < p->ranks; r++) {
            int64_t piece = p->buckets[i].counts[r], whole = left < piece ? left : piece;
            a->vector_counts[(int64_t)i * p->ranks + r] = whole > 0 ? whole : 0;
            left -= piece;
        }
    }
}

static tw_status upload(tw_adamw *a, const tw_segment *host, int64_t n, tw_segment **out) {
    tw_device *d = a->device;
    size_t bytes = (size_t)n * sizeof *host;
    TRY(d->alloc(d, bytes, (void **)out));
    TRY(d->upload(d, TW_QUEUE_COMPUTE, *out, host, bytes));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

static tw_status allocate(tw_adamw *a, const tw_adamw_config *config) {
    tw_device *d = a->device;
    const tw_partition *p = a->partition;
    size_t params = (size_t)tw_params_count(a->params) + 1, bytes = (size_t)state_count(a) * sizeof(float);
    size_t most = params + (size_t)p->count;
    a->decay = calloc(params, sizeof *a->decay);
    a->ranges = calloc((size_t)p->count + 1, sizeof *a->ranges);
    a->vector_counts = calloc((size_t)p->count * (size_t)p->ranks + 1, sizeof *a->vector_counts);
    tw_segment *segments = calloc(most, sizeof *segments);
    tw_status status = TW_OK;
    if (!a->decay || !a->ranges || !a->vector_counts || !segments)
        status = FAIL(TW_ERR_MEMORY, "out of memory: the optimizer's lists");
    for (int i = 0; status == TW_OK && i < tw_params_count(a->params); i++)
        if (!name_contains_any(tw_params_at(a->params, i)->name, config->no_decay, config->n_no_decay))
            a->decay[i] = config->weight_decay;
    if (status == TW_OK) {
        make_ranges(a);
        if (in_shares(a)) count_vectors(a);
        status = upload(a, segments, make_segments(a, segments), &a->device_segments);
    }
    free(segments);
    TRY(status);
    TRY(tw_gradient_norm_create(a->params, d, a->comm, p, &a->norm));
    TRY(d->alloc(d, bytes, (void **)&a->m));
    TRY(d->alloc(d, bytes, (void **)&a->v));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, a->m, bytes));
    TRY(d->zero(d, TW_QUEUE_COMPUTE, a->v, bytes));
    return d->sync(d, TW_QUEUE_COMPUTE);
}

/* Masters in shares belong to a sharded optimizer of the same pieces; in bf16 it takes nothing else. */
static tw_status check_shares(const tw_params *params, const tw_partition *partition, bool sharded) {
    bool shares = tw_params_in_shares(params), half = tw_params_copies(params) != NULL;
    bool wanted = sharded && half && partition && partition->ranks > 1;
    if (shares == wanted && (!shares || tw_params_masters_count(params) == partition->state)) return TW_OK;
    return FAIL(TW_ERR_ARGUMENT,
                "a bf16 set's masters are in shares if and only if the optimizer is: see tw_partition_share");
}

/* Without a communicator and a partition: those of a single rank. */
static tw_status create(tw_params *params, tw_device *device, tw_comm *comm, const tw_partition *partition,
                        bool sharded, const tw_adamw_config *config, tw_adamw **out) {
    *out = NULL;
    if (!tw_params_gradients(params))
        return FAIL(TW_ERR_ARGUMENT, "the parameters are not allocated for training");
    if (partition && partition->elements != tw_params_trainable(params))
        return FAIL(TW_ERR_ARGUMENT, "a partition of %lld elements for a slab of %lld",
                    (long long)partition->elements, (long long)tw_params_trainable(params));
    TRY(check_shares(params, partition, sharded));
    tw_adamw *a = calloc(1, sizeof *a);
    if (!a) return FAIL(TW_ERR_MEMORY, "out of memory");
    *a = (tw_adamw){.params = params, .device = device, .sharded = sharded, .config = *config};
    a->config.no_decay = NULL;
    tw_status status = TW_OK;
    if (!comm) status = tw_comm_self(device, &a->own_comm);
    if (status == TW_OK && !partition)
        status = tw_partition_create(tw_params_trainable(params), 0, 1, INT64_MAX / 2, &a->own_partition);
    a->comm = comm ? comm : a->own_comm;
    a->partition = partition ? partition : a->own_partition;
    if (status == TW_OK) status = allocate(a, config);
    if (status != TW_OK) {
        tw_adamw_free(a);
        return status;
    }
    *out = a;
    return TW_OK;
}

tw_status tw_adamw_create(tw_params *params, tw_device *device, const tw_adamw_config *config,
                          tw_adamw **out) {
    return create(params, device, NULL, NULL, false, config, out);
}

tw_status tw_adamw_create_ranks(tw_params *params, tw_device *device, tw_comm *comm,
                                const tw_partition *partition, bool sharded, const tw_adamw_config *config,
                                tw_adamw **out) {
    return create(params, device, comm, partition, sharded, config, out);
}

void tw_adamw_free(tw_adamw *a) {
    if (!a) return;
    tw_device *d = a->device;
    d->release(d, a->device_segments);
    d->release(d, a->m);
    d->release(d, a->v);
    tw_gradient_norm_free(a->norm);
    tw_partition_free(a->own_partition);
    tw_comm_free(a->own_comm);
    free(a->decay);
    free(a->ranges);
    free(a->vector_counts);
    free(a);
}

/* ---- the step ---- */

tw_status tw_adamw_inspect(tw_adamw *a, tw_gradient_report *report) {
    const tw_partition *p = a->partition;
    TRY(tw_gradient_norm_measure(a->norm, report));
    if (report->offender || p->ranks == 1 || a->sharded) return TW_OK;
    for (int i = 0; i < p->count; i++)
        TRY(tw_partition_gather(p, a->comm, i, tw_params_gradients(a->params)));
    return a->comm->sync(a->comm);
}

/* Batch norm's running averages: PyTorch's momentum, for every model of the family. */
static tw_status move_statistics(const tw_adamw *a, const tw_step *step) {
    int64_t first = tw_params_trainable(a->params), n = tw_params_statistics(a->params);
    tw_move_statistics_attr attr = {.rate = 0.1f};
    tw_call call = {
        .op = TW_OP_move_statistics, .device = a->device, .attr = &attr, .n_inputs = 2, .step = step};
    if (n == 0) return TW_OK;
    call.input[0] = tw_tensor_of(tw_params_statistic_values(a->params), TW_F32, 1, &n);
    call.input[1] = tw_tensor_of(tw_params_gradients(a->params) + first, TW_F32, 1, &n);
    TRY(tw_op_prepare(&call));
    return tw_op_forward(&call);
}

static tw_status update(const tw_adamw *a, const range *r, const tw_step *step) {
    uint16_t *copies = tw_params_copies(a->params);
    tw_adamw_attr attr = {a->device_segments + r->segments, r->n_segments, a->config.beta1, a->config.beta2,
                          a->config.eps};
    tw_call call = {.op = TW_OP_adamw, .device = a->device, .attr = &attr, .n_inputs = 5, .step = step};
    float *values =
        in_shares(a) ? tw_params_masters(a->params) + r->state : tw_params_values(a->params) + r->offset;
    float *slabs[] = {values, tw_params_gradients(a->params) + r->offset, a->m + r->state, a->v + r->state};
    for (int i = 0; i < 4; i++) call.input[i] = tw_tensor_of(slabs[i], TW_F32, 1, &r->count);
    call.input[4] = copies ? tw_tensor_of(copies + r->offset, TW_BF16, 1, &r->count) : tw_absent();
    TRY(tw_op_prepare(&call));
    return tw_op_forward(&call);
}

/* Queues what the other ranks compute with of this rank's piece of a bucket, and theirs to this one. */
static tw_status publish(tw_adamw *a, int bucket) {
    tw_device *d = a->device;
    const tw_partition *p = a->partition;
    const tw_bucket *b = &p->buckets[bucket];
    const int64_t *counts = a->vector_counts + (int64_t)bucket * p->ranks;
    float *values = tw_params_values(a->params);
    if (!in_shares(a)) return tw_partition_gather(p, a->comm, bucket, values);
    if (b->offset < tw_params_vectors(a->params)) {
        int64_t own = b->offset;
        for (int r = 0; r < p->rank; r++) own += counts[r];
        TRY(d->copy(d, TW_QUEUE_COMPUTE, values + own, tw_params_masters(a->params) + b->state,
                    (size_t)counts[p->rank] * sizeof *values));
        TRY(a->comm->all_gather(a->comm, values + own, values + b->offset, counts));
    }
    return tw_partition_gather_bf16(p, a->comm, bucket, tw_params_copies(a->params));
}

/* Each bucket's values are on their way while the next one is computed. */
static tw_status update_all(tw_adamw *a, const tw_step *step, bool skip) {
    bool gather = is_sharded(a) && !skip;
    for (int64_t k = 0; k < a->n_ranges; k++) {
        TRY(update(a, &a->ranges[k], step));
        if (gather) TRY(publish(a, (int)k));
    }
    return gather ? a->comm->sync(a->comm) : TW_OK;
}

tw_status tw_adamw_queue(tw_adamw *a, tw_step *step) {
    const tw_gradient_rule_config rule = {a->config.clip, a->config.beta1, a->config.beta2};
    TRY(tw_gradient_norm_queue(a->norm, &rule, step));
    const tw_partition *p = a->partition;
    if (p->ranks > 1 && !a->sharded) {
        for (int i = 0; i < p->count; i++)
            TRY(tw_partition_gather(p, a->comm, i, tw_params_gradients(a->params)));
        TRY(a->comm->sync(a->comm));
    }
    TRY(update_all(a, step, false));
    return move_statistics(a, step);
}

const tw_gradient_found *tw_adamw_found(const tw_adamw *a) {
    return tw_gradient_norm_found(a->norm);
}

tw_status tw_adamw_collect(tw_adamw *a, const tw_gradient_found *host, tw_gradient_report *report) {
    a->steps = host->steps;
    return tw_gradient_norm_report(a->norm, host, report);
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
    TRY(update_all(a, step, host.skip));
    TRY(move_statistics(a, step));
    return host.skip ? TW_OK : tw_adamw_set_steps(a, a->steps + 1); /* `host` is read until here */
}

int64_t tw_adamw_steps(const tw_adamw *adamw) {
    return adamw->steps;
}

tw_status tw_adamw_set_steps(tw_adamw *adamw, int64_t steps) {
    adamw->steps = steps;
    return tw_gradient_norm_set_steps(adamw->norm, steps);
}

bool tw_adamw_decays(const tw_adamw *adamw, const tw_param *param) {
    for (int i = 0; i < tw_params_count(adamw->params); i++)
        if (tw_params_at(adamw->params, i) == param)
            return tw_param_is_trained(param) && adamw->decay[i] != 0.0f;
    return false;
}

/* ---- the moments ---- */

/* Elements [first, first + count) of a parameter as if they were one. */
static tw_param part_of(const tw_param *p, int64_t first, int64_t count) {
    tw_param part = *p;
    part.offset += first;
    part.count = count;
    return part;
}

tw_status tw_adamw_set_moment_range(tw_adamw *a, const tw_param *param, bool second, int64_t first,
                                    const float *values, int64_t count) {
    tw_device *d = a->device;
    if (!tw_param_is_trained(param))
        return FAIL(TW_ERR_ARGUMENT, "%s is %s: it has no moments", param->name,
                    param->frozen ? "frozen" : "a statistic");
    if (first < 0 || count < 0 || first > param->count - count)
        return FAIL(TW_ERR_SHAPE, "%s has %lld elements: not the %lld from number %lld on", param->name,
                    (long long)param->count, (long long)count, (long long)first);
    tw_param part = part_of(param, first, count);
    for (int64_t k = 0; k < a->n_ranges; k++) {
        const range *r = &a->ranges[k];
        tw_segment s = overlap(r, &part);
        if (s.count <= 0) continue;
        TRY(d->upload(d, TW_QUEUE_COMPUTE, (second ? a->v : a->m) + r->state + s.offset,
                      values + (r->offset + s.offset - part.offset), (size_t)s.count * sizeof *values));
    }
    return d->sync(d, TW_QUEUE_COMPUTE);
}

tw_status tw_adamw_set_moment(tw_adamw *a, const tw_param *param, bool second, const float *values) {
    return tw_adamw_set_moment_range(a, param, second, 0, values, param->count);
}

int64_t tw_adamw_next_kept(const tw_adamw *a, const tw_param *param, int64_t from, int64_t *first) {
    int64_t count = 0;
    if (!tw_param_is_trained(param) || from >= param->count) return 0;
    tw_param rest = part_of(param, from, param->count - from);
    for (int64_t k = 0; k < a->n_ranges; k++) { /* in no order that matters here */
        tw_segment s = overlap(&a->ranges[k], &rest);
        int64_t begin = a->ranges[k].offset + s.offset - param->offset;
        if (s.count <= 0 || (count > 0 && begin > *first)) continue;
        *first = begin;
        count = s.count;
    }
    return count;
}

tw_status tw_adamw_get_moments(const tw_adamw *a, bool second, float *out) {
    tw_device *d = a->device;
    const tw_partition *p = a->partition;
    const float *state = second ? a->v : a->m;
    if (!is_sharded(a)) {
        if (p->rank != 0) return TW_OK;
        TRY(d->download(d, TW_QUEUE_COMPUTE, out, state, (size_t)p->elements * sizeof *out));
        return d->sync(d, TW_QUEUE_COMPUTE);
    }
    return tw_partition_collect(p, a->comm, state, out);
}

tw_status tw_adamw_get_masters(const tw_adamw *a, float *out) {
    const float *masters = tw_params_masters(a->params);
    if (!in_shares(a))
        return FAIL(TW_ERR_ARGUMENT, "the masters are not in shares: every rank has all of them");
    return tw_partition_collect(a->partition, a->comm, masters, out);
}

const float *tw_adamw_moments(const tw_adamw *a, bool second) {
    if (a->device->kind != TW_CPU || is_sharded(a)) return NULL;
    return second ? a->v : a->m;
}

size_t tw_adamw_bytes(const tw_adamw *adamw) {
    return (size_t)state_count(adamw) * 2 * sizeof(float);
}
