/* Tensors of a graph that the shim interprets (dnn_shim.c): of memory, or of doubles within the graph that
 * are rounded to the tensor's type. */
#ifndef TW_TESTS_DNN_VALUES_H
#define TW_TESTS_DNN_VALUES_H

#include "autograd/cuda/dnn.h"

typedef struct dnn_values {
    const tw_dnn_tensor *t;
    void *memory;   /* given, or NULL */
    double *inside; /* of a tensor within the graph */
} dnn_values;

typedef struct dnn_run {
    const tw_dnn_graph *g;
    dnn_values value[TW_DNN_TENSORS];
} dnn_run;

static inline double dnn_get(const dnn_values *v, int64_t at) {
    if (v->t->slot == TW_DNN_VALUE) return (double)v->t->value;
    if (v->inside) return v->inside[at];
    switch (v->t->type) {
    case TW_DNN_F32:
        return (double)((const float *)v->memory)[at];
    case TW_DNN_BF16:
        return (double)tw_from_bf16(((const uint16_t *)v->memory)[at]);
    case TW_DNN_I32:
        return (double)((const int32_t *)v->memory)[at];
    case TW_DNN_I64:
        return (double)((const int64_t *)v->memory)[at];
    default:
        return (double)((const uint8_t *)v->memory)[at];
    }
}

static inline void dnn_put(const dnn_values *v, int64_t at, double x) {
    if (v->t->type == TW_DNN_F32) x = (double)(float)x;
    if (v->t->type == TW_DNN_BF16) x = (double)tw_from_bf16(tw_to_bf16((float)x));
    if (v->inside)
        v->inside[at] = x;
    else if (v->t->type == TW_DNN_F32)
        ((float *)v->memory)[at] = (float)x;
    else if (v->t->type == TW_DNN_BF16)
        ((uint16_t *)v->memory)[at] = tw_to_bf16((float)x);
}

typedef struct dnn_place {
    int64_t i[4];
} dnn_place;

static inline int64_t dnn_offset(const tw_dnn_tensor *t, const dnn_place *p) {
    int64_t at = 0;
    for (int k = 0; k < 4; k++) at += (t->dim[k] == 1 ? 0 : p->i[k]) * t->stride[k];
    return at;
}

static inline int64_t dnn_count(const tw_dnn_tensor *t) {
    return t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
}

static inline dnn_place dnn_place_of(const tw_dnn_tensor *t, int64_t n) {
    dnn_place p;
    for (int k = 3; k >= 0; k--) p.i[k] = n % t->dim[k], n /= t->dim[k];
    return p;
}

/* Input i of an operation; NULL: it has none. */
static inline const dnn_values *dnn_in(const dnn_run *r, const tw_dnn_node *n, int i) {
    return n->in[i] == TW_DNN_NONE ? NULL : &r->value[n->in[i]];
}

/* ---- dnn_images.c: the operations on images ---- */

void dnn_convolve(const dnn_run *r, const tw_dnn_node *n);
/* Batch norm's y and statistics, its y from statistics, its gradients. */
void dnn_norm(const dnn_run *r, const tw_dnn_node *n);
void dnn_norm_again(const dnn_run *r, const tw_dnn_node *n);
void dnn_norm_gradient(const dnn_run *r, const tw_dnn_node *n);
/* Both directions. */
void dnn_pool(const dnn_run *r, const tw_dnn_node *n);

#endif
