#include "autograd/cuda/dnn_conv.h"

enum { KIND_CONV = 2, MOST_SCRATCH = 512 << 20 };

tw_dnn_key tw_dnn_conv_key(const tw_dnn_conv *v) {
    return (tw_dnn_key){KIND_CONV,
                        {v->direction, v->batch, v->height, v->width, v->in, v->out, v->kernel, v->stride,
                         v->padding, v->type, v->true_f32, v->deterministic}};
}

static tw_dnn_conv conv_of(const tw_dnn_key *key) {
    const int64_t *n = key->number;
    return (tw_dnn_conv){.direction = (tw_dnn_op)n[0],
                         .batch = n[1],
                         .height = n[2],
                         .width = n[3],
                         .in = n[4],
                         .out = n[5],
                         .kernel = n[6],
                         .stride = n[7],
                         .padding = n[8],
                         .type = (tw_dnn_type)n[9],
                         .true_f32 = n[10] != 0,
                         .deterministic = n[11] != 0};
}

/* (n,c,h,w) with the channels next to each other. */
static int channels_last(tw_dnn_graph *g, int slot, tw_dnn_type type, int64_t n, int64_t c, int64_t h,
                         int64_t w) {
    int64_t dim[4] = {n, c, h, w}, stride[4] = {h * w * c, 1, w * c, c};
    return tw_dnn_memory(g, slot, type, dim, stride);
}

void tw_dnn_conv_describe(const tw_dnn_key *key, tw_dnn_graph *g) {
    tw_dnn_conv v = conv_of(key);
    int64_t height = (v.height + 2 * v.padding - v.kernel) / v.stride + 1,
            width = (v.width + 2 * v.padding - v.kernel) / v.stride + 1;
    int x = channels_last(g, TW_DNN_CONV_IMAGE, v.type, v.batch, v.in, v.height, v.width);
    int w = channels_last(g, TW_DNN_CONV_WEIGHT, v.type, v.out, v.in, v.kernel, v.kernel);
    int y = channels_last(g, TW_DNN_CONV_RESULT, v.type, v.batch, v.out, height, width);
    g->name = v.direction == TW_DNN_CONV     ? "convolution"
              : v.direction == TW_DNN_CONV_X ? "a convolution's gradient of its image"
                                             : "a convolution's gradient of its weights";
    g->rules = (tw_dnn_rules){v.deterministic, v.true_f32, MOST_SCRATCH};
    tw_dnn_node *n = v.direction == TW_DNN_CONV_X   ? tw_dnn_add(g, TW_DNN_CONV_X, y, w, TW_DNN_NONE, x)
                     : v.direction == TW_DNN_CONV_W ? tw_dnn_add(g, TW_DNN_CONV_W, y, x, TW_DNN_NONE, w)
                                                    : tw_dnn_add(g, TW_DNN_CONV, x, w, TW_DNN_NONE, y);
    n->stride = (int)v.stride, n->padding = (int)v.padding;
}
