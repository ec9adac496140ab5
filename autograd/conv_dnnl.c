#include "autograd/conv_dnnl.h"

#include "autograd/dnnl_desc.h"

static tw_status ok(dnnl_status_t status, const char *what) {
    if (status == dnnl_success) return TW_OK;
    return FAIL(TW_ERR_LIBRARY, "oneDNN failed to %s a convolution, code %d", what, (int)status);
}

typedef enum conv_way { FORWARD, BACKWARD_X, BACKWARD_W } conv_way;

typedef struct key {
    tw_conv conv;
    conv_way way;
    dnnl_data_type_t result;
} key;

/* x, weights or y: in the caller's order and, if the primitive wants another one, in that too, with the
 * reorder between them. Memory objects hold no data of their own; each call sets their handles. */
typedef struct operand {
    dnnl_memory_t outer, inner; /* inner NULL: the same as outer */
    dnnl_primitive_t reorder;
    size_t bytes; /* of inner, rounded to cache lines */
} operand;

enum { X, W, Y, OPERANDS };

typedef struct plan {
    key key;
    dnnl_primitive_t conv;
    operand operand[OPERANDS];
    dnnl_memory_t pad; /* the primitive's own scratch, or NULL */
    size_t pad_bytes;
    char name[64];
} plan;

/* Everything is the calling thread's own: primitives with their memory objects may not run twice at once. */
enum { CACHED = 128 };
static _Thread_local plan *cache; /* [CACHED] */
static _Thread_local int next;
static _Thread_local dnnl_engine_t engine;
static _Thread_local dnnl_stream_t stream;
static _Thread_local char *scratch;
static _Thread_local size_t scratch_size;

static void plan_free(plan *p) {
    for (int i = 0; i < OPERANDS; i++) {
        operand *o = &p->operand[i];
        if (o->outer) dnnl_memory_destroy(o->outer);
        if (o->inner) dnnl_memory_destroy(o->inner);
        if (o->reorder) dnnl_primitive_destroy(o->reorder);
    }
    if (p->pad) dnnl_memory_destroy(p->pad);
    if (p->conv) dnnl_primitive_destroy(p->conv);
    *p = (plan){0};
}

/* ---- what differs between oneDNN 2 and 3 ---- */

#if DNNL_VERSION_MAJOR >= 3
#define DESC_MAKE dnnl_memory_desc_create_with_tag
#else
#define DESC_MAKE dnnl_memory_desc_init_by_tag
#endif

/* What is only needed while a plan is made: how the operands lie in memory, and how the primitive may want
 * them. A forward convolution has all of them in x's type, also as a hint for a gradient of another one. */
typedef struct parts {
    desc outer[OPERANDS], wanted[OPERANDS], forward[OPERANDS];
    int made; /* descriptions: outer, wanted and forward in turn */
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t hint, pd, reorder[OPERANDS];
} parts;

typedef struct extent {
    dnnl_dims_t strides, dilates, padding;
} extent;

#if DNNL_VERSION_MAJOR >= 3
static dnnl_status_t describe(const parts *q, const extent *e, conv_way way, dnnl_primitive_desc_t *out) {
    const desc *d = way == FORWARD ? q->forward : q->wanted;
    if (way == FORWARD)
        return dnnl_convolution_forward_primitive_desc_create(
            out, engine, dnnl_forward_training, dnnl_convolution_direct, d[X], d[W], NULL, d[Y], e->strides,
            e->dilates, e->padding, e->padding, q->attr);
    if (way == BACKWARD_X)
        return dnnl_convolution_backward_data_primitive_desc_create(out, engine, dnnl_convolution_direct,
                                                                    d[X], d[W], d[Y], e->strides, e->dilates,
                                                                    e->padding, e->padding, q->hint, q->attr);
    return dnnl_convolution_backward_weights_primitive_desc_create(out, engine, dnnl_convolution_direct, d[X],
                                                                   d[W], NULL, d[Y], e->strides, e->dilates,
                                                                   e->padding, e->padding, q->hint, q->attr);
}
#else
static dnnl_status_t describe(const parts *q, const extent *e, conv_way way, dnnl_primitive_desc_t *out) {
    const desc *d = way == FORWARD ? q->forward : q->wanted;
    dnnl_convolution_desc_t conv;
    dnnl_status_t status;
    if (way == FORWARD)
        status =
            dnnl_convolution_forward_desc_init(&conv, dnnl_forward_training, dnnl_convolution_direct, &d[X],
                                               &d[W], NULL, &d[Y], e->strides, e->padding, e->padding);
    else if (way == BACKWARD_X)
        status = dnnl_convolution_backward_data_desc_init(&conv, dnnl_convolution_direct, &d[X], &d[W], &d[Y],
                                                          e->strides, e->padding, e->padding);
    else
        status = dnnl_convolution_backward_weights_desc_init(&conv, dnnl_convolution_direct, &d[X], &d[W],
                                                             NULL, &d[Y], e->strides, e->padding, e->padding);
    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(out, &conv, q->attr, engine, q->hint);
}
#endif

