#include "autograd/cuda/norm_graph.h"
#include "autograd/cuda/rows.h"
#include "autograd/cuda/running_statistics.h"
extern "C" {
#include "autograd/comm.h"
}

/* Batch normalisation over the rows of x, then the residual and ReLU (batch_norm.c says what inputs and
 * outputs are and what the running statistics' gradients mean). Sums over rows are taken in f32 by a thread,
 * and from there on in f64 and in a fixed order; those for the variance are of differences to the first row.
 *
 * Over ranks each tells the others, in f64, what it would have made of its own rows: their number, mean and
 * squared deviations, in backward two sums. All join that in the order of the ranks, on the compute queue:
 * the host waits for none of it. */

namespace {

enum { X, GAIN, BIAS, MEAN, VARIANCE, RESIDUAL };
enum { THREADS = 256 };

struct norm_args {
    tw_view x, y, residual;       /* forward; backward: x, y */
    tw_view dy, dx, dresidual;    /* backward */
    const float *gain, *bias;     /* (C) */
    const float *mean, *variance; /* (C): the batch's or running ones */
    double *told;                 /* (ranks, 1 + 2C) see tell; NULL: this rank's rows are the batch */
    int rank, ranks;
    float *partial;       /* (blocks, 2, C) */
    float *slope, *level; /* (C): what the gradient of x needs, see finish_gradient */
    int64_t rows, d;
    float eps;
    bool relu, training;
};

/* How a block's threads share rows and columns: `packs` packs of a row next to each other, as many rows as
 * fit. */
struct place {
    int64_t col, row, step; /* first row, rows to the next one */
    int slot, slots, pack, packs;
    bool active;
};

TW_DEVICE place place_here(int64_t d) {
    place at;
    int64_t all = (d + TW_PACK - 1) / TW_PACK;
    at.packs = all < TW_WARP ? (int)all : (int)TW_WARP;
    at.slots = THREADS / at.packs;
    at.slot = (int)threadIdx.x / at.packs, at.pack = (int)threadIdx.x % at.packs;
    at.col = ((int64_t)blockIdx.y * at.packs + at.pack) * TW_PACK;
    at.row = (int64_t)blockIdx.x * at.slots + at.slot, at.step = (int64_t)gridDim.x * at.slots;
    at.active = at.slot < at.slots;
    return at;
}

/* The block's sums of columns to partial[blockIdx.x][which]. Every thread calls it. */
TW_DEVICE void store_partial(const norm_args &a, const place &at, const float *v, int which, float *shared) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) shared[e * THREADS + (int)threadIdx.x] = v[e];
    __syncthreads();
    if (at.slot > 0) return;
    for (int e = 0; e < TW_PACK; e++) {
        float sum = 0.0f;
        for (int s = 0; s < at.slots; s++) sum += shared[e * THREADS + s * at.packs + at.pack];
        if (at.col + e < a.d) a.partial[((int64_t)blockIdx.x * 2 + which) * a.d + at.col + e] = sum;
    }
}

/* The sum over blocks of partial[..][which][i], in f64. */
TW_DEVICE double total_of(const norm_args &a, int64_t blocks, int which, int64_t i) {
    double sum = 0.0;
    for (int64_t b = 0; b < blocks; b++) sum += (double)a.partial[(b * 2 + which) * a.d + i];
    return sum;
}

/* ---- between ranks ---- */

/* Sums of a channel over some rows. Forward: their mean and the sum of squared deviations from it; backward:
 * of g (x - mean) and of g. */
struct sums {
    double rows, first, second;
};

/* Of this rank's rows. */
TW_DEVICE sums own_moments(const norm_args &a, int64_t blocks, int64_t i) {
    if (a.rows == 0) return {0.0, 0.0, 0.0};
    double n = (double)a.rows, mean = total_of(a, blocks, 0, i) / n;
    double squares = total_of(a, blocks, 1, i) - n * mean * mean;
    return {n, (double)tw_get_one(a.x, i) + mean, squares < 0.0 ? 0.0 : squares}; /* NaN stays */
}

TW_DEVICE sums own_gradients(const norm_args &a, int64_t blocks, int64_t i) {
    return {(double)a.rows, total_of(a, blocks, 0, i), total_of(a, blocks, 1, i)};
}

