/* Batch norm's gradients and average pooling on the GPU: the graphs' way to them and own kernels'
 * (autograd/cuda/choice.h) against the CPU, and when there is no graph. */
#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/op.h"
#include "device_shim.h"
#include "graph_device.h"
#include "tw_test.h"

#include <math.h>

enum { B = 2, H = 4, W = 6, C = 16, ROWS = B * H * W, COUNT = ROWS * C };
enum { X, GAIN, BIAS, MEAN, VARIANCE, RESIDUAL, INPUTS };

static void *memory(size_t bytes) {
    void *p = NULL;
    ck_assert_int_eq(posix_memalign(&p, 64, bytes), 0);
    memset(p, 0xff, bytes);
    return p;
}

static float value(int64_t i, int64_t salt) {
    return 1.5f * sinf((float)(i * 37 % 101 + salt * 13));
}

static void set(const tw_tensor *t, int64_t i, float v) {
    if (t->dtype == TW_BF16)
        ((uint16_t *)t->data)[i] = tw_to_bf16(v);
    else
        ((float *)t->data)[i] = v;
}

static double get(const tw_tensor *t, int64_t i) {
    return t->dtype == TW_BF16 ? (double)tw_from_bf16(((uint16_t *)t->data)[i])
                               : (double)((float *)t->data)[i];
}

static void fill(const tw_tensor *t, int64_t salt) {
    ck_assert_ptr_nonnull(t->data);
    for (int64_t i = 0; i < tw_tensor_count(t); i++) set(t, i, value(i, salt));
}

/* Relative L2 within rounding of the type. */
static void check(const tw_tensor *got, const tw_tensor *want, const char *what, int i) {
    double off = 0, size = 0, bound = got->dtype == TW_BF16 ? 0x1p-8 : 4e-6;
    for (int64_t e = 0; e < tw_tensor_count(got); e++) {
        double g = get(got, e), w = get(want, e);
        off += (g - w) * (g - w), size += w * w;
    }
    ck_assert_msg(off <= bound * bound * size, "%s %d is %g off", what, i, sqrt(off / size));
}

/* ---- batch norm ---- */

typedef struct norm {
    tw_call call;
    tw_batch_norm_attr attr;
    tw_step step;
} norm;

static const tw_accumulate modes[INPUTS] = {TW_WRITE, TW_ADD, TW_WRITE, TW_ADD, TW_WRITE, TW_WRITE};

static void make_norm(norm *n, tw_dtype type, bool relu, bool residual) {
    const int64_t shape[4] = {B, H, W, C}, d = C;
    *n = (norm){.attr = {.eps = 1e-3f, .relu = relu, .training = true}, .step = {.share = 0.25f}};
    tw_call *c = &n->call;
    *c = (tw_call){.op = TW_OP_batch_norm, .attr = &n->attr, .step = &n->step, .n_inputs = INPUTS};
    c->needs_grad = true;
    for (int i = 0; i < INPUTS; i++) {
        bool image = i == X || i == RESIDUAL;
        c->input[i] = image ? tw_tensor_of(memory(COUNT * 4), type, 4, shape)
                            : tw_tensor_of(memory(C * 4), TW_F32, 1, &d);
        c->input_grad[i] = c->input[i];
        c->input_grad[i].data = memory(COUNT * 4);
        c->input_mode[i] = modes[i];
        fill(&c->input[i], i);
        for (int64_t e = 0; i == VARIANCE && e < C; e++) set(&c->input[i], e, 1.0f + (float)e);
    }
    c->output[0].data = memory(COUNT * 4), c->output[1].data = memory(2 * C * 4);
    c->output_grad[0] = tw_tensor_of(memory(COUNT * 4), type, 4, shape);
    if (residual) return;
    free(c->input[RESIDUAL].data), free(c->input_grad[RESIDUAL].data);
    c->input[RESIDUAL] = c->input_grad[RESIDUAL] = tw_absent();
}

