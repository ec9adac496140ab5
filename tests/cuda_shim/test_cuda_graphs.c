/* The graphs that a GPU's library runs, interpreted (dnn_shim.c): that operations use them where they should,
 * and dropout, whose draws test_cuda_kernels cannot know. */
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_attention.h"
#include "autograd/op.h"
#include "device_shim.h"
#include "graph_device.h"
#include "tw_test.h"

#include <math.h>

enum { T = 11, HEADS = 2, WIDTH = 16, D = HEADS * WIDTH, BATCH = 2 };
static const float DROPOUT = 0.25f;

/* One call of attention on bf16. */
typedef struct attention {
    tw_call call;
    tw_attention_attr attr;
    tw_step step;
    uint16_t *qkv, *o, *dy, *dqkv;
    float *lse;
    int32_t *lengths;
} attention;

static void *memory(size_t bytes) {
    void *p = NULL;
    ck_assert_int_eq(posix_memalign(&p, 64, bytes), 0);
    memset(p, 0x7f, bytes);
    return p;
}

static float value(int64_t i) {
    return sinf((float)(i * 37 % 101)) * 1.5f;
}

static void make(attention *a, float dropout) {
    *a = (attention){.attr = {.heads = HEADS, .dropout = dropout, .layer = 3},
                     .step = {.seed = 5, .step = 2, .sample = 7}};
    a->qkv = memory(BATCH * T * 3 * D * 2), a->dqkv = memory(BATCH * T * 3 * D * 2);
    a->o = memory(BATCH * T * D * 2), a->dy = memory(BATCH * T * D * 2);
    a->lse = memory(BATCH * HEADS * T * 4), a->lengths = memory(BATCH * 4);
    a->lengths[0] = T, a->lengths[1] = T - 4;
    for (int64_t i = 0; i < BATCH * T * 3 * D; i++) {
        int64_t row = i / (3 * D) % T, col = i % (3 * D);
        a->qkv[i] = tw_to_bf16(col < 2 * D ? value(i) : col % WIDTH == row); /* v: rows of a unit matrix */
    }
    for (int64_t i = 0; i < BATCH * T * D; i++) a->dy[i] = tw_to_bf16(value(i + 3));
    tw_call *c = &a->call;
    int64_t x[3] = {BATCH, T, 3 * D}, n[1] = {BATCH};
    *c = (tw_call){.op = TW_OP_attention, .device = graph_device(), .attr = &a->attr, .step = &a->step};
    c->n_inputs = 2, c->needs_grad = true;
    c->input[0] = tw_tensor_of(a->qkv, TW_BF16, 3, x);
    c->input[1] = tw_tensor_of(a->lengths, TW_I32, 1, n);
    TW_ASSERT_OK(tw_op_prepare(c));
    size_t scratch = c->forward_scratch > c->backward_scratch ? c->forward_scratch : c->backward_scratch;
    c->scratch = memory(scratch);
    c->output[0].data = a->o, c->output[1].data = a->lse;
    c->output_grad[0] = tw_tensor_of(a->dy, TW_BF16, 3, (int64_t[]){BATCH, T, D});
    c->input_grad[0] = tw_tensor_of(a->dqkv, TW_BF16, 3, x);
}

static void release(attention *a) {
    free(a->qkv), free(a->dqkv), free(a->o), free(a->dy), free(a->lse), free(a->lengths);
    free(a->call.scratch);
    tw_device_free(a->call.device);
}

static double at(const uint16_t *p, int64_t i) {
    return (double)tw_from_bf16(p[i]);
}

/* Element of part p (q, k, v) of qkv or its gradient. */
static double part(const uint16_t *qkv, int p, int64_t b, int64_t h, int64_t t, int64_t c) {
    return at(qkv, (b * T + t) * 3 * D + (p * HEADS + h) * WIDTH + c);
}

/* As v's rows are those of a unit matrix, o holds the dropped probabilities; from them and the probabilities
 * before, all that backward must give. */
