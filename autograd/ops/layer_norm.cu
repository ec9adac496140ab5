#include "autograd/cuda/norm_rows.h"

/* inputs: x (.., D), gain (D) f32, bias (D) f32; outputs: y as x, stats (rows, 2) f32 = mean, rstd */

namespace {

enum { X, GAIN };

struct layer_norm_backward : tw_norm_rows {
    tw_view x, dy, dx;

    template <int PACKS>
    TW_MEMBER void load(const tw_group &at, int64_t row, float (*v)[TW_PACK], float (*g)[TW_PACK]) const {
        tw_load_row<PACKS>(at, x, row, v);
        tw_load_row<PACKS>(at, dy, row, g);
    }
    template <int PACKS> TW_MEMBER void store(const tw_group &at, int64_t row, float (*g)[TW_PACK]) const {
        if (dx.data) tw_store_row<PACKS>(at, dx, row, g);
    }
};

} // namespace

tw_status tw_layer_norm_forward_cuda(const tw_call *c) {
    const tw_layer_norm_attr *attr = (const tw_layer_norm_attr *)c->attr;
    tw_norm_plain_rows a = {tw_norm_rows_of(c, GAIN, attr->eps), tw_view_rows(&c->input[X]),
                            tw_view_out(&c->output[0], TW_WRITE)};
    return tw_norm_forward(c, "layer_norm forward", a);
}

tw_status tw_layer_norm_backward_cuda(const tw_call *c) {
    layer_norm_backward a = {tw_norm_rows_of(c, GAIN, 0.0f), tw_view_rows(&c->input[X]),
                             tw_view_out(&c->output_grad[0], TW_WRITE),
                             tw_view_out(&c->input_grad[X], c->input_mode[X])};
    return tw_norm_backward(c, "layer_norm backward", a, GAIN);
}
