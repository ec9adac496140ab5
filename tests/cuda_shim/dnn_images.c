#include "dnn_values.h"

#include <math.h>
#include <stdlib.h>

/* Every pair of a pixel of y and a dnn_place of the kernel adds one product. */
void dnn_convolve(const dnn_run *r, const tw_dnn_node *n) {
    /* x, w, y and which of them is written */
    const dnn_values *out = &r->value[n->out[0]], *first = dnn_in(r, n, 0), *second = dnn_in(r, n, 1);
    const dnn_values *x = n->op == TW_DNN_CONV ? first : n->op == TW_DNN_CONV_X ? out : second;
    const dnn_values *w = n->op == TW_DNN_CONV_W ? out : second;
    const dnn_values *y = n->op == TW_DNN_CONV ? out : first;
    double *sum = calloc((size_t)tw_dnn_extent(out->t), sizeof *sum);
    for (int64_t e = 0; sum && e < dnn_count(y->t); e++) {
        dnn_place p = dnn_place_of(y->t, e);
        int64_t at_y = dnn_offset(y->t, &p);
        for (int64_t k = 0; k < w->t->dim[1] * w->t->dim[2] * w->t->dim[3]; k++) {
            int64_t c = k / (w->t->dim[2] * w->t->dim[3]), ky = k / w->t->dim[3] % w->t->dim[2],
                    kx = k % w->t->dim[3];
            dnn_place from = {
                {p.i[0], c, p.i[2] * n->stride + ky - n->padding, p.i[3] * n->stride + kx - n->padding}};
            dnn_place of_w = {{p.i[1], c, ky, kx}};
            if (from.i[2] < 0 || from.i[2] >= x->t->dim[2] || from.i[3] < 0 || from.i[3] >= x->t->dim[3])
                continue;
            int64_t at_x = dnn_offset(x->t, &from), at_w = dnn_offset(w->t, &of_w);
            if (n->op == TW_DNN_CONV)
                sum[at_y] += dnn_get(x, at_x) * dnn_get(w, at_w);
            else if (n->op == TW_DNN_CONV_X)
                sum[at_x] += dnn_get(y, at_y) * dnn_get(w, at_w);
            else
                sum[at_w] += dnn_get(y, at_y) * dnn_get(x, at_x);
        }
    }
    for (int64_t e = 0; sum && e < dnn_count(out->t); e++) {
        dnn_place p = dnn_place_of(out->t, e);
        dnn_put(out, dnn_offset(out->t, &p), sum[dnn_offset(out->t, &p)]);
    }
    free(sum);
}

/* Pixel k of all of channel c. */
static dnn_place pixel_of(const tw_dnn_tensor *t, int64_t c, int64_t k) {
    int64_t area = t->dim[2] * t->dim[3];
    return (dnn_place){{k / area, c, k % area / t->dim[3], k % t->dim[3]}};
}

/* Batch norm's y, mean and 1 / sqrt(variance + epsilon). */
void dnn_norm(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *x = dnn_in(r, n, 0), *y = &r->value[n->out[0]];
    int64_t rows = dnn_count(x->t) / x->t->dim[1];
    double eps = dnn_get(dnn_in(r, n, 3), 0);
    for (int64_t c = 0; c < x->t->dim[1]; c++) {
        dnn_place channel = {{0, c, 0, 0}};
        double mean = 0, variance = 0;
        for (int pass = 0; pass < 3; pass++)
            for (int64_t k = 0; k < rows; k++) {
                dnn_place p = pixel_of(x->t, c, k);
                double v = dnn_get(x, dnn_offset(x->t, &p));
                if (pass == 0) mean += v / (double)rows;
                if (pass == 1) variance += (v - mean) * (v - mean) / (double)rows;
                if (pass < 2) continue;
                double gain = dnn_get(dnn_in(r, n, 1), dnn_offset(dnn_in(r, n, 1)->t, &p)),
                       bias = dnn_get(dnn_in(r, n, 2), dnn_offset(dnn_in(r, n, 2)->t, &p));
                dnn_put(y, dnn_offset(y->t, &p), (v - mean) / sqrt(variance + eps) * gain + bias);
            }
        const dnn_values *to = &r->value[n->out[1]], *inverse = &r->value[n->out[2]];
        dnn_put(to, dnn_offset(to->t, &channel), mean);
        dnn_put(inverse, dnn_offset(inverse->t, &channel), 1 / sqrt(variance + eps));
    }
}