static void check_head(const attention *a, int64_t b, int64_t h, int *dropped, double *off, double *size) {
    int64_t keys = a->lengths[b];
    double p[T][T], kept[T][T], ds[T][T], got[3][T][WIDTH] = {0};
    for (int64_t i = 0; i < T; i++) {
        double sum = 0, dot = 0;
        for (int64_t j = 0; j < keys; j++) {
            double s = 0;
            for (int64_t c = 0; c < WIDTH; c++)
                s += part(a->qkv, 0, b, h, i, c) * part(a->qkv, 1, b, h, j, c) / sqrt((double)WIDTH);
            sum += p[i][j] = exp(s);
        }
        for (int64_t j = 0; j < keys; j++) {
            p[i][j] /= sum;
            kept[i][j] = at(a->o, (b * T + i) * D + h * WIDTH + j);
            double whole = p[i][j] / (1 - (double)DROPOUT);
            *dropped += kept[i][j] == 0;
            ck_assert_msg(kept[i][j] == 0 || fabs(kept[i][j] - whole) < 0.02 * whole, "%g is not 0 or %g",
                          kept[i][j], whole);
            ds[i][j] = 0; /* gradient of p: its mask and factor times dO v^T */
            for (int64_t c = 0; c < WIDTH; c++)
                ds[i][j] += at(a->dy, (b * T + i) * D + h * WIDTH + c) * part(a->qkv, 2, b, h, j, c);
            ds[i][j] *= kept[i][j] > 0 ? 1 / (1 - (double)DROPOUT) : 0;
            dot += p[i][j] * ds[i][j];
        }
        for (int64_t j = 0; j < keys; j++) ds[i][j] = p[i][j] * (ds[i][j] - dot) / sqrt((double)WIDTH);
    }
    for (int64_t i = 0; i < T; i++)
        for (int64_t j = 0; j < keys; j++)
            for (int64_t c = 0; c < WIDTH; c++) {
                got[0][i][c] += ds[i][j] * part(a->qkv, 1, b, h, j, c);
                got[1][j][c] += ds[i][j] * part(a->qkv, 0, b, h, i, c);
                got[2][j][c] += kept[i][j] * at(a->dy, (b * T + i) * D + h * WIDTH + c);
            }
    for (int q = 0; q < 3; q++)
        for (int64_t i = 0; i < T; i++)
            for (int64_t c = 0; c < WIDTH; c++) {
                double difference = part(a->dqkv, q, b, h, i, c) - got[q][i][c];
                off[q] += difference * difference, size[q] += got[q][i][c] * got[q][i][c];
            }
}

/* What an engine would do that keeps f32 inside. */
static bool has_bf16_inside(const tw_dnn_graph *g) {
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i].slot == TW_DNN_INSIDE && g->tensor[i].type == TW_DNN_BF16) return true;
    return false;
}

/* Deterministic or not; by the graphs as they are described, or with f32 inside where that is refused. */
START_TEST(dropout_of_backward_is_that_of_forward) {
    attention a;
    tw_shim_refuse_graphs(_i / 2 ? has_bf16_inside : NULL);
    int dropped = 0, before = tw_shim_graph_runs();
    double off[3] = {0}, size[3] = {0};
    make(&a, DROPOUT);
    tw_cuda_set_deterministic(a.call.device, _i % 2);
    TW_ASSERT_OK(tw_op_forward(&a.call));
    TW_ASSERT_OK(tw_op_backward(&a.call));
    ck_assert_int_eq(tw_shim_graph_runs() - before, 2);
    for (int64_t b = 0; b < BATCH; b++)
        for (int64_t h = 0; h < HEADS; h++) check_head(&a, b, h, &dropped, off, size);
    int all = HEADS * T * (a.lengths[0] + a.lengths[1]);
    ck_assert_msg(dropped > all / 8 && dropped < all * 3 / 8, "%d of %d probabilities were dropped", dropped,
                  all);
    for (int q = 0; q < 3; q++)
        ck_assert_msg(off[q] <= 1e-4 * size[q], "gradient %d is off by %g", q, sqrt(off[q] / size[q]));
    release(&a);
}
END_TEST

/* Bytes of scratch that backward writes. */
static size_t scratch_used(attention *a, bool deterministic) {
    unsigned char *scratch = a->call.scratch;
    size_t used = 0;
    tw_cuda_set_deterministic(a->call.device, deterministic);
    TW_ASSERT_OK(tw_op_prepare(&a->call));
    a->call.output[0].data = a->o, a->call.output[1].data = a->lse;
    memset(scratch, 0x7f, a->call.backward_scratch);
    TW_ASSERT_OK(tw_op_backward(&a->call));
    for (size_t i = 0; i < a->call.backward_scratch; i++) used += scratch[i] != 0x7f;
    return used;
}

