/* That the graphs by cuDNN which models need do run on this GPU, in sizes that models have, and agree with
 * our own kernels. Runs on a GPU (TW_DEVICE=cuda) and, smaller, on the shim. */
#include "test_device.h"
#include "tw_test.h"

#ifndef TW_WITH_CUDA

START_TEST(graphs_run_and_agree) {
    TW_SKIP("this build has no CUDA");
}
END_TEST

TW_TEST_MAIN("model graphs", graphs_run_and_agree)

#else

#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn.h"
#include "autograd/op.h"
#include "autograd/random.h"

#include <math.h>

#ifdef TW_CUDA_SHIM
enum { SMALLER = 8, BATCH = 2, HEADS_MOST = 2 }; /* graphs are interpreted there, element by element */
#else
enum { SMALLER = 1, BATCH = 16, HEADS_MOST = 64 };
#endif

enum { MOST_MEMORY = 64, RESULTS = 1 + TW_MAX_INPUTS };

typedef struct graph_case {
    char name[96];
    tw_op op;
    union {
        tw_attention_attr attention;
        tw_conv2d_attr conv;
        tw_batch_norm_attr norm;
        tw_avg_pool_attr pool;
    } attr;
    tw_tensor input[TW_MAX_INPUTS]; /* without memory */
    float low[TW_MAX_INPUTS], high[TW_MAX_INPUTS];
    int n_inputs;
    unsigned gradients; /* bit i: of input i */
    int graphs;         /* that a forward and a backward run */
    bool needed;        /* own kernels are no match for them */
    bool drawn;         /* by dropout, which own kernels draw otherwise */
    bool spoilt;        /* the first element of input 0 is NaN */
} graph_case;

/* Device memory of a run, and what came out, in f32 on the host. */
typedef struct run {
    tw_device *device;
    void *memory[MOST_MEMORY];
    int taken;
    float *result[RESULTS]; /* y, then gradients; NULL: none */
    int64_t count[RESULTS];
} run;

