/* The graphs of autograd/cuda/dnn_*.h as cuDNN sees them, without a GPU: it accepts them as graphs, and has
 * engines for them on every GPU whose properties were captured (scripts/gpu_check.sh --stage tests) into
 * tests/data/device_properties, and on that of the file TW_DEVICE_PROPERTIES. */
#include "tw_test.h"

#ifndef TW_WITH_CUDA

START_TEST(graphs_are_accepted) {
    TW_SKIP("this build has no CUDA");
}
END_TEST

TW_TEST_MAIN("cudnn graphs", graphs_are_accepted)

#else

#include "autograd/cuda/cudnn_backend.h"
#include "autograd/cuda/dnn_attention.h"
#include "autograd/cuda/dnn_conv.h"
#include "autograd/cuda/dnn_linear.h"
#include "autograd/cuda/dnn_norm.h"
#include "autograd/cuda/dnn_pool.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>

/* A graph of a model's. */
typedef struct graph_case {
    char name[96];
    tw_dnn_key key;
    tw_dnn_describe describe;
    bool needed; /* own kernels are no match for it: every GPU must have an engine */
} graph_case;

enum { MOST_CASES = 256 };
static graph_case cases[MOST_CASES];
static int n_cases;

__attribute__((format(printf, 4, 5))) static void add(tw_dnn_key key, tw_dnn_describe describe, bool needed,
                                                      const char *format, ...) {
    ck_assert_int_lt(n_cases, MOST_CASES);
    graph_case *c = &cases[n_cases++];
    va_list args;
    va_start(args, format);
    vsnprintf(c->name, sizeof c->name, format, args);
    va_end(args);
    c->key = key, c->describe = describe, c->needed = needed;
}

/* Forward, backward and deterministic backward. */
static void add_attention(const char *name, int64_t batch, int64_t heads, int64_t t, int64_t width,
                          bool lengths, float dropout) {
    static const char *const kinds[] = {"inference", "forward", "backward", "deterministic backward"};
    int64_t d = heads * width;
    tw_dnn_tokens qkv = {t * 3 * d, 3 * d};
    for (int kind = 0; kind < 4; kind++) {
        tw_dnn_attention a = {.batch = batch,
                              .heads = heads,
                              .queries = t,
                              .keys = t,
                              .width = width,
                              .q = qkv,
                              .kv = qkv,
                              .o = {t * d, d},
                              .dq = qkv,
                              .dkv = qkv,
                              .scale = 0.125f,
                              .dropout = dropout,
                              .lengths = lengths,
                              .statistics = kind == 1,
                              .backward = kind >= 2,
                              .deterministic = kind == 3};
        add(tw_dnn_attention_key(&a), tw_dnn_attention_describe, true, "attention %s, %s", name, kinds[kind]);
    }
}

/* The convolutions of RN50 at 224 that are no plain products, in their three directions, as bf16, TF32 and
 * f32. */
static void add_convolutions(void) {
    static const int64_t layers[][4] = {
        /* side, in, out, stride */
        {224, 3, 32, 2},   {112, 32, 32, 1},  {112, 32, 64, 1},  {56, 64, 64, 1},   {56, 128, 128, 1},
        {28, 128, 128, 1}, {28, 256, 256, 1}, {14, 256, 256, 1}, {14, 512, 512, 1}, {7, 512, 512, 1}};
    static const char *const types[] = {"bf16", "TF32", "f32"}, *const directions[] = {"y", "dx", "dw"};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
        for (int type = 0; type < 3; type++)
            for (int direction = 0; direction < 3; direction++) {
                if (i == 0 && direction == 1) continue; /* pixels have no gradient */
                const int64_t *l = layers[i];
                tw_dnn_conv v = {.direction = (tw_dnn_op)((int)TW_DNN_CONV + direction),
                                 .batch = 128,
                                 .height = l[0],
                                 .width = l[0],
                                 .in = l[1],
                                 .out = l[2],
                                 .kernel = 3,
                                 .stride = l[3],
                                 .padding = 1,
                                 .type = type == 0 ? TW_DNN_BF16 : TW_DNN_F32,
                                 .true_f32 = type == 2};
                add(tw_dnn_conv_key(&v), tw_dnn_conv_describe, type == 0,
                    "convolution %lld, %lld to %lld, %s, %s", (long long)l[0], (long long)l[1],
                    (long long)l[2], types[type], directions[direction]);
            }
}