/* ---- */

static tw_status describe_operands(parts *q, const key *k) {
    static const int results[] = {[FORWARD] = Y, [BACKWARD_X] = X, [BACKWARD_W] = W};
    const tw_conv *c = &k->conv;
    dnnl_data_type_t type = c->dtype == TW_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t x = {c->batch, c->in, c->height, c->width}, w = {c->out, c->in, c->kernel, c->kernel};
    dnnl_dims_t y = {c->batch, c->out, tw_conv_side(c, c->height), tw_conv_side(c, c->width)};
    dnnl_dim_t *dims[OPERANDS] = {x, w, y};
    for (int i = 0; i < OPERANDS; i++) {
        dnnl_data_type_t t = i == results[k->way] ? k->result : type;
        dnnl_format_tag_t outer = i == W ? dnnl_oihw : dnnl_nhwc,
                          wanted = i == W || k->way == BACKWARD_W ? dnnl_format_tag_any : outer;
        desc *made[] = {&q->outer[i], &q->wanted[i], &q->forward[i]};
        for (int j = 0; j < 3; j++, q->made++)
            TRY(ok(DESC_MAKE(made[j], 4, dims[i], j == 2 ? type : t, j == 0 ? outer : wanted), "describe"));
    }
    return TW_OK;
}

static tw_status make_memory(dnnl_memory_t *out, desc_ref d) {
    return ok(dnnl_memory_create(out, d, engine, DNNL_MEMORY_NONE), "create memory for");
}

static tw_status make_operand(plan *p, parts *q, int i) {
    static const dnnl_query_t queries[3][OPERANDS] = {
        [FORWARD] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md},
        [BACKWARD_X] = {dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md},
        [BACKWARD_W] = {dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_diff_dst_md}};
    operand *o = &p->operand[i];
    desc_ref inner = dnnl_primitive_desc_query_md(q->pd, queries[p->key.way][i], 0), outer = REF(q->outer[i]);
    if (!inner) return FAIL(TW_ERR_LIBRARY, "oneDNN does not say how a convolution wants its operands");
    TRY(make_memory(&o->outer, outer));
    if (dnnl_memory_desc_equal(inner, outer)) return TW_OK;
    bool result = p->key.way == BACKWARD_W && i == W;
    o->bytes = (dnnl_memory_desc_get_size(inner) + 63) / 64 * 64;
    TRY(make_memory(&o->inner, inner));
    TRY(ok(dnnl_reorder_primitive_desc_create(&q->reorder[i], result ? inner : outer, engine,
                                              result ? outer : inner, engine, NULL),
           "reorder an operand of"));
    return ok(dnnl_primitive_create(&o->reorder, q->reorder[i]), "reorder an operand of");
}