static void free_norm(norm *n) {
    for (int i = 0; i < INPUTS; i++) free(n->call.input[i].data), free(n->call.input_grad[i].data);
    free(n->call.output[0].data), free(n->call.output[1].data), free(n->call.output_grad[0].data);
    free(n->call.scratch);
}

/* The shape rule keeps where outputs are. */
static void prepare(tw_call *c, tw_device *device) {
    void *kept[TW_MAX_OUTPUTS];
    for (int i = 0; i < TW_MAX_OUTPUTS; i++) kept[i] = c->output[i].data;
    c->device = device;
    TW_ASSERT_OK(tw_op_prepare(c));
    for (int i = 0; i < c->n_outputs; i++) c->output[i].data = kept[i];
    free(c->scratch);
    c->scratch = memory(c->forward_scratch + c->backward_scratch + 64);
}

/* Backward behind what is in the outputs: y's gradient, which may be destroyed, and what gradients are added
 * to are the same each time. */
static void backward(norm *n, tw_device *device) {
    tw_call *c = &n->call;
    prepare(c, device);
    fill(&c->output_grad[0], 20);
    for (int i = 0; i < INPUTS; i++)
        if (c->input_grad[i].data) fill(&c->input_grad[i], 30 + i);
    TW_ASSERT_OK(tw_op_backward(c));
}

static void make_on_cpu(norm *n, tw_dtype type, bool relu, bool residual, tw_tensor want[INPUTS]) {
    tw_device *cpu;
    TW_ASSERT_OK(tw_device_cpu(1, &cpu));
    make_norm(n, type, relu, residual);
    prepare(&n->call, cpu);
    TW_ASSERT_OK(tw_op_forward(&n->call));
    backward(n, cpu);
    tw_device_free(cpu);
    for (int i = 0; i < INPUTS; i++) {
        want[i] = n->call.input_grad[i];
        if (want[i].data) n->call.input_grad[i].data = memory(COUNT * 4);
    }
}

static void check_gradients(const norm *n, tw_tensor want[INPUTS], bool last) {
    for (int i = 0; i < INPUTS; i++) {
        if (!want[i].data) continue;
        check(&n->call.input_grad[i], &want[i], "gradient of input", i);
        if (last) free(want[i].data);
    }
}

/* Without ReLU, with it, and with a residual; f32 and bf16. */
START_TEST(both_ways_give_the_cpu_s_gradients) {
    tw_device *d = graph_device();
    tw_tensor want[INPUTS];
    norm n;
    make_on_cpu(&n, _i % 2 ? TW_BF16 : TW_F32, _i / 2 > 0, _i / 2 > 1, want);
    for (int way = 0; way < TW_WAYS; way++) {
        int before = tw_shim_graph_runs();
        tw_cuda_force_way(d, (tw_way)way);
        backward(&n, d);
        ck_assert_int_eq(tw_shim_graph_runs() - before, way == TW_WAY_GRAPH);
        check_gradients(&n, want, way == TW_WAY_GRAPH);
    }
    tw_device_free(d);
    free_norm(&n);
}
END_TEST

/* What is added to is added to once, however often the ways are timed. */
START_TEST(measuring_delivers_nothing) {
    static const char *const names[] = {"f32: by ", "f32, ReLU: by ", "f32, residual, ReLU: by "};
    tw_device *d = graph_device();
    tw_tensor want[INPUTS];
    char text[256];
    norm n;
    make_on_cpu(&n, TW_F32, _i > 0, _i > 1, want);
    int before = tw_shim_graph_runs();
    backward(&n, d);
    ck_assert_int_gt(tw_shim_graph_runs() - before, 2);
    check_gradients(&n, want, false);
    const tw_choice *c = tw_cuda_choice(d, 0);
    ck_assert_ptr_nonnull(c);
    ck_assert(tw_cuda_choice_text(d, 0, text, sizeof text));
    ck_assert_msg(strstr(text, "gradients of batch norm (2,4,6,16), ") && strstr(text, names[_i]), "'%s'",
                  text);
    before = tw_shim_graph_runs();
    backward(&n, d); /* now it is known */
    ck_assert_int_eq(tw_shim_graph_runs() - before, c->way == TW_WAY_GRAPH);
    ck_assert_ptr_null(tw_cuda_choice(d, 1));
    check_gradients(&n, want, true);
    tw_device_free(d);
    free_norm(&n);
}
END_TEST

