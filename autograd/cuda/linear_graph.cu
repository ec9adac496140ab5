#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_linear.h"
#include "autograd/cuda/launch.h"
#include "autograd/cuda/linear_graph.h"

namespace {

enum { X, W, BIAS, RESIDUAL, UNIT = 8 };

bool serves(const tw_call *c, tw_dnn_linear *out) {
    const tw_linear_attr *attr = (const tw_linear_attr *)c->attr;
    const tw_tensor *x = &c->input[X], *y = &c->output[0];
    tw_dnn_linear l = {};
    if (attr->activation == TW_IDENTITY || x->dtype != TW_BF16 || y->dtype != TW_BF16 || c->restore ||
        tw_present(&c->input[RESIDUAL]) || !tw_cuda_way_allowed(c->device, TW_WAY_GRAPH))
        return false;
    l.rows = tw_tensor_rows(x), l.in = tw_tensor_cols(x), l.out = tw_tensor_cols(y);
    (void)tw_tensor_is_rows(x, &l.x_stride);
    l.activation = attr->activation, l.in_out = attr->in_out;
    l.bias = tw_present(&c->input[BIAS]), l.keeps = c->n_outputs > 1;
    l.deterministic = tw_cuda_deterministic(c->device);
    *out = l;
    return l.rows > 0 && l.in > 0 && l.out > 0 && l.in % UNIT == 0 && l.out % UNIT == 0 &&
           l.x_stride >= l.in && l.x_stride % UNIT == 0;
}

void name_tensors(const tw_call *c, const tw_dnn_linear &l, void **slot) {
    slot[TW_DNN_LINEAR_X] = c->input[X].data, slot[TW_DNN_LINEAR_W] = c->input[W].data;
    if (l.bias) slot[TW_DNN_LINEAR_BIAS] = c->input[BIAS].data;
    if (l.keeps) slot[TW_DNN_LINEAR_Z] = c->output[1].data;
    slot[TW_DNN_LINEAR_Y] = c->output[0].data;
}

} // namespace

void tw_linear_graph_shape(tw_call *c) {
    tw_dnn_linear l;
    if (serves(c, &l) && c->forward_scratch < TW_DNN_LINEAR_SCRATCH)
        c->forward_scratch = TW_DNN_LINEAR_SCRATCH;
}

tw_status tw_linear_graph_find(const tw_call *c, tw_dnn_key *key, bool *found) {
    void *slot[TW_DNN_SLOTS] = {};
    tw_dnn_plan *plan;
    tw_dnn_linear l;
    *found = false;
    if (!serves(c, &l)) return TW_OK;
    name_tensors(c, l, slot);
    for (int i = 0; i < TW_DNN_SLOTS; i++)
        if ((uintptr_t)slot[i] % 16 != 0) return TW_OK;
    *key = tw_dnn_linear_key(&l);
    TRY(tw_dnn_find(c->device, key, tw_dnn_linear_describe, &plan));
    *found = plan != nullptr;
    return TW_OK;
}

tw_status tw_linear_graph_run(const tw_call *c) {
    void *slot[TW_DNN_SLOTS] = {};
    tw_dnn_plan *plan;
    tw_dnn_linear l;
    if (!serves(c, &l)) return FAIL(TW_ERR_ARGUMENT, "linear: no graph serves this call");
    tw_dnn_key key = tw_dnn_linear_key(&l);
    TRY(tw_dnn_find(c->device, &key, tw_dnn_linear_describe, &plan));
    if (!plan) return FAIL(TW_ERR_UNSUPPORTED, "linear: the library has no kernel for the graph");
    name_tensors(c, l, slot);
    return tw_dnn_run(c->device, plan, slot, c->scratch);
}