/* Batch norms of RN50: with and without ReLU, and with the residual, whose ReLU is not backward's graph's. */
static void add_norms(void) {
    static const int64_t layers[][4] = {{112, 32, 0, 1},  {112, 64, 0, 1}, {56, 64, 0, 1},
                                        {56, 256, 1, 1},  {56, 256, 0, 0}, {28, 512, 1, 1},
                                        {14, 1024, 1, 1}, {7, 2048, 1, 1}, {7, 2048, 0, 0}};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
        for (int type = TW_DNN_F32; type <= (int)TW_DNN_BF16; type++) {
            const int64_t *l = layers[i];
            tw_dnn_norm v = {.batch = 128, .height = l[0], .width = l[0], .channels = l[1], .eps = 1e-5f};
            v.type = (tw_dnn_type)type, v.residual = l[2] != 0, v.relu = l[3] != 0;
            add(tw_dnn_norm_key(&v), tw_dnn_norm_describe, false,
                "batch norm %lld, %lld, residual %d, ReLU %d, %s", (long long)l[0], (long long)l[1],
                v.residual, v.relu, type == TW_DNN_BF16 ? "bf16" : "f32");
            v.backward = true, v.relu = v.relu && !v.residual, v.residual = false;
            add(tw_dnn_norm_key(&v), tw_dnn_norm_describe, false,
                "batch norm's gradients %lld, %lld, ReLU %d, %s", (long long)l[0], (long long)l[1], v.relu,
                type == TW_DNN_BF16 ? "bf16" : "f32");
        }
}

/* RN50's poolings: after the stem, and of a stage's first block on either branch. */
static void add_pools(void) {
    static const int64_t layers[][2] = {{112, 64}, {56, 128}, {56, 256}, {28, 256},
                                        {28, 512}, {14, 512}, {14, 1024}};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
        for (int type = TW_DNN_F32; type <= (int)TW_DNN_BF16; type++)
            for (int backward = 0; backward < 2; backward++) {
                const int64_t *l = layers[i];
                tw_dnn_pool v = {.batch = 128, .height = l[0], .width = l[0], .channels = l[1], .side = 2};
                v.type = (tw_dnn_type)type, v.direction = backward ? TW_DNN_POOL_X : TW_DNN_POOL;
                add(tw_dnn_pool_key(&v), tw_dnn_pool_describe, false, "pooling %lld, %lld, %s, %s",
                    (long long)l[0], (long long)l[1], type == TW_DNN_BF16 ? "bf16" : "f32",
                    backward ? "dx" : "y");
            }
}

/* The first linear layer of each tower's MLP: images with QuickGELU, texts with GELU; forward of training and
 * of inference. */
static void add_linears(void) {
    static const int64_t layers[][3] = {/* rows, in, quick */
                                        {128 * 197, 768, 1}, {128 * 257, 1024, 1}, {64 * 257, 1280, 0},
                                        {128 * 52, 768, 0},  {128 * 52, 1024, 0},  {3333, 768, 0}};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
        for (int keeps = 0; keeps < 2; keeps++) {
            tw_dnn_linear l = {.rows = layers[i][0], .in = layers[i][1], .out = 4 * layers[i][1]};
            l.x_stride = l.in, l.activation = layers[i][2] ? TW_QUICK_GELU : TW_ERF_GELU;
            l.bias = true, l.keeps = keeps != 0;
            add(tw_dnn_linear_key(&l), tw_dnn_linear_describe, false, "linear %lld, %lld, %s, z kept %d",
                (long long)l.rows, (long long)l.in, layers[i][2] ? "QuickGELU" : "GELU", keeps);
        }
    tw_dnn_linear other = {.rows = 64, .in = 256, .out = 128, .x_stride = 512, .activation = TW_QUICK_GELU};
    other.in_out = true;
    add(tw_dnn_linear_key(&other), tw_dnn_linear_describe, false, "linear without bias, strided, (in,out)");
}

/* The gradient of the second layer's input times the slope at the first one's z: (rows,in) (in,out) and z
 * (rows,out). No operation asks for it yet: the first layer's z is not the second one's to see. */
