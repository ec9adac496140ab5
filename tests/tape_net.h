/* The graph of the tape's tests: a stack of transformer layers over an input that wants its gradient.
 * Embedding by a product, `depth` blocks (attention; MLP; post-norm with dropout), the same product again
 * with a second input as residual; first token, unit length. */
#ifndef TW_TESTS_TAPE_NET_H
#define TW_TESTS_TAPE_NET_H

#include "autograd/random.h"
#include "autograd/tape_internal.h"
#include "layers/linear.h"
#include "tw_test.h"

#include <math.h>

enum { B = 3, T = 5, D = 8, HEADS = 2, HIDDEN = 20, MOST_LAYERS = 16 };

typedef struct layer {
    tw_linear qkv, out, fc, proj;
    tw_norm norm_1, norm_2, norm_3;
} layer;

typedef struct net {
    tw_device *device;
    tw_params *params;
    int depth;
    tw_linear embed;
    layer layers[MOST_LAYERS];
    tw_tape *tape;
    tw_arena arena;
    tw_tensor *x, *late, *middle, *y;
    tw_step step;
} net;

typedef struct options {
    int depth;
    tw_recompute recompute;
    bool inference;
    const char *freeze;
    bool middle_root; /* the value before the last layer is a root too */
} options;

static inline void init_layer(tw_params *p, layer *l, int i) {
    const tw_init w = {TW_INIT_NORMAL, 0.4f}, b = {TW_INIT_UNIFORM, 0.2f};
    char name[64];
#define NAMED(what) (snprintf(name, sizeof name, "layers.%d." what, i), name)
    TW_ASSERT_OK(tw_linear_init(&l->qkv, p, NAMED("qkv"), D, 3 * D, w, b));
    TW_ASSERT_OK(tw_linear_init(&l->out, p, NAMED("out"), D, D, w, b));
    TW_ASSERT_OK(tw_linear_init(&l->fc, p, NAMED("fc"), D, HIDDEN, w, b));
    TW_ASSERT_OK(tw_linear_init(&l->proj, p, NAMED("proj"), HIDDEN, D, w, b));
    TW_ASSERT_OK(tw_norm_init(&l->norm_1, p, NAMED("norm_1"), D, 1e-5f));
    TW_ASSERT_OK(tw_norm_init(&l->norm_2, p, NAMED("norm_2"), D, 1e-5f));
    TW_ASSERT_OK(tw_norm_init(&l->norm_3, p, NAMED("norm_3"), D, 1e-5f));
#undef NAMED
}

static inline tw_tensor *run_layer(tw_tape *tape, const layer *l, tw_tensor *x, uint32_t id) {
    const tw_attention_attr attention = {.heads = HEADS, .dropout = 0.1f, .layer = 2 * id};
    tw_tape_block_begin(tape);
    tw_tensor *qkv =
        tw_linear_forward(tape, &l->qkv, tw_norm_forward(tape, &l->norm_1, x), TW_IDENTITY, NULL);
    tw_tensor *a = tw_tape_record(tape, TW_OP_attention, &attention, 1, &qkv);
    a = tw_linear_forward(tape, &l->out, a, TW_IDENTITY, x);
    tw_tensor *h = tw_linear_forward(tape, &l->fc, tw_norm_forward(tape, &l->norm_2, a), TW_ERF_GELU, NULL);
    h = tw_linear_forward(tape, &l->proj, h, TW_IDENTITY, NULL);
    x = tw_add_norm_forward(tape, &l->norm_3, a, h, 0.2f, 2 * id + 1, NULL, 0);
    tw_tape_block_end(tape);
    return x;
}

