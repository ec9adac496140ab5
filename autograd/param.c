#include "autograd/param.h"

#include "autograd/random.h"

#include <fnmatch.h>
#include <stdlib.h>

enum { ALIGN = 16 }; /* elements: 64 bytes in f32 */

/* A stack of parameters, or a slice of a parameter or a stack. */
struct fused {
    tw_param view;
    int first, n;       /* of a stack */
    const tw_param *of; /* of a slice, else NULL */
    int64_t skip;       /* elements of it before the slice */
};

struct tw_params {
    tw_param **params;
    struct fused **fused;
    int count, capacity, fused_count;
    tw_device *device;
    tw_dtype compute_type;
    bool training;
    int64_t trainable, statistics, values_count, copies_count;
    float *values, *gradients;
    uint16_t *copies;
};

tw_status tw_params_create(tw_params **out) {
    *out = calloc(1, sizeof **out);
    return *out ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

void tw_params_free(tw_params *set) {
    if (!set) return;
    if (set->device) {
        set->device->release(set->device, set->values);
        set->device->release(set->device, set->copies);
        set->device->release(set->device, set->gradients);
    }
    for (int i = 0; i < set->count; i++) {
        free(set->params[i]->name);
        free(set->params[i]);
    }
    for (int i = 0; i < set->fused_count; i++) {
        free(set->fused[i]->view.name);
        free(set->fused[i]);
    }
    free(set->params);
    free(set->fused);
    free(set);
}

tw_status tw_params_add(tw_params *set, const char *name, int ndim, const int64_t *shape, tw_init init,
                        tw_param **out) {
    *out = NULL;
    if (set->device) return FAIL(TW_ERR_ARGUMENT, "parameter %s added after the slabs were allocated", name);
    if (tw_params_find(set, name)) return FAIL(TW_ERR_ARGUMENT, "parameter %s added twice", name);
    if (set->count == set->capacity) {
        int capacity = set->capacity ? 2 * set->capacity : 64;
        tw_param **grown = realloc(set->params, (size_t)capacity * sizeof *grown);
        if (!grown) return FAIL(TW_ERR_MEMORY, "out of memory");
        set->params = grown;
        set->capacity = capacity;
    }
    tw_param *p = calloc(1, sizeof *p);
    char *copy = strdup(name);
    if (!p || !copy) {
        free(p);
        free(copy);
        return FAIL(TW_ERR_MEMORY, "out of memory");
    }
    p->name = copy;
    p->ndim = ndim;
    p->count = 1;
    for (int i = 0; i < ndim; i++) p->count *= p->shape[i] = shape[i];
    p->init = init;
    set->params[set->count++] = p;
    *out = p;
    return TW_OK;
}

tw_status tw_params_add_statistic(tw_params *set, const char *name, int64_t count, float initial,
                                  tw_param **out) {
    TRY(tw_params_add(set, name, 1, &count, (tw_init){TW_INIT_CONSTANT, initial}, out));
    (*out)->statistic = true;
    return TW_OK;
}

/* Whether the last n parameters are equal but for their first dimension. */
static tw_status check_stackable(const tw_params *set, int n) {
    const tw_param *first = set->params[set->count - n];
    for (int i = 1; i < n; i++) {
        const tw_param *p = set->params[set->count - n + i];
        bool same = p->ndim == first->ndim && p->ndim > 0;
        for (int d = 1; same && d < p->ndim; d++) same = p->shape[d] == first->shape[d];
        if (!same)
            return FAIL(TW_ERR_SHAPE, "%s and %s cannot be stacked along their first dimension", first->name,
                        p->name);
    }
    return TW_OK;
}

/* A view that begins as `like`. */
static tw_status add_view(tw_params *set, const tw_param *like, struct fused **out) {
    struct fused *f = calloc(1, sizeof *f);
    struct fused **grown = realloc(set->fused, ((size_t)set->fused_count + 1) * sizeof *grown);
    char *name = strdup(like->name);
    if (grown) set->fused = grown;
    if (!f || !grown || !name) {
        free(f);
        free(name);
        return FAIL(TW_ERR_MEMORY, "out of memory");
    }
    f->view = *like;
    f->view.name = name;
    set->fused[set->fused_count++] = *out = f;
    return TW_OK;
}

tw_status tw_params_fuse(tw_params *set, int n, tw_param **out) {
    *out = NULL;
    if (n < 1 || n > set->count)
        return FAIL(TW_ERR_ARGUMENT, "cannot fuse %d of %d parameters", n, set->count);
    if (set->device) return FAIL(TW_ERR_ARGUMENT, "parameters fused after the slabs were allocated");
    TRY(check_stackable(set, n));
    struct fused *f;
    TRY(add_view(set, set->params[set->count - n], &f));
    f->first = set->count - n;
    f->n = n;
    for (int i = 1; i < n; i++) {
        tw_param *p = set->params[f->first + i];
        p->continues = true;
        f->view.shape[0] += p->shape[0];
        f->view.count += p->count;
    }
    if (f->view.ndim > 2) { /* a convolution's weight as the matrix of a product over patches */
        f->view.ndim = 2;
        f->view.shape[1] = f->view.shape[0] ? f->view.count / f->view.shape[0] : 0;
    }
    *out = &f->view;
    return TW_OK;
}

tw_status tw_params_slice(tw_params *set, const tw_param *of, int64_t first, int64_t count, tw_param **out) {
    *out = NULL;
    if (set->device) return FAIL(TW_ERR_ARGUMENT, "parameters sliced after the slabs were allocated");
    if (of->ndim < 1 || first < 0 || count < 0 || first + count > of->shape[0])
        return FAIL(TW_ERR_SHAPE, "%s has no rows %lld to %lld", of->name, (long long)first,
                    (long long)(first + count));
    struct fused *f;
    TRY(add_view(set, of, &f));
    int64_t row = of->shape[0] ? of->count / of->shape[0] : 0;
    f->of = of;
    f->skip = first * row;
    f->view.shape[0] = count;
    f->view.count = count * row;
    *out = &f->view;
    return TW_OK;
}

tw_status tw_params_freeze(tw_params *set, const char *pattern, int *matched) {
    *matched = 0;
    if (set->device) return FAIL(TW_ERR_ARGUMENT, "frozen after the slabs were allocated");
    for (int i = 0; i < set->count; i++) {
        if (fnmatch(pattern, set->params[i]->name, 0) != 0) continue;
        set->params[i]->frozen = true;
        ++*matched;
    }
    return TW_OK;
}

static tw_status check_fused(const tw_params *set) {
    for (int i = 0; i < set->fused_count; i++) {
        const struct fused *f = set->fused[i];
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
        if (!p->continues) at = (at + ALIGN - 1) / ALIGN * ALIGN;
        p->offset = at;
        at += p->count;
    }
    return (at + ALIGN - 1) / ALIGN * ALIGN;
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

static void set_views(const tw_params *set, tw_param *p) {
    bool copy = set->compute_type == TW_BF16 && p->ndim >= 2;
    float *master = copy && p->frozen ? NULL : set->values + p->offset;
    p->master = tw_tensor_of(master, TW_F32, p->ndim, p->shape);
    p->value = copy ? tw_tensor_of(set->copies + p->offset, TW_BF16, p->ndim, p->shape) : p->master;
    p->grad = tw_tensor_of(set->training && !p->frozen ? set->gradients + p->offset : NULL, TW_F32, p->ndim,
                           p->shape);
}

/* The padding behind each parameter; values are for whoever sets them, and a slab of gigabytes is not to be
 * gone through twice. (Before a parameter that continues another one there is none: what is cleared there is
 * its own beginning.) */
static tw_status zero_padding(const tw_params *set) {
    tw_device *d = set->device;
    for (int i = 0; i < set->count; i++) {
        int64_t end = set->params[i]->offset + set->params[i]->count;
        size_t padding = (size_t)((end + ALIGN - 1) / ALIGN * ALIGN - end);
        if (padding == 0) continue;
        if (end < set->values_count) TRY(d->zero(d, TW_QUEUE_COMPUTE, set->values + end, padding * 4));
        if (set->copies_count) TRY(d->zero(d, TW_QUEUE_COMPUTE, set->copies + end, padding * 2));
    }
    return TW_OK;
}

tw_status tw_params_allocate(tw_params *set, tw_device *device, tw_dtype compute_type, bool training) {
    if (set->device) return FAIL(TW_ERR_ARGUMENT, "the slabs are allocated already");
    if (compute_type != TW_F32 && compute_type != TW_BF16)
        return FAIL(TW_ERR_UNSUPPORTED, "parameters of type %s", tw_dtype_name(compute_type));
    TRY(check_fused(set));
    set->compute_type = compute_type;
    set->training = training;
    /* Frozen matrices come last: in bf16 they have no f32 value, and the f32 slab ends before them. */
    set->trainable = lay_out(set, tw_param_is_trained, 0);
    int64_t moving = lay_out(set, is_moving_statistic, set->trainable);
    set->statistics = moving - set->trainable;
    int64_t vectors = lay_out(set, is_frozen_vector, moving);
    int64_t all = lay_out(set, is_frozen_matrix, vectors);
    set->values_count = compute_type == TW_F32 ? all : vectors;
    set->copies_count = compute_type == TW_BF16 ? all : 0;
    set->device = device;
    TRY(device->alloc(device, (size_t)set->values_count * 4, (void **)&set->values));
    if (set->copies_count) TRY(device->alloc(device, (size_t)set->copies_count * 2, (void **)&set->copies));
    TRY(zero_padding(set));
    if (training) {
        TRY(device->alloc(device, (size_t)moving * 4, (void **)&set->gradients));
        TRY(tw_params_zero_gradients(set));
    }
    for (int i = 0; i < set->count; i++) set_views(set, set->params[i]);
    for (int i = 0; i < set->fused_count; i++) {
        const struct fused *f = set->fused[i];
        const tw_param *first = f->of ? f->of : set->params[f->first];
        tw_param *view = &set->fused[i]->view;
        view->offset = first->offset + f->skip;
        view->frozen = first->frozen;
        set_views(set, view);
    }
    return TW_OK;
}

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

int tw_params_count(const tw_params *set) {
    return set->count;
}

tw_param *tw_params_at(const tw_params *set, int index) {
    return set->params[index];
}

tw_param *tw_params_find(const tw_params *set, const char *name) {
    for (int i = 0; i < set->count; i++)
        if (strcmp(set->params[i]->name, name) == 0) return set->params[i];
    return NULL;
}

static tw_status set_copy(tw_params *set, tw_param *param, const float *values) {
    tw_device *d = set->device;
    if (param->value.dtype == TW_BF16) {
        uint16_t *half = malloc((size_t)param->count * 2 + 2);
        if (!half) return FAIL(TW_ERR_MEMORY, "out of memory");
        for (int64_t i = 0; i < param->count; i++) half[i] = tw_to_bf16(values[i]);
        tw_status status = d->upload(d, TW_QUEUE_COMPUTE, param->value.data, half, (size_t)param->count * 2);
        if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
        free(half);
        TRY(status);
    }
    return d->sync(d, TW_QUEUE_COMPUTE);
}

tw_status tw_params_set(tw_params *set, tw_param *param, const float *values) {
    tw_device *d = set->device;
    if (param->master.data)
        TRY(d->upload(d, TW_QUEUE_COMPUTE, param->master.data, values, (size_t)param->count * 4));
    return set_copy(set, param, values);
}

float *tw_params_host(tw_params *set, const tw_param *param) {
    return set->device->kind == TW_CPU ? param->master.data : NULL;
}

tw_status tw_params_written(tw_params *set, tw_param *param) {
    return param->value.dtype == TW_BF16 ? set_copy(set, param, param->master.data) : TW_OK;
}

tw_status tw_params_get(const tw_params *set, const tw_param *param, float *values) {
    tw_device *d = set->device;
    if (param->master.data) {
        TRY(d->download(d, TW_QUEUE_COMPUTE, values, param->master.data, (size_t)param->count * 4));
        return d->sync(d, TW_QUEUE_COMPUTE);
    }
    uint16_t *half = malloc((size_t)param->count * 2 + 2);
    if (!half) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = d->download(d, TW_QUEUE_COMPUTE, half, param->value.data, (size_t)param->count * 2);
    if (status == TW_OK) status = d->sync(d, TW_QUEUE_COMPUTE);
    for (int64_t i = 0; status == TW_OK && i < param->count; i++) values[i] = tw_from_bf16(half[i]);
    free(half);
    return status;
}

int64_t tw_params_trainable(const tw_params *set) {
    return set->trainable;
}

int64_t tw_params_statistics(const tw_params *set) {
    return set->statistics;
}

float *tw_params_values(const tw_params *set) {
    return set->values;
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
    return (size_t)(set->values_count + gradients) * 4 + (size_t)set->copies_count * 2;
}