/* Blocks of keys add to q's gradient in f32 memory in any order, unless the device is to be deterministic. */
START_TEST(deterministic_backward_adds_nothing_in_memory) {
    attention a;
    make(&a, 0);
    ck_assert(!tw_cuda_deterministic(a.call.device));
    TW_ASSERT_OK(tw_op_forward(&a.call));
    size_t sum = BATCH * T * D * sizeof(float), freely = scratch_used(&a, false),
           strictly = scratch_used(&a, true);
    ck_assert_msg(freely > strictly + sum / 2, "%zu bytes of scratch were used, %zu deterministically",
                  freely, strictly);
    release(&a);
}
END_TEST

/* The same step gives the same mask; another step, layer or sample another. */
START_TEST(dropout_depends_on_step_layer_and_sample) {
    uint16_t first[BATCH * T * D];
    attention a;
    make(&a, DROPOUT);
    TW_ASSERT_OK(tw_op_forward(&a.call));
    memcpy(first, a.o, sizeof first);
    TW_ASSERT_OK(tw_op_forward(&a.call));
    ck_assert_mem_eq(first, a.o, sizeof first);
    for (int change = 0; change < 4; change++) {
        tw_step step = a.step;
        tw_attention_attr attr = a.attr;
        a.step.seed += change == 0, a.step.step += change == 1, a.step.sample += change == 2;
        a.attr.layer += change == 3;
        TW_ASSERT_OK(tw_op_forward(&a.call));
        ck_assert_msg(memcmp(first, a.o, sizeof first) != 0, "change %d keeps the mask", change);
        a.step = step, a.attr = attr;
    }
    release(&a);
}
END_TEST

START_TEST(what_cannot_keep_the_mask_is_refused) {
    attention a;
    make(&a, DROPOUT);
    TW_ASSERT_OK(tw_op_forward(&a.call));
    a.call.input_mode[0] = TW_ADD;
    TW_ASSERT_FAILS(tw_op_backward(&a.call), TW_ERR_UNSUPPORTED, "can only be written");
    release(&a);
}
END_TEST

START_TEST(own_kernels_run_where_graphs_are_not_allowed) {
    attention a;
    int before = tw_shim_graph_runs();
    make(&a, 0);
    tw_dnn_allow(a.call.device, false);
    TW_ASSERT_OK(tw_op_forward(&a.call));
    TW_ASSERT_OK(tw_op_backward(&a.call));
    tw_dnn_allow(a.call.device, true);
    ck_assert_int_eq(tw_shim_graph_runs(), before);
    release(&a);
}
END_TEST

START_TEST(inference_gives_what_training_gives) {
    uint16_t first[BATCH * T * D];
    attention a;
    make(&a, 0);
    TW_ASSERT_OK(tw_op_forward(&a.call));
    memcpy(first, a.o, sizeof first);
    memset(a.o, 0x7f, sizeof first);
    a.call.needs_grad = false;
    TW_ASSERT_OK(tw_op_prepare(&a.call));
    ck_assert_int_eq(a.call.n_outputs, 1);
    a.call.output[0].data = a.o;
    int before = tw_shim_graph_runs();
    TW_ASSERT_OK(tw_op_forward(&a.call));
    ck_assert_int_eq(tw_shim_graph_runs() - before, 1);
    ck_assert_mem_eq(first, a.o, sizeof first);
    release(&a);
}
END_TEST

/* ---- packed samples ---- */

enum { LEFT = 3 }; /* rows behind the last sample, which hold NaN */

/* The same samples without padding. */
static void pack(const attention *a, attention *p, int32_t offsets[BATCH + 1]) {
    *p = (attention){.attr = a->attr, .step = a->step};
    offsets[0] = 0;
    for (int b = 0; b < BATCH; b++) offsets[b + 1] = offsets[b] + a->lengths[b];
    int64_t rows = offsets[BATCH] + LEFT, x[2] = {rows, 3 * D}, y[2] = {rows, D}, n = BATCH + 1;
    size_t bytes = (size_t)rows * D * 2;
    p->qkv = memory(3 * bytes), p->dqkv = memory(3 * bytes), p->o = memory(bytes), p->dy = memory(bytes);
    p->lse = memory((size_t)rows * HEADS * 4);
    memset(p->qkv, 0xff, 3 * bytes), memset(p->dy, 0xff, bytes);
    for (int b = 0; b < BATCH; b++) {
        size_t length = (size_t)a->lengths[b] * D * 2;
        memcpy(p->qkv + offsets[b] * 3 * D, a->qkv + b * T * 3 * D, 3 * length);
        memcpy(p->dy + offsets[b] * D, a->dy + b * T * D, length);
    }
    p->attr.tokens = T;
    tw_call *c = &p->call;
    *c = (tw_call){.op = TW_OP_attention, .device = a->call.device, .attr = &p->attr, .step = &p->step};
    c->n_inputs = 3, c->needs_grad = true;
    c->input[0] = tw_tensor_of(p->qkv, TW_BF16, 2, x);
    c->input[1] = tw_absent();
    c->input[2] = tw_tensor_of(offsets, TW_I32, 1, &n);
    TW_ASSERT_OK(tw_op_prepare(c));
    size_t scratch = c->forward_scratch > c->backward_scratch ? c->forward_scratch : c->backward_scratch;
    c->scratch = memory(scratch);
    memset(c->scratch, 0xff, scratch);
    c->output[0].data = p->o, c->output[1].data = p->lse;
    c->output_grad[0] = tw_tensor_of(p->dy, TW_BF16, 2, y);
    c->input_grad[0] = tw_tensor_of(p->dqkv, TW_BF16, 2, x);
}

