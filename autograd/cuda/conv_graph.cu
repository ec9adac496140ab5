#include "autograd/cuda/conv_graph.h"
#include "autograd/cuda/cuda.h"
#include "autograd/cuda/dnn_conv.h"
#include "autograd/cuda/product.h"
#include "autograd/cuda/rows.h"

namespace {

enum { X, W };
enum { THREADS = 256 };

tw_dnn_conv conv_of(const tw_call *c, tw_dnn_op direction) {
    const tw_conv2d_attr *attr = (const tw_conv2d_attr *)c->attr;
    const tw_tensor *x = &c->input[X], *w = &c->input[W];
    tw_dnn_conv v = {};
    v.direction = direction;
    v.batch = x->shape[0], v.height = x->shape[1], v.width = x->shape[2], v.in = x->shape[3];
    v.out = w->shape[0], v.kernel = w->shape[2], v.stride = attr->stride, v.padding = attr->padding;
    v.type = x->dtype == TW_BF16 ? TW_DNN_BF16 : TW_DNN_F32;
    v.true_f32 = !tw_cuda_tf32(c->device), v.deterministic = tw_cuda_deterministic(c->device);
    return v;
}

bool is_product(const tw_dnn_conv &v) {
    return v.kernel == 1 && v.stride == 1 && v.padding == 0;
}

bool aligned(const void *p) {
    return (uintptr_t)p % 16 == 0;
}

/* NULL: own kernels. */
tw_status find(const tw_call *c, const tw_dnn_conv &v, tw_dnn_plan **out) {
    *out = nullptr;
    if (is_product(v) || tw_tensor_count(&c->input[X]) == 0 || tw_tensor_count(&c->input[W]) == 0)
        return TW_OK;
    tw_dnn_key key = tw_dnn_conv_key(&v);
    return tw_dnn_find(c->device, &key, tw_dnn_conv_describe, out);
}

/* Bytes of the weights with their channels last, in scratch before the plan's own. */
size_t weight_bytes(const tw_call *c) {
    return (tw_tensor_bytes(&c->input[W]) + 255) / 256 * 256;
}

/* Weights (O,C,K,K) to (O,K,K,C), or back. */
__global__ void exchange(tw_view from, tw_view to, int64_t count, int64_t in, int64_t square, bool back) {
    int64_t i = tw_global_thread(); /* of (O,C,K,K) */
    if (i >= count) return;
    int64_t place = i % square, c = i / square % in, o = i / (square * in);
    int64_t last = (o * square + place) * in + c;
    tw_put_one(to, back ? i : last, tw_get_one(from, back ? last : i));
}

tw_status weights_last(const tw_call *c, const tw_dnn_conv &v) {
    const tw_tensor *w = &c->input[W];
    int64_t n = tw_tensor_count(w);
    return TW_LAUNCH(c->device, exchange, tw_blocks(n, THREADS), THREADS, 0, tw_view_rows(w),
                     tw_view_of(c->scratch, w->dtype, n, n), n, v.in, v.kernel * v.kernel, false);
}

tw_status run(const tw_call *c, const tw_dnn_plan *plan, void *image, void *result) {
    void *slot[TW_DNN_SLOTS] = {};
    slot[TW_DNN_CONV_IMAGE] = image, slot[TW_DNN_CONV_WEIGHT] = c->scratch, slot[TW_DNN_CONV_RESULT] = result;
    return tw_dnn_run(c->device, plan, slot, (char *)c->scratch + weight_bytes(c));
}

tw_cuda_matrix matrix(const void *data, int64_t stride, bool transposed) {
    return tw_cuda_matrix{data, stride, transposed};
}

/* out (m,n) of type `to`'s = a b, written or added. */
tw_status product(const tw_call *c, int64_t m, int64_t n, int64_t k, tw_cuda_matrix a, tw_cuda_matrix b,
                  const tw_tensor *to, tw_accumulate mode) {
    tw_cuda_product_args p = {};
    bool fused;
    p.m = m, p.n = n, p.k = k, p.a = a, p.b = b, p.type = c->input[X].dtype;
    p.out = to->data, p.out_stride = n, p.out_type = to->dtype;
    if (mode == TW_ADD) p.c = to->data, p.c_stride = n;
    return tw_cuda_product(c->device, &p, &fused);
}

} // namespace