/* This rank's to its place: the number of rows, then C of each sum. */
__global__ void tell(norm_args a, int64_t blocks, bool forward) {
    int64_t i = tw_global_thread();
    double *mine = a.told + a.rank * (1 + 2 * a.d);
    if (i == 0) mine[0] = (double)a.rows;
    if (i >= a.d) return;
    sums s = forward ? own_moments(a, blocks, i) : own_gradients(a, blocks, i);
    mine[1 + i] = s.first, mine[1 + a.d + i] = s.second;
}

TW_DEVICE sums told_by(const norm_args &a, int rank, int64_t i) {
    const double *all = a.told + rank * (1 + 2 * a.d);
    return {all[0], all[1 + i], all[1 + a.d + i]};
}

/* Of all ranks' rows (Chan et al. 1979). */
TW_DEVICE sums joined_moments(const norm_args &a, int64_t i) {
    sums all = {0.0, 0.0, 0.0};
    for (int r = 0; r < a.ranks; r++) {
        sums s = told_by(a, r, i);
        if (s.rows == 0.0) continue;
        double delta = s.first - all.first, share = s.rows / (all.rows + s.rows);
        all.first += delta * share;
        all.second += s.second + delta * delta * all.rows * share;
        all.rows += s.rows;
    }
    return all;
}

TW_DEVICE sums joined_gradients(const norm_args &a, int64_t i) {
    sums all = {0.0, 0.0, 0.0};
    for (int r = 0; r < a.ranks; r++) {
        sums s = told_by(a, r, i);
        all.rows += s.rows, all.first += s.first, all.second += s.second;
    }
    return all;
}

/* ---- forward ---- */

__global__ void __launch_bounds__(THREADS) statistics_partial(norm_args a) {
    __shared__ float shared[TW_PACK * THREADS];
    place at = place_here(a.d);
    float origin[TW_PACK], sum[TW_PACK] = {}, square[TW_PACK] = {}, v[TW_PACK];
    tw_load_columns(a.x, 0, at.col, a.d, origin);
    for (int64_t r = at.row; at.active && r < a.rows; r += at.step) {
        tw_load_columns(a.x, r, at.col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) {
            float c = v[e] - origin[e];
            sum[e] += c, square[e] += c * c;
        }
    }
    store_partial(a, at, sum, 0, shared);
    store_partial(a, at, square, 1, shared);
}

/* stats: (2,C) mean and biased variance; 0 of no rows. */
__global__ void __launch_bounds__(64) statistics_finish(norm_args a, int64_t blocks, float *stats) {
    int64_t i = tw_global_thread();
    if (i >= a.d) return;
    sums s = a.told ? joined_moments(a, i) : own_moments(a, blocks, i);
    stats[i] = (float)s.first;
    stats[a.d + i] = s.rows > 0.0 ? (float)(s.second / s.rows) : 0.0f;
}

TW_DEVICE void load_rule(const norm_args &a, int64_t col, float *mean, float *scale) {
    float variance[TW_PACK], gain[TW_PACK];
    tw_load_pack(a.mean + col, false, a.d - col, mean);
    tw_load_pack(a.variance + col, false, a.d - col, variance);
    tw_load_pack(a.gain + col, false, a.d - col, gain);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) scale[e] = gain[e] * (1.0f / sqrtf(variance[e] + a.eps));
}

__global__ void __launch_bounds__(THREADS) normalise(norm_args a) {
    place at = place_here(a.d);
    float mean[TW_PACK], scale[TW_PACK], bias[TW_PACK], v[TW_PACK], other[TW_PACK] = {};
    load_rule(a, at.col, mean, scale);
    tw_load_pack(a.bias + at.col, false, a.d - at.col, bias);
    for (int64_t r = at.row; at.active && r < a.rows; r += at.step) {
        tw_load_columns(a.x, r, at.col, a.d, v);
        if (a.residual.data) tw_load_columns(a.residual, r, at.col, a.d, other);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) {
            v[e] = (v[e] - mean[e]) * scale[e] + bias[e] + other[e];
            if (a.relu && v[e] < 0.0f) v[e] = 0.0f; /* NaN stays */
        }
        tw_store_columns(a.y, r, at.col, a.d, v);
    }
}