/* Rows of `cols` bf16: those of samples have the padded ones' bits, those behind them are 0. */
static void check_rows(const attention *a, const int32_t *offsets, const uint16_t *packed,
                       const uint16_t *padded, int64_t cols, const char *what) {
    for (int b = 0; b < BATCH; b++)
        ck_assert_msg(memcmp(packed + offsets[b] * cols, padded + b * T * cols,
                             (size_t)(a->lengths[b] * cols) * 2) == 0,
                      "%s of sample %d differs", what, b);
    for (int64_t i = 0; i < LEFT * cols; i++) ck_assert_int_eq(packed[offsets[BATCH] * cols + i], 0);
}

static void check_statistics(const attention *a, const attention *p, const int32_t *offsets) {
    int64_t rows = offsets[BATCH] + LEFT;
    for (int64_t h = 0; h < HEADS; h++) {
        for (int b = 0; b < BATCH; b++)
            ck_assert_mem_eq(p->lse + h * rows + offsets[b], a->lse + (b * HEADS + h) * T,
                             (size_t)a->lengths[b] * sizeof(float));
        for (int64_t i = offsets[BATCH]; i < rows; i++) ck_assert(p->lse[h * rows + i] == 0);
    }
}

/* Packing changes no bit, dropout's draws included, whatever lies where no sample is, and whether the library
 * skips it or not.
 */
START_TEST(packed_samples_give_what_padded_ones_give) {
    static const int32_t lengths[][BATCH] = {{T, T - 4}, {1, T}, {7, 1}, {3, 5}};
    int32_t offsets[BATCH + 1];
    attention a, p;
    make(&a, _i % 2 ? DROPOUT : 0);
    tw_shim_count_all(_i >= 8);
    memcpy(a.lengths, lengths[_i / 2 % 4], sizeof lengths[0]);
    for (int b = 0; b < BATCH; b++) /* queries that packing leaves out have no gradient */
        memset(a.dy + (b * T + a.lengths[b]) * D, 0, (size_t)(T - a.lengths[b]) * D * 2);
    int before = tw_shim_graph_runs();
    TW_ASSERT_OK(tw_op_forward(&a.call));
    TW_ASSERT_OK(tw_op_backward(&a.call));
    pack(&a, &p, offsets);
    TW_ASSERT_OK(tw_op_forward(&p.call));
    check_rows(&a, offsets, p.o, a.o, D, "o");
    check_statistics(&a, &p, offsets);
    memset(p.call.scratch, 0xff, p.call.backward_scratch);
    TW_ASSERT_OK(tw_op_backward(&p.call));
    check_rows(&a, offsets, p.dqkv, a.dqkv, 3 * D, "the gradient");
    ck_assert_int_eq(tw_shim_graph_runs() - before, 4);
    free(p.qkv), free(p.o), free(p.dy), free(p.dqkv), free(p.lse), free(p.call.scratch);
    release(&a);
    tw_shim_count_all(false);
}
END_TEST

int main(void) {
    TCase *tcase = tcase_create("cuda graphs");
    tcase_add_loop_test(tcase, dropout_of_backward_is_that_of_forward, 0, 4);
    tcase_add_test(tcase, deterministic_backward_adds_nothing_in_memory);
    tcase_add_test(tcase, dropout_depends_on_step_layer_and_sample);
    tcase_add_test(tcase, what_cannot_keep_the_mask_is_refused);
    tcase_add_test(tcase, inference_gives_what_training_gives);
    tcase_add_test(tcase, own_kernels_run_where_graphs_are_not_allowed);
    tcase_add_loop_test(tcase, packed_samples_give_what_padded_ones_give, 0, 16);
    return tw_test_run_case("cuda graphs", tcase);
}