static void *take(run *r, size_t bytes) {
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

/* Memory for the tensor, filled by numbers that belong to it. */
static void fill(run *r, tw_tensor *t, uint32_t layer, float low, float high) {
    int64_t n = tw_tensor_count(t);
    const tw_draw draw = {.seed = 5, .purpose = TW_DRAW_TEST, .layer = layer};
    float *x = malloc((size_t)n * sizeof *x + 1);
    uint16_t *half = malloc((size_t)n * sizeof *half + 1);
    ck_assert(x && half);
    tw_random_uniform(&draw, low, high, x, n);
    for (int64_t i = 0; i < n; i++) half[i] = tw_to_bf16(x[i]);
    if (t->dtype == TW_I32) /* lengths */
        for (int64_t i = 0; i < n; i++) ((int32_t *)(void *)x)[i] = (int32_t)x[i];
    t->data = take(r, tw_tensor_bytes(t));
    tw_test_give(r->device, t->data, t->dtype == TW_BF16 ? (void *)half : x, tw_tensor_bytes(t));
    free(x);
    free(half);
}

static void spoil(run *r, const tw_tensor *t) {
    const uint16_t nan = 0x7fc0;
    ck_assert_int_eq(t->dtype, TW_BF16);
    tw_test_give(r->device, t->data, &nan, sizeof nan);
}

static void bring(run *r, int i, const tw_tensor *t) {
    int64_t n = r->count[i] = tw_tensor_count(t);
    void *host = tw_test_take(r->device, t->data, tw_tensor_bytes(t));
    r->result[i] = malloc((size_t)n * sizeof(float) + 1);
    ck_assert_ptr_nonnull(r->result[i]);
    for (int64_t e = 0; e < n; e++)
        r->result[i][e] = t->dtype == TW_BF16 ? tw_from_bf16(((uint16_t *)host)[e]) : ((float *)host)[e];
    free(host);
}

static void release(run *r) {
    for (int i = 0; i < r->taken; i++) r->device->release(r->device, r->memory[i]);
    for (int i = 0; i < RESULTS; i++) free(r->result[i]);
}

/* A forward and a backward. */
static void run_case(run *r, const graph_case *c) {
    graph_case copy = *c;
    const tw_step step = {.seed = 3, .step = 1, .share = 1.0f};
    tw_call call = {
        .op = c->op, .device = r->device, .attr = &copy.attr, .n_inputs = c->n_inputs, .needs_grad = true};
    for (int i = 0; i < c->n_inputs; i++) {
        call.input[i] = c->input[i];
        call.input_grad[i] = tw_absent();
        call.input_grad[i].data = NULL;
        if (tw_present(&call.input[i])) fill(r, &call.input[i], (uint32_t)i, c->low[i], c->high[i]);
        if (i == 0 && c->spoilt) spoil(r, &call.input[0]);
    }
    tw_step *there = take(r, sizeof step);
    tw_test_give(r->device, there, &step, sizeof step);
    call.step = there;
    ck_assert_msg(tw_op_prepare(&call) == TW_OK, "%s: %s", c->name, tw_last_error());
    for (int o = 0; o < call.n_outputs; o++) call.output[o].data = take(r, tw_tensor_bytes(&call.output[o]));
    call.scratch = take(r, call.forward_scratch + call.backward_scratch + 64);
    ck_assert_msg(tw_op_forward(&call) == TW_OK, "%s: %s", c->name, tw_last_error());
    bring(r, 0, &call.output[0]);
    for (int o = 0; o < call.n_outputs; o++)
        call.output_grad[o] = call.output[o], call.output_grad[o].data = NULL;
    fill(r, &call.output_grad[0], 100, -1.0f, 1.0f);
    for (int i = 0; i < c->n_inputs; i++) {
        if (!(c->gradients >> i & 1)) continue;
        bool parameter = c->op != TW_OP_attention && i > 0 && i < 5;
        call.input_grad[i] = call.input[i];
        if (parameter) call.input_grad[i].dtype = TW_F32;
        call.input_grad[i].data = take(r, tw_tensor_bytes(&call.input_grad[i]));
    }
    ck_assert_msg(tw_op_backward(&call) == TW_OK, "%s: %s", c->name, tw_last_error());
    TW_ASSERT_OK(r->device->sync(r->device, TW_QUEUE_COMPUTE));
    for (int i = 0; i < c->n_inputs; i++)
        if (call.input_grad[i].data) bring(r, 1 + i, &call.input_grad[i]);
}

/* ---- the cases ---- */

static int64_t part(int64_t n, int64_t unit) {
    int64_t less = n / SMALLER / unit * unit;
    return less < unit ? unit : less;
}

static void set_input(graph_case *c, int i, tw_dtype type, int ndim, const int64_t *shape, float low,
                      float high) {
    c->input[i] = tw_tensor_of(NULL, type, ndim, shape);
    c->low[i] = low, c->high[i] = high;
}

static graph_case attention_case(const char *tower, int64_t tokens, int64_t width, int heads, bool lengths,
                                 float dropout) {
    graph_case c = {.op = TW_OP_attention, .n_inputs = 3, .gradients = 1, .graphs = 2, .needed = true};
    if (heads > HEADS_MOST) heads = HEADS_MOST;
    tokens = SMALLER > 1 ? tokens / SMALLER + 1 : tokens;
    c.attr.attention = (tw_attention_attr){.heads = heads, .dropout = dropout, .layer = 2};
    c.drawn = dropout > 0;
    set_input(&c, 0, TW_BF16, 3, (int64_t[]){BATCH, tokens, 3 * heads * width}, -2.0f, 2.0f);
    c.input[1] = c.input[2] = tw_absent();
    if (lengths) set_input(&c, 1, TW_I32, 1, (int64_t[]){BATCH}, 1.0f, (float)tokens + 0.999f);
    snprintf(c.name, sizeof c.name, "attention of %s: %lld tokens, %d heads of %lld%s%s", tower,
             (long long)tokens, heads, (long long)width, lengths ? ", lengths" : "",
             dropout > 0 ? ", dropout" : "");
    return c;
}

static graph_case conv_case(int64_t side, int64_t in, int64_t out, int stride) {
    bool pixels = in == 3; /* which have no gradient */
    graph_case c = {.op = TW_OP_conv2d,
                    .n_inputs = 2,
                    .gradients = pixels ? 2 : 3,
                    .graphs = pixels ? 2 : 3,
                    .needed = true};
    side = part(side, 1), in = pixels ? 3 : part(in, 8), out = part(out, 8);
    if (side < 3) side = 3;
    float scale = sqrtf(3.0f / (9.0f * (float)in));
    c.attr.conv = (tw_conv2d_attr){.stride = stride, .padding = 1};
    set_input(&c, 0, TW_BF16, 4, (int64_t[]){BATCH, side, side, in}, -1.0f, 1.0f);
    set_input(&c, 1, TW_BF16, 4, (int64_t[]){out, in, 3, 3}, -scale, scale);
    snprintf(c.name, sizeof c.name, "convolution of %lld x %lld, %lld to %lld, stride %d", (long long)side,
             (long long)side, (long long)in, (long long)out, stride);
    return c;
}

static graph_case norm_case(int64_t side, int64_t channels, bool residual, bool relu) {
    graph_case c = {.op = TW_OP_batch_norm, .n_inputs = 6, .gradients = residual ? 0x3f : 0x1f, .graphs = 2};
    side = part(side, 1), channels = part(channels, 8);
    int64_t x[4] = {BATCH, side, side, channels};
    c.attr.norm = (tw_batch_norm_attr){.eps = 1e-5f, .relu = relu, .training = true};
    set_input(&c, 0, TW_BF16, 4, x, -1.0f, 3.0f);
    for (int i = 1; i < 5; i++) set_input(&c, i, TW_F32, 1, &channels, i == 2 || i == 3 ? -0.5f : 0.5f, 1.5f);
    c.input[5] = tw_absent();
    if (residual) set_input(&c, 5, TW_BF16, 4, x, -1.0f, 1.0f);
    snprintf(c.name, sizeof c.name, "batch norm of %lld x %lld x %lld%s%s", (long long)side, (long long)side,
             (long long)channels, residual ? ", residual" : "", relu ? ", ReLU" : "");
    return c;
}

static graph_case pool_case(int64_t side, int64_t channels) {
    graph_case c = {.op = TW_OP_avg_pool, .n_inputs = 1, .gradients = 1, .graphs = 2};
    side = part(side, 2), channels = part(channels, 8);
    c.attr.pool = (tw_avg_pool_attr){.size = 2};
    set_input(&c, 0, TW_BF16, 4, (int64_t[]){BATCH, side, side, channels}, -1.0f, 3.0f);
    snprintf(c.name, sizeof c.name, "pooling of %lld x %lld x %lld", (long long)side, (long long)side,
             (long long)channels);
    return c;
}

/* ---- the checks ---- */

static void compare(const graph_case *c, const run *graph, const run *own) {
    for (int i = 0; i < RESULTS; i++) {
        double apart = 0, size = 0;
        for (int64_t e = 0; graph->result[i] && e < graph->count[i]; e++) {
            double a = (double)graph->result[i][e], b = c->drawn ? a : (double)own->result[i][e];
            ck_assert_msg(isfinite(a), "%s: element %lld of result %d is %g", c->name, (long long)e, i, a);
            apart += (a - b) * (a - b), size += b * b;
        }
        /* Both round to bf16 within and at the end. */
        ck_assert_msg(apart <= 1e-4 * size, "%s: result %d is %.3g from own kernels'", c->name, i,
                      sqrt(apart / (size > 0 ? size : 1)));
    }
}

static void check(tw_device *d, graph_case c) {
    run graph = {.device = d}, own = {.device = d};
    int64_t before = tw_cuda_graph_runs(d);
    tw_dnn_allow(d, true);
    tw_cuda_force_way(d, TW_WAY_GRAPH); /* however long it takes */
    run_case(&graph, &c);
    int64_t runs = tw_cuda_graph_runs(d) - before;
    const char *refused = tw_cuda_refusals(d);
    if (c.needed)
        ck_assert_msg(runs == c.graphs && !refused, "%s: %lld of %d graphs ran: %s", c.name, (long long)runs,
                      c.graphs, refused ? refused : "nothing was refused");
    else
        printf("%s: %lld of %d graphs ran%s%s\n", c.name, (long long)runs, c.graphs, refused ? ": " : "",
               refused ? refused : "");
    tw_dnn_allow(d, false);
    run_case(&own, &c);
    ck_assert_int_eq(tw_cuda_graph_runs(d) - before, runs);
    compare(&c, &graph, &own);
    release(&graph);
    release(&own);
}

static tw_device *device(void) {
    const char *wanted = getenv("TW_DEVICE");
    tw_device *d = NULL;
    if (wanted && strcmp(wanted, "cuda") == 0) TW_ASSERT_OK(tw_test_device(0, &d));
    return d;
}

/* The towers' own sizes: those of B/16, L/14, L/14 at 336, H/14, and texts. */
START_TEST(attention_runs_as_graphs) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    check(d, attention_case("ViT-B-16", 197, 64, 12, false, 0));
    check(d, attention_case("ViT-L-14", 257, 64, 16, false, 0));
    check(d, attention_case("ViT-L-14-336", 577, 64, 16, false, 0));
    check(d, attention_case("ViT-H-14", 257, 80, 16, false, 0));
    check(d, attention_case("texts", 52, 64, 12, true, 0));
    check(d, attention_case("texts", 52, 64, 12, true, 0.1f));
    check(d, attention_case("texts", 52, 64, 12, false, 0.1f));
    tw_device_free(d);
}
END_TEST