/* ---- backward ---- */

/* y's gradient through ReLU. */
TW_DEVICE void load_gradient(const norm_args &a, int64_t row, int64_t col, float *g) {
    float y[TW_PACK];
    tw_load_columns(a.dy, row, col, a.d, g);
    if (!a.relu) return;
    tw_load_columns(a.y, row, col, a.d, y);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++)
        if (!(y[e] > 0.0f)) g[e] = 0.0f;
}

/* Sums of g (x - mean) and of g; the residual's gradient on the way. */
__global__ void __launch_bounds__(THREADS) gradient_partial(norm_args a) {
    __shared__ float shared[TW_PACK * THREADS];
    place at = place_here(a.d);
    float mean[TW_PACK], slope[TW_PACK] = {}, level[TW_PACK] = {}, g[TW_PACK], x[TW_PACK];
    tw_load_pack(a.mean + at.col, false, a.d - at.col, mean);
    for (int64_t r = at.row; at.active && r < a.rows; r += at.step) {
        load_gradient(a, r, at.col, g);
        if (a.dresidual.data) tw_store_columns(a.dresidual, r, at.col, a.d, g);
        tw_load_columns(a.x, r, at.col, a.d, x);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) slope[e] += g[e] * (x[e] - mean[e]), level[e] += g[e];
    }
    store_partial(a, at, slope, 0, shared);
    store_partial(a, at, level, 1, shared);
}

/* Where the gradients of gain, bias and running statistics go; data NULL: nowhere. */
struct column_grads {
    tw_view gain, bias;
    tw_running_grads running;
};

/* slope = rstd^2 sum g (x - mean) / rows, level = mean of g, over all ranks' rows; gain and bias get what
 * this rank's own make of it. */
__global__ void __launch_bounds__(64) finish_gradient(norm_args a, int64_t blocks, column_grads to) {
    int64_t i = tw_global_thread();
    if (i >= a.d) return;
    sums own = own_gradients(a, blocks, i), all = a.told ? joined_gradients(a, i) : own;
    double rstd = 1.0 / sqrt((double)a.variance[i] + (double)a.eps),
           inverse = all.rows > 0.0 ? 1.0 / all.rows : 0.0;
    if (to.gain.data) tw_put_one(to.gain, i, (float)(own.first * rstd));
    if (to.bias.data) tw_put_one(to.bias, i, (float)own.second);
    a.slope[i] = (float)(all.first * rstd * rstd * inverse), a.level[i] = (float)(all.second * inverse);
    float unbiased = all.rows > 1.0 ? (float)(all.rows / (all.rows - 1.0)) : 1.0f;
    tw_put_running(to.running, i, a.training && a.rows > 0, a.mean[i], a.variance[i], unbiased);
}

__global__ void __launch_bounds__(THREADS) input_gradient(norm_args a) {
    place at = place_here(a.d);
    float mean[TW_PACK], scale[TW_PACK], slope[TW_PACK], level[TW_PACK], g[TW_PACK], x[TW_PACK];
    load_rule(a, at.col, mean, scale);
    tw_load_pack(a.slope + at.col, false, a.d - at.col, slope);
    tw_load_pack(a.level + at.col, false, a.d - at.col, level);
    for (int64_t r = at.row; at.active && r < a.rows; r += at.step) {
        load_gradient(a, r, at.col, g);
        if (a.training) {
            tw_load_columns(a.x, r, at.col, a.d, x);
#pragma unroll
            for (int e = 0; e < TW_PACK; e++) g[e] -= level[e] + (x[e] - mean[e]) * slope[e];
        }
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) g[e] *= scale[e];
        tw_store_columns(a.dx, r, at.col, a.d, g);
    }
}

