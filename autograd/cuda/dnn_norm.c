#include "autograd/cuda/dnn_norm.h"

#include <string.h>

enum { KIND_NORM = 3 };

tw_dnn_key tw_dnn_norm_key(const tw_dnn_norm *v) {
    uint32_t eps;
    memcpy(&eps, &v->eps, sizeof eps);
    return (tw_dnn_key){KIND_NORM,
                        {v->batch, v->height, v->width, v->channels, v->type, v->residual, v->relu,
                         (int64_t)eps, v->deterministic}};
}

static int image(tw_dnn_graph *g, const int64_t *n, int slot, tw_dnn_type type) {
    int64_t dim[4] = {n[0], n[3], n[1], n[2]}, stride[4] = {n[1] * n[2] * n[3], 1, n[2] * n[3], n[3]};
    return tw_dnn_memory(g, slot, type, dim, stride);
}

static int channels(tw_dnn_graph *g, const int64_t *n, int slot) {
    int64_t dim[4] = {1, n[3], 1, 1}, stride[4] = {n[3], 1, n[3], n[3]};
    return tw_dnn_memory(g, slot, TW_DNN_F32, dim, stride);
}

void tw_dnn_norm_describe(const tw_dnn_key *key, tw_dnn_graph *g) {
    const int64_t *n = key->number;
    tw_dnn_type type = (tw_dnn_type)n[4];
    bool residual = n[5] != 0, relu = n[6] != 0;
    uint32_t bits = (uint32_t)n[7];
    float eps;
    memcpy(&eps, &bits, sizeof eps);
    g->name = "batch norm";
    g->rules.deterministic = n[8] != 0;
    int x = image(g, n, TW_DNN_NORM_X, type), y = image(g, n, TW_DNN_NORM_Y, type);
    int normed = residual || relu ? image(g, n, TW_DNN_INSIDE, TW_DNN_F32) : y, sum = normed;
    tw_dnn_node *norm = tw_dnn_add(g, TW_DNN_NORM, x, channels(g, n, TW_DNN_NORM_GAIN),
                                   channels(g, n, TW_DNN_NORM_BIAS), normed);
    norm->in[3] = tw_dnn_value(g, eps);
    norm->out[1] = channels(g, n, TW_DNN_NORM_MEAN), norm->out[2] = channels(g, n, TW_DNN_NORM_INVERSE);
    if (residual) {
        sum = relu ? image(g, n, TW_DNN_INSIDE, TW_DNN_F32) : y;
        (void)tw_dnn_add(g, TW_DNN_ADD, normed, image(g, n, TW_DNN_NORM_RESIDUAL, type), TW_DNN_NONE, sum);
    }
    if (relu) (void)tw_dnn_add(g, TW_DNN_RELU, sum, TW_DNN_NONE, TW_DNN_NONE, y);
}
