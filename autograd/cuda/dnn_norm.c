#include "autograd/cuda/dnn_norm.h"

#include <stdio.h>
#include <string.h>

enum { KIND_NORM = 3 };

tw_dnn_key tw_dnn_norm_key(const tw_dnn_norm *v) {
    uint32_t eps;
    memcpy(&eps, &v->eps, sizeof eps);
    return (tw_dnn_key){KIND_NORM,
                        {v->batch, v->height, v->width, v->channels, v->type, v->backward, v->residual,
                         v->relu, (int64_t)eps, v->deterministic}};
}

static tw_dnn_norm norm_of(const tw_dnn_key *key) {
    const int64_t *n = key->number;
    uint32_t eps = (uint32_t)n[8];
    tw_dnn_norm v = {.batch = n[0],
                     .height = n[1],
                     .width = n[2],
                     .channels = n[3],
                     .type = (tw_dnn_type)n[4],
                     .backward = n[5] != 0,
                     .residual = n[6] != 0,
                     .relu = n[7] != 0,
                     .deterministic = n[9] != 0};
    memcpy(&v.eps, &eps, sizeof eps);
    return v;
}

void tw_dnn_norm_tell(const tw_dnn_key *key, char *text, size_t size) {
    tw_dnn_norm v = norm_of(key);
    snprintf(text, size, "gradients of batch norm (%lld,%lld,%lld,%lld), %s%s", (long long)v.batch,
             (long long)v.height, (long long)v.width, (long long)v.channels,
             v.type == TW_DNN_BF16 ? "bf16" : "f32",
             !v.relu      ? ""
             : v.residual ? ", residual, ReLU"
                          : ", ReLU");
}

static int image(tw_dnn_graph *g, const tw_dnn_norm *v, int slot, tw_dnn_type type) {
    int64_t row = v->width * v->channels, dim[4] = {v->batch, v->channels, v->height, v->width},
            stride[4] = {v->height * row, 1, row, v->channels};
    return tw_dnn_memory(g, slot, type, dim, stride);
}

static int channels(tw_dnn_graph *g, const tw_dnn_norm *v, int slot) {
    int64_t n = v->channels, dim[4] = {1, n, 1, 1}, stride[4] = {n, 1, n, n};
    return tw_dnn_memory(g, slot, TW_DNN_F32, dim, stride);
}

static void forward(tw_dnn_graph *g, const tw_dnn_norm *v) {
    int x = image(g, v, TW_DNN_NORM_X, v->type), y = image(g, v, TW_DNN_NORM_Y, v->type);
    int normed = v->residual || v->relu ? image(g, v, TW_DNN_INSIDE, TW_DNN_F32) : y, sum = normed;
    tw_dnn_node *norm = tw_dnn_add(g, TW_DNN_NORM, x, channels(g, v, TW_DNN_NORM_GAIN),
                                   channels(g, v, TW_DNN_NORM_BIAS), normed);
    norm->in[3] = tw_dnn_value(g, v->eps);
    norm->out[1] = channels(g, v, TW_DNN_NORM_MEAN), norm->out[2] = channels(g, v, TW_DNN_NORM_INVERSE);
    if (v->residual) {
        sum = v->relu ? image(g, v, TW_DNN_INSIDE, TW_DNN_F32) : y;
        (void)tw_dnn_add(g, TW_DNN_ADD, normed, image(g, v, TW_DNN_NORM_RESIDUAL, v->type), TW_DNN_NONE, sum);
    }
    if (v->relu) (void)tw_dnn_add(g, TW_DNN_RELU, sum, TW_DNN_NONE, TW_DNN_NONE, y);
}

static void backward(tw_dnn_graph *g, const tw_dnn_norm *v) {
    int x = image(g, v, TW_DNN_NORM_X, v->type), dy = image(g, v, TW_DNN_NORM_DY, v->type);
    int gain = channels(g, v, TW_DNN_NORM_GAIN), mean = channels(g, v, TW_DNN_NORM_MEAN),
        inverse = channels(g, v, TW_DNN_NORM_INVERSE);
    if (v->relu) {
        int y = image(g, v, TW_DNN_INSIDE, TW_DNN_F32), dz = image(g, v, TW_DNN_INSIDE, v->type);
        tw_dnn_node *again = tw_dnn_add(g, TW_DNN_NORM_AGAIN, x, gain, channels(g, v, TW_DNN_NORM_BIAS), y);
        again->in[3] = mean, again->in[4] = inverse;
        (void)tw_dnn_add(g, TW_DNN_RELU_SLOPE, dy, y, TW_DNN_NONE, dz);
        dy = dz;
    }
    tw_dnn_node *gradient =
        tw_dnn_add(g, TW_DNN_NORM_GRADIENT, dy, x, gain, image(g, v, TW_DNN_NORM_DX, v->type));
    gradient->in[3] = mean, gradient->in[4] = inverse;
    gradient->out[1] = channels(g, v, TW_DNN_NORM_DGAIN);
    gradient->out[2] = channels(g, v, TW_DNN_NORM_DBIAS);
}

void tw_dnn_norm_describe(const tw_dnn_key *key, tw_dnn_graph *g) {
    const tw_dnn_norm v = norm_of(key);
    g->name = v.backward ? "batch norm's gradients" : "batch norm";
    g->rules.deterministic = v.deterministic, g->rules.most_scratch = TW_DNN_NORM_SCRATCH;
    if (v.backward)
        backward(g, &v);
    else
        forward(g, &v);
}
