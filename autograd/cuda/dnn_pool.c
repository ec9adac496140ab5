#include "autograd/cuda/dnn_pool.h"

#include <stdio.h>

enum { KIND_POOL = 5 };

tw_dnn_key tw_dnn_pool_key(const tw_dnn_pool *v) {
    return (tw_dnn_key){
        KIND_POOL,
        {v->direction, v->batch, v->height, v->width, v->channels, v->side, v->type, v->deterministic}};
}

static tw_dnn_pool pool_of(const tw_dnn_key *key) {
    const int64_t *n = key->number;
    return (tw_dnn_pool){.direction = (tw_dnn_op)n[0],
                         .batch = n[1],
                         .height = n[2],
                         .width = n[3],
                         .channels = n[4],
                         .side = n[5],
                         .type = (tw_dnn_type)n[6],
                         .deterministic = n[7] != 0};
}

void tw_dnn_pool_tell(const tw_dnn_key *key, char *text, size_t size) {
    tw_dnn_pool v = pool_of(key);
    snprintf(text, size, "%s (%lld,%lld,%lld,%lld) by squares of %lld, %s",
             v.direction == TW_DNN_POOL ? "pooling of" : "gradient of pooling", (long long)v.batch,
             (long long)v.height, (long long)v.width, (long long)v.channels, (long long)v.side,
             v.type == TW_DNN_BF16 ? "bf16" : "f32");
}

static int image(tw_dnn_graph *g, const tw_dnn_pool *v, int slot, int64_t height, int64_t width) {
    int64_t row = width * v->channels, dim[4] = {v->batch, v->channels, height, width},
            stride[4] = {height * row, 1, row, v->channels};
    return tw_dnn_memory(g, slot, v->type, dim, stride);
}

void tw_dnn_pool_describe(const tw_dnn_key *key, tw_dnn_graph *g) {
    const tw_dnn_pool v = pool_of(key);
    int x = image(g, &v, TW_DNN_POOL_IMAGE, v.height, v.width);
    int y = image(g, &v, TW_DNN_POOL_MEANS, v.height / v.side, v.width / v.side);
    bool forward = v.direction == TW_DNN_POOL;
    g->name = forward ? "pooling" : "a pooling's gradient";
    g->rules.deterministic = v.deterministic, g->rules.most_scratch = TW_DNN_POOL_SCRATCH;
    tw_dnn_add(g, v.direction, forward ? x : y, TW_DNN_NONE, TW_DNN_NONE, forward ? y : x)->stride =
        (int)v.side;
}