/* With the same bits each time. */
START_TEST(deterministic_attention_runs_as_graphs) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    tw_cuda_set_deterministic(d, true);
    check(d, attention_case("ViT-B-16", 197, 64, 12, false, 0));
    check(d, attention_case("ViT-H-14", 257, 80, 16, false, 0));
    check(d, attention_case("texts", 52, 64, 12, true, 0.1f));
    tw_device_free(d);
}
END_TEST

START_TEST(convolutions_of_rn50_run_as_graphs) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    check(d, conv_case(224, 3, 32, 2));
    check(d, conv_case(112, 32, 32, 1));
    check(d, conv_case(112, 32, 64, 1));
    check(d, conv_case(56, 64, 64, 1));
    check(d, conv_case(28, 128, 128, 1));
    check(d, conv_case(14, 256, 256, 1));
    check(d, conv_case(7, 512, 512, 1));
    tw_device_free(d);
}
END_TEST

START_TEST(batch_norms_of_rn50_agree) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    check(d, norm_case(112, 64, false, true));
    check(d, norm_case(56, 256, true, true));
    check(d, norm_case(56, 256, false, false));
    check(d, norm_case(7, 2048, true, true));
    tw_device_free(d);
}
END_TEST

/* A step that is spoilt is skipped because its gradient shows it, whatever a library's ReLU makes of NaN. */
START_TEST(nan_reaches_the_gradients_of_norms) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    for (int kind = 0; kind < 3; kind++) {
        graph_case c = norm_case(56, 64, kind > 1, kind > 0);
        run r = {.device = d};
        c.spoilt = true;
        tw_cuda_force_way(d, TW_WAY_GRAPH);
        run_case(&r, &c);
        ck_assert_msg(isnan(r.result[2][0]), "%s: the gain's gradient is %g after NaN", c.name,
                      (double)r.result[2][0]);
        release(&r);
    }
    tw_device_free(d);
}
END_TEST

START_TEST(poolings_of_rn50_agree) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    check(d, pool_case(112, 64));
    check(d, pool_case(56, 256));
    check(d, pool_case(14, 1024));
    tw_device_free(d);
}
END_TEST

TW_TEST_MAIN("model graphs", attention_runs_as_graphs, deterministic_attention_runs_as_graphs,
             convolutions_of_rn50_run_as_graphs, batch_norms_of_rn50_agree,
             nan_reaches_the_gradients_of_norms, poolings_of_rn50_agree)

#endif
