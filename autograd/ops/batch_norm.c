#include "autograd/comm.h"
#include "autograd/cuda/norm_graph.h"
#include "autograd/cuda/scratch.h"
#include "autograd/ops/rows.h"
#include "autograd/parallel.h"

#include <math.h>

/* Batch normalisation over the rows of x (Ioffe and Szegedy 2015), then the residual and ReLU. inputs: x
 * (B,H,W,C) or any rows of C; gain, bias, running mean and running variance (C) f32; residual as x or absent.
 * outputs: y as x; when training also the batch's mean and (biased) variance (2,C) f32.
 *
 * The running statistics are parameters that no one differentiates. What backward delivers as their gradient
 * is that of half the squared distance to the batch's statistics, weighted by the micro-batch's share of the
 * batch: share (running - batch's), with the variance's unbiased estimate. So each step moves them once
 * (move_statistics), by the average over its micro-batches and ranks; recomputed and features-first forwards
 * leave them alone.
 *
 * With attr.comm the statistics are those of all ranks' rows (synchronised batch norm): each gets every
 * rank's sums in f64 and joins them in the order of the ranks, in forward and in backward: on the CPU by the
 * communicator's host group, on a GPU by its asynchronous one. A rank may have no rows. */

enum { X, GAIN, BIAS, MEAN, VARIANCE, RESIDUAL };

static const tw_batch_norm_attr *attr_of(const tw_call *c) {
    return c->attr;
}

/* Scratch: 2C doubles a thread, then 2C floats for all, then FLOATS C floats a thread. */
enum { FLOATS = 5 };

/* What a rank tells the others: its number of rows, then 2C sums. Scratch for its own and everybody's lies
 * before the rest. */
static size_t exchanged(const tw_call *c, int64_t d) {
    const tw_comm *comm = attr_of(c)->comm;
    return comm ? (size_t)((1 + comm->ranks) * (1 + 2 * d)) : 0;
}

tw_status tw_batch_norm_shape(tw_call *c) {
    static const char *const names[] = {"x", "gain", "bias", "running mean", "running variance", "residual"};
    const tw_tensor *x = &c->input[X], *residual = &c->input[RESIDUAL];
    TRY(tw_call_check_rows(c, X, names[X]));
    int64_t d = tw_tensor_cols(x), stats[2] = {2, d};
    for (int i = GAIN; i <= VARIANCE; i++) TRY(tw_call_check_f32(c, i, names[i], 1, &d));
    if (tw_present(residual)) {
        TRY(tw_call_check_rows(c, RESIDUAL, names[RESIDUAL]));
        if (!tw_tensor_same_shape(residual, x) || residual->dtype != x->dtype)
            return FAIL(TW_ERR_SHAPE, "batch_norm: x and the residual differ in type or shape");
    }
    tw_call_output(c, 0, x->dtype, x->ndim, x->shape);
    if (attr_of(c)->training) tw_call_output(c, 1, TW_F32, 2, stats);
    c->saved_inputs = 1u << X | 1u << GAIN | 1u << MEAN | 1u << VARIANCE;
    c->saved_outputs = (attr_of(c)->relu ? 1u << 0 : 0) | (attr_of(c)->training ? 1u << 1 : 0);
    size_t threads = (size_t)tw_threads(), width = (size_t)d;
    c->forward_scratch = c->backward_scratch = (exchanged(c, d) + threads * 2 * width) * sizeof(double) +
                                               (2 + threads * FLOATS) * width * sizeof(float);
    int64_t told = (attr_of(c)->comm ? attr_of(c)->comm->ranks : 0) * (1 + 2 * d) * (int64_t)sizeof(double);
    int64_t partial = told + tw_column_scratch(2, d);
    tw_call_scratch_cuda(c, partial, partial + 2 * d * (int64_t)sizeof(float));
#ifdef TW_WITH_CUDA
    if (c->device && !tw_on_cpu(c->device)) tw_norm_graph_shape(c);
#endif
    return TW_OK;
}

