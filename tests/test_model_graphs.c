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
#include "graph_dropout.h"
#include "model_products.h"

#ifdef TW_CUDA_SHIM
enum { SMALLER = 8, BATCH = 2, HEADS_MOST = 2 }; /* graphs are interpreted there, element by element */
#else
enum { SMALLER = 1, BATCH = 16, HEADS_MOST = 64 };
#endif

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

static graph_case attention_case(const char *tower, int64_t tokens, int64_t width, int heads, bool lengths) {
    graph_case c = {.op = TW_OP_attention, .n_inputs = 3, .gradients = 1, .graphs = 2, .needed = true};
    if (heads > HEADS_MOST) heads = HEADS_MOST;
    tokens = SMALLER > 1 ? tokens / SMALLER + 1 : tokens;
    c.attr.attention = (tw_attention_attr){.heads = heads, .layer = 2};
    set_input(&c, 0, TW_BF16, 3, (int64_t[]){BATCH, tokens, 3 * heads * width}, -2.0f, 2.0f);
    c.input[1] = c.input[2] = tw_absent();
    if (lengths) set_input(&c, 1, TW_I32, 1, (int64_t[]){BATCH}, 0, 0);
    snprintf(c.name, sizeof c.name, "attention of %s: %lld tokens, %d heads of %lld%s", tower,
             (long long)tokens, heads, (long long)width, lengths ? ", lengths" : "");
    return c;
}

/* Rows that belong to no sample come last. */
static graph_case packed_case(const char *tower, int64_t tokens, int64_t width, int heads) {
    graph_case c = attention_case(tower, tokens, width, heads, false);
    int64_t cols = tw_tensor_cols(&c.input[0]), offsets = BATCH + 1;
    c.attr.attention.tokens = (int)graph_tokens(&c);
    set_input(&c, 2, TW_I32, 1, &offsets, 0, 0);
    set_input(&c, 0, TW_BF16, 2, (int64_t[]){graph_offset(&c, BATCH) + 5, cols}, -2.0f, 2.0f);
    snprintf(c.name + strlen(c.name), sizeof c.name - strlen(c.name), ", packed");
    return c;
}

enum { TEXT_TOKENS = 52 };

static graph_case dropout_case(bool lengths, bool packed) {
    const int64_t tokens = SMALLER > 1 ? (TEXT_TOKENS - 1) * SMALLER : TEXT_TOKENS; /* as many on the shim */
    graph_case c =
        packed ? packed_case("texts", tokens, 64, 12) : attention_case("texts", tokens, 64, 12, lengths);
    ck_assert_int_eq(graph_tokens(&c), TEXT_TOKENS);
    c.attr.attention.dropout = 0.1f, c.one_hot = true;
    snprintf(c.name + strlen(c.name), sizeof c.name - strlen(c.name), ", dropout");
    return c;
}

