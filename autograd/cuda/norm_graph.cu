#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_norm.h"
#include "autograd/cuda/norm_graph.h"
#include "autograd/cuda/rows.h"
#include "autograd/cuda/running_statistics.h"

namespace {

enum { X, GAIN, BIAS, MEAN, VARIANCE, RESIDUAL };
enum { THREADS = 64 };

const tw_batch_norm_attr *attr_of(const tw_call *c) {
    return (const tw_batch_norm_attr *)c->attr;
}

/* False: there is no graph for such a call. */
bool describe(const tw_call *c, bool backward, tw_dnn_norm *out) {
    const tw_batch_norm_attr *attr = attr_of(c);
    const tw_tensor *x = &c->input[X], *residual = &c->input[RESIDUAL];
    bool has_residual = tw_present(residual);
    if (!attr->training || attr->comm || x->ndim != 4 || tw_tensor_count(x) == 0 ||
        !tw_tensor_is_contiguous(x))
        return false;
    tw_dnn_norm v = {};
    v.batch = x->shape[0], v.height = x->shape[1], v.width = x->shape[2], v.channels = x->shape[3];
    v.type = x->dtype == TW_BF16 ? TW_DNN_BF16 : TW_DNN_F32;
    v.deterministic = tw_cuda_deterministic(c->device);
    v.backward = backward;
    if (backward) {
        v.relu = attr->relu && !has_residual; /* else it is part of the residual's gradient, or of none */
        *out = v;
        return tw_cuda_way_allowed(c->device, TW_WAY_GRAPH);
    }
    v.residual = has_residual, v.relu = attr->relu, v.eps = attr->eps;
    *out = v;
    return !has_residual || tw_tensor_is_contiguous(residual);
}

/* *plan: NULL: own kernels. */
tw_status find(const tw_call *c, bool backward, tw_dnn_key *key, tw_dnn_plan **plan) {
    tw_dnn_norm v;
    *plan = nullptr;
    if (!describe(c, backward, &v)) return TW_OK;
    *key = tw_dnn_norm_key(&v);
    return tw_dnn_find(c->device, key, tw_dnn_norm_describe, plan);
}

/* Bytes of f32 (C): scratch begins with 1 / sqrt(variance + eps), backward with the gradients of gain and
 * bias behind it; then comes the plan's own. */
size_t channel_bytes(const tw_call *c) {
    return ((size_t)tw_tensor_cols(&c->input[X]) * sizeof(float) + 255) / 256 * 256;
}

bool all_aligned(void *const *slot) {
    for (int i = 0; i < TW_DNN_SLOTS; i++)
        if ((uintptr_t)slot[i] % 16 != 0) return false;
    return true;
}

__global__ void variance_of(const float *inverse, float *variance, int64_t n, float eps) {
    int64_t i = tw_global_thread();
    if (i >= n) return;
    float v = 1.0f / (inverse[i] * inverse[i]) - eps;
    variance[i] = v < 0.0f ? 0.0f : v; /* NaN stays */
}

/* ---- backward ---- */

/* A backward that a graph serves. */
struct backward {
    const tw_call *call;
    tw_op_run own;
    tw_dnn_plan *plan;
    void *slot[TW_DNN_SLOTS];
    bool masks; /* the graph reads the residual's gradient, which is written first */
};

__global__ void inverse_of(const float *variance, float *inverse, int64_t n, float eps) {
    int64_t i = tw_global_thread();
    if (i < n) inverse[i] = 1.0f / sqrtf(variance[i] + eps);
}

/* y's gradient through ReLU. */
__global__ void mask(tw_view dy, tw_view y, tw_view dresidual, int64_t rows, int64_t d) {
    int64_t row, col;
    if (!tw_pack_here(rows, d, &row, &col)) return;
    float g[TW_PACK], kept[TW_PACK];
    tw_load_columns(dy, row, col, d, g);
    tw_load_columns(y, row, col, d, kept);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++)
        if (!(kept[e] > 0.0f)) g[e] = 0.0f;
    tw_store_columns(dresidual, row, col, d, g);
}

