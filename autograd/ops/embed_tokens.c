#include "autograd/cuda/scratch.h"
#include "autograd/ops/dropout_rows.h"
#include "autograd/ops/layer_norm_rows.h"
#include "autograd/ops/packed.h"
#include "autograd/ops/rows.h"

/* BERT's input: y = dropout(layer_norm(word[id] + position[t] + type[0])).
 * inputs: ids (B,T) i32, word (V,D), position (P,D), type (2,D) of one float type, gain (D), bias (D) f32.
 * Packed, ids are (rows) and origin (rows) is the last input; rows without origin become zeros and have no
 * gradient. outputs: y (B,T,D) or (rows,D) of the tables' type; stats (B T or rows, 2) f32. The sum is not
 * kept: the tables still hold it in backward. */

enum { IDS, WORD, POSITION, TYPE, GAIN, BIAS, ORIGIN };

static bool is_packed(const tw_call *c) {
    return tw_present(&c->input[ORIGIN]);
}

static int64_t tokens_of(const tw_call *c) {
    return is_packed(c) ? ((const tw_embed_tokens_attr *)c->attr)->tokens : c->input[IDS].shape[1];
}

/* A row's place in the padded layout; negative: it has none. */
static int64_t origin_of(const tw_call *c, int64_t row) {
    return is_packed(c) ? ((const int32_t *)c->input[ORIGIN].data)[row] : row;
}

static tw_status check_ids(const tw_call *c) {
    const tw_tensor *ids = &c->input[IDS];
    int ndim = is_packed(c) ? 1 : 2;
    if (!tw_present(ids) || ids->ndim != ndim)
        return FAIL(TW_ERR_SHAPE, "embed_tokens: ids must be (%s)", is_packed(c) ? "rows" : "B,T");
    TRY(tw_call_check(c, IDS, "ids", TW_I32, ndim, ids->shape));
    if (!is_packed(c)) return TW_OK;
    return tw_origin_check(c, ORIGIN, ids->shape[0], ((const tw_embed_tokens_attr *)c->attr)->tokens);
}

tw_status tw_embed_tokens_shape(tw_call *c) {
    TRY(tw_call_check_rows(c, WORD, "word"));
    const tw_embed_tokens_attr *attr = c->attr;
    const tw_tensor *ids = &c->input[IDS], *word = &c->input[WORD], *position = &c->input[POSITION];
    TRY(check_ids(c));
    int64_t d = tw_tensor_cols(word), t = tokens_of(c), rows = tw_tensor_count(ids);
    int64_t table[2] = {word->shape[0], d}, type[2] = {c->input[TYPE].shape[0], d};
    TRY(tw_call_check(c, WORD, "word", word->dtype, 2, table));
    if (!tw_present(position) || position->ndim != 2 || position->shape[0] < t)
        return FAIL(TW_ERR_SHAPE, "embed_tokens: %lld positions are needed", (long long)t);
    table[0] = position->shape[0];
    TRY(tw_call_check(c, POSITION, "position", word->dtype, 2, table));
    TRY(tw_call_check(c, TYPE, "type", word->dtype, 2, type));
    if (type[0] < 1) return FAIL(TW_ERR_SHAPE, "embed_tokens: the table of types has no row");
    TRY(tw_call_check_f32(c, GAIN, "gain", 1, &d));
    TRY(tw_call_check_f32(c, BIAS, "bias", 1, &d));
    if (!(attr->dropout >= 0.0f && attr->dropout < 1.0f))
        return FAIL(TW_ERR_ARGUMENT, "embed_tokens: dropout %g is not in [0, 1)", (double)attr->dropout);
    int64_t y[3] = {ids->shape[0], ids->shape[1], 0}, stats[2] = {rows, 2};
    y[ids->ndim] = d;
    tw_call_output(c, 0, word->dtype, ids->ndim + 1, y);
    tw_call_output(c, 1, TW_F32, 2, stats);
    c->saved_inputs = 1u << IDS | 1u << WORD | 1u << POSITION | 1u << TYPE | 1u << GAIN;
    if (is_packed(c)) c->saved_inputs |= 1u << ORIGIN;
    c->saved_outputs = 1u << 1;
    c->forward_scratch = (size_t)(tw_threads() * 4 * d) * 4;
    c->backward_scratch = (size_t)(tw_threads() * 7 * d + rows * d) * 4;
    tw_call_scratch_cuda(c, 0, tw_column_scratch(2, d) + (rows * d + t * d + rows) * 4);
    return TW_OK;
}

/* sum = word[id] + position[t] + type[0] of token `row`, which has an origin; buffer has 3 rows. */
static void sum_row(const tw_call *c, int64_t row, float *buffer, float *sum) {
    int64_t d = tw_tensor_cols(&c->input[WORD]), t = origin_of(c, row) % tokens_of(c);
    int32_t id = ((const int32_t *)c->input[IDS].data)[row];
    const float *w = tw_row_read(&c->input[WORD], d, id, buffer);
    const float *p = tw_row_read(&c->input[POSITION], d, t, buffer + d);
    const float *k = tw_row_read(&c->input[TYPE], d, 0, buffer + 2 * d);
#pragma omp simd
    for (int64_t i = 0; i < d; i++) sum[i] = w[i] + p[i] + k[i];
}