void dnn_norm_again(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *x = dnn_in(r, n, 0), *y = &r->value[n->out[0]];
    for (int64_t e = 0; e < dnn_count(x->t); e++) {
        dnn_place p = dnn_place_of(x->t, e);
        double of[5]; /* x, gain, bias, mean, 1 / sqrt(variance + epsilon) */
        for (int i = 0; i < 5; i++) of[i] = dnn_get(dnn_in(r, n, i), dnn_offset(dnn_in(r, n, i)->t, &p));
        dnn_put(y, dnn_offset(y->t, &p), (of[0] - of[3]) * of[4] * of[1] + of[2]);
    }
}

/* With xhat = (x - mean) / sqrt(variance + epsilon): dgain = sum of dy xhat, dbias = sum of dy,
 * dx = gain (dy - (dbias + xhat dgain) / rows) / sqrt(variance + epsilon). */
void dnn_norm_gradient(const dnn_run *r, const tw_dnn_node *n) {
    const dnn_values *dy = dnn_in(r, n, 0), *x = dnn_in(r, n, 1);
    const dnn_values *dx = &r->value[n->out[0]], *dgain = &r->value[n->out[1]], *dbias = &r->value[n->out[2]];
    int64_t rows = dnn_count(x->t) / x->t->dim[1];
    for (int64_t c = 0; c < x->t->dim[1]; c++) {
        dnn_place channel = {{0, c, 0, 0}};
        double of[3], slope = 0, level = 0; /* gain, mean, 1 / sqrt(variance + epsilon) */
        for (int i = 0; i < 3; i++)
            of[i] = dnn_get(dnn_in(r, n, 2 + i), dnn_offset(dnn_in(r, n, 2 + i)->t, &channel));
        for (int pass = 0; pass < 2; pass++)
            for (int64_t k = 0; k < rows; k++) {
                dnn_place p = pixel_of(x->t, c, k);
                double g = dnn_get(dy, dnn_offset(dy->t, &p)),
                       xhat = (dnn_get(x, dnn_offset(x->t, &p)) - of[1]) * of[2];
                if (pass == 0)
                    slope += g * xhat, level += g;
                else
                    dnn_put(dx, dnn_offset(dx->t, &p),
                            of[0] * of[2] * (g - (level + xhat * slope) / (double)rows));
            }
        dnn_put(dgain, dnn_offset(dgain->t, &channel), slope);
        dnn_put(dbias, dnn_offset(dbias->t, &channel), level);
    }
}

/* Each element of y belongs to a square of x. */
void dnn_pool(const dnn_run *r, const tw_dnn_node *n) {
    bool forward = n->op == TW_DNN_POOL;
    const dnn_values *in = dnn_in(r, n, 0), *out = &r->value[n->out[0]];
    const dnn_values *x = forward ? in : out, *y = forward ? out : in;
    int64_t side = n->stride;
    for (int64_t e = 0; e < dnn_count(y->t); e++) {
        dnn_place p = dnn_place_of(y->t, e);
        double share = 1 / (double)(side * side), sum = 0;
        for (int64_t k = 0; k < side * side; k++) {
            dnn_place at = {{p.i[0], p.i[1], p.i[2] * side + k / side, p.i[3] * side + k % side}};
            if (forward)
                sum += dnn_get(x, dnn_offset(x->t, &at)) * share;
            else
                dnn_put(x, dnn_offset(x->t, &at), dnn_get(y, dnn_offset(y->t, &p)) * share);
        }
        if (forward) dnn_put(y, dnn_offset(y->t, &p), sum);
    }
}
