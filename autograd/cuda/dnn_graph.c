#include "autograd/cuda/dnn.h"

#include <string.h>

static int add_tensor(tw_dnn_graph *g, const tw_dnn_tensor *t) {
    if (g->tensors == TW_DNN_TENSORS) {
        g->full = true;
        return 0;
    }
    g->tensor[g->tensors] = *t;
    return g->tensors++;
}

int tw_dnn_memory(tw_dnn_graph *g, int slot, tw_dnn_type type, const int64_t dim[4],
                  const int64_t stride[4]) {
    tw_dnn_tensor t = {.type = type, .slot = slot};
    memcpy(t.dim, dim, sizeof t.dim);
    memcpy(t.stride, stride, sizeof t.stride);
    return add_tensor(g, &t);
}

int tw_dnn_value(tw_dnn_graph *g, float value) {
    tw_dnn_tensor t = {.type = TW_DNN_F32,
                       .slot = TW_DNN_VALUE,
                       .value = value,
                       .dim = {1, 1, 1, 1},
                       .stride = {1, 1, 1, 1}};
    return add_tensor(g, &t);
}

int tw_dnn_inside(tw_dnn_graph *g, tw_dnn_type type, const int64_t dim[4]) {
    int64_t stride[4] = {dim[1] * dim[2] * dim[3], dim[2] * dim[3], dim[3], 1};
    return tw_dnn_memory(g, TW_DNN_INSIDE, type, dim, stride);
}

tw_dnn_node *tw_dnn_add(tw_dnn_graph *g, tw_dnn_op op, int a, int b, int c, int out) {
    if (g->nodes == TW_DNN_NODES) {
        g->full = true;
        g->nodes--;
    }
    tw_dnn_node *n = &g->node[g->nodes++];
    *n = (tw_dnn_node){.op = op};
    for (int i = 0; i < TW_DNN_INPUTS; i++) n->in[i] = TW_DNN_NONE;
    for (int i = 0; i < TW_DNN_OUTPUTS; i++) n->out[i] = TW_DNN_NONE;
    n->in[0] = a, n->in[1] = b, n->in[2] = c, n->out[0] = out;
    return n;
}

int tw_dnn_apply(tw_dnn_graph *g, tw_dnn_op op, int a, int b) {
    int out = tw_dnn_inside(g, TW_DNN_F32, g->tensor[a].dim);
    (void)tw_dnn_add(g, op, a, b, TW_DNN_NONE, out);
    return out;
}

bool tw_dnn_widen(tw_dnn_graph *g) {
    bool changed = false;
    for (int i = 0; i < g->tensors; i++) {
        tw_dnn_tensor *t = &g->tensor[i];
        if (t->slot != TW_DNN_INSIDE || t->type != TW_DNN_BF16) continue;
        t->type = TW_DNN_F32;
        changed = true;
    }
    return changed;
}

int64_t tw_dnn_extent(const tw_dnn_tensor *t) {
    int64_t last = 0;
    for (int i = 0; i < 4; i++) {
        if (t->dim[i] == 0) return 0;
        last += (t->dim[i] - 1) * t->stride[i];
    }
    return last + 1;
}
