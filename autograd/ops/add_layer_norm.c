#include "autograd/cuda/scratch.h"
#include "autograd/ops/dropout_rows.h"
#include "autograd/ops/layer_norm_backward.h"
#include "autograd/ops/packed.h"

/* y = layer_norm(s), s = x + dropout(h): the end of both halves of a post-norm (BERT) layer.
 * inputs: x (B, .., D), h as x, gain (D) f32, bias (D) f32; outputs: y as x, s as x, stats (rows, 2) f32.
 * Dropout's sample is the index along B, its element the index within the sample. Of packed rows (rows,D)
 * with origin (rows) as fifth input they are those of the padded layout; rows without origin are not dropped.
 */

enum { X, H, GAIN, BIAS, ORIGIN };

tw_status tw_add_layer_norm_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, 0, "x"));
    TRY(tw_call_check_rows(c, 1, "h"));
    const tw_add_layer_norm_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0], *h = &c->input[1];
    char a[64], b[64];
    if (!tw_tensor_same_shape(x, h) || x->dtype != h->dtype)
        return FAIL(TW_ERR_SHAPE, "add_layer_norm: x is %s %s, h is %s %s", tw_dtype_name(x->dtype),
                    tw_tensor_shape_text(x, a), tw_dtype_name(h->dtype), tw_tensor_shape_text(h, b));
    if (!(attr->dropout >= 0.0f && attr->dropout < 1.0f))
        return FAIL(TW_ERR_ARGUMENT, "add_layer_norm: dropout %g is not in [0, 1)", (double)attr->dropout);
    int64_t d = tw_tensor_cols(x), stats[2] = {tw_tensor_rows(x), 2};
    if (tw_present(&c->input[ORIGIN])) {
        if (x->ndim != 2) return FAIL(TW_ERR_SHAPE, "add_layer_norm: packed x is (rows,D)");
        TRY(tw_origin_check(c, ORIGIN, x->shape[0], attr->tokens));
        c->saved_inputs = 1u << ORIGIN;
    }
    TRY(tw_call_check_f32(c, 2, "gain", 1, &d));
    TRY(tw_call_check_f32(c, 3, "bias", 1, &d));
    tw_call_output(c, 0, x->dtype, x->ndim, x->shape);
    tw_call_output(c, 1, x->dtype, x->ndim, x->shape);
    tw_call_output(c, 2, TW_F32, 2, stats);
    c->saved_inputs |= 1u << GAIN;
    c->saved_outputs = 1u << 1 | 1u << 2;
    c->restorable = c->needs_grad;
    c->restore_inputs = 1u << GAIN | 1u << BIAS;
    c->forward_scratch = (size_t)(tw_threads() * 3 * d) * 4;
    c->backward_scratch = tw_layer_norm_backward_scratch(d);
    tw_call_scratch_cuda(c, 0, tw_column_scratch(2, d));
    return TW_OK;
}

static int64_t rows_per_sample(const tw_tensor *x) {
    return x->ndim > 1 && x->shape[0] > 0 ? tw_tensor_rows(x) / x->shape[0] : 1;
}

/* Dropout of row `row`; in may be out. */
static void drop_row(const tw_call *c, int64_t row, int64_t d, const float *in, float *out) {
    const tw_add_layer_norm_attr *attr = c->attr;
    bool packed = tw_present(&c->input[ORIGIN]);
    int64_t at = packed ? ((const int32_t *)c->input[ORIGIN].data)[row] : row;
    int64_t per_sample = packed ? attr->tokens : rows_per_sample(&c->output[1]);
    if (at < 0) {
        if (in != out) memcpy(out, in, (size_t)d * sizeof *out);
        return;
    }
    tw_draw draw = tw_dropout_draw(c->step, attr->layer, at / per_sample);
    tw_dropout_run(&draw, attr->dropout, at % per_sample * d, d, in, out);
}

/* y again, from s. */
static tw_status restore(const tw_call *c) {
    const tw_add_layer_norm_attr *attr = c->attr;
    const tw_tensor *y = &c->output[0], *s = &c->output[1];
    int64_t rows = tw_tensor_rows(s), d = tw_tensor_cols(s);
    float *stats = c->output[2].data;
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 3 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            tw_layer_norm_row(tw_row_read(s, d, i, mine), d, c->input[GAIN].data, c->input[BIAS].data,
                              attr->eps, mine + d, stats + 2 * i);
            tw_row_deliver(y, i, mine + d, TW_WRITE);
        }
    }
    return TW_OK;
}

tw_status tw_add_layer_norm_forward_cpu(const tw_call *c) {
    if (c->restore) return restore(c);
    const tw_add_layer_norm_attr *attr = c->attr;
    const tw_tensor *x = &c->input[0], *h = &c->input[1], *y = &c->output[0], *s = &c->output[1];
    int64_t rows = tw_tensor_rows(x), d = tw_tensor_cols(x), x_stride, h_stride;
    tw_tensor_is_rows(x, &x_stride);
    tw_tensor_is_rows(h, &h_stride);
    float *stats = c->output[2].data;
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 3 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            const float *xr = tw_row_read(x, x_stride, i, mine), *hr = tw_row_read(h, h_stride, i, mine + d);
            float *sum = mine + 2 * d;
            if (attr->dropout > 0.0f) drop_row(c, i, d, hr, sum), hr = sum;
#pragma omp simd
            for (int64_t k = 0; k < d; k++) sum[k] = xr[k] + hr[k];
            tw_row_deliver(s, i, sum, TW_WRITE);
            /* what backward will see, rounded as it is kept */
            const float *kept = tw_row_read(s, d, i, mine);
            tw_layer_norm_row(kept, d, c->input[2].data, c->input[3].data, attr->eps, sum, stats + 2 * i);
            tw_row_deliver(y, i, sum, TW_WRITE);
        }
    }
    return TW_OK;
}

static void deliver(const tw_call *c, int64_t row, int64_t d, float *ds) {
    const tw_add_layer_norm_attr *attr = c->attr;
    const tw_tensor *dx = &c->input_grad[0], *dh = &c->input_grad[1];
    if (dx->data) tw_row_deliver(dx, row, ds, c->input_mode[0]);
    if (!dh->data) return;
    if (attr->dropout > 0.0f) drop_row(c, row, d, ds, ds);
    tw_row_deliver(dh, row, ds, c->input_mode[1]);
}

tw_status tw_add_layer_norm_backward_cpu(const tw_call *c) {
    const tw_tensor *s = &c->output[1];
    tw_layer_norm_backward_rows(c, s, tw_tensor_cols(s), 2, 2, deliver);
    return TW_OK;
}