static int graphs_of(norm *n, tw_device *d) {
    int before = tw_shim_graph_runs();
    backward(n, d);
    return tw_shim_graph_runs() - before;
}

/* A residual and a plain norm have one graph, but not one time. */
START_TEST(a_mask_before_the_graph_is_another_choice) {
    tw_device *d = graph_device();
    tw_tensor want[INPUTS];
    norm n;
    for (int residual = 0; residual < 2; residual++) {
        make_on_cpu(&n, TW_BF16, residual, residual, want);
        ck_assert_int_gt(graphs_of(&n, d), 2);
        check_gradients(&n, want, true);
        free_norm(&n);
    }
    ck_assert_ptr_nonnull(tw_cuda_choice(d, 1));
    tw_device_free(d);
}
END_TEST

START_TEST(what_a_graph_cannot_deliver_comes_from_own_kernels) {
    tw_device *d = graph_device();
    tw_tensor want[INPUTS];
    norm n;
    tw_cuda_force_way(d, TW_WAY_GRAPH);
    make_on_cpu(&n, TW_BF16, true, true, want);
    ck_assert_int_eq(graphs_of(&n, d), 1);
    n.call.input_mode[X] = TW_ADD;
    ck_assert_int_eq(graphs_of(&n, d), 0);
    n.call.input_mode[X] = TW_WRITE, n.call.input_mode[RESIDUAL] = TW_ADD;
    ck_assert_int_eq(graphs_of(&n, d), 0);
    n.call.input_mode[RESIDUAL] = TW_WRITE;
    n.attr.relu = false; /* then the residual's gradient is y's own */
    ck_assert_int_eq(graphs_of(&n, d), 0);
    n.attr.relu = true, n.attr.training = false;
    ck_assert_int_eq(graphs_of(&n, d), 0);
    n.attr.training = true;
    tw_tensor *dx = &n.call.input_grad[X];
    dx->data = (char *)dx->data + 2; /* off 16 bytes */
    ck_assert_int_eq(graphs_of(&n, d), 0);
    dx->data = (char *)dx->data - 2;
    tw_cuda_force_way(d, TW_WAYS);
    tw_cuda_set_deterministic(d, true);
    ck_assert_int_eq(graphs_of(&n, d), 0);
    check_gradients(&n, want, true);
    tw_device_free(d);
    free_norm(&n);
}
END_TEST

/* ---- pooling ---- */

typedef struct pool {
    tw_call call;
    tw_avg_pool_attr attr;
} pool;

static void make_pool(pool *p, tw_dtype type, int side, int64_t height) {
    const int64_t x[4] = {B, height, W, C}, y[4] = {B, height / side, W / side, C};
    *p = (pool){.attr = {.size = side}};
    tw_call *c = &p->call;
    *c = (tw_call){.op = TW_OP_avg_pool, .attr = &p->attr, .n_inputs = 1, .needs_grad = true};
    c->input[0] = tw_tensor_of(memory(COUNT * 8), type, 4, x);
    c->input_grad[0] = tw_tensor_of(memory(COUNT * 8), type, 4, x);
    c->output[0].data = memory(COUNT * 8);
    c->output_grad[0] = tw_tensor_of(memory(COUNT * 8), type, 4, y);
    fill(&c->input[0], 1);
}

static void free_pool(pool *p) {
    free(p->call.input[0].data), free(p->call.input_grad[0].data);
    free(p->call.output[0].data), free(p->call.output_grad[0].data), free(p->call.scratch);
}