/* What both directions work with. */
typedef struct work {
    int64_t rows, d, stride; /* of x */
    int64_t all_rows;        /* of all ranks */
    double *exchange;        /* see exchanged */
    int64_t block;           /* rows summed in f32 before they go to f64 */
    const float *mean;
    double *sums; /* (threads, 2, C) */
    float *scale; /* gain / sqrt(var + eps) */
    float *rstd;
    float *buffers; /* (threads, FLOATS, C) */
} work;

static work work_of(const tw_call *c) {
    work w = {.rows = tw_tensor_rows(&c->input[X]), .d = tw_tensor_cols(&c->input[X])};
    tw_tensor_is_rows(&c->input[X], &w.stride);
    w.block = 8192 / (w.d > 0 ? w.d : 1);
    w.block = w.block < 16 ? 16 : w.block > 128 ? 128 : w.block;
    w.all_rows = w.rows;
    w.exchange = c->scratch;
    w.sums = w.exchange + exchanged(c, w.d);
    w.scale = (float *)(w.sums + tw_threads() * 2 * w.d);
    w.rstd = w.scale + w.d;
    w.buffers = w.rstd + w.d;
    w.mean = attr_of(c)->training ? c->output[1].data : c->input[MEAN].data;
    return w;
}

static void find_scale(const tw_call *c, const work *w) {
    const float *gain = c->input[GAIN].data, *variance = attr_of(c)->training
                                                             ? (const float *)c->output[1].data + w->d
                                                             : c->input[VARIANCE].data;
    for (int64_t i = 0; i < w->d; i++) {
        w->rstd[i] = 1.0f / sqrtf(variance[i] + attr_of(c)->eps);
        w->scale[i] = gain[i] * w->rstd[i];
    }
}

/* ---- forward ---- */

/* Mean and sum of squared deviations of rows [begin, end) join those of the n rows before (Chan et al. 1979).
 * A block stays in the cache for its second pass. buffers: sum, squares, row. */
static void join_block(const tw_call *c, const work *w, int64_t begin, int64_t end, int64_t n, double *mean,
                       double *squares, float *buffers) {
    float *sum = buffers, *square = sum + w->d, *row = square + w->d;
    int64_t d = w->d, rows = end - begin;
    memset(sum, 0, (size_t)(2 * d) * sizeof *sum);
    for (int64_t r = begin; r < end; r++) {
        const float *x = tw_row_read(&c->input[X], w->stride, r, row);
#pragma omp simd
        for (int64_t i = 0; i < d; i++) sum[i] += x[i];
    }
    float inverse = 1.0f / (float)rows;
    for (int64_t i = 0; i < d; i++) sum[i] *= inverse;
    for (int64_t r = begin; r < end; r++) {
        const float *x = tw_row_read(&c->input[X], w->stride, r, row);
#pragma omp simd
        for (int64_t i = 0; i < d; i++) square[i] += (x[i] - sum[i]) * (x[i] - sum[i]);
    }
    double share = (double)rows / (double)(n + rows);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        double delta = (double)sum[i] - mean[i];
        mean[i] += delta * share;
        squares[i] += (double)square[i] + delta * delta * (double)n * share;
    }
}

/* Everybody's rows and sums; the first of them. The sum of the rows goes to w. */
static tw_status tell_all(const tw_call *c, work *w, const double **all) {
    tw_comm *comm = attr_of(c)->comm;
    int64_t n = 1 + 2 * w->d;
    double *everybody = w->exchange + n;
    w->exchange[0] = (double)w->rows;
    memcpy(w->exchange + 1, w->sums, (size_t)(2 * w->d) * sizeof *w->sums);
    TRY(comm->gather_all(comm, w->exchange, (size_t)n * sizeof *w->exchange, everybody));
    w->all_rows = 0;
    for (int r = 0; r < comm->ranks; r++) w->all_rows += (int64_t)everybody[r * n];
    *all = everybody;
    return TW_OK;
}

