/* Steps of a small model, for tests of what a step gives on several ranks and in micro-batches: how a run is
 * done, its model and data, what it gives, and the comparison of two. Any device. */
#ifndef TW_TESTS_STEP_CASE_H
#define TW_TESTS_STEP_CASE_H

#include "autograd/random.h"
#include "layers/dual_encoder.h"
#include "test_device.h"
#include "train/step.h"
#include "tw_test.h"

#include <math.h>

enum { PAIRS = 64, RESOLUTION = 32, CONTEXT = 12, STEPS = 20, PIXELS = RESOLUTION * RESOLUTION * 3 };
enum { RANKS_MOST = 16 };

/* How a run is done. */
typedef struct setup {
    tw_image_tower_kind kind;
    tw_dtype type;
    tw_recompute recompute;
    int pairs; /* of all ranks a step; 0: PAIRS */
    int ranks, micro, steps;
    const int64_t *counts; /* of each rank; NULL: even */
    const char *freeze;
    float dropout;
    double mask;
    double lr;
    bool sync;                          /* batch norm by the statistics of all ranks */
    bool small;                         /* half the model, for where kernels take long */
    bool unused;                        /* the model has a trained parameter that no tape reads */
    bool whole;                         /* without a partition */
    bool whole_last_block, padded_text; /* without what tw_dual_encoder_save saves */
} setup;

static inline int64_t pairs_of(const setup *s) {
    return s->pairs ? s->pairs : PAIRS;
}

/* What it gives. */
typedef struct outcome {
    const setup *how;
    tw_device *device;
    uint8_t *pixels;
    int32_t *ids, *lengths;
    int n_params;
    int64_t elements;
    tw_segment *params; /* offset and count of each trained one and each statistic that moves */
    float *gradients;   /* of the first step, collected from the ranks' pieces; (elements) */
    double loss[STEPS];
    double accuracy[2];
    int early[RANKS_MOST]; /* buckets that left while the first weight's gradient was still zero */
} outcome;

static inline tw_model_config config_of(const setup *s) {
    tw_model_config c = {.name = "tiny", .embed = 16, .context = CONTEXT};
    c.image = (tw_image_config){.kind = s->kind,
                                .resolution = RESOLUTION,
                                .width = 32,
                                .heads = 2,
                                .patch = 8,
                                .layers = 2,
                                .mask_ratio = s->mask};
    if (s->kind == TW_RESNET) {
        c.image.width = 8, c.image.heads = 4, c.image.patch = c.image.layers = 0;
        for (int i = 0; i < TW_RESNET_STAGES; i++) c.image.stages[i] = 1;
    }
    for (int i = 0; i < 3; i++) c.image.pixel_mean[i] = 0.5f, c.image.pixel_std[i] = 0.25f;
    c.text = (tw_bert_config){.vocabulary = 50,
                              .positions = 16,
                              .types = 2,
                              .hidden = 32,
                              .layers = 2,
                              .heads = 2,
                              .intermediate = 64,
                              .hidden_dropout = s->dropout,
                              .attention_dropout = s->dropout};
    if (!s->small) return c;
    c.image.width /= 2, c.image.layers /= 2, c.image.patch *= 2;
    c.text.hidden /= 2, c.text.intermediate /= 2, c.text.layers /= 2;
    return c;
}

/* Random values everywhere, also where training starts with zeros: a gain of 0 would hide what is below it.
 */
static inline void initialise(tw_params *params) {
    TW_ASSERT_OK(tw_params_initialise(params, 5));
    for (int i = 0; i < tw_params_count(params); i++) {
        tw_param *p = tw_params_at(params, i);
        if (p->init.kind != TW_INIT_CONSTANT || strcmp(p->name, "logit_scale") == 0) continue;
        float *v = malloc((size_t)p->count * sizeof *v);
        tw_draw draw = {.seed = 5, .purpose = TW_DRAW_TEST, .layer = (uint32_t)i};
        tw_random_uniform(&draw, p->init.a - 0.2f, p->init.a + 0.2f, v, p->count);
        if (strstr(p->name, "bn3.weight"))
            for (int64_t k = 0; k < p->count; k++) v[k] += 0.5f;
        TW_ASSERT_OK(tw_params_set(params, p, v));
        free(v);
    }
}

static inline tw_dual_encoder *make_model(const setup *s, tw_device *on) {
    tw_model_config config = config_of(s);
    tw_dual_encoder *m;
    tw_param *unused;
    int matched = 1;
    TW_ASSERT_OK(tw_dual_encoder_create(&config, &m));
    tw_dual_encoder_save(m, !s->whole_last_block, !s->padded_text);
    if (s->unused)
        TW_ASSERT_OK(tw_params_add(m->params, "unused.weight", 2, (int64_t[]){70, 90},
                                   (tw_init){TW_INIT_NORMAL, 1}, &unused));
    if (s->freeze) TW_ASSERT_OK(tw_params_freeze(m->params, s->freeze, &matched));
    ck_assert_int_gt(matched, 0);
    TW_ASSERT_OK(tw_dual_encoder_allocate(m, on, s->type, true));
    initialise(m->params);
    return m;
}

