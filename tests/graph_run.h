/* One forward and one backward of an operation that may run as a graph, for tests/test_model_graphs.c: its
 * tensors in device memory, filled by numbers that depend on the case alone, and the results in f32. */
#ifndef TW_TESTS_GRAPH_RUN_H
#define TW_TESTS_GRAPH_RUN_H

#include "autograd/op.h"
#include "autograd/random.h"
#include "test_device.h"
#include "tw_test.h"

#include <math.h>

enum { MOST_MEMORY = 64, RESULTS = 1 + TW_MAX_INPUTS };

typedef struct graph_case {
    char name[128];
    tw_op op;
    union {
        tw_attention_attr attention;
        tw_conv2d_attr conv;
        tw_batch_norm_attr norm;
        tw_avg_pool_attr pool;
        tw_linear_attr linear;
    } attr;
    tw_tensor input[TW_MAX_INPUTS]; /* without memory */
    float low[TW_MAX_INPUTS], high[TW_MAX_INPUTS];
    int n_inputs;
    unsigned gradients; /* bit i: of input i; 0: no backward */
    int graphs;         /* that a forward and a backward run */
    bool needed;        /* own kernels are no match for them */
    bool spoilt;        /* the first element of input 0 is NaN */
    bool one_hot;       /* attention: token t's v, and its result's gradient, are 1 in column t of each head
                           and 0 beside: the result is the matrix of probabilities */
} graph_case;

/* Device memory of a run, and what came out. */
typedef struct graph_run {
    tw_device *device;
    void *memory[MOST_MEMORY];
    int taken;
    float *first;           /* input 0 */
    float *result[RESULTS]; /* y, then gradients; NULL: none */
    int64_t count[RESULTS];
} graph_run;

/* ---- texts ---- */

static inline bool graph_is_packed(const graph_case *c) {
    return c->op == TW_OP_attention && c->input[2].ndim > 0;
}

static inline int64_t graph_tokens(const graph_case *c) {
    return graph_is_packed(c) ? c->attr.attention.tokens : c->input[0].shape[1];
}

/* Tokens of sample b: from 1 to the most. */
static inline int64_t graph_length(const graph_case *c, int64_t b) {
    return 1 + (11 + 37 * b) % graph_tokens(c);
}

/* Of sample b's first token in packed rows. */
static inline int64_t graph_offset(const graph_case *c, int64_t b) {
    int64_t sum = 0;
    for (int64_t i = 0; i < b; i++) sum += graph_length(c, i);
    return sum;
}

/* ---- memory ---- */

static inline void *graph_take(graph_run *r, size_t bytes) {
    void *p;
    ck_assert_int_lt(r->taken, MOST_MEMORY);
    TW_ASSERT_OK(r->device->alloc(r->device, bytes, &p));
    char *nan = malloc(bytes + 1);
    ck_assert_ptr_nonnull(nan);
    memset(nan, 0xff, bytes);
    tw_test_give(r->device, p, nan, bytes);
    free(nan);
    return r->memory[r->taken++] = p;
}

static inline float *graph_floats(int64_t n) {
    float *x = calloc((size_t)n + 1, sizeof *x);
    ck_assert_ptr_nonnull(x);
    return x;
}

/* Memory for the tensor with these numbers in its type. */
static inline void graph_give(graph_run *r, tw_tensor *t, const float *x) {
    int64_t n = tw_tensor_count(t);
    t->data = graph_take(r, tw_tensor_bytes(t));
    if (t->dtype == TW_F32) {
        tw_test_give(r->device, t->data, x, tw_tensor_bytes(t));
        return;
    }
    void *other = graph_floats(n);
    for (int64_t i = 0; i < n; i++)
        if (t->dtype == TW_BF16)
            ((uint16_t *)other)[i] = tw_to_bf16(x[i]);
        else
            ((int32_t *)other)[i] = (int32_t)x[i];
    tw_test_give(r->device, t->data, other, tw_tensor_bytes(t));
    free(other);
}

static inline float *graph_bring(graph_run *r, const tw_tensor *t) {
    int64_t n = tw_tensor_count(t);
    void *host = tw_test_take(r->device, t->data, tw_tensor_bytes(t));
    float *x = graph_floats(n);
    for (int64_t e = 0; e < n; e++)
        x[e] = t->dtype == TW_BF16 ? tw_from_bf16(((uint16_t *)host)[e]) : ((float *)host)[e];
    free(host);
    return x;
}

static inline void graph_bring_result(graph_run *r, int i, const tw_tensor *t) {
    r->count[i] = tw_tensor_count(t);
    r->result[i] = graph_bring(r, t);
}

