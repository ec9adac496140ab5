/* A weight file in memory, for tests of what stands between weight files and models. Tensors are added by
 * name, type and shape; their values are a pattern of the name, so that a value in the wrong place is seen.
 */
#ifndef TW_TESTS_MEMORY_WEIGHTS_H
#define TW_TESTS_MEMORY_WEIGHTS_H

#include "train/formats/weight_convert.h"
#include "train/formats/weights.h"
#include "tw_test.h"

#include <stdarg.h>

typedef struct memory_weights {
    tw_weight *items;
    int64_t n;
} memory_weights;

/* Value i of a tensor: multiples of 1/64 in [-4, 4), exact in f16 and bf16's 8 bits are enough for [-1, 1).
 */
static inline float memory_value(const char *name, int64_t i) {
    uint32_t h = 2166136261u;
    for (const char *c = name; *c; c++) h = (h ^ (unsigned char)*c) * 16777619u;
    h = (h ^ (uint32_t)i) * 2654435761u;
    return (float)((int)(h >> 24) - 128) / 64.0f;
}

static inline void memory_add_shape(memory_weights *m, const char *name, tw_weight_type type, int ndim,
                                    const int64_t *shape) {
    m->items = realloc(m->items, (size_t)(m->n + 1) * sizeof *m->items);
    ck_assert_ptr_nonnull(m->items);
    tw_weight *t = &m->items[m->n++];
    *t = (tw_weight){.name = strdup(name), .type = type, .ndim = ndim, .count = 1};
    for (int i = 0; i < ndim; i++) t->count *= t->shape[i] = shape[i];
}

/* sides: "" for a scalar, else "3,4,5". */
static inline void memory_add(memory_weights *m, const char *name, tw_weight_type type, const char *sides) {
    int64_t shape[TW_WEIGHT_MAX_DIMS] = {0}; /* GCC 14 does not see that ndim of them are set */
    int ndim = 0;
    for (const char *at = sides; *at; at += strcspn(at, ","), at += *at == ',')
        shape[ndim++] = strtoll(at, NULL, 10);
    memory_add_shape(m, name, type, ndim, shape);
}

static inline tw_weight *memory_find(memory_weights *m, const char *name) {
    for (int64_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].name, name) == 0) return &m->items[i];
    ck_abort_msg("no tensor %s", name);
    return NULL;
}

static inline void memory_remove(memory_weights *m, const char *name) {
    tw_weight *t = memory_find(m, name);
    free((char *)t->name);
    memmove(t, t + 1, (size_t)(m->items + --m->n - t) * sizeof *t);
}

static inline void memory_rename(memory_weights *m, const char *name, const char *to) {
    tw_weight *t = memory_find(m, name);
    char *copy = strdup(to);
    free((char *)t->name);
    t->name = copy;
}

static inline void memory_free(memory_weights *m) {
    for (int64_t i = 0; i < m->n; i++) free((char *)m->items[i].name);
    free(m->items);
    *m = (memory_weights){0};
}

static tw_status memory_read(void *self, int64_t i, void *dst) {
    const memory_weights *m = self;
    const tw_weight *t = &m->items[i];
    float *values = malloc((size_t)t->count * 4 + 4);
    ck_assert_ptr_nonnull(values);
    for (int64_t k = 0; k < t->count; k++) values[k] = memory_value(t->name, k);
    tw_status status = TW_OK;
    if (t->type == TW_WEIGHT_I64)
        for (int64_t k = 0; k < t->count; k++) ((int64_t *)dst)[k] = (int64_t)(64 * values[k]);
    else
        status = tw_weight_from_f32(t->type, values, dst, t->count);
    free(values);
    return status;
}

static void memory_close(void *self) {
    memory_free(self);
    free(self);
}

/* Moves the tensors into an open weight file "memory.pt"; m is empty then. */
static inline tw_weights *memory_open(memory_weights *m) {
    static const tw_weights_source source = {.read = memory_read, .close = memory_close};
    memory_weights *own = malloc(sizeof *own);
    ck_assert_ptr_nonnull(own);
    *own = *m;
    *m = (memory_weights){0};
    tw_weights *w = NULL;
    tw_weights_note about = {.kind = "memory", .epoch = -1, .step = -1};
    TW_ASSERT_OK(tw_weights_create("memory.pt", &about, own->items, own->n, &source, own, &w));
    return w;
}

#endif
