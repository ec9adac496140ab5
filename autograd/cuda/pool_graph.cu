#include "autograd/cuda/choice.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_pool.h"
#include "autograd/cuda/launch.h"
#include "autograd/cuda/pool_graph.h"

namespace {

struct graph {
    const tw_call *call;
    tw_op_run own;
    tw_dnn_key key;
    tw_dnn_plan *plan; /* NULL: own kernels */
    void *slot[TW_DNN_SLOTS];
};

/* False: there is no graph for such a call. */
bool describe(const tw_call *c, tw_dnn_op direction, tw_dnn_pool *out) {
    const tw_tensor *x = &c->input[0];
    tw_dnn_pool v = {};
    v.direction = direction;
    v.batch = x->shape[0], v.height = x->shape[1], v.width = x->shape[2], v.channels = x->shape[3];
    v.side = ((const tw_avg_pool_attr *)c->attr)->size;
    v.type = x->dtype == TW_BF16 ? TW_DNN_BF16 : TW_DNN_F32;
    v.deterministic = tw_cuda_deterministic(c->device);
    *out = v;
    return tw_tensor_count(x) > 0 && v.side > 1 && v.height % v.side == 0 && v.width % v.side == 0 &&
           tw_cuda_way_allowed(c->device, TW_WAY_GRAPH);
}

tw_status find(const tw_call *c, tw_dnn_op direction, graph *out) {
    tw_dnn_pool v;
    if (!describe(c, direction, &v)) return TW_OK;
    out->key = tw_dnn_pool_key(&v);
    return tw_dnn_find(c->device, &out->key, tw_dnn_pool_describe, &out->plan);
}

tw_status run(const void *context, tw_way way) {
    const graph *g = (const graph *)context;
    return way == TW_WAY_GRAPH ? tw_dnn_run(g->call->device, g->plan, g->slot, g->call->scratch)
                               : g->own(g->call);
}

/* Runs it, if there is one for that memory and it takes less time. */
tw_status run_faster(graph *g, void *image, void *means, bool *done) {
    const tw_choice_ways ways = {run, g, "own kernels", tw_dnn_pool_tell};
    tw_way way;
    if (!g->plan || (uintptr_t)image % 16 != 0 || (uintptr_t)means % 16 != 0) return TW_OK;
    g->slot[TW_DNN_POOL_IMAGE] = image, g->slot[TW_DNN_POOL_MEANS] = means;
    TRY(tw_cuda_choose(g->call->device, &g->key, &ways, &way));
    *done = way == TW_WAY_GRAPH;
    return *done ? run(g, way) : TW_OK;
}

} // namespace

void tw_pool_graph_shape(tw_call *c) {
    tw_dnn_pool v;
    if (!describe(c, TW_DNN_POOL, &v)) return;
    if (c->forward_scratch < TW_DNN_POOL_SCRATCH) c->forward_scratch = TW_DNN_POOL_SCRATCH;
    if (c->backward_scratch < TW_DNN_POOL_SCRATCH) c->backward_scratch = TW_DNN_POOL_SCRATCH;
}

tw_status tw_pool_graph_forward(const tw_call *c, tw_op_run own, bool *done) {
    graph g = {};
    *done = false;
    g.call = c, g.own = own;
    TRY(find(c, TW_DNN_POOL, &g));
    return run_faster(&g, c->input[0].data, c->output[0].data, done);
}

tw_status tw_pool_graph_backward(const tw_call *c, tw_op_run own, bool *done) {
    const tw_tensor *dx = &c->input_grad[0], *dy = &c->output_grad[0];
    tw_dtype type = c->input[0].dtype;
    graph g = {};
    *done = false;
    g.call = c, g.own = own;
    if (!dx->data || dx->dtype != type || dy->dtype != type || c->input_mode[0] != TW_WRITE) return TW_OK;
    TRY(find(c, TW_DNN_POOL_X, &g));
    return run_faster(&g, dx->data, dy->data, done);
}