/* Mean and squares in sums: this rank's to those of all. */
static tw_status join_ranks(const tw_call *c, work *w) {
    const double *all;
    int64_t d = w->d, n = 0;
    TRY(tell_all(c, w, &all));
    memset(w->sums, 0, (size_t)(2 * d) * sizeof *w->sums);
    for (int r = 0; r < attr_of(c)->comm->ranks; r++) {
        const double *other = all + r * (1 + 2 * d) + 1;
        int64_t rows = (int64_t)other[-1];
        double share = rows ? (double)rows / (double)(n + rows) : 0;
        for (int64_t i = 0; rows && i < d; i++) {
            double delta = other[i] - w->sums[i];
            w->sums[i] += delta * share;
            w->sums[d + i] += other[d + i] + delta * delta * (double)n * share;
        }
        n += rows;
    }
    return TW_OK;
}

/* Mean and sum of squared deviations of this call's rows into sums: each thread's share of them, joined in
 * thread order. */
static void own_statistics(const tw_call *c, const work *w) {
    int64_t d = w->d;
    int threads = 1;
#pragma omp parallel
    {
        int me = omp_get_thread_num();
        double *mean = w->sums + me * 2 * d, *squares = mean + d;
        if (me == 0) threads = omp_get_num_threads();
        memset(mean, 0, (size_t)(2 * d) * sizeof *mean);
        tw_range r = tw_my_share(w->rows);
        for (int64_t at = r.begin; at < r.end; at += w->block) {
            int64_t end = at + w->block < r.end ? at + w->block : r.end;
            join_block(c, w, at, end, at - r.begin, mean, squares, w->buffers + me * FLOATS * d);
        }
    }
    double *mean = w->sums, *squares = mean + d;
    for (int64_t t = 1; t < threads; t++) {
        int64_t n = w->rows * t / threads, rows = w->rows * (t + 1) / threads - n;
        const double *other = w->sums + t * 2 * d;
        double share = rows ? (double)rows / (double)(n + rows) : 0;
        for (int64_t i = 0; i < d; i++) {
            double delta = other[i] - mean[i];
            mean[i] += delta * share;
            squares[i] += other[d + i] + delta * delta * (double)n * share;
        }
    }
}

/* The batch's mean and variance into output 1. */
static tw_status batch_statistics(const tw_call *c, work *w) {
    int64_t d = w->d;
    float *stats = c->output[1].data;
    own_statistics(c, w);
    if (attr_of(c)->comm) TRY(join_ranks(c, w));
    for (int64_t i = 0; i < d; i++) {
        stats[i] = (float)w->sums[i];
        stats[d + i] = w->all_rows ? (float)(w->sums[d + i] / (double)w->all_rows) : 0.0f;
    }
    return TW_OK;
}

static void normalise_row(const tw_call *c, const work *w, int64_t row, int64_t residual_stride,
                          float *buffers) {
    const tw_tensor *y = &c->output[0], *residual = &c->input[RESIDUAL];
    const float *x = tw_row_read(&c->input[X], w->stride, row, buffers), *mean = w->mean, *scale = w->scale,
                *bias = c->input[BIAS].data;
    float *out = tw_row_target(y, row, buffers + w->d), low = attr_of(c)->relu ? 0.0f : -INFINITY;
    if (tw_present(residual)) {
        const float *other = tw_row_read(residual, residual_stride, row, buffers + 2 * w->d);
#pragma omp simd
        for (int64_t i = 0; i < w->d; i++) {
            float z = (x[i] - mean[i]) * scale[i] + bias[i] + other[i];
            out[i] = z < low ? low : z; /* NaN stays */
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < w->d; i++) {
            float z = (x[i] - mean[i]) * scale[i] + bias[i];
            out[i] = z < low ? low : z;
        }
    }
    tw_row_deliver(y, row, out, TW_WRITE);
}

