#include "autograd/param_internal.h"
#include "autograd/progress.h"
#include "autograd/random.h"

#include <stdlib.h>

tw_status tw_params_initialise(tw_params *set, uint64_t seed) {
    for (int i = 0; i < set->count; i++) {
        tw_param *p = set->params[i];
        float *v = malloc((size_t)p->count * 4 + 4);
        if (!v) return FAIL(TW_ERR_MEMORY, "out of memory");
        tw_draw draw = {.seed = seed, .purpose = TW_DRAW_INIT, .layer = (uint32_t)i};
        if (p->init.kind == TW_INIT_NORMAL) {
            tw_random_normal(&draw, 0.0f, p->init.a, v, p->count);
        } else if (p->init.kind == TW_INIT_UNIFORM) {
            tw_random_uniform(&draw, -p->init.a, p->init.a, v, p->count);
        } else {
            for (int64_t k = 0; k < p->count; k++) v[k] = p->init.a;
        }
        tw_status status = tw_params_set(set, p, v);
        free(v);
        TRY(status);
    }
    return TW_OK;
}

static tw_status set_copy(tw_params *set, tw_param *param, const float *values) {
    tw_device *d = set->device;
    if (param->half) {
        uint16_t *half = malloc((size_t)param->count * 2 + 2);
        if (!half) return FAIL(TW_ERR_MEMORY, "out of memory");
        for (int64_t i = 0; i < param->count; i++) half[i] = tw_to_bf16(values[i]);
        tw_status status = d->upload(d, TW_QUEUE_COMPUTE, param->half, half, (size_t)param->count * 2);
        if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
        free(half);
        TRY(status);
    }
    tw_progress_tick();
    return d->sync(d, TW_QUEUE_COMPUTE);
}

/* A hash of a parameter's bits, eight chains side by side: a rank goes through all of a model at its start.
 */
static uint64_t hash_of(const float *values, int64_t count) {
    enum { LANES = 8 };
    static const uint64_t factor = 0x9e3779b97f4a7c15u; /* odd: each step is one to one in hash and value */
    uint64_t lanes[LANES], hash = (uint64_t)count;
    for (uint64_t k = 0; k < LANES; k++) lanes[k] = k + 1;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        uint64_t *lane = &lanes[i % LANES];
        *lane = (*lane ^ bits) * factor;
        *lane ^= *lane >> 32;
    }
    for (int k = 0; k < LANES; k++) hash = (hash ^ lanes[k]) * factor, hash ^= hash >> 32;
    return hash;
}

/* Keeps this rank's pieces of a parameter. */
static tw_status set_shares(tw_params *set, tw_param *param, const float *values) {
    tw_device *d = set->device;
    float *at = set->masters;
    for (int64_t i = 0; i < set->n_pieces; at += set->pieces[i++].count) {
        const tw_piece *piece = &set->pieces[i];
        int64_t begin = param->offset, end = param->offset + param->count;
        if (begin < piece->offset) begin = piece->offset;
        if (end > piece->offset + piece->count) end = piece->offset + piece->count;
        if (begin < end)
            TRY(d->upload(d, TW_QUEUE_COMPUTE, at + (begin - piece->offset), values + (begin - param->offset),
                          (size_t)(end - begin) * sizeof *at));
    }
    param->given = hash_of(values, param->count);
    return TW_OK;
}

tw_status tw_params_set(tw_params *set, tw_param *param, const float *values) {
    tw_device *d = set->device;
    if (tw_param_in_shares(set, param)) TRY(set_shares(set, param, values));
    if (param->master.data)
        TRY(d->upload(d, TW_QUEUE_COMPUTE, param->master.data, values, (size_t)param->count * 4));
    return set_copy(set, param, values);
}

float *tw_params_host(tw_params *set, const tw_param *param) {
    return set->device->kind == TW_CPU && !tw_param_in_shares(set, param) ? param->master.data : NULL;
}

tw_status tw_params_written(tw_params *set, tw_param *param) {
    return param->half ? set_copy(set, param, param->master.data) : TW_OK;
}

tw_status tw_params_get(const tw_params *set, const tw_param *param, float *values) {
    tw_device *d = set->device;
    tw_progress_tick();
    if (param->master.data) {
        TRY(d->download(d, TW_QUEUE_COMPUTE, values, param->master.data, (size_t)param->count * 4));
        return d->sync(d, TW_QUEUE_COMPUTE);
    }
    if (tw_param_in_shares(set, param))
        return FAIL(TW_ERR_ARGUMENT, "%s: its f32 values are kept in shares by several ranks", param->name);
    uint16_t *half = malloc((size_t)param->count * 2 + 2);
    if (!half) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = d->download(d, TW_QUEUE_COMPUTE, half, param->value.data, (size_t)param->count * 2);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    for (int64_t i = 0; status == TW_OK && i < param->count; i++) values[i] = tw_from_bf16(half[i]);
    free(half);
    return status;
}