/* Forward and backward; the graphs that ran. */
static int run_pool(pool *p, tw_device *device) {
    int before = tw_shim_graph_runs();
    prepare(&p->call, device);
    fill(&p->call.output_grad[0], 2), fill(&p->call.input_grad[0], 3);
    TW_ASSERT_OK(tw_op_forward(&p->call));
    TW_ASSERT_OK(tw_op_backward(&p->call));
    return tw_shim_graph_runs() - before;
}

/* Squares of two and of three, f32 and bf16. */
START_TEST(both_ways_pool_as_the_cpu) {
    tw_dtype type = _i % 2 ? TW_BF16 : TW_F32;
    int side = 2 + _i / 2;
    tw_device *cpu, *d = graph_device();
    pool want, got;
    TW_ASSERT_OK(tw_device_cpu(1, &cpu));
    make_pool(&want, type, side, 6);
    ck_assert_int_eq(run_pool(&want, cpu), 0);
    make_pool(&got, type, side, 6);
    for (int way = 0; way < TW_WAYS; way++) {
        tw_cuda_force_way(d, (tw_way)way);
        ck_assert_int_eq(run_pool(&got, d), way == TW_WAY_GRAPH ? 2 : 0);
        check(&got.call.output[0], &want.call.output[0], "y", way);
        check(&got.call.input_grad[0], &want.call.input_grad[0], "dx", way);
    }
    tw_device_free(d), tw_device_free(cpu);
    free_pool(&want), free_pool(&got);
}
END_TEST

START_TEST(poolings_are_measured_once) {
    tw_device *d = graph_device();
    char text[256];
    pool p;
    make_pool(&p, TW_BF16, 2, 4);
    ck_assert_int_gt(run_pool(&p, d), 8);
    ck_assert(tw_cuda_choice_text(d, 0, text, sizeof text));
    ck_assert_msg(strstr(text, "pooling of (2,4,6,16) by squares of 2, bf16: by ") == text, "'%s'", text);
    ck_assert(tw_cuda_choice_text(d, 1, text, sizeof text));
    ck_assert_msg(strstr(text, "gradient of pooling (2,4,6,16) by squares of 2, bf16: by ") == text, "'%s'",
                  text);
    ck_assert_int_le(run_pool(&p, d), 2);
    ck_assert(!tw_cuda_choice_text(d, 2, text, sizeof text));
    tw_device_free(d);
    free_pool(&p);
}
END_TEST

/* A rest that no square covers has a gradient of 0, which no graph promises. */
START_TEST(poolings_that_graphs_cannot_do_run_on_own_kernels) {
    tw_device *d = graph_device();
    pool p;
    tw_cuda_force_way(d, TW_WAY_GRAPH);
    make_pool(&p, TW_BF16, 2, 5);
    ck_assert_int_eq(run_pool(&p, d), 0);
    free_pool(&p);
    make_pool(&p, TW_BF16, 2, 4);
    p.call.input_mode[0] = TW_ADD;
    ck_assert_int_eq(run_pool(&p, d), 1); /* forward */
    tw_cuda_force_way(d, TW_WAYS);
    tw_cuda_set_deterministic(d, true);
    ck_assert_int_eq(run_pool(&p, d), 0);
    tw_device_free(d);
    free_pool(&p);
}
END_TEST

int main(void) {
    TCase *tcase = tcase_create("cuda images");
    tcase_add_loop_test(tcase, both_ways_give_the_cpu_s_gradients, 0, 6);
    tcase_add_loop_test(tcase, measuring_delivers_nothing, 0, 3);
    tcase_add_test(tcase, a_mask_before_the_graph_is_another_choice);
    tcase_add_test(tcase, what_a_graph_cannot_deliver_comes_from_own_kernels);
    tcase_add_loop_test(tcase, both_ways_pool_as_the_cpu, 0, 4);
    tcase_add_test(tcase, poolings_are_measured_once);
    tcase_add_test(tcase, poolings_that_graphs_cannot_do_run_on_own_kernels);
    return tw_test_run_case("cuda images", tcase);
}