static void describe_slope(const tw_dnn_key *key, tw_dnn_graph *g) {
    int64_t rows = key->number[0], in = key->number[1], out = key->number[2], quick = key->number[3];
    const int64_t left[4] = {1, 1, rows, in}, left_stride[4] = {rows * in, rows * in, in, 1};
    const int64_t right[4] = {1, 1, in, out}, right_stride[4] = {in * out, in * out, out, 1};
    const int64_t both[4] = {1, 1, rows, out}, both_stride[4] = {rows * out, rows * out, out, 1};
    g->flat = true;
    int dy = tw_dnn_memory(g, 0, TW_DNN_BF16, left, left_stride);
    int w = tw_dnn_memory(g, 1, TW_DNN_BF16, right, right_stride);
    int z = tw_dnn_memory(g, 2, TW_DNN_BF16, both, both_stride);
    int dz = tw_dnn_memory(g, 3, TW_DNN_BF16, both, both_stride),
        product = tw_dnn_inside(g, TW_DNN_F32, both);
    (void)tw_dnn_add(g, TW_DNN_MATMUL, dy, w, TW_DNN_NONE, product);
    tw_dnn_op op = quick ? TW_DNN_SWISH_SLOPE : TW_DNN_GELU_SLOPE;
    tw_dnn_add(g, op, product, z, TW_DNN_NONE, dz)->value = 1.702f;
}

static void add_slopes(void) {
    static const int64_t layers[][3] = {{128 * 197, 768, 1}, {128 * 52, 768, 0}};
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        const int64_t *l = layers[i];
        tw_dnn_key key = {-1, {l[0], l[1], 4 * l[1], l[2]}};
        add(key, describe_slope, false, "product and slope %lld, %lld, %s", (long long)l[0], (long long)l[1],
            l[2] ? "QuickGELU" : "GELU");
    }
}

static void add_all(void) {
    n_cases = 0;
    add_slopes();
    add_linears();
    add_norms();
    add_pools();
    add_convolutions();
    add_attention("T 197, d 64", 128, 12, 197, 64, false, 0);
    add_attention("T 257, d 64", 128, 16, 257, 64, false, 0);
    add_attention("T 577, d 64", 32, 16, 577, 64, false, 0);
    add_attention("T 257, d 80", 64, 16, 257, 80, false, 0);
    add_attention("T 52, d 64, lengths", 128, 12, 52, 64, true, 0);
    add_attention("T 52, d 64, lengths, dropout", 128, 12, 52, 64, true, 0.1f);
    add_attention("T 52, d 64, dropout", 128, 16, 52, 64, false, 0.1f);
}

/* Describes a case's graph, with f32 inside if it is to be wide, and makes it cuDNN's. */
static cudnnBackendDescriptor_t lower(const graph_case *c, bool wide, tw_dnn_graph *g,
                                      tw_cudnn_descriptors *all) {
    cudnnBackendDescriptor_t graph = NULL;
    memset(g, 0, sizeof *g);
    *all = (tw_cudnn_descriptors){0};
    c->describe(&c->key, g);
    if (wide) (void)tw_dnn_widen(g);
    tw_status status = tw_cudnn_lower(g, NULL, all, &graph);
    ck_assert_msg(status == TW_OK, "%s%s: %s", c->name, wide ? ", f32 inside" : "", tw_last_error());
    return graph;
}

static bool library_is_whole(void) {
    cudnnBackendDescriptor_t d = NULL;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &d) != CUDNN_STATUS_SUCCESS)
        return false;
    (void)cudnnBackendDestroyDescriptor(d);
    return true;
}

START_TEST(graphs_are_accepted) {
    tw_dnn_graph g;
    tw_cudnn_descriptors all;
    if (!library_is_whole()) TW_SKIP("cuDNN cannot load its parts");
    TW_ASSERT_OK(tw_cudnn_check_version(cudnnGetVersion()));
    add_all();
    for (int i = 0; i < 2 * n_cases; i++) {
        (void)lower(&cases[i / 2], i % 2 != 0, &g, &all);
        tw_cudnn_release(&all, 0);
    }
    ck_assert_int_gt(n_cases, 0);
}
END_TEST

/* A product whose sizes do not fit is told from one that has no kernel. */
START_TEST(errors_have_the_library_s_words) {
    tw_dnn_graph g = {0};
    tw_cudnn_descriptors all = {0};
    cudnnBackendDescriptor_t graph;
    if (!library_is_whole()) TW_SKIP("cuDNN cannot load its parts");
    int64_t a[4] = {1, 1, 8, 16}, b[4] = {1, 1, 24, 8}, c[4] = {1, 1, 8, 8}, stride[4] = {512, 512, 16, 1};
    int x = tw_dnn_memory(&g, 0, TW_DNN_BF16, a, stride), y = tw_dnn_memory(&g, 1, TW_DNN_BF16, b, stride);
    (void)tw_dnn_add(&g, TW_DNN_MATMUL, x, y, TW_DNN_NONE, tw_dnn_memory(&g, 2, TW_DNN_BF16, c, stride));
    tw_status status = tw_cudnn_lower(&g, NULL, &all, &graph);
    ck_assert_int_ne(status, TW_OK);
    ck_assert_msg(strstr(tw_last_error(), "cuDNN says CUDNN_STATUS_"), "'%s'", tw_last_error());
    tw_cudnn_release(&all, 0);
    TW_ASSERT_FAILS(tw_cudnn_check_version(91400), TW_ERR_UNSUPPORTED,
                    "cuDNN 9.14.0 is too old: 9.15.1 or later is needed");
}
END_TEST

