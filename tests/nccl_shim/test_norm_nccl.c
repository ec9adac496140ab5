/* Batch norm over GPU ranks gives what one rank makes of all their rows: results, statistics, gradients. */
#include "op_device.h"
#include "ranks_program.h"

#include "autograd/cuda/dnn.h"
#include "autograd/random.h"

#include <math.h>

enum { X, GAIN, BIAS, MEAN, VARIANCE, RESIDUAL, INPUTS, DY };
enum { RANKS = 3, WIDTH = 24, COLUMN_SETS = 6 }; /* (COLUMN_SETS, width): statistics, then GAIN .. VARIANCE */

typedef struct norm_case {
    const char *name;
    int64_t width, rows[RANKS]; /* ranks beyond have as many as the first ones */
    float origin[RANKS];        /* what a rank's x lies around, by 1 at most */
    tw_dtype type;
    bool relu, residual;
    double tolerance; /* of the relative L2 distance; 0: 2e-6 */
} norm_case;

/* Of the rows [first, first + rows) of all. */
typedef struct part {
    int64_t first, rows;
    float *out[3]; /* (rows, width): y, the gradients of x and of the residual */
    float columns[COLUMN_SETS * WIDTH];
} part;

/* Host memory for op_run_on_device. */
static void *buffer(const float *values, int64_t n, tw_dtype type) {
    char *p = calloc((size_t)n * sizeof(float) + OP_GUARD, 1);
    ck_assert_ptr_nonnull(p);
    for (int64_t i = 0; values && i < n; i++) {
        if (type == TW_F32)
            ((float *)(void *)p)[i] = values[i];
        else
            ((uint16_t *)(void *)p)[i] = tw_to_bf16(values[i]);
    }
    return p;
}

/* What lies there, as f32; frees it. */
static float *values_of(void *p, int64_t n, tw_dtype type) {
    float *v = malloc((size_t)n * sizeof *v + 1);
    for (int64_t i = 0; i < n; i++)
        v[i] = type == TW_F32 ? ((float *)p)[i] : tw_from_bf16(((uint16_t *)p)[i]);
    free(p);
    return v;
}

/* Element i of data set `which`, in [-1, 1]. */
static float drawn(int which, int64_t i) {
    tw_draw draw = {.seed = 3, .purpose = TW_DRAW_TEST, .layer = (uint32_t)which};
    return (float)tw_random_u32(&draw, (uint32_t)i) * 0x1p-31f - 1.0f;
}

static float *rows_of(const norm_case *c, const part *p, int which) {
    int64_t n = p->rows * c->width;
    float *v = calloc((size_t)n + 1, sizeof *v);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = p->first * c->width + i, row = at / c->width;
        int r = 0;
        while (r < comm->ranks - 1 && row >= c->rows[r % RANKS]) row -= c->rows[r++ % RANKS];
        v[i] = drawn(which, at) + (which == X ? c->origin[r % RANKS] : 0.0f);
    }
    return v;
}

static tw_tensor given(float *values, tw_dtype type, int ndim, const int64_t *shape) {
    tw_tensor t = tw_tensor_of(NULL, type, ndim, shape);
    t.data = buffer(values, tw_tensor_count(&t), type);
    free(values);
    return t;
}

static float *column(int which, int64_t width) {
    float *v = malloc((size_t)width * sizeof *v);
    for (int64_t i = 0; i < width; i++) v[i] = drawn(which, i) + (which == BIAS ? 0.0f : 1.5f);
    return v;
}

static tw_tensor room_for(const tw_tensor *like) {
    tw_tensor t = *like;
    if (tw_present(like)) t.data = buffer(NULL, tw_tensor_count(like), TW_F32); /* at least */
    return t;
}

static void prepare(const norm_case *c, const part *p, tw_call *call, size_t bytes[TW_MAX_INPUTS]) {
    int64_t shape[2] = {p->rows, c->width}, width = c->width;
    call->input[X] = given(rows_of(c, p, X), c->type, 2, shape);
    for (int i = GAIN; i <= VARIANCE; i++) call->input[i] = given(column(i, width), TW_F32, 1, &width);
    call->input[RESIDUAL] = c->residual ? given(rows_of(c, p, RESIDUAL), c->type, 2, shape) : tw_absent();
    TW_ASSERT_OK(tw_op_prepare(call));
    for (int i = 0; i < call->n_outputs; i++) call->output[i] = room_for(&call->output[i]);
    for (int i = 0; i < INPUTS; i++) {
        call->input_grad[i] = room_for(&call->input[i]);
        if (tw_present(&call->input[i])) bytes[i] = tw_tensor_bytes(&call->input[i]);
    }
    call->output_grad[0] = given(rows_of(c, p, DY), c->type, 2, shape);
    call->scratch = calloc(call->forward_scratch + call->backward_scratch + OP_GUARD, 1);
}