tw_status tw_conv_graph_shape(tw_call *c) {
    const tw_dnn_op directions[] = {TW_DNN_CONV, TW_DNN_CONV_X, TW_DNN_CONV_W};
    for (int i = 0; i < 3; i++) {
        tw_dnn_plan *plan;
        if (i > 0 && !c->needs_grad) break;
        TRY(find(c, conv_of(c, directions[i]), &plan));
        size_t bytes = plan ? weight_bytes(c) + tw_dnn_scratch(plan) : 0;
        size_t *scratch = i == 0 ? &c->forward_scratch : &c->backward_scratch;
        if (bytes > *scratch) *scratch = bytes;
    }
    return TW_OK;
}

tw_status tw_conv_graph_forward(const tw_call *c, bool *done) {
    tw_dnn_conv v = conv_of(c, TW_DNN_CONV);
    const tw_tensor *y = &c->output[0];
    tw_dnn_plan *plan;
    *done = is_product(v);
    if (*done)
        return product(c, v.batch * v.height * v.width, v.out, v.in, matrix(c->input[X].data, v.in, false),
                       matrix(c->input[W].data, v.in, true), y, TW_WRITE);
    TRY(find(c, v, &plan));
    *done = plan && aligned(c->input[X].data) && aligned(y->data);
    if (!*done) return TW_OK;
    TRY(weights_last(c, v));
    return run(c, plan, c->input[X].data, y->data);
}

tw_status tw_conv_graph_backward_x(const tw_call *c, bool *done) {
    tw_dnn_conv v = conv_of(c, TW_DNN_CONV_X);
    const tw_tensor *dx = &c->input_grad[X], *dy = &c->output_grad[0];
    tw_dnn_plan *plan;
    bool same = dy->dtype == c->input[X].dtype && dx->dtype == dy->dtype;
    *done = is_product(v) && same;
    if (*done)
        return product(c, v.batch * v.height * v.width, v.in, v.out, matrix(dy->data, v.out, false),
                       matrix(c->input[W].data, v.in, false), dx, c->input_mode[X]);
    if (!same || c->input_mode[X] == TW_ADD) return TW_OK;
    TRY(find(c, v, &plan));
    *done = plan && aligned(dx->data) && aligned(dy->data);
    if (!*done) return TW_OK;
    TRY(weights_last(c, v));
    return run(c, plan, dx->data, dy->data);
}

tw_status tw_conv_graph_backward_w(const tw_call *c, bool *done) {
    tw_dnn_conv v = conv_of(c, TW_DNN_CONV_W);
    const tw_tensor *dw = &c->input_grad[W], *dy = &c->output_grad[0], *x = &c->input[X];
    tw_dnn_plan *plan;
    bool same = dy->dtype == x->dtype;
    *done = is_product(v) && same && (dw->dtype == TW_F32 || x->dtype == TW_BF16);
    if (*done)
        return product(c, v.out, v.in, v.batch * v.height * v.width, matrix(dy->data, v.out, true),
                       matrix(x->data, v.in, false), dw, c->input_mode[W]);
    if (!same) return TW_OK;
    TRY(find(c, v, &plan));
    *done = plan && aligned(x->data) && aligned(dy->data);
    if (!*done) return TW_OK;
    TRY(run(c, plan, x->data, dy->data));
    int64_t n = tw_tensor_count(dw);
    return TW_LAUNCH(c->device, exchange, tw_blocks(n, THREADS), THREADS, 0,
                     tw_view_of(c->scratch, x->dtype, n, n), tw_view_out(dw, c->input_mode[W]), n, v.in,
                     v.kernel * v.kernel, true);
}