/* Where what is of channels goes; data NULL: nowhere. */
struct channel_grads {
    tw_view gain, bias;
    tw_running_grads running;
    const float *dgain, *dbias; /* as the graph left them */
    const float *batch_mean, *batch_variance;
    float unbiased;
};

__global__ void deliver(channel_grads to, int64_t n) {
    int64_t i = tw_global_thread();
    if (i >= n) return;
    if (to.gain.data) tw_put_one(to.gain, i, to.dgain[i]);
    if (to.bias.data) tw_put_one(to.bias, i, to.dbias[i]);
    tw_put_running(to.running, i, true, to.batch_mean[i], to.batch_variance[i], to.unbiased);
}

tw_status deliver_channels(const backward &b, const tw_call *c) {
    channel_grads to = {};
    int64_t n = tw_tensor_cols(&c->input[X]), rows = tw_tensor_rows(&c->input[X]);
    to.gain = tw_view_out(&c->input_grad[GAIN], c->input_mode[GAIN]);
    to.bias = tw_view_out(&c->input_grad[BIAS], c->input_mode[BIAS]);
    to.running = tw_running_grads_of(c, MEAN, VARIANCE);
    to.dgain = (const float *)b.slot[TW_DNN_NORM_DGAIN], to.dbias = (const float *)b.slot[TW_DNN_NORM_DBIAS];
    to.batch_mean = (const float *)c->output[1].data, to.batch_variance = to.batch_mean + n;
    to.unbiased = rows > 1 ? (float)((double)rows / (double)(rows - 1)) : 1.0f;
    return TW_LAUNCH(c->device, deliver, tw_blocks(n, THREADS), THREADS, 0, to, n);
}

tw_status run_graph(const backward &b, const tw_call *c) {
    const tw_tensor *x = &c->input[X], *dresidual = &c->input_grad[RESIDUAL];
    int64_t n = tw_tensor_cols(x), rows = tw_tensor_rows(x);
    const float *variance = (const float *)c->output[1].data + n;
    TRY(TW_LAUNCH(c->device, inverse_of, tw_blocks(n, THREADS), THREADS, 0, variance,
                  (float *)b.slot[TW_DNN_NORM_INVERSE], n, attr_of(c)->eps));
    if (b.masks)
        TRY(TW_LAUNCH(c->device, mask, tw_blocks(rows * tw_packs_of(n), TW_PACK_THREADS), TW_PACK_THREADS, 0,
                      tw_view_out(&c->output_grad[0], TW_WRITE), tw_view_out(&c->output[0], TW_WRITE),
                      tw_view_out(dresidual, TW_WRITE), rows, n));
    TRY(tw_dnn_run(c->device, b.plan, b.slot, (char *)c->scratch + 3 * channel_bytes(c)));
    return deliver_channels(b, c);
}

/* Either way on a call that may be run again and again. */
tw_status run(const void *context, tw_way way) {
    const backward *b = (const backward *)context;
    tw_call c = *b->call;
    for (int i = GAIN; i <= VARIANCE; i++) c.input_grad[i].data = nullptr;
    return way == TW_WAY_GRAPH ? run_graph(*b, &c) : b->own(&c);
}

/* The graph only writes, and reads what has x's type. */
bool can_write(const tw_call *c, int input) {
    const tw_tensor *t = &c->input_grad[input];
    return t->data && t->dtype == c->input[X].dtype && c->input_mode[input] == TW_WRITE;
}

/* Whether the graph can deliver what is wanted; what comes through a residual's ReLU it has to find there. */
bool serves(const tw_call *c) {
    if (!can_write(c, X) || c->output_grad[0].dtype != c->input[X].dtype) return false;
    return !tw_present(&c->input[RESIDUAL]) || (attr_of(c)->relu && can_write(c, RESIDUAL));
}

