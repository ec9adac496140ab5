#include "autograd/param_internal.h"

#include <fnmatch.h>
#include <stdlib.h>

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
        set->device->release(set->device, set->masters);
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
    free(set->pieces);
    free(set);
}

tw_status tw_params_add(tw_params *set, const char *name, int ndim, const int64_t *shape, tw_init init,
                        tw_param **out) {
    *out = NULL;
    if (set->laid_out) return FAIL(TW_ERR_ARGUMENT, "parameter %s added after the slabs were laid out", name);
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
static tw_status add_view(tw_params *set, const tw_param *like, struct tw_params_view **out) {
    struct tw_params_view *f = calloc(1, sizeof *f);
    struct tw_params_view **grown = realloc(set->fused, ((size_t)set->fused_count + 1) * sizeof *grown);
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
    if (set->laid_out) return FAIL(TW_ERR_ARGUMENT, "parameters fused after the slabs were laid out");
    TRY(check_stackable(set, n));
    struct tw_params_view *f;
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
    if (set->laid_out) return FAIL(TW_ERR_ARGUMENT, "parameters sliced after the slabs were laid out");
    if (of->ndim < 1 || first < 0 || count < 0 || first + count > of->shape[0])
        return FAIL(TW_ERR_SHAPE, "%s has no rows %lld to %lld", of->name, (long long)first,
                    (long long)(first + count));
    struct tw_params_view *f;
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
    if (set->laid_out) return FAIL(TW_ERR_ARGUMENT, "frozen after the slabs were laid out");
    for (int i = 0; i < set->count; i++) {
        if (fnmatch(pattern, set->params[i]->name, 0) != 0) continue;
        set->params[i]->frozen = true;
        ++*matched;
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