START_TEST(a_graph_of_too_many_parts_is_refused) {
    tw_dnn_graph g = {0};
    tw_cudnn_descriptors all = {0};
    cudnnBackendDescriptor_t graph;
    for (int i = 0; i <= TW_DNN_TENSORS; i++) (void)tw_dnn_value(&g, 1.0f);
    TW_ASSERT_FAILS(tw_cudnn_lower(&g, NULL, &all, &graph), TW_ERR_ARGUMENT, "too many parts");
}
END_TEST

/* ---- engines ---- */

static cudnnBackendDescriptor_t read_properties(const char *path) {
    cudnnBackendDescriptor_t device = NULL;
    static char text[1 << 16];
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f, "%s cannot be read", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    TW_ASSERT_OK(tw_cudnn_status(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device),
                                 "a descriptor"));
    TW_ASSERT_OK(tw_cudnn_set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                              (int64_t)n + 1, text));
    TW_ASSERT_OK(tw_cudnn_finish(device, path));
    return device;
}

/* How many engines a graph has on a GPU; *why says what was wrong with the last try. */
static int engines(const graph_case *c, bool wide, tw_cudnn_place place, char *why, size_t size) {
    tw_dnn_graph g;
    tw_cudnn_descriptors all;
    cudnnBackendDescriptor_t config[TW_CUDNN_CONFIGS], graph = lower(c, wide, &g, &all);
    int count = 0;
    for (int fallback = 0; fallback < 2 && count == 0; fallback++) {
        int before = all.count;
        tw_status status = tw_cudnn_propose(&g, graph, fallback, place, &all, config, &count);
        snprintf(why, size, "%s", status == TW_OK ? "none is proposed" : tw_last_error());
        if (count == 0) tw_cudnn_release(&all, before);
    }
    tw_cudnn_release(&all, 0);
    return count;
}

static void check_engines(const char *path) {
    tw_cudnn_place place = {.properties = read_properties(path)};
    for (int i = 0; i < n_cases; i++) {
        char why[512], wide_why[512];
        const graph_case *c = &cases[i];
        int count = engines(c, false, place, why, sizeof why), wide = count;
        if (count == 0) wide = engines(c, true, place, wide_why, sizeof wide_why);
        if (!c->needed || count == 0)
            printf("%s: %s: %d engines, %d with f32 inside\n", path, c->name, count, wide);
        ck_assert_msg(wide > 0 || !c->needed, "%s: %s has no engine: %s; with f32 inside: %s", path, c->name,
                      why, wide_why);
    }
    (void)cudnnBackendDestroyDescriptor(place.properties);
}

START_TEST(captured_gpus_have_engines) {
    static const char folder[] = TW_SOURCE_DIR "/tests/data/device_properties";
    DIR *dir = opendir(folder);
    const char *one = getenv("TW_DEVICE_PROPERTIES");
    int files = 0;
    if (!dir && !one) TW_SKIP("no GPU's properties were captured yet (scripts/gpu_check.sh --stage tests)");
    /* Engines that are compiled when they are first needed ask for the driver, or its stub. */
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    add_all();
    if (one) {
        ck_assert_msg(driver, "%s: there is no libcuda.so.1 to judge it by", one);
        check_engines(one);
        files++;
    }
    for (struct dirent *e = dir ? readdir(dir) : NULL; driver && e; e = readdir(dir)) {
        char path[1024];
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".json") != 0) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        check_engines(path);
        files++;
    }
    if (dir) closedir(dir);
    if (driver) dlclose(driver);
    if (!driver) TW_SKIP("there is no libcuda.so.1, not even the toolkit's stub");
    if (!files) TW_SKIP("no GPU's properties were captured yet (scripts/gpu_check.sh --stage tests)");
}
END_TEST

TW_TEST_MAIN("cudnn graphs", graphs_are_accepted, errors_have_the_library_s_words,
             a_graph_of_too_many_parts_is_refused, captured_gpus_have_engines)

#endif