/* The first layer of a tower's MLP; trains: z is kept, and a backward follows. */
static graph_case linear_case(int64_t rows, int64_t in, tw_activation activation, bool trains) {
    graph_case c = {.op = TW_OP_linear, .n_inputs = 4, .graphs = 1, .needed = true};
    rows = SMALLER > 1 ? 40 : rows, in = SMALLER > 1 ? 48 : in;
    int64_t out = 4 * in;
    float scale = sqrtf(3.0f / (float)in);
    c.attr.linear = (tw_linear_attr){.activation = activation};
    c.gradients = trains ? 7 : 0;
    set_input(&c, 0, TW_BF16, 2, (int64_t[]){rows, in}, -2.0f, 2.0f);
    set_input(&c, 1, TW_BF16, 2, (int64_t[]){out, in}, -scale, scale);
    set_input(&c, 2, TW_F32, 1, &out, -1.0f, 1.0f);
    c.input[3] = tw_absent();
    snprintf(c.name, sizeof c.name, "linear (%lld,%lld) to %lld, %s%s", (long long)rows, (long long)in,
             (long long)out, activation == TW_QUICK_GELU ? "QuickGELU" : "GELU", trains ? ", z kept" : "");
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

static void compare(const graph_case *c, const graph_run *graph, const graph_run *own) {
    for (int i = 0; i < RESULTS; i++) {
        double apart = 0, size = 0;
        for (int64_t e = 0; graph->result[i] && e < graph->count[i]; e++) {
            double a = (double)graph->result[i][e], b = (double)own->result[i][e];
            if (!isfinite(a)) /* an assertion that holds costs a message each, and these are millions */
                ck_abort_msg("%s: element %lld of result %d is %g", c->name, (long long)e, i, a);
            apart += (a - b) * (a - b), size += b * b;
        }
        /* Both round to bf16 within and at the end. */
        ck_assert_msg(apart <= 1e-4 * size, "%s: result %d is %.3g from own kernels'", c->name, i,
                      sqrt(apart / (size > 0 ? size : 1)));
    }
}

static void check(tw_device *d, graph_case c) {
    graph_run graph = {.device = d}, own = {.device = d};
    int64_t before = tw_cuda_graph_runs(d);
    tw_dnn_allow(d, true);
    tw_cuda_force_way(d, TW_WAY_GRAPH); /* however long it takes */
    graph_run_case(&graph, &c);
    tw_cuda_force_way(d, TW_WAYS);
    int64_t runs = tw_cuda_graph_runs(d) - before;
    const char *refused = tw_cuda_refusals(d);
    if (c.needed)
        ck_assert_msg(runs == c.graphs && !refused, "%s: %lld of %d graphs ran: %s", c.name, (long long)runs,
                      c.graphs, refused ? refused : "nothing was refused");
    else
        printf("%s: %lld of %d graphs ran%s%s\n", c.name, (long long)runs, c.graphs, refused ? ": " : "",
               refused ? refused : "");
    tw_dnn_allow(d, false);
    graph_run_case(&own, &c);
    ck_assert_int_eq(tw_cuda_graph_runs(d) - before, runs);
    if (c.one_hot) /* each draws a mask of its own */
        check_dropped(&c, &graph, "graphs"), check_dropped(&c, &own, "own kernels");
    else
        compare(&c, &graph, &own);
    graph_release(&graph);
    graph_release(&own);
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
    check(d, attention_case("ViT-B-16", 197, 64, 12, false));
    check(d, attention_case("ViT-L-14", 257, 64, 16, false));
    check(d, attention_case("ViT-L-14-336", 577, 64, 16, false));
    check(d, attention_case("ViT-H-14", 257, 80, 16, false));
    check(d, attention_case("texts", 52, 64, 12, true));
    check(d, packed_case("texts", 52, 64, 12));
    check(d, packed_case("texts of RoBERTa-large", 52, 64, 16));
    check(d, dropout_case(true, false));
    check(d, dropout_case(false, false));
    check(d, dropout_case(false, true));
    tw_device_free(d);
}
END_TEST

/* With the same bits each time. */
START_TEST(deterministic_attention_runs_as_graphs) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    tw_cuda_set_deterministic(d, true);
    check(d, attention_case("ViT-B-16", 197, 64, 12, false));
    check(d, attention_case("ViT-H-14", 257, 80, 16, false));
    check(d, packed_case("texts", 52, 64, 12));
    check(d, dropout_case(true, false));
    tw_device_free(d);
}
END_TEST

/* Of ViT-B-16 at a batch of 128: images and texts. */
START_TEST(linear_layers_run_as_graphs) {
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    for (int trains = 0; trains < 2; trains++) {
        check(d, linear_case(128 * 197, 768, TW_QUICK_GELU, trains));
        check(d, linear_case(128 * 52, 768, TW_ERF_GELU, trains));
    }
    tw_device_free(d);
}
END_TEST

/* Those of an image's MLP in ViT-B-16 at a batch of 128. No header promises sums on the way for bf16 factors
 * and an f32 result, so that only a bias must come along. */
START_TEST(products_take_bias_and_sums_along) {
    const int64_t rows = 128 * 197, in = 768, out = 3072, smaller = SMALLER > 1 ? 128 : 1;
    tw_device *d = device();
    if (!d) TW_SKIP("not asked for a GPU (TW_DEVICE=cuda)");
    tw_cuda_set_deterministic(d, true); /* whether it takes longer so is another question */
    for (int adds = 0; adds < 2; adds++) {
        check_product(d, (product_case){"bias", rows, out, in, false, true, TW_FUSED_BIAS, adds}, smaller);
        check_product(d, (product_case){"dW (out,in)", out, in, rows, true, false, TW_FUSED_SUM_A, adds},
                      smaller);
        check_product(d, (product_case){"dW (in,out)", in, out, rows, true, false, TW_FUSED_SUM_B, adds},
                      smaller);
    }
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
        graph_run r = {.device = d};
        c.spoilt = true;
        tw_cuda_force_way(d, TW_WAY_GRAPH);
        graph_run_case(&r, &c);
        ck_assert_msg(isnan(r.result[2][0]), "%s: the gain's gradient is %g after NaN", c.name,
                      (double)r.result[2][0]);
        graph_release(&r);
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
             linear_layers_run_as_graphs, products_take_bias_and_sums_along,
             convolutions_of_rn50_run_as_graphs, batch_norms_of_rn50_agree,
             nan_reaches_the_gradients_of_norms, poolings_of_rn50_agree)

#endif
