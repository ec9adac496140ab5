/* linear with an activation on the GPU: both ways to it (autograd/cuda/choice.h) against the CPU, and how one
 * of them is chosen. */
#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/op.h"
#include "device_shim.h"
#include "graph_device.h"
#include "tw_test.h"

#include <math.h>

enum { ROWS = 13, IN = 24, OUT = 40, GAP = 8 };

typedef struct linear {
    tw_call call;
    tw_linear_attr attr;
    uint16_t *x, *w, *y, *z;
    float *bias;
} linear;

static void *memory(size_t bytes) {
    void *p = NULL;
    ck_assert_int_eq(posix_memalign(&p, 64, bytes), 0);
    memset(p, 0xff, bytes);
    return p;
}

static void prepare(linear *l, tw_device *device, bool trains) {
    tw_call *c = &l->call;
    c->device = device, c->needs_grad = trains;
    TW_ASSERT_OK(tw_op_prepare(c));
    free(c->scratch);
    c->scratch = memory(c->forward_scratch + 64);
    c->output[0].data = l->y;
    if (trains) c->output[1].data = l->z;
    memset(l->y, 0xff, ROWS * OUT * 2), memset(l->z, 0xff, ROWS * OUT * 2);
}

static void make(linear *l, tw_activation activation, bool in_out, bool bias) {
    *l = (linear){.attr = {.activation = activation, .in_out = in_out}};
    l->x = memory(ROWS * (IN + GAP) * 2), l->w = memory(IN * OUT * 2), l->bias = memory(OUT * 4);
    l->y = memory(ROWS * OUT * 2), l->z = memory(ROWS * OUT * 2);
    for (int64_t i = 0; i < ROWS * IN; i++)
        l->x[i / IN * (IN + GAP) + i % IN] = tw_to_bf16(sinf((float)(i * 37 % 101)));
    for (int64_t i = 0; i < IN * OUT; i++) l->w[i] = tw_to_bf16(cosf((float)(i * 53 % 211)));
    for (int64_t i = 0; i < OUT; i++) l->bias[i] = 0.3f * (float)(i % 7 - 3);
    int64_t x[2] = {ROWS, IN}, w[2] = {in_out ? IN : OUT, in_out ? OUT : IN}, b[1] = {OUT};
    tw_call *c = &l->call;
    *c = (tw_call){.op = TW_OP_linear, .attr = &l->attr, .n_inputs = 4};
    c->input[0] = tw_tensor_of(l->x, TW_BF16, 2, x);
    c->input[0].stride[0] = IN + GAP;
    c->input[1] = tw_tensor_of(l->w, TW_BF16, 2, w);
    c->input[2] = bias ? tw_tensor_of(l->bias, TW_F32, 1, b) : tw_absent();
    c->input[3] = tw_absent();
}

static void release(linear *l) {
    free(l->x), free(l->w), free(l->bias), free(l->y), free(l->z), free(l->call.scratch);
}

/* Within rounding of z and of the result: 2^-8 of the whole. */
static void check(const uint16_t *got, const uint16_t *want, const char *what) {
    double off = 0, size = 0;
    for (int64_t i = 0; i < ROWS * OUT; i++) {
        double g = (double)tw_from_bf16(got[i]), w = (double)tw_from_bf16(want[i]);
        off += (g - w) * (g - w), size += w * w;
    }
    ck_assert_msg(off <= 0x1p-16 * size, "%s is %g off", what, sqrt(off / size));
}

START_TEST(both_ways_give_what_the_cpu_gives) {
    tw_activation activation = _i & 1 ? TW_QUICK_GELU : TW_ERF_GELU;
    bool in_out = _i & 2, bias = _i & 4, trains = _i & 8;
    uint16_t y[ROWS * OUT], z[ROWS * OUT];
    tw_device *cpu, *d = graph_device();
    linear l;
    make(&l, activation, in_out, bias);
    TW_ASSERT_OK(tw_device_cpu(1, &cpu));
    prepare(&l, cpu, trains);
    TW_ASSERT_OK(tw_op_forward(&l.call));
    memcpy(y, l.y, sizeof y), memcpy(z, l.z, sizeof z);
    for (int way = 0; way < TW_WAYS; way++) {
        int before = tw_shim_graph_runs();
        tw_cuda_force_way(d, (tw_way)way);
        prepare(&l, d, trains);
        TW_ASSERT_OK(tw_op_forward(&l.call));
        ck_assert_int_eq(tw_shim_graph_runs() - before, way == TW_WAY_GRAPH);
        check(l.y, y, "y");
        if (trains) check(l.z, z, "z");
    }
    ck_assert_ptr_null(tw_cuda_choice(d, 0));
    tw_device_free(cpu), tw_device_free(d);
    release(&l);
}
END_TEST

