#include "autograd/cuda/norm_rows.h"

/* inputs: x (.., D), gain (D) f32, bias (D) f32; outputs: y as x, stats (rows, 2) f32 = mean, rstd */

namespace {

struct forward_args {
    tw_view x, y;
    tw_affine affine;
    float *stats;
    int64_t rows, d;
};

struct backward_args {
    tw_view x, dy, dx;
    tw_affine affine;
    const float *stats;
    float *partial; /* (blocks, 2, d): dgain, dbias */
    int64_t rows, d;
};

template <int PACKS> __global__ void layer_norm_forward(forward_args a, tw_layout l) {
    __shared__ float shared[TW_GROUP_SHARED];
    tw_group at = tw_group_here(l, a.d);
    int64_t row = (int64_t)blockIdx.x * l.groups + at.group;
    if (row >= a.rows) return; /* a whole warp, where a group is one; never where it is a block */
    float v[PACKS][TW_PACK];
    tw_load_row<PACKS>(at, a.x, row, v);
    tw_norm_row<PACKS>(at, v, a.affine, a.stats + 2 * row, shared);
    tw_store_row<PACKS>(at, a.y, row, v);
}

template <int PACKS> __global__ void layer_norm_backward(backward_args a, tw_layout l) {
    __shared__ float shared[TW_GROUP_SHARED], columns[TW_COLUMN_SHARED];
    tw_group at = tw_group_here(l, a.d);
    float gain[PACKS][TW_PACK], dgain[PACKS][TW_PACK] = {}, dbias[PACKS][TW_PACK] = {};
    tw_load_group<PACKS>(at, a.affine.gain, a.affine.wide, gain);
    int64_t step = (int64_t)gridDim.x * l.groups;
    for (int64_t first = (int64_t)blockIdx.x * l.groups; first < a.rows; first += step) {
        int64_t row = first + at.group;
        bool mine = row < a.rows;
        float x[PACKS][TW_PACK] = {}, g[PACKS][TW_PACK] = {}, mean = 0.0f, rstd = 0.0f;
        if (mine) {
            tw_load_row<PACKS>(at, a.x, row, x);
            tw_load_row<PACKS>(at, a.dy, row, g);
            mean = a.stats[2 * row], rstd = a.stats[2 * row + 1];
        }
        tw_norm_row_backward<PACKS>(at, x, g, gain, mean, rstd, dgain, dbias, shared);
        if (mine && a.dx.data) tw_store_row<PACKS>(at, a.dx, row, g);
    }
    tw_columns_partial<PACKS>(at, l.groups, dgain, a.partial, 0, 2, columns);
    tw_columns_partial<PACKS>(at, l.groups, dbias, a.partial, 1, 2, columns);
}

} // namespace

tw_status tw_layer_norm_forward_cuda(const tw_call *c) {
    const tw_layer_norm_attr *attr = (const tw_layer_norm_attr *)c->attr;
    const tw_tensor *x = &c->input[0];
    forward_args a = {tw_view_rows(x),
                      tw_view_out(&c->output[0], TW_WRITE),
                      tw_affine_of(&c->input[1], &c->input[2], attr->eps),
                      (float *)c->output[1].data,
                      tw_tensor_rows(x),
                      tw_tensor_cols(x)};
    TRY(tw_check_width(a.d));
    if (a.rows == 0) return TW_OK;
    if (a.d == 0) return c->device->zero(c->device, TW_QUEUE_COMPUTE, a.stats, (size_t)a.rows * 8);
    tw_layout l = tw_layout_forward(a.d);
    return tw_with_packs(l.packs, [&](auto packs) -> tw_status {
        return TW_LAUNCH(c->device, layer_norm_forward<decltype(packs)::value>, tw_blocks(a.rows, l.groups),
                         tw_layout_threads(l), 0, a, l);
    });
}

tw_status tw_layer_norm_backward_cuda(const tw_call *c) {
    const tw_tensor *x = &c->input[0];
    backward_args a = {tw_view_rows(x),
                       tw_view_out(&c->output_grad[0], TW_WRITE),
                       tw_view_out(&c->input_grad[0], c->input_mode[0]),
                       tw_affine_of(&c->input[1], &c->input[1], 0.0f),
                       (const float *)c->output[1].data,
                       (float *)c->scratch,
                       tw_tensor_rows(x),
                       tw_tensor_cols(x)};
    tw_layout l = tw_layout_backward(a.rows, a.d);
    unsigned blocks = tw_column_grid(a.rows, l.groups);
    tw_column_target target[2] = {{&c->input_grad[1], c->input_mode[1]},
                                  {&c->input_grad[2], c->input_mode[2]}};
    if (a.d == 0) return TW_OK;
    if (blocks > 0)
        TRY(tw_with_few_packs(l.packs, [&](auto packs) -> tw_status {
            return TW_LAUNCH(c->device, layer_norm_backward<decltype(packs)::value>, blocks,
                             tw_layout_threads(l), 0, a, l);
        }));
    return tw_cuda_sum_columns(c->device, a.partial, blocks, a.d, 2, target);
}