static void run(const norm_case *c, tw_comm *over, float share, part *p) {
    tw_batch_norm_attr attr = {.eps = 1e-5f, .relu = c->relu, .training = true, .comm = over};
    tw_step step = {.share = share};
    tw_call call = {.op = TW_OP_batch_norm,
                    .device = device,
                    .attr = &attr,
                    .n_inputs = INPUTS,
                    .needs_grad = true,
                    .step = &step};
    size_t bytes[TW_MAX_INPUTS] = {0};
    int64_t n = p->rows * c->width, width = c->width;
    prepare(c, p, &call, bytes);
    TW_ASSERT_OK(op_run_on_device(&call, false, bytes, 0));
    TW_ASSERT_OK(op_run_on_device(&call, true, bytes, 0));
    memcpy(p->columns, call.output[1].data, 2 * (size_t)width * sizeof(float));
    for (int i = GAIN; i <= VARIANCE; i++) {
        memcpy(p->columns + (1 + i) * width, call.input_grad[i].data, (size_t)width * sizeof(float));
        free(call.input_grad[i].data);
    }
    p->out[0] = values_of(call.output[0].data, n, c->type);
    p->out[1] = values_of(call.input_grad[X].data, n, c->type);
    p->out[2] = c->residual ? values_of(call.input_grad[RESIDUAL].data, n, c->type) : NULL;
    for (int i = 0; i < INPUTS; i++) free(call.input[i].data);
    free(call.output[1].data), free(call.output_grad[0].data), free(call.scratch);
}

static void release(part *p) {
    for (int i = 0; i < 3; i++) free(p->out[i]);
}

/* least: what |b| is taken for at least, where it is what remains of larger numbers. */
static void is_near(const norm_case *c, const char *what, const float *a, const float *b, int64_t n,
                    double least) {
    double d = 0, size = least * least * (double)n;
    for (int64_t i = 0; i < n; i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        size += pow((double)b[i], 2);
    }
    if (!(sqrt(d) <= (c->tolerance > 0 ? c->tolerance : 2e-6) * sqrt(size)))
        ck_abort_msg("%s, rank %d of %d: %s is %g away from %g", c->name, comm->rank, comm->ranks, what,
                     sqrt(d), sqrt(size));
}

/* Every rank has the same statistics; what it gives the parameters is summed up. */
static void join_columns(const norm_case *c, part *p) {
    static float all[RANKS_STARTED][COLUMN_SETS * WIDTH];
    int64_t width = c->width;
    TW_ASSERT_OK(comm->gather_all(comm, p->columns, sizeof p->columns, all));
    for (int64_t i = 0; i < 2 * width; i++)
        for (int r = 1; r < comm->ranks; r++)
            ck_assert_msg(all[r][i] == all[0][i], "statistics of rank %d", r);
    for (int64_t i = 2 * width; i < COLUMN_SETS * width; i++) {
        p->columns[i] = 0;
        for (int r = 0; r < comm->ranks; r++) p->columns[i] += all[r][i];
    }
}

static void check(const norm_case *c) {
    static const char *const names[] = {"y", "the gradient of x", "that of the residual"},
                             *const columns[] = {"mean",
                                                 "variance",
                                                 "the gradient of gain",
                                                 "that of bias",
                                                 "that of the running mean",
                                                 "that of the running variance"};
    part own = {.rows = c->rows[comm->rank % RANKS]}, whole = {0};
    for (int r = 0; r < comm->ranks; r++) {
        if (r < comm->rank) own.first += c->rows[r % RANKS];
        whole.rows += c->rows[r % RANKS];
    }
    float share = whole.rows ? (float)own.rows / (float)whole.rows : 0.5f;
    run(c, NULL, 1.0f, &whole);
    run(c, comm, share, &own);
    join_columns(c, &own);
    for (int i = 0; i < COLUMN_SETS; i++)
        is_near(c, columns[i], own.columns + i * c->width, whole.columns + i * c->width, c->width, 0.5);
    for (int i = 0; i < 3; i++)
        if (own.out[i])
            is_near(c, names[i], own.out[i], whole.out[i] + own.first * c->width, own.rows * c->width, 0);
    release(&own), release(&whole);
}

START_TEST(ranks_normalise_as_one) {
    static const norm_case cases[] = {
        {.name = "plain", .width = 11, .rows = {9, 7, 5}},
        {.name = "ReLU, residual", .width = 16, .rows = {12, 9, 6}, .relu = true, .residual = true},
        {.name = "the last has none", .width = 16, .rows = {12, 0, 6}, .relu = true, .residual = true},
        {.name = "the first has none", .width = 5, .rows = {0, 30, 3}, .residual = true},
        {.name = "one row each", .width = 3, .rows = {1, 1, 1}},
        {.name = "no rows", .width = 3},
        {.name = "more rows than a block", .width = 3, .rows = {301, 200, 7}, .relu = true},
        {.name = "bf16",
         .width = 24,
         .rows = {20, 15, 9},
         .type = TW_BF16,
         .relu = true,
         .residual = true,
         .tolerance = 0x1p-8},
        /* Rounding weighs as many times more as the mean is larger than the deviation. */
        {.name = "far from zero", .width = 7, .rows = {20, 11, 9}, .origin = {50, 50, 50}, .tolerance = 5e-5},
        {.name = "far from each other", .width = 7, .rows = {20, 11, 9}, .origin = {0, 100, -3000}},
    };
#ifndef TW_NCCL_SHIM
    tw_dnn_allow(device,
                 false); /* one rank's rows by the same kernels: cuDNN's is test_model_graphs' to judge */
#endif
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check(&cases[i]);
}
END_TEST

RANKS_PROGRAM("norm_nccl", ranks_normalise_as_one)