/* Backward, from z as a graph left it: with the bias in f32, which a product has rounded. */
START_TEST(backward_follows_either_way) {
    uint16_t dx[TW_WAYS][ROWS * IN], *dy = memory(ROWS * OUT * 2), *to = memory(ROWS * IN * 2);
    tw_device *d = graph_device();
    double off = 0, size = 0;
    linear l;
    make(&l, _i ? TW_QUICK_GELU : TW_ERF_GELU, false, true);
    for (int way = 0; way < TW_WAYS; way++) {
        for (int64_t i = 0; i < ROWS * OUT; i++) dy[i] = tw_to_bf16(sinf((float)(i * 29 % 97)));
        tw_cuda_force_way(d, (tw_way)way);
        prepare(&l, d, true);
        TW_ASSERT_OK(tw_op_forward(&l.call));
        l.call.output_grad[0] = tw_tensor_of(dy, TW_BF16, 2, (int64_t[]){ROWS, OUT});
        l.call.input_grad[0] = tw_tensor_of(to, TW_BF16, 2, (int64_t[]){ROWS, IN});
        free(l.call.scratch);
        l.call.scratch = memory(l.call.backward_scratch);
        TW_ASSERT_OK(tw_op_backward(&l.call));
        memcpy(dx[way], to, sizeof dx[way]);
    }
    for (int64_t i = 0; i < ROWS * IN; i++) {
        double a = (double)tw_from_bf16(dx[0][i]), b = (double)tw_from_bf16(dx[1][i]);
        off += (a - b) * (a - b), size += a * a;
    }
    ck_assert_msg(off <= 0x1p-14 * size, "dx differs by %g", sqrt(off / size));
    free(dy), free(to);
    tw_device_free(d);
    release(&l);
}
END_TEST

/* The bias as the product adds it comes from the parameter set, if that has it on a 16-byte boundary. */
START_TEST(a_copy_of_the_bias_is_taken) {
    uint16_t y[ROWS * OUT], *half = memory((OUT + 8) * 2);
    tw_device *d = graph_device();
    linear l;
    make(&l, TW_IDENTITY, false, true);
    prepare(&l, d, false);
    TW_ASSERT_OK(tw_op_forward(&l.call));
    memcpy(y, l.y, sizeof y);
    for (int other = 0; other < 3;
         other++) { /* the bias; another one; the same, but not on such a boundary */
        uint16_t *at = half + (other == 2);
        for (int64_t i = 0; i < OUT; i++) at[i] = tw_to_bf16(l.bias[i] + (other ? 8.0f : 0.0f));
        prepare(&l, d, false);
        l.call.input_half[2] = at;
        TW_ASSERT_OK(tw_op_forward(&l.call));
        ck_assert_msg((memcmp(y, l.y, sizeof y) != 0) == (other == 1), "case %d", other);
    }
    free(half);
    tw_device_free(d);
    release(&l);
}
END_TEST

START_TEST(a_way_is_measured_once) {
    tw_device *d = graph_device();
    char text[256];
    linear l;
    make(&l, TW_QUICK_GELU, false, true);
    prepare(&l, d, true);
    int before = tw_shim_graph_runs();
    TW_ASSERT_OK(tw_op_forward(&l.call));
    ck_assert_int_gt(tw_shim_graph_runs() - before, 2);
    const tw_choice *c = tw_cuda_choice(d, 0);
    ck_assert_ptr_nonnull(c);
    ck_assert_ptr_null(tw_cuda_choice(d, 1));
    ck_assert(c->seconds[TW_WAY_GRAPH] > 0 && c->seconds[TW_WAY_OWN] > 0);
    ck_assert_int_eq(c->way, c->seconds[TW_WAY_GRAPH] < c->seconds[TW_WAY_OWN] ? TW_WAY_GRAPH : TW_WAY_OWN);
    before = tw_shim_graph_runs();
    TW_ASSERT_OK(tw_op_forward(&l.call)); /* now it is known */
    ck_assert_int_eq(tw_shim_graph_runs() - before, c->way == TW_WAY_GRAPH);
    ck_assert(tw_cuda_choice_text(d, 0, text, sizeof text));
    ck_assert_msg(strstr(text, "linear (13,24) to 40, QuickGELU, for training: by "), "'%s'", text);
    ck_assert(!tw_cuda_choice_text(d, 1, text, sizeof text));
    prepare(&l, d, false); /* another graph, another choice */
    TW_ASSERT_OK(tw_op_forward(&l.call));
    ck_assert_ptr_nonnull(tw_cuda_choice(d, 1));
    tw_device_free(d);
    release(&l);
}
END_TEST

/* ---- slopes within a graph ---- */