norm_args args_of(const tw_call *c) {
    const tw_batch_norm_attr *attr = (const tw_batch_norm_attr *)c->attr;
    norm_args a = {};
    a.x = tw_view_rows(&c->input[X]);
    a.y = tw_view_out(&c->output[0], TW_WRITE);
    a.rows = tw_tensor_rows(&c->input[X]), a.d = tw_tensor_cols(&c->input[X]);
    a.gain = (const float *)c->input[GAIN].data, a.bias = (const float *)c->input[BIAS].data;
    a.mean = (const float *)(attr->training ? c->output[1].data : c->input[MEAN].data);
    a.variance = attr->training ? a.mean + a.d : (const float *)c->input[VARIANCE].data;
    if (attr->training && attr->comm) {
        a.told = (double *)c->scratch;
        a.rank = attr->comm->rank, a.ranks = attr->comm->ranks;
    }
    a.partial = (float *)((double *)c->scratch + a.ranks * (1 + 2 * a.d));
    a.slope = a.partial + TW_COLUMN_BLOCKS * 2 * a.d, a.level = a.slope + a.d;
    a.eps = attr->eps, a.relu = attr->relu, a.training = attr->training;
    return a;
}

/* What later kernels find in a.told. f64 travel as two f32: bits are moved, never added. */
tw_status exchange(const tw_call *c, const norm_args &a, int64_t blocks, bool forward) {
    tw_comm *comm = ((const tw_batch_norm_attr *)c->attr)->comm;
    if (!a.told) return TW_OK;
    TRY(TW_LAUNCH(c->device, tell, tw_blocks(a.d, 64), 64, 0, a, blocks, forward));
    TRY(tw_comm_gather_even(comm, (float *)(void *)a.told, 2 * (1 + 2 * a.d)));
    return comm->follow(comm);
}

/* Blocks for rows (x) and columns (y); passes without sums take `more` times as many rows of blocks. */
dim3 grid_of(const norm_args &a, int64_t more) {
    int64_t packs = tw_packs_of(a.d), width = packs < TW_WARP ? packs : (int64_t)TW_WARP,
            slots = THREADS / width;
    int64_t blocks = (a.rows + slots - 1) / slots, most = TW_COLUMN_BLOCKS * more;
    return dim3((unsigned)(blocks < most ? blocks : most), tw_blocks(packs, width));
}

} // namespace

tw_status tw_batch_norm_forward_cuda(const tw_call *c) {
    norm_args a = args_of(c);
    tw_device *d = c->device;
    bool done;
    if (a.d == 0) return TW_OK;
    TRY(tw_norm_graph_forward(c, &done));
    if (done) return TW_OK;
    if (tw_present(&c->input[RESIDUAL])) a.residual = tw_view_rows(&c->input[RESIDUAL]);
    dim3 grid = grid_of(a, 1);
    if (a.training) {
        TRY(TW_LAUNCH(d, statistics_partial, grid, THREADS, 0, a));
        TRY(exchange(c, a, (int64_t)grid.x, true));
        TRY(TW_LAUNCH(d, statistics_finish, tw_blocks(a.d, 64), 64, 0, a, (int64_t)grid.x,
                      (float *)c->output[1].data));
    }
    return TW_LAUNCH(d, normalise, grid_of(a, 16), THREADS, 0, a);
}

static tw_status own_backward(const tw_call *c) {
    norm_args a = args_of(c);
    tw_device *d = c->device;
    if (a.d == 0) return TW_OK;
    a.dy = tw_view_out(&c->output_grad[0], TW_WRITE);
    a.dx = tw_view_out(&c->input_grad[X], c->input_mode[X]);
    a.dresidual = tw_view_out(&c->input_grad[RESIDUAL], c->input_mode[RESIDUAL]);
    column_grads to = {tw_view_out(&c->input_grad[GAIN], c->input_mode[GAIN]),
                       tw_view_out(&c->input_grad[BIAS], c->input_mode[BIAS]),
                       tw_running_grads_of(c, MEAN, VARIANCE)};
    dim3 grid = grid_of(a, 1);
    TRY(TW_LAUNCH(d, gradient_partial, grid, THREADS, 0, a));
    TRY(exchange(c, a, (int64_t)grid.x, false));
    TRY(TW_LAUNCH(d, finish_gradient, tw_blocks(a.d, 64), 64, 0, a, (int64_t)grid.x, to));
    if (!a.dx.data) return TW_OK;
    return TW_LAUNCH(d, input_gradient, grid_of(a, 16), THREADS, 0, a);
}

tw_status tw_batch_norm_backward_cuda(const tw_call *c) {
    bool done;
    TRY(tw_norm_graph_backward(c, own_backward, &done));
    return done ? TW_OK : own_backward(c);
}
