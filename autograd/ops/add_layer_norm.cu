#include "autograd/cuda/norm_rows.h"

/* y = layer_norm(s), s = x + dropout(h).
 * inputs: x (B, .., D), h as x, gain (D) f32, bias (D) f32, origin (rows) of packed ones; outputs: y as x, s
 * as x, stats (rows, 2) f32 */

namespace {

enum { X, H, GAIN, BIAS, ORIGIN };

struct add_layer_norm_forward : tw_norm_rows {
    tw_view x, h, y, s;
    tw_drop drop;

    template <int PACKS> TW_MEMBER void load(const tw_group &at, int64_t row, float (*v)[TW_PACK]) const {
        float other[PACKS][TW_PACK];
        tw_load_row<PACKS>(at, h, row, v);
        tw_load_row<PACKS>(at, x, row, other);
        tw_drop_row<PACKS>(at, drop, row, v);
#pragma unroll
        for (int p = 0; p < PACKS; p++)
#pragma unroll
            for (int e = 0; e < TW_PACK; e++) {
                v[p][e] += other[p][e];
                if (s.bf16) v[p][e] = tw_round_bf16(v[p][e]); /* what backward will see */
            }
        tw_store_row<PACKS>(at, s, row, v);
    }
    template <int PACKS> TW_MEMBER void store(const tw_group &at, int64_t row, float (*v)[TW_PACK]) const {
        tw_store_row<PACKS>(at, y, row, v);
    }
};

struct add_layer_norm_backward : tw_norm_rows {
    tw_view s, dy, dx, dh;
    tw_drop drop;

    template <int PACKS>
    TW_MEMBER void load(const tw_group &at, int64_t row, float (*v)[TW_PACK], float (*g)[TW_PACK]) const {
        tw_load_row<PACKS>(at, s, row, v);
        tw_load_row<PACKS>(at, dy, row, g);
    }
    template <int PACKS> TW_MEMBER void store(const tw_group &at, int64_t row, float (*g)[TW_PACK]) const {
        if (dx.data) tw_store_row<PACKS>(at, dx, row, g);
        if (!dh.data) return;
        tw_drop_row<PACKS>(at, drop, row, g);
        tw_store_row<PACKS>(at, dh, row, g);
    }
};

tw_drop drop_of(const tw_call *c) {
    const tw_add_layer_norm_attr *attr = (const tw_add_layer_norm_attr *)c->attr;
    const tw_tensor *s = &c->output[1];
    const int32_t *origin = tw_origin_of(c, ORIGIN);
    int64_t per_sample = s->ndim > 1 && s->shape[0] > 0 ? tw_tensor_rows(s) / s->shape[0] : 1;
    return tw_drop_of(c, attr->layer, attr->dropout, origin ? attr->tokens : per_sample, origin);
}

} // namespace

tw_status tw_add_layer_norm_forward_cuda(const tw_call *c) {
    const tw_add_layer_norm_attr *attr = (const tw_add_layer_norm_attr *)c->attr;
    if (c->restore) { /* y again, from s */
        tw_norm_plain_rows again = {tw_norm_rows_of(c, GAIN, attr->eps), tw_view_rows(&c->output[1]),
                                    tw_view_out(&c->output[0], TW_WRITE)};
        return tw_norm_forward(c, "add_layer_norm restore", again);
    }
    add_layer_norm_forward a = {tw_norm_rows_of(c, GAIN, attr->eps),  tw_view_rows(&c->input[X]),
                                tw_view_rows(&c->input[H]),           tw_view_out(&c->output[0], TW_WRITE),
                                tw_view_out(&c->output[1], TW_WRITE), drop_of(c)};
    return tw_norm_forward(c, "add_layer_norm forward", a);
}

tw_status tw_add_layer_norm_backward_cuda(const tw_call *c) {
    add_layer_norm_backward a = {tw_norm_rows_of(c, GAIN, 0.0f),
                                 tw_view_rows(&c->output[1]),
                                 tw_view_out(&c->output_grad[0], TW_WRITE),
                                 tw_view_out(&c->input_grad[X], c->input_mode[X]),
                                 tw_view_out(&c->input_grad[H], c->input_mode[H]),
                                 drop_of(c)};
    return tw_norm_backward(c, "add_layer_norm backward", a, GAIN);
}