static void drop_row(const tw_call *c, int64_t row, int64_t d, float *values) {
    const tw_embed_tokens_attr *attr = c->attr;
    int64_t t = tokens_of(c), at = origin_of(c, row);
    tw_draw draw = tw_dropout_draw(c->step, attr->layer, at / t);
    tw_dropout_run(&draw, attr->dropout, at % t * d, d, values, values);
}

tw_status tw_embed_tokens_forward_cpu(const tw_call *c) {
    const tw_embed_tokens_attr *attr = c->attr;
    const tw_tensor *y = &c->output[0];
    int64_t rows = tw_tensor_rows(y), d = tw_tensor_cols(y), vocabulary = c->input[WORD].shape[0];
    const int32_t *ids = c->input[IDS].data;
    for (int64_t i = 0; i < rows; i++)
        if (ids[i] < 0 || ids[i] >= vocabulary)
            return FAIL(TW_ERR_ARGUMENT, "token id %d is outside the vocabulary of %lld", ids[i],
                        (long long)vocabulary);
    float *stats = c->output[1].data;
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 4 * d, *sum = mine + 3 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            if (origin_of(c, i) < 0) {
                memset(sum, 0, (size_t)d * 4);
                tw_row_deliver(y, i, sum, TW_WRITE);
                stats[2 * i] = stats[2 * i + 1] = 0;
                continue;
            }
            sum_row(c, i, mine, sum);
            tw_layer_norm_row(sum, d, c->input[GAIN].data, c->input[BIAS].data, attr->eps, sum,
                              stats + 2 * i);
            if (attr->dropout > 0.0f) drop_row(c, i, d, sum);
            tw_row_deliver(y, i, sum, TW_WRITE);
        }
    }
    return TW_OK;
}

/* The gradient of the sums, one row a token, into `sums`; dgain and dbias into each thread's scratch. */
static void backward_rows(const tw_call *c, float *sums) {
    const tw_embed_tokens_attr *attr = c->attr;
    const tw_tensor *dy = &c->output_grad[0];
    int64_t rows = tw_tensor_rows(&c->output[0]), d = tw_tensor_cols(&c->output[0]);
    const float *stats = c->output[1].data;
#pragma omp parallel
    {
        float *mine = (float *)c->scratch + omp_get_thread_num() * 7 * d, *g = mine + 4 * d;
        tw_range r = tw_my_share(rows);
        for (int64_t i = r.begin; i < r.end; i++) {
            if (origin_of(c, i) < 0) continue;
            sum_row(c, i, mine, mine + 3 * d);
            const float *in = tw_row_read(dy, d, i, g);
            if (in != g) memcpy(g, in, (size_t)d * 4);
            if (attr->dropout > 0.0f) drop_row(c, i, d, g);
            tw_layer_norm_row_backward(mine + 3 * d, g, d, c->input[GAIN].data, stats + 2 * i, sums + i * d,
                                       mine + 5 * d, mine + 6 * d);
        }
    }
}

/* table[row_of(i)] += sums[i]: each thread owns a range of columns, so that rows met twice need no locks and
 * every element is summed in token order. */
static void scatter(const tw_call *c, const float *sums, int input) {
    const tw_embed_tokens_attr *attr = c->attr;
    const tw_tensor *grad = &c->input_grad[input];
    if (!grad->data) return;
    int64_t rows = tw_tensor_rows(&c->output[0]), d = tw_tensor_cols(grad), t = tokens_of(c);
    const int32_t *ids = c->input[IDS].data;
    float *out = grad->data;
    if (c->input_mode[input] == TW_WRITE) memset(out, 0, tw_tensor_bytes(grad));
#pragma omp parallel
    {
        tw_range r = tw_my_share(d);
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = origin_of(c, i);
            if (at < 0 || (input == WORD && ids[i] == attr->padding_id)) continue;
            int64_t row = input == WORD ? ids[i] : input == POSITION ? at % t : 0;
            for (int64_t k = r.begin; k < r.end; k++) out[row * d + k] += sums[i * d + k];
        }
    }
}

tw_status tw_embed_tokens_backward_cpu(const tw_call *c) {
    int64_t d = tw_tensor_cols(&c->output[0]);
    int threads = tw_threads();
    float *scratch = c->scratch, *sums = scratch + threads * 7 * d;
    memset(scratch, 0, (size_t)(threads * 7 * d) * 4);
    backward_rows(c, sums);
    scatter(c, sums, WORD);
    scatter(c, sums, POSITION);
    scatter(c, sums, TYPE);
    for (int i = GAIN; i <= BIAS; i++)
        if (c->input_grad[i].data)
            tw_sum_threads(scratch, 7 * d, (5 + i - GAIN) * d, threads, d, c->input_grad[i].data,
                           c->input_mode[i] == TW_ADD);
    return TW_OK;
}