void name_tensors(backward *b) {
    const tw_call *c = b->call;
    char *scratch = (char *)c->scratch;
    size_t bytes = channel_bytes(c);
    b->slot[TW_DNN_NORM_X] = c->input[X].data, b->slot[TW_DNN_NORM_DX] = c->input_grad[X].data;
    b->slot[TW_DNN_NORM_DY] = b->masks ? c->input_grad[RESIDUAL].data : c->output_grad[0].data;
    b->slot[TW_DNN_NORM_GAIN] = c->input[GAIN].data, b->slot[TW_DNN_NORM_BIAS] = c->input[BIAS].data;
    b->slot[TW_DNN_NORM_MEAN] = c->output[1].data, b->slot[TW_DNN_NORM_INVERSE] = scratch;
    b->slot[TW_DNN_NORM_DGAIN] = scratch + bytes, b->slot[TW_DNN_NORM_DBIAS] = scratch + 2 * bytes;
}

} // namespace

void tw_norm_graph_shape(tw_call *c) {
    tw_dnn_norm v;
    size_t forward = channel_bytes(c) + TW_DNN_NORM_SCRATCH,
           backward = 3 * channel_bytes(c) + TW_DNN_NORM_SCRATCH;
    if (describe(c, false, &v) && c->forward_scratch < forward) c->forward_scratch = forward;
    if (!c->needs_grad || !describe(c, true, &v)) return;
    if (c->backward_scratch < backward) c->backward_scratch = backward;
    if (v.relu) c->saved_inputs |= 1u << BIAS;
}

tw_status tw_norm_graph_forward(const tw_call *c, bool *done) {
    const tw_tensor *residual = &c->input[RESIDUAL];
    void *slot[TW_DNN_SLOTS] = {};
    tw_dnn_plan *plan;
    tw_dnn_key key;
    int64_t n = tw_tensor_cols(&c->input[X]);
    *done = false;
    TRY(find(c, false, &key, &plan));
    if (!plan) return TW_OK;
    float *statistics = (float *)c->output[1].data, *inverse = (float *)c->scratch;
    slot[TW_DNN_NORM_X] = c->input[X].data, slot[TW_DNN_NORM_Y] = c->output[0].data;
    slot[TW_DNN_NORM_GAIN] = c->input[GAIN].data, slot[TW_DNN_NORM_BIAS] = c->input[BIAS].data;
    slot[TW_DNN_NORM_MEAN] = statistics, slot[TW_DNN_NORM_INVERSE] = inverse;
    if (tw_present(residual)) slot[TW_DNN_NORM_RESIDUAL] = residual->data;
    if (!all_aligned(slot)) return TW_OK;
    *done = true;
    TRY(tw_dnn_run(c->device, plan, slot, (char *)c->scratch + channel_bytes(c)));
    return TW_LAUNCH(c->device, variance_of, tw_blocks(n, THREADS), THREADS, 0, (const float *)inverse,
                     statistics + n, n, attr_of(c)->eps);
}

tw_status tw_norm_graph_backward(const tw_call *c, tw_op_run own, bool *done) {
    backward b = {};
    tw_way way;
    tw_dnn_key key;
    *done = false;
    if (!serves(c)) return TW_OK;
    TRY(find(c, true, &key, &b.plan));
    if (!b.plan) return TW_OK;
    b.call = c, b.own = own;
    b.masks = tw_present(&c->input[RESIDUAL]);
    name_tensors(&b);
    if (!all_aligned(b.slot)) return TW_OK;
    tw_dnn_norm whole; /* what the choice depends on */
    (void)describe(c, true, &whole);
    whole.residual = b.masks, whole.relu = attr_of(c)->relu;
    key = tw_dnn_norm_key(&whole);
    const tw_choice_ways ways = {run, &b, "own kernels", tw_dnn_norm_tell};
    TRY(tw_cuda_choose(c->device, &key, &ways, &way));
    *done = way == TW_WAY_GRAPH;
    return *done ? run_graph(b, c) : TW_OK;
}
