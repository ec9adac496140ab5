#include "autograd/cuda/dnn_linear.h"

#include <stdio.h>

enum { KIND_LINEAR = 4 };
static const float quick = 1.702f; /* QuickGELU is x sigmoid(1.702 x) */

tw_dnn_key tw_dnn_linear_key(const tw_dnn_linear *l) {
    return (tw_dnn_key){KIND_LINEAR,
                        {l->rows, l->in, l->out, l->x_stride, (int64_t)l->activation, l->in_out, l->bias,
                         l->keeps, l->deterministic}};
}

static tw_dnn_linear linear_of(const tw_dnn_key *key) {
    const int64_t *n = key->number;
    return (tw_dnn_linear){.rows = n[0],
                           .in = n[1],
                           .out = n[2],
                           .x_stride = n[3],
                           .activation = (tw_activation)n[4],
                           .in_out = n[5] != 0,
                           .bias = n[6] != 0,
                           .keeps = n[7] != 0,
                           .deterministic = n[8] != 0};
}

void tw_dnn_linear_tell(const tw_dnn_key *key, char *text, size_t size) {
    tw_dnn_linear l = linear_of(key);
    snprintf(text, size, "linear (%lld,%lld) to %lld, %s%s", (long long)l.rows, (long long)l.in,
             (long long)l.out, l.activation == TW_QUICK_GELU ? "QuickGELU" : "GELU",
             l.keeps ? ", for training" : "");
}

/* (rows,cols) in memory. */
static int matrix(tw_dnn_graph *g, int slot, tw_dnn_type type, int64_t rows, int64_t cols, int64_t down,
                  int64_t across) {
    int64_t dim[4] = {1, 1, rows, cols}, all = down > across ? rows * down : cols * across,
            stride[4] = {all, all, down, across};
    return tw_dnn_memory(g, slot, type, dim, stride);
}

void tw_dnn_linear_describe(const tw_dnn_key *key, tw_dnn_graph *g) {
    const tw_dnn_linear l = linear_of(key);
    const int64_t shape[4] = {1, 1, l.rows, l.out};
    g->name = "linear with its activation";
    g->flat = true;
    g->rules.deterministic = l.deterministic, g->rules.most_scratch = TW_DNN_LINEAR_SCRATCH;
    int x = matrix(g, TW_DNN_LINEAR_X, TW_DNN_BF16, l.rows, l.in, l.x_stride, 1);
    int w = matrix(g, TW_DNN_LINEAR_W, TW_DNN_BF16, l.in, l.out, l.in_out ? l.out : 1, l.in_out ? 1 : l.in);
    int z = l.keeps ? matrix(g, TW_DNN_LINEAR_Z, TW_DNN_BF16, l.rows, l.out, l.out, 1)
                    : tw_dnn_inside(g, TW_DNN_F32, shape);
    int y = matrix(g, TW_DNN_LINEAR_Y, TW_DNN_BF16, l.rows, l.out, l.out, 1);
    int product = l.bias ? tw_dnn_inside(g, TW_DNN_F32, shape) : z;
    (void)tw_dnn_add(g, TW_DNN_MATMUL, x, w, TW_DNN_NONE, product);
    if (l.bias) {
        int bias = matrix(g, TW_DNN_LINEAR_BIAS, TW_DNN_F32, 1, l.out, l.out, 1);
        (void)tw_dnn_add(g, TW_DNN_ADD, product, bias, TW_DNN_NONE, z);
    }
    tw_dnn_op op = l.activation == TW_QUICK_GELU ? TW_DNN_SWISH : TW_DNN_GELU;
    tw_dnn_add(g, op, z, TW_DNN_NONE, TW_DNN_NONE, y)->value = quick;
}