static inline void describe(outcome *o, const tw_dual_encoder *m) {
    tw_params *set = m->params;
    o->elements = tw_params_trainable(set) + tw_params_statistics(set);
    o->gradients = malloc((size_t)o->elements * sizeof *o->gradients);
    for (int64_t i = 0; i < o->elements; i++) o->gradients[i] = NAN;
    o->params = calloc((size_t)tw_params_count(set), sizeof *o->params);
    for (int i = 0; i < tw_params_count(set); i++) {
        const tw_param *p = tw_params_at(set, i);
        if (!p->frozen) o->params[o->n_params++] = (tw_segment){.offset = p->offset, .count = p->count};
    }
}

/* A rank's pieces of the gradient slab; the statistics' from rank 0. */
static inline void collect(outcome *o, tw_device *d, const tw_dual_encoder *m, const tw_partition *p,
                           int rank) {
    float *g = tw_test_take(d, tw_params_gradients(m->params), (size_t)o->elements * sizeof *g);
    int64_t trainable = tw_params_trainable(m->params);
    for (int i = 0; p && i < p->count; i++) {
        const tw_bucket *b = &p->buckets[i];
        memcpy(o->gradients + b->own, g + b->own, (size_t)b->own_count * sizeof *g);
    }
    if (rank == 0 && !p) memcpy(o->gradients, g, (size_t)trainable * sizeof *g);
    if (rank == 0)
        memcpy(o->gradients + trainable, g + trainable, (size_t)(o->elements - trainable) * sizeof *g);
    free(g);
}

static inline tw_samples samples_of(const outcome *o, const tw_comm *c, int step) {
    int64_t first = 0, size = 0, pairs = pairs_of(o->how);
    for (int r = 0; r <= c->rank; r++) {
        first += size;
        size = o->how->counts ? o->how->counts[r] : pairs / c->ranks + (r < pairs % c->ranks);
    }
    first += (int64_t)step * pairs;
    return (tw_samples){size, o->pixels + first * PIXELS, o->ids + first * CONTEXT, o->lengths + first};
}

/* order: of each step's samples; NULL: as they come. */
static inline void make_batches(outcome *o, int steps, const int *order) {
    int64_t n = (int64_t)steps * pairs_of(o->how);
    o->pixels = malloc((size_t)(n * PIXELS));
    o->ids = calloc((size_t)(n * CONTEXT), sizeof *o->ids);
    o->lengths = malloc((size_t)n * sizeof *o->lengths);
    for (int64_t i = 0; i < n; i++) {
        int64_t pairs = pairs_of(o->how), sample = order ? i / pairs * pairs + order[i % pairs] : i;
        tw_draw draw = {.seed = 2, .purpose = TW_DRAW_TEST, .sample = (uint32_t)sample};
        for (uint32_t k = 0; k < PIXELS; k++)
            o->pixels[i * PIXELS + k] = (uint8_t)(tw_random_u32(&draw, k) >> 24);
        draw.layer = 1;
        o->lengths[i] = 3 + (int32_t)(tw_random_u32(&draw, 0) % (CONTEXT - 2));
        for (int32_t t = 0; t < o->lengths[i]; t++)
            o->ids[i * CONTEXT + t] = 1 + (int32_t)(tw_random_u32(&draw, 1 + (uint32_t)t) % 49);
    }
}

static inline void release(outcome *o) {
    free(o->gradients);
    free(o->params);
    free(o->pixels), free(o->ids), free(o->lengths);
}

static inline double norm_of(const float *a, const float *b, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += pow((double)a[i] - (b ? (double)b[i] : 0), 2);
    return sqrt(s);
}

/* DESIGN's measure; NaN, an element that no rank has, never passes. */
static inline void compare(const outcome *a, const outcome *b, double loss, double gradient) {
    const setup *s = b->how;
    char what[64];
    snprintf(what, sizeof what, "%d ranks, micro-batch %d, recompute %d", s->ranks, s->micro, s->recompute);
    ck_assert_msg(fabs(a->loss[0] - b->loss[0]) <= loss * a->loss[0], "%s: loss %.10g, not %.10g", what,
                  b->loss[0], a->loss[0]);
    ck_assert_int_eq(a->n_params, b->n_params);
    double all = norm_of(a->gradients, NULL, a->elements);
    ck_assert(all > 0.01 && isfinite(all));
    for (int i = 0; i < a->n_params; i++) {
        const tw_segment *p = &a->params[i];
        double d = norm_of(b->gradients + p->offset, a->gradients + p->offset, p->count);
        double size = norm_of(a->gradients + p->offset, NULL, p->count);
        ck_assert_msg(d <= gradient * size + gradient * 1e-2 * all,
                      "%s: the gradient at %lld (%lld elements) is %g away from %g (all %g)", what,
                      (long long)p->offset, (long long)p->count, d, size, all);
    }
}

#endif