static inline void graph_release(graph_run *r) {
    for (int i = 0; i < r->taken; i++) r->device->release(r->device, r->memory[i]);
    for (int i = 0; i < RESULTS; i++) free(r->result[i]);
    free(r->first);
}

/* ---- numbers ---- */

static inline float *graph_random(const tw_tensor *t, uint32_t layer, float low, float high) {
    int64_t n = tw_tensor_count(t);
    const tw_draw draw = {.seed = 5, .purpose = TW_DRAW_TEST, .layer = layer};
    float *x = graph_floats(n);
    tw_random_uniform(&draw, low, high, x, n);
    return x;
}

/* Columns of heads from `first` on, of rows `stride` apart. */
static inline void graph_one_hot(const graph_case *c, float *x, int64_t stride, int64_t first) {
    int64_t rows = tw_tensor_rows(&c->input[0]), d = tw_tensor_cols(&c->input[0]) / 3,
            head = d / c->attr.attention.heads, sample = 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t t = row % graph_tokens(c);
        if (graph_is_packed(c)) {
            while (sample + 2 < c->input[2].shape[0] && row >= graph_offset(c, sample + 1)) sample++;
            t = row - graph_offset(c, sample);
        }
        for (int64_t i = 0; i < d; i++) x[row * stride + first + i] = i % head == t;
    }
}

static inline void graph_fill_input(graph_run *r, const graph_case *c, int i, tw_tensor *t) {
    float *x = graph_random(t, (uint32_t)i, c->low[i], c->high[i]);
    if (i == 0 && c->spoilt) x[0] = NAN;
    if (i == 0 && c->one_hot) graph_one_hot(c, x, tw_tensor_cols(t), tw_tensor_cols(t) / 3 * 2);
    for (int64_t b = 0; t->dtype == TW_I32 && b < t->shape[0]; b++)
        x[b] = (float)(i == 1 ? graph_length(c, b) : graph_offset(c, b));
    graph_give(r, t, x);
    free(x);
    if (i == 0 && c->one_hot) r->first = graph_bring(r, t);
}

/* ---- running ---- */

static inline void graph_backward(graph_run *r, const graph_case *c, tw_call *call) {
    for (int o = 0; o < call->n_outputs; o++)
        call->output_grad[o] = call->output[o], call->output_grad[o].data = NULL;
    tw_tensor *dy = &call->output_grad[0];
    float *x = graph_random(dy, 100, -1.0f, 1.0f);
    if (c->one_hot) graph_one_hot(c, x, tw_tensor_cols(dy), 0);
    graph_give(r, dy, x);
    free(x);
    for (int i = 0; i < c->n_inputs; i++) {
        if (!(c->gradients >> i & 1)) continue;
        bool parameter = c->op != TW_OP_attention && i > 0 && i < 5;
        call->input_grad[i] = call->input[i];
        if (parameter) call->input_grad[i].dtype = TW_F32;
        call->input_grad[i].data = graph_take(r, tw_tensor_bytes(&call->input_grad[i]));
    }
    ck_assert_msg(tw_op_backward(call) == TW_OK, "%s: %s", c->name, tw_last_error());
    TW_ASSERT_OK(r->device->sync(r->device, TW_QUEUE_COMPUTE));
    for (int i = 0; i < c->n_inputs; i++)
        if (call->input_grad[i].data) graph_bring_result(r, 1 + i, &call->input_grad[i]);
}

/* A forward, and a backward where there are gradients. */
static inline void graph_run_case(graph_run *r, const graph_case *c) {
    graph_case copy = *c;
    const tw_step step = {.seed = 3, .step = 1, .share = 1.0f};
    tw_call call = {.op = c->op, .device = r->device, .attr = &copy.attr, .n_inputs = c->n_inputs};
    call.needs_grad = c->gradients != 0;
    for (int i = 0; i < c->n_inputs; i++) {
        call.input[i] = c->input[i];
        call.input_grad[i] = tw_absent();
        call.input_grad[i].data = NULL;
        if (tw_present(&call.input[i])) graph_fill_input(r, c, i, &call.input[i]);
    }
    tw_step *there = graph_take(r, sizeof step);
    tw_test_give(r->device, there, &step, sizeof step);
    call.step = there;
    ck_assert_msg(tw_op_prepare(&call) == TW_OK, "%s: %s", c->name, tw_last_error());
    for (int o = 0; o < call.n_outputs; o++)
        call.output[o].data = graph_take(r, tw_tensor_bytes(&call.output[o]));
    call.scratch = graph_take(r, call.forward_scratch + call.backward_scratch + 64);
    ck_assert_msg(tw_op_forward(&call) == TW_OK, "%s: %s", c->name, tw_last_error());
    graph_bring_result(r, 0, &call.output[0]);
    if (c->gradients) graph_backward(r, c, &call);
}

#endif
