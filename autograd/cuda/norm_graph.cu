#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_norm.h"
#include "autograd/cuda/launch.h"
#include "autograd/cuda/norm_graph.h"

namespace {

enum { X, GAIN, BIAS, MEAN, VARIANCE, RESIDUAL };
enum { THREADS = 64 };

bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

/* NULL: own kernels. */
tw_status find(const tw_call *c, tw_dnn_plan **out) {
    const tw_batch_norm_attr *attr = (const tw_batch_norm_attr *)c->attr;
    const tw_tensor *x = &c->input[X], *residual = &c->input[RESIDUAL];
    tw_dnn_norm v = {};
    *out = nullptr;
    v.residual = tw_present(residual);
    if (!attr->training || attr->comm || x->ndim != 4 || tw_tensor_count(x) == 0 ||
        !tw_tensor_is_contiguous(x) || (v.residual && !tw_tensor_is_contiguous(residual)))
        return TW_OK;
    v.batch = x->shape[0], v.height = x->shape[1], v.width = x->shape[2], v.channels = x->shape[3];
    v.type = x->dtype == TW_BF16 ? TW_DNN_BF16 : TW_DNN_F32;
    v.relu = attr->relu, v.eps = attr->eps, v.deterministic = tw_cuda_deterministic(c->device);
    tw_dnn_key key = tw_dnn_norm_key(&v);
    return tw_dnn_find(c->device, &key, tw_dnn_norm_describe, out);
}

/* Bytes of 1 / sqrt(variance + eps), in scratch before the plan's own. */
size_t inverse_bytes(const tw_call *c) {
    return ((size_t)tw_tensor_cols(&c->input[X]) * sizeof(float) + 255) / 256 * 256;
}

__global__ void variance_of(const float *inverse, float *variance, int64_t n, float eps) {
    int64_t i = tw_global_thread();
    if (i >= n) return;
    float v = 1.0f / (inverse[i] * inverse[i]) - eps;
    variance[i] = v < 0.0f ? 0.0f : v; /* NaN stays */
}

} // namespace

tw_status tw_norm_graph_shape(tw_call *c) {
    tw_dnn_plan *plan;
    TRY(find(c, &plan));
    size_t bytes = plan ? inverse_bytes(c) + tw_dnn_scratch(plan) : 0;
    if (bytes > c->forward_scratch) c->forward_scratch = bytes;
    return TW_OK;
}

tw_status tw_norm_graph_forward(const tw_call *c, bool *done) {
    const tw_tensor *residual = &c->input[RESIDUAL];
    void *slot[TW_DNN_SLOTS] = {};
    tw_dnn_plan *plan;
    int64_t n = tw_tensor_cols(&c->input[X]);
    *done = false;
    TRY(find(c, &plan));
    if (!plan) return TW_OK;
    float *statistics = (float *)c->output[1].data, *inverse = (float *)c->scratch;
    slot[TW_DNN_NORM_X] = c->input[X].data, slot[TW_DNN_NORM_Y] = c->output[0].data;
    slot[TW_DNN_NORM_GAIN] = c->input[GAIN].data, slot[TW_DNN_NORM_BIAS] = c->input[BIAS].data;
    slot[TW_DNN_NORM_MEAN] = statistics, slot[TW_DNN_NORM_INVERSE] = inverse;
    if (tw_present(residual)) slot[TW_DNN_NORM_RESIDUAL] = residual->data;
    for (int i = 0; i < TW_DNN_SLOTS; i++)
        if (!aligned(slot[i])) return TW_OK;
    *done = true;
    TRY(tw_dnn_run(c->device, plan, slot, (char *)c->scratch + inverse_bytes(c)));
    return TW_LAUNCH(c->device, variance_of, tw_blocks(n, THREADS), THREADS, 0, (const float *)inverse,
                     statistics + n, n, ((const tw_batch_norm_attr *)c->attr)->eps);
}