static tw_status make_parts(plan *p, parts *q) {
    const tw_conv *c = &p->key.conv;
    extent e = {.strides = {c->stride, c->stride}, .padding = {c->padding, c->padding}};
    TRY(describe_operands(q, &p->key));
    TRY(ok(dnnl_primitive_attr_create(&q->attr), "describe"));
    TRY(ok(dnnl_primitive_attr_set_scratchpad_mode(q->attr, dnnl_scratchpad_mode_user), "describe"));
    if (p->key.way != FORWARD) TRY(ok(describe(q, &e, FORWARD, &q->hint), "plan"));
    TRY(ok(describe(q, &e, p->key.way, &q->pd), "plan"));
    TRY(ok(dnnl_primitive_create(&p->conv, q->pd), "create"));
    const char *name = NULL;
    if (dnnl_primitive_desc_query(q->pd, dnnl_query_impl_info_str, 0, (void *)&name) == dnnl_success && name)
        for (size_t i = 0; i + 1 < sizeof p->name && name[i]; i++) p->name[i] = name[i];
    for (int i = 0; i < OPERANDS; i++) TRY(make_operand(p, q, i));
    desc_ref pad = dnnl_primitive_desc_query_md(q->pd, dnnl_query_scratchpad_md, 0);
    p->pad_bytes = pad ? dnnl_memory_desc_get_size(pad) : 0;
    return p->pad_bytes ? make_memory(&p->pad, pad) : TW_OK;
}

static tw_status plan_make(plan *p, const key *k) {
    parts q = {0};
    p->key = *k;
    tw_status status = make_parts(p, &q);
    if (q.pd) dnnl_primitive_desc_destroy(q.pd);
    if (q.hint) dnnl_primitive_desc_destroy(q.hint);
    if (q.attr) dnnl_primitive_attr_destroy(q.attr);
    for (int i = 0; i < OPERANDS; i++)
        if (q.reorder[i]) dnnl_primitive_desc_destroy(q.reorder[i]);
    for (int i = 0; i < q.made; i++)
        desc_free((i % 3 == 0 ? q.outer : i % 3 == 1 ? q.wanted : q.forward)[i / 3]);
    if (status != TW_OK) plan_free(p);
    return status;
}

static bool same(const key *a, const key *b) {
    const tw_conv *x = &a->conv, *y = &b->conv;
    return a->way == b->way && a->result == b->result && x->batch == y->batch && x->height == y->height &&
           x->width == y->width && x->in == y->in && x->out == y->out && x->kernel == y->kernel &&
           x->stride == y->stride && x->padding == y->padding && x->dtype == y->dtype;
}

static tw_status plan_find(const tw_conv *c, conv_way way, tw_dtype result, plan **out) {
    key k = {*c, way, result == TW_BF16 ? dnnl_bf16 : dnnl_f32};
    if (!engine) TRY(ok(dnnl_engine_create(&engine, dnnl_cpu, 0), "start for"));
    if (!stream) TRY(ok(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "start for"));
    if (!cache) cache = calloc(CACHED, sizeof *cache);
    if (!cache) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int i = 0; i < CACHED; i++)
        if (cache[i].conv && same(&cache[i].key, &k)) {
            *out = &cache[i];
            return TW_OK;
        }
    *out = &cache[next];
    next = (next + 1) % CACHED;
    plan_free(*out);
    return plan_make(*out, &k);
}

static tw_status set(dnnl_memory_t memory, const void *data) {
    return ok(dnnl_memory_set_data_handle(memory, (void *)(uintptr_t)data), "set a handle of");
}

static tw_status reorder(const operand *o, bool result) {
    if (!o->reorder) return TW_OK;
    dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, result ? o->inner : o->outer},
                               {DNNL_ARG_TO, result ? o->outer : o->inner}};
    return ok(dnnl_primitive_execute(o->reorder, stream, 2, args), "reorder an operand of");
}

static size_t plan_bytes(const plan *p) {
    size_t bytes = p->pad_bytes;
    for (int i = 0; i < OPERANDS; i++) bytes += p->operand[i].bytes;
    return bytes;
}

