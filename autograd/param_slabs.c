#include "autograd/param_internal.h"

#include <stdlib.h>

static tw_status check_fused(const tw_params *set) {
    for (int i = 0; i < set->fused_count; i++) {
        const struct tw_params_view *f = set->fused[i];
        if (f->of) continue;
        const tw_param *first = set->params[f->first];
        for (int k = 1; k < f->n; k++) {
            const tw_param *p = set->params[f->first + k];
            if (p->frozen != first->frozen)
                return FAIL(TW_ERR_CONFIG, "%s and %s are computed as one product: freeze both or neither",
                            first->name, p->name);
        }
    }
    return TW_OK;
}

/* Lays the parameters that `wanted` picks out behind each other; returns the end. */
static int64_t lay_out(tw_params *set, bool (*wanted)(const tw_param *), int64_t at) {
    for (int i = 0; i < set->count; i++) {
        tw_param *p = set->params[i];
        if (!wanted(p)) continue;
        if (!p->continues) at = (at + TW_PARAM_ALIGN - 1) / TW_PARAM_ALIGN * TW_PARAM_ALIGN;
        p->offset = at;
        at += p->count;
    }
    return (at + TW_PARAM_ALIGN - 1) / TW_PARAM_ALIGN * TW_PARAM_ALIGN;
}

/* What a bf16 set computes with in f32 although it is trained. */
static bool is_trained_vector(const tw_param *p) {
    return tw_param_is_trained(p) && p->ndim < 2;
}

static bool is_trained_matrix(const tw_param *p) {
    return tw_param_is_trained(p) && p->ndim >= 2;
}

static bool is_moving_statistic(const tw_param *p) {
    return p->statistic && !p->frozen;
}

static bool is_frozen_vector(const tw_param *p) {
    return p->frozen && p->ndim < 2;
}

static bool is_frozen_matrix(const tw_param *p) {
    return p->frozen && p->ndim >= 2;
}

tw_status tw_params_lay_out(tw_params *set, tw_dtype compute_type) {
    if (compute_type != TW_F32 && compute_type != TW_BF16)
        return FAIL(TW_ERR_UNSUPPORTED, "parameters of type %s", tw_dtype_name(compute_type));
    if (set->laid_out)
        return FAIL(TW_ERR_ARGUMENT, "the slabs are laid out already, as %s",
                    tw_dtype_name(set->compute_type));
    TRY(check_fused(set));
    bool half = compute_type == TW_BF16;
    set->compute_type = compute_type;
    set->laid_out = true;
    if (half) set->vectors = lay_out(set, is_trained_vector, 0);
    set->trainable = lay_out(set, half ? is_trained_matrix : tw_param_is_trained, set->vectors);
    /* Frozen matrices come last: in bf16 they have no f32 value, and the f32 slab ends before them. */
    int64_t moving = lay_out(set, is_moving_statistic, set->trainable);
    set->statistics = moving - set->trainable;
    int64_t f32_end = lay_out(set, is_frozen_vector, moving);
    int64_t all = lay_out(set, is_frozen_matrix, f32_end);
    set->values_count = half ? f32_end : all;
    set->copies_count = half ? all : 0;
    return TW_OK;
}

tw_status tw_params_share(tw_params *set, const tw_piece *pieces, int64_t n) {
    if (!set->laid_out || set->device || set->compute_type != TW_BF16 || set->in_shares)
        return FAIL(TW_ERR_ARGUMENT,
                    "masters are put in shares once, in bf16, between laying out the slabs and "
                    "allocating them");
    for (int64_t i = 0; i < n; i++)
        if (pieces[i].offset < 0 || pieces[i].count < 0 ||
            pieces[i].offset > set->trainable - pieces[i].count)
            return FAIL(TW_ERR_ARGUMENT, "a piece of %lld masters from %lld on: the trainable slab has %lld",
                        (long long)pieces[i].count, (long long)pieces[i].offset, (long long)set->trainable);
    set->pieces = calloc((size_t)n + 1, sizeof *pieces);
    if (!set->pieces) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) set->masters_count += (set->pieces[i] = pieces[i]).count;
    set->n_pieces = n;
    set->in_shares = true;
    set->values_count -= set->trainable - set->vectors;
    return TW_OK;
}

/* Where a parameter is kept whole in f32; NULL: nowhere. In shares the matrices' room is left out. */
static float *whole_value(const tw_params *set, const tw_param *p) {
    bool matrix = set->compute_type == TW_BF16 && p->ndim >= 2;
    if (matrix && (p->frozen || set->in_shares)) return NULL;
    bool behind = set->in_shares && p->offset >= set->trainable;
    return set->values + p->offset - (behind ? set->trainable - set->vectors : 0);
}