/* (4) times the slope at (4) */
static void describe_slope(const tw_dnn_key *key, tw_dnn_graph *g) {
    const int64_t dim[4] = {1, 1, 1, 4}, stride[4] = {4, 4, 4, 1};
    int dy = tw_dnn_memory(g, 0, TW_DNN_F32, dim, stride), z = tw_dnn_memory(g, 1, TW_DNN_F32, dim, stride);
    int dz = tw_dnn_memory(g, 2, TW_DNN_F32, dim, stride);
    tw_dnn_add(g, (tw_dnn_op)key->number[0], dy, z, TW_DNN_NONE, dz)->value = 1.702f;
}

static double activated(bool quick, double z) {
    return quick ? z / (1 + exp(-(double)1.702f * z)) : z * 0.5 * (1 + erf(z / sqrt(2)));
}

/* What the interpreter takes a slope for is the derivative of what it takes the activation for. */
START_TEST(slopes_are_derivatives) {
    bool quick = _i;
    tw_device *d = graph_device();
    float *dy = memory(16), *z = memory(16), *dz = memory(16);
    void *slot[TW_DNN_SLOTS] = {dy, z, dz}, *scratch;
    tw_dnn_plan *plan;
    tw_dnn_key key = {-1, {quick ? TW_DNN_SWISH_SLOPE : TW_DNN_GELU_SLOPE}};
    for (int i = 0; i < 4; i++) dy[i] = 1 + 0.5f * (float)i, z[i] = 1.3f * (float)i - 2;
    TW_ASSERT_OK(tw_dnn_find(d, &key, describe_slope, &plan));
    scratch = memory(tw_dnn_scratch(plan));
    TW_ASSERT_OK(tw_dnn_run(d, plan, slot, scratch));
    for (int i = 0; i < 4; i++) {
        double at = (double)z[i], h = 1e-5;
        double slope = (activated(quick, at + h) - activated(quick, at - h)) / (2 * h);
        ck_assert_msg(fabs((double)dz[i] - (double)dy[i] * slope) < 1e-6, "%g is not %g times %g",
                      (double)dz[i], (double)dy[i], slope);
    }
    free(dy), free(z), free(dz), free(scratch);
    tw_device_free(d);
}
END_TEST

/* Otherwise the result would depend on a measurement. */
START_TEST(a_deterministic_device_measures_nothing) {
    tw_device *d = graph_device();
    int before = tw_shim_graph_runs();
    linear l;
    make(&l, TW_ERF_GELU, false, true);
    tw_cuda_set_deterministic(d, true);
    prepare(&l, d, true);
    TW_ASSERT_OK(tw_op_forward(&l.call));
    ck_assert_int_eq(tw_shim_graph_runs(), before);
    ck_assert_ptr_null(tw_cuda_choice(d, 0));
    tw_device_free(d);
    release(&l);
}
END_TEST

/* A captured queue cannot be timed; what is captured is the way that needs no measuring. */
START_TEST(nothing_is_measured_in_a_capture) {
    ck_assert_int_eq(setenv("TW_SHIM_LATE", "1", 1), 0); /* others capture nothing */
    tw_device *d = graph_device();
    tw_graph *graph = NULL;
    linear l;
    make(&l, TW_ERF_GELU, false, true);
    prepare(&l, d, true);
    TW_ASSERT_OK(d->capture_begin(d));
    TW_ASSERT_OK(tw_op_forward(&l.call));
    TW_ASSERT_OK(d->capture_end(d, &graph));
    ck_assert_ptr_null(tw_cuda_choice(d, 0));
    ck_assert_ptr_nonnull(graph);
    int before = tw_shim_graph_runs();
    TW_ASSERT_OK(d->launch(d, graph));
    TW_ASSERT_OK(d->sync(d, TW_QUEUE_COMPUTE));
    ck_assert_int_eq(tw_shim_graph_runs(), before);
    d->graph_release(d, graph);
    tw_device_free(d);
    ck_assert_int_eq(unsetenv("TW_SHIM_LATE"), 0);
    release(&l);
}
END_TEST

int main(void) {
    TCase *tcase = tcase_create("cuda linear");
    tcase_add_loop_test(tcase, both_ways_give_what_the_cpu_gives, 0, 16);
    tcase_add_loop_test(tcase, backward_follows_either_way, 0, 2);
    tcase_add_loop_test(tcase, slopes_are_derivatives, 0, 2);
    tcase_add_test(tcase, a_copy_of_the_bias_is_taken);
    tcase_add_test(tcase, a_way_is_measured_once);
    tcase_add_test(tcase, a_deterministic_device_measures_nothing);
    tcase_add_test(tcase, nothing_is_measured_in_a_capture);
    return tw_test_run_case("cuda linear", tcase);
}