tw_status tw_batch_norm_forward_cpu(const tw_call *c) {
    work w = work_of(c);
    int64_t residual_stride = w.d;
    if (tw_present(&c->input[RESIDUAL])) (void)tw_tensor_is_rows(&c->input[RESIDUAL], &residual_stride);
    if (attr_of(c)->training) TRY(batch_statistics(c, &w));
    find_scale(c, &w);
#pragma omp parallel
    {
        float *mine = w.buffers + omp_get_thread_num() * FLOATS * w.d;
        tw_range r = tw_my_share(w.rows);
        for (int64_t i = r.begin; i < r.end; i++) normalise_row(c, &w, i, residual_stride, mine);
    }
    return TW_OK;
}

/* ---- backward ---- */

/* One row: y's gradient through ReLU, over itself; the residual's; its part of the gain's and bias's sums.
 * buffers: the two sums, y or x, dy. */
static void backward_row(const tw_call *c, const work *w, int64_t row, float *buffers) {
    const tw_tensor *dy = &c->output_grad[0], *residual = &c->input_grad[RESIDUAL];
    float *gain = buffers, *bias = gain + w->d, *other = bias + w->d, *copy = other + w->d;
    int64_t d = w->d;
    const float *g = tw_row_read(dy, d, row, copy);
    if (attr_of(c)->relu) {
        const float *y = tw_row_read(&c->output[0], d, row, other);
        float *masked = tw_row_target(dy, row, copy);
#pragma omp simd
        for (int64_t i = 0; i < d; i++) masked[i] = y[i] > 0.0f ? g[i] : 0.0f;
        tw_row_deliver(dy, row, masked, TW_WRITE);
        g = masked;
    }
    if (residual->data) tw_row_deliver(residual, row, g, c->input_mode[RESIDUAL]);
    const float *x = tw_row_read(&c->input[X], w->stride, row, other), *mean = w->mean;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) {
        gain[i] += g[i] * (x[i] - mean[i]);
        bias[i] += g[i];
    }
}

static void add_up(double *total, float *part, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) total[i] += (double)part[i], part[i] = 0.0f;
}

/* sums[0 .. C) = sum of dz (x - mean), sums[C .. 2C) = sum of dz. */
static void backward_sums(const tw_call *c, const work *w) {
    int64_t d = w->d;
    int threads = 1;
#pragma omp parallel
    {
        int me = omp_get_thread_num();
        double *total = w->sums + me * 2 * d;
        float *mine = w->buffers + me * FLOATS * d;
        if (me == 0) threads = omp_get_num_threads();
        memset(total, 0, (size_t)(2 * d) * sizeof *total);
        memset(mine, 0, (size_t)(2 * d) * sizeof *mine);
        tw_range r = tw_my_share(w->rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            backward_row(c, w, i, mine);
            if ((i - r.begin) % w->block == w->block - 1 || i + 1 == r.end) add_up(total, mine, 2 * d);
        }
    }
    for (int64_t t = 1; t < threads; t++)
        for (int64_t i = 0; i < 2 * d; i++) w->sums[i] += w->sums[t * 2 * d + i];
}

/* The sums of this rank to those of all. */
static tw_status add_ranks(const tw_call *c, work *w) {
    const double *all;
    int64_t n = 1 + 2 * w->d;
    TRY(tell_all(c, w, &all));
    memset(w->sums, 0, (size_t)(2 * w->d) * sizeof *w->sums);
    for (int r = 0; r < attr_of(c)->comm->ranks; r++)
        for (int64_t i = 0; i < 2 * w->d; i++) w->sums[i] += all[r * n + 1 + i];
    return TW_OK;
}

/* dx = scale (dz - [training] (sum dz + xhat sum dz xhat) / rows). slope: rstd^2 sum dz (x - mean) / rows,
 * and mean of dz. */