/* data: x, weights and y, of which one is the result. Uses the first plan_bytes of scratch. */
static tw_status run(const plan *p, const void *const data[OPERANDS]) {
    static const int names[3][OPERANDS] = {
        [FORWARD] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
        [BACKWARD_X] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
        [BACKWARD_W] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST}};
    char *at = scratch;
    bool to_weights = p->key.way == BACKWARD_W;
    dnnl_exec_arg_t args[OPERANDS + 1];
    for (int i = 0; i < OPERANDS; i++) {
        const operand *o = &p->operand[i];
        TRY(set(o->outer, data[i]));
        if (o->inner) TRY(set(o->inner, at));
        at += o->bytes;
        if (!(to_weights && i == W)) TRY(reorder(o, false));
        args[i] = (dnnl_exec_arg_t){names[p->key.way][i], o->inner ? o->inner : o->outer};
    }
    if (p->pad) TRY(set(p->pad, at));
    args[OPERANDS] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, p->pad};
    TRY(ok(dnnl_primitive_execute(p->conv, stream, p->pad ? OPERANDS + 1 : OPERANDS, args), "run"));
    if (to_weights) TRY(reorder(&p->operand[W], true));
    return ok(dnnl_stream_wait(stream), "run");
}

tw_status tw_conv_forward(const tw_conv *c, const void *x, const void *w, void *y) {
    plan *p = NULL;
    TRY(plan_find(c, FORWARD, c->dtype, &p));
    TRY(grow_scratch(&scratch, &scratch_size, plan_bytes(p), "convolution"));
    return run(p, (const void *[]){x, w, y});
}

tw_status tw_conv_backward_x(const tw_conv *c, const void *dy, const void *w, tw_dtype type, void *dx) {
    plan *p = NULL;
    TRY(plan_find(c, BACKWARD_X, type, &p));
    TRY(grow_scratch(&scratch, &scratch_size, plan_bytes(p), "convolution"));
    return run(p, (const void *[]){dx, w, dy});
}

static tw_status add_weights(const plan *p, const void *x, const void *dy, int64_t n, bool add, float *dw) {
    size_t used = plan_bytes(p);
    TRY(grow_scratch(&scratch, &scratch_size, used + (size_t)n * sizeof *dw, "convolution"));
    if (!add) return run(p, (const void *[]){x, dw, dy});
    float *part = (float *)(void *)(scratch + used);
    TRY(run(p, (const void *[]){x, part, dy}));
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) dw[i] += part[i];
    return TW_OK;
}

tw_status tw_conv_backward_w(const tw_conv *c, const void *x, const void *dy, bool add, float *dw) {
    enum { BYTES = 16 << 20 };
    int64_t nx = c->height * c->width * c->in,
            ny = tw_conv_side(c, c->height) * tw_conv_side(c, c->width) * c->out;
    int64_t element = (int64_t)tw_dtype_size(c->dtype), images = BYTES / ((nx + ny) * element);
    if (images < 1) images = 1;
    for (int64_t at = 0; at < c->batch; at += images) {
        tw_conv part = *c;
        part.batch = c->batch - at < images ? c->batch - at : images;
        plan *p = NULL;
        TRY(plan_find(&part, BACKWARD_W, TW_F32, &p));
        TRY(add_weights(p, (const char *)x + at * nx * element, (const char *)dy + at * ny * element,
                        c->out * c->in * c->kernel * c->kernel, add || at > 0, dw));
    }
    return TW_OK;
}

const char *tw_conv_implementation(const tw_conv *c, int direction) {
    static const conv_way ways[] = {FORWARD, BACKWARD_X, BACKWARD_W};
    plan *p = NULL;
    conv_way way = ways[direction];
    return plan_find(c, way, way == BACKWARD_W ? TW_F32 : c->dtype, &p) == TW_OK ? p->name : "";
}

void tw_conv_release(void) {
    for (int i = 0; cache && i < CACHED; i++) plan_free(&cache[i]);
    free(cache);
    free(scratch);
    if (stream) dnnl_stream_destroy(stream);
    if (engine) dnnl_engine_destroy(engine);
    cache = NULL, scratch = NULL, stream = NULL, engine = NULL;
    scratch_size = 0, next = 0;
}