static void set_views(const tw_params *set, tw_param *p) {
    bool copy = set->compute_type == TW_BF16 && p->ndim >= 2;
    p->master = tw_tensor_of(whole_value(set, p), TW_F32, p->ndim, p->shape);
    p->half = set->copies && !p->statistic ? set->copies + p->offset : NULL;
    p->value = copy ? tw_tensor_of(p->half, TW_BF16, p->ndim, p->shape) : p->master;
    p->grad = tw_tensor_of(set->training && !p->frozen ? set->gradients + p->offset : NULL, TW_F32, p->ndim,
                           p->shape);
}

/* The padding behind each parameter; values are for whoever sets them, and a slab of gigabytes is not to be
 * gone through twice. (Before a parameter that continues another one there is none: what is cleared there is
 * its own beginning.) */
static tw_status zero_padding(const tw_params *set) {
    tw_device *d = set->device;
    for (int i = 0; i < set->count; i++) {
        const tw_param *p = set->params[i];
        int64_t end = p->offset + p->count;
        size_t padding = (size_t)((end + TW_PARAM_ALIGN - 1) / TW_PARAM_ALIGN * TW_PARAM_ALIGN - end);
        float *value = whole_value(set, p);
        if (padding == 0) continue;
        if (value) TRY(d->zero(d, TW_QUEUE_COMPUTE, value + p->count, padding * 4));
        if (set->copies_count) TRY(d->zero(d, TW_QUEUE_COMPUTE, set->copies + end, padding * 2));
    }
    return TW_OK;
}

static tw_status allocate(tw_params *set) {
    tw_device *d = set->device;
    TRY(d->alloc(d, (size_t)set->values_count * 4, (void **)&set->values));
    if (set->copies_count) TRY(d->alloc(d, (size_t)set->copies_count * 2, (void **)&set->copies));
    TRY(zero_padding(set));
    if (set->in_shares) {
        TRY(d->alloc(d, (size_t)set->masters_count * 4, (void **)&set->masters));
        TRY(d->zero(d, TW_QUEUE_COMPUTE, set->masters, (size_t)set->masters_count * 4));
    }
    if (!set->training) return TW_OK;
    TRY(d->alloc(d, (size_t)(set->trainable + set->statistics) * 4, (void **)&set->gradients));
    return tw_params_zero_gradients(set);
}

tw_status tw_params_allocate(tw_params *set, tw_device *device, tw_dtype compute_type, bool training) {
    if (set->device) return FAIL(TW_ERR_ARGUMENT, "the slabs are allocated already");
    if (!set->laid_out) TRY(tw_params_lay_out(set, compute_type));
    if (compute_type != set->compute_type || (set->in_shares && !training))
        return FAIL(TW_ERR_ARGUMENT, "slabs laid out as %s%s cannot be allocated as %s%s",
                    tw_dtype_name(set->compute_type), set->in_shares ? " to train in shares" : "",
                    tw_dtype_name(compute_type), training ? "" : " without gradients");
    set->training = training;
    set->device = device;
    TRY(allocate(set));
    for (int i = 0; i < set->count; i++) set_views(set, set->params[i]);
    for (int i = 0; i < set->fused_count; i++) {
        const struct tw_params_view *f = set->fused[i];
        const tw_param *first = f->of ? f->of : set->params[f->first];
        tw_param *view = &set->fused[i]->view;
        view->offset = first->offset + f->skip;
        view->frozen = first->frozen;
        set_views(set, view);
    }
    return TW_OK;
}

int64_t tw_params_trainable(const tw_params *set) {
    return set->trainable;
}

int64_t tw_params_vectors(const tw_params *set) {
    return set->vectors;
}

int64_t tw_params_statistics(const tw_params *set) {
    return set->statistics;
}

float *tw_params_statistic_values(const tw_params *set) {
    return set->values + (set->in_shares ? set->vectors : set->trainable);
}

float *tw_params_values(const tw_params *set) {
    return set->values;
}

bool tw_params_in_shares(const tw_params *set) {
    return set->in_shares;
}

float *tw_params_masters(const tw_params *set) {
    return set->masters;
}

int64_t tw_params_masters_count(const tw_params *set) {
    return set->masters_count;
}

uint16_t *tw_params_copies(const tw_params *set) {
    return set->copies;
}

float *tw_params_gradients(const tw_params *set) {
    return set->gradients;
}

tw_status tw_params_zero_gradients(tw_params *set) {
    if (!set->gradients) return TW_OK;
    return set->device->zero(set->device, TW_QUEUE_COMPUTE, set->gradients,
                             (size_t)(set->trainable + set->statistics) * 4);
}

size_t tw_params_bytes(const tw_params *set) {
    int64_t gradients = set->gradients ? set->trainable + set->statistics : 0;
    return (size_t)(set->values_count + set->masters_count + gradients) * 4 + (size_t)set->copies_count * 2;
}