static void input_gradient(const tw_call *c, const work *w, const float *slope, const float *level) {
    const tw_tensor *dx = &c->input_grad[X], *dy = &c->output_grad[0];
    bool training = attr_of(c)->training;
    int64_t d = w->d;
#pragma omp parallel
    {
        float *mine = w->buffers + (omp_get_thread_num() * FLOATS + 2) * d;
        const float *mean = w->mean, *scale = w->scale;
        tw_range r = tw_my_share(w->rows);
        for (int64_t row = r.begin; row < r.end; row++) {
            const float *g = tw_row_read(dy, d, row, mine);
            float *out = mine + 2 * d;
            if (c->input_mode[X] == TW_WRITE) out = tw_row_target(dx, row, out);
            if (training) {
                const float *x = tw_row_read(&c->input[X], w->stride, row, mine + d);
#pragma omp simd
                for (int64_t i = 0; i < d; i++)
                    out[i] = scale[i] * (g[i] - level[i] - (x[i] - mean[i]) * slope[i]);
            } else {
#pragma omp simd
                for (int64_t i = 0; i < d; i++) out[i] = scale[i] * g[i];
            }
            tw_row_deliver(dx, row, out, c->input_mode[X]);
        }
    }
}

/* See the top of the file. An empty batch moves nothing; of one row the variance is 0. */
static void deliver_statistics(const tw_call *c, const work *w, float *buffer) {
    const float *stats = c->output[1].data;
    float share = w->rows ? c->step->share : 0.0f,
          unbiased = w->all_rows > 1 ? (float)((double)w->all_rows / (double)(w->all_rows - 1)) : 1.0f;
    for (int k = MEAN; k <= VARIANCE; k++) {
        if (!c->input_grad[k].data) continue;
        const float *running = c->input[k].data, *batch = stats + (k - MEAN) * w->d;
        float factor = k == VARIANCE ? unbiased : 1.0f;
        for (int64_t i = 0; i < w->d; i++)
            buffer[i] = share != 0.0f ? share * (running[i] - factor * batch[i]) : 0.0f;
        tw_row_deliver(&c->input_grad[k], 0, buffer, c->input_mode[k]);
    }
}

tw_status tw_batch_norm_backward_cpu(const tw_call *c) {
    work w = work_of(c);
    bool training = attr_of(c)->training;
    find_scale(c, &w);
    backward_sums(c, &w);
    float *slope = w.buffers, *level = slope + w.d;
    for (int64_t i = 0; i < w.d; i++) level[i] = (float)w.sums[w.d + i];
    if (c->input_grad[BIAS].data) tw_row_deliver(&c->input_grad[BIAS], 0, level, c->input_mode[BIAS]);
    for (int64_t i = 0; i < w.d; i++) slope[i] = (float)(w.sums[i] * (double)w.rstd[i]);
    if (c->input_grad[GAIN].data) tw_row_deliver(&c->input_grad[GAIN], 0, slope, c->input_mode[GAIN]);
    if (training && attr_of(c)->comm) TRY(add_ranks(c, &w));
    double inverse = w.all_rows ? 1.0 / (double)w.all_rows : 0;
    for (int64_t i = 0; i < w.d; i++) {
        double rstd = (double)w.rstd[i];
        slope[i] = (float)(w.sums[i] * rstd * rstd * inverse);
        level[i] = (float)(w.sums[w.d + i] * inverse);
    }
    if (c->input_grad[X].data) input_gradient(c, &w, slope, level);
    float *buffer = w.buffers + 2 * w.d;
    if (training) deliver_statistics(c, &w, buffer);
    for (int k = MEAN; !training && k <= VARIANCE; k++) { /* running statistics stay */
        memset(buffer, 0, (size_t)w.d * sizeof *buffer);
        if (c->input_grad[k].data) tw_row_deliver(&c->input_grad[k], 0, buffer, c->input_mode[k]);
    }
    return TW_OK;
}