static inline void build(net *n, options o) {
    const int64_t shape[] = {B, T, D};
    int matched = 0;
    *n = (net){.depth = o.depth, .step = {.seed = 11, .step = 3, .sample = 100}};
    TW_ASSERT_OK(tw_device_cpu(2, &n->device));
    TW_ASSERT_OK(tw_params_create(&n->params));
    TW_ASSERT_OK(tw_linear_init(&n->embed, n->params, "embed", D, D, (tw_init){TW_INIT_NORMAL, 0.4f},
                                (tw_init){TW_INIT_CONSTANT, 0.1f}));
    for (int i = 0; i < o.depth; i++) init_layer(n->params, &n->layers[i], i);
    if (o.freeze) TW_ASSERT_OK(tw_params_freeze(n->params, o.freeze, &matched));
    ck_assert(!o.freeze || matched > 0);
    TW_ASSERT_OK(tw_params_allocate(n->params, n->device, TW_F32, !o.inference));
    TW_ASSERT_OK(tw_params_initialise(n->params, 4));
    TW_ASSERT_OK(tw_tape_create(n->device, !o.inference, o.recompute, &n->tape));
    n->x = tw_tape_input(n->tape, TW_F32, 3, shape, true);
    n->late = tw_tape_input(n->tape, TW_F32, 3, shape, true);
    tw_tensor *x = tw_linear_forward(n->tape, &n->embed, n->x, TW_IDENTITY, NULL);
    for (int i = 0; i < o.depth; i++) {
        n->middle = x;
        x = run_layer(n->tape, &n->layers[i], x, (uint32_t)i);
    }
    x = tw_linear_forward(n->tape, &n->embed, x, TW_IDENTITY, n->late);
    x = tw_tape_record(n->tape, TW_OP_take_token, NULL, 1, &x);
    n->y = tw_tape_record(n->tape, TW_OP_l2_normalise, NULL, 1, &x);
    tw_tensor *roots[] = {n->y, n->middle};
    TW_ASSERT_OK(tw_tape_finish(n->tape, o.middle_root ? 2 : 1, roots));
    n->arena.device = n->device;
}

static inline void bind(net *n) {
    TW_ASSERT_OK(tw_arena_reserve(&n->arena, tw_tape_bytes(n->tape)));
    memset(n->arena.base, 0xff, n->arena.bytes); /* NaN: nothing may be read before it is written */
    TW_ASSERT_OK(tw_tape_bind(n->tape, &n->arena));
}

static inline void drop(net *n) {
    tw_arena_release(&n->arena);
    tw_tape_free(n->tape);
    tw_params_free(n->params);
    tw_device_free(n->device);
}

static inline void draw(uint32_t id, float *out, int64_t count) {
    tw_random_uniform(&(tw_draw){.seed = 8, .purpose = TW_DRAW_TEST, .layer = id}, -1, 1, out, count);
}

static inline void fill_gradient(net *n, tw_tensor *root, uint32_t id, float scale) {
    tw_tensor g = tw_tape_gradient(n->tape, root);
    ck_assert_ptr_nonnull(g.data);
    draw(id, g.data, tw_tensor_count(root));
    for (int64_t i = 0; i < tw_tensor_count(root); i++) ((float *)g.data)[i] *= scale;
}

typedef struct result {
    float y[B * D], dx[B * T * D], dlate[B * T * D];
    float *gradients; /* the trainable slab */
    int64_t count;
} result;

static inline void forward(net *n, result *r) {
    float x[B * T * D];
    draw(1, x, B * T * D);
    TW_ASSERT_OK(tw_tape_upload(n->tape, n->x, x));
    draw(4, x, B * T * D);
    TW_ASSERT_OK(tw_tape_upload(n->tape, n->late, x));
    TW_ASSERT_OK(tw_tape_forward(n->tape, &n->step));
    TW_ASSERT_OK(tw_tape_download(n->tape, n->y, r->y));
}

/* One whole step. Weights of the roots' gradients: y's, and middle's if that is a root. */
static inline void run(net *n, result *r, float of_y, float of_middle, tw_gradient_hook hook, void *context) {
    forward(n, r);
    TW_ASSERT_OK(tw_params_zero_gradients(n->params));
    fill_gradient(n, n->y, 2, of_y);
    if (n->tape->values[n->middle->value]->is_root) fill_gradient(n, n->middle, 3, of_middle);
    TW_ASSERT_OK(tw_tape_backward(n->tape, &n->step, hook, context));
    tw_tensor dx = tw_tape_gradient(n->tape, n->x);
    TW_ASSERT_OK(tw_tape_download(n->tape, &dx, r->dx));
    /* Written early in backward, and kept for the caller all the same. */
    dx = tw_tape_gradient(n->tape, n->late);
    TW_ASSERT_OK(tw_tape_download(n->tape, &dx, r->dlate));
    r->count = tw_params_trainable(n->params);
    r->gradients = malloc((size_t)r->count * 4 + 4);
    memcpy(r->gradients, tw_params_gradients(n->params), (size_t)r->count * 4);
}

static inline void ck_same(const result *a, const result *b) {
    ck_assert_mem_eq(a->y, b->y, sizeof a->y);
    ck_assert_mem_eq(a->dx, b->dx, sizeof a->dx);
    ck_assert_mem_eq(a->dlate, b->dlate, sizeof a->dlate);
    ck_assert_int_eq(a->count, b->count);
    ck_assert_mem_eq(a->gradients, b->gradients, (size_t)a->count * 4);
}

static inline double length(const float *v, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)v[i] * (double)v[i];
    return sqrt(s);
}

#endif
