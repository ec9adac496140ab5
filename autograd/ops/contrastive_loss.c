/* loss = (CE rows + CE columns) / 2 of the logits exp(logit_scale) I T^T with the diagonal as target. CPU.
 *
 * Tile by tile: each tile of logits is made once in forward, where rows and columns keep a running maximum
 * and sum of exponentials (online log-sum-exp, Milakov and Gimelshein 2018), and once more in backward.
 * Memory is O(N) beside inputs and gradients. Every sum has an order that does not depend on the number of
 * threads, but for the products'.
 *
 * The second result, (2) i32, counts the rows, and the columns, whose largest logit is the target; among
 * equals the first one counts as the largest. */
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"
#include "autograd/ops/activation_math.h"

#include <omp.h>

enum { IMAGE, TEXT, LOGIT_SCALE };
enum { LOSS, HITS, ROW_LSE, COL_LSE };
enum { TILE = 1024, CHUNK = 64 }; /* columns that one thread takes at a time */

/* A running log-sum-exp: log(sum) + most. */
typedef struct running {
    double sum;
    float most;
    float target; /* the logit on the diagonal if none before it is as large; else NaN */
} running;

/* One tile of logits, rows [row, row + rows) by columns [col, col + cols). */
typedef struct tile {
    float *logit; /* (rows, cols) */
    int64_t row, col, rows, cols;
} tile;

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

tw_status tw_contrastive_loss_shape(tw_call *call) {
    const tw_tensor *image = &call->input[IMAGE];
    TRY(tw_call_check_rows(call, IMAGE, "the image features"));
    TRY(tw_call_check_rows(call, TEXT, "the text features"));
    TRY(tw_call_check_f32(call, LOGIT_SCALE, "logit_scale", 0, NULL));
    const tw_tensor *text = &call->input[TEXT];
    char a[64], b[64];
    if (image->ndim != 2 || !tw_tensor_same_shape(image, text) || image->dtype != TW_F32 ||
        text->dtype != TW_F32)
        return FAIL(TW_ERR_SHAPE,
                    "contrastive_loss: image features are %s %s and text features %s %s; both must be f32 "
                    "(N,E)",
                    tw_dtype_name(image->dtype), tw_tensor_shape_text(image, a), tw_dtype_name(text->dtype),
                    tw_tensor_shape_text(text, b));
    int64_t n = image->shape[0], side = smaller(n, TILE);
    tw_call_output(call, LOSS, TW_F32, 0, NULL);
    tw_call_output(call, HITS, TW_I32, 1, (int64_t[]){2});
    tw_call_output(call, ROW_LSE, TW_F32, 1, &n);
    tw_call_output(call, COL_LSE, TW_F32, 1, &n);
    call->n_results = 2;
    call->saved_inputs = 1u << IMAGE | 1u << TEXT | 1u << LOGIT_SCALE;
    call->saved_outputs = 1u << ROW_LSE | 1u << COL_LSE;
    size_t logits = (size_t)(side * side) * sizeof(float);
    call->forward_scratch = logits + (size_t)(n + side) * sizeof(running) + 64;
    call->backward_scratch = logits + (size_t)side * sizeof(double) + 64;
    return TW_OK;
}

static tw_status make_logits(const tw_call *call, float scale, tile *t) {
    const tw_tensor *image = &call->input[IMAGE], *text = &call->input[TEXT];
    int64_t image_stride, text_stride;
    (void)tw_tensor_is_rows(image, &image_stride), (void)tw_tensor_is_rows(text, &text_stride);
    return tw_gemm_f32(t->rows, t->cols, image->shape[1], scale,
                       (const float *)image->data + t->row * image_stride, image_stride, false,
                       (const float *)text->data + t->col * text_stride, text_stride, true, 0, t->logit,
                       t->cols);
}

/* ---- forward ---- */

static void start(running *r, int64_t n) {
    for (int64_t i = 0; i < n; i++) r[i] = (running){0, -INFINITY, NAN};
}

/* Brings a running sum to a new maximum and adds a sum taken relative to it. */
static void absorb(running *r, float most, double sum) {
    r->sum = (r->most > -INFINITY ? r->sum * exp((double)(r->most - most)) : 0) + sum;
    r->most = most;
}

static float lse_of(const running *r) {
    return (float)((double)r->most + log(r->sum));
}

static void absorb_row(const float *x, int64_t n, running *r) {
    float most = r->most, sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) most = x[j] > most ? x[j] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += tw_expf(x[j] - most);
    absorb(r, most, (double)sum);
}

/* Up to CHUNK neighbouring columns, together. */
static void absorb_columns(const float *x, int64_t stride, int64_t rows, int64_t n, running *r) {
    float most[CHUNK], sum[CHUNK];
    for (int64_t j = 0; j < n; j++) most[j] = r[j].most, sum[j] = 0;
    for (int64_t i = 0; i < rows; i++) {
        const float *row = x + i * stride;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) most[j] = row[j] > most[j] ? row[j] : most[j];
    }
    for (int64_t i = 0; i < rows; i++) {
        const float *row = x + i * stride;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) sum[j] += tw_expf(row[j] - most[j]);
    }
    for (int64_t j = 0; j < n; j++) absorb(&r[j], most[j], (double)sum[j]);
}

static void absorb_tile(const tile *t, running *row, running *col) {
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < t->rows; i++) absorb_row(t->logit + i * t->cols, t->cols, &row[i]);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < t->cols; j += CHUNK)
            absorb_columns(t->logit + j, t->cols, t->rows, smaller(CHUNK, t->cols - j), &col[t->col + j]);
    }
}

/* In a tile on the diagonal, before it is absorbed: whether the target can be the first of the largest of its
 * row, and of its column. */
static void find_targets(const tile *t, running *row, running *col) {
    float above[TILE];
    for (int64_t j = 0; j < t->cols; j++) above[j] = col[j].most;
    for (int64_t i = 0; i < t->rows; i++) {
        const float *x = t->logit + i * t->cols;
        float left = row[i].most;
#pragma omp simd reduction(max : left)
        for (int64_t j = 0; j < i; j++) left = x[j] > left ? x[j] : left;
        row[i].target = x[i] > left ? x[i] : NAN;
        col[i].target = x[i] > above[i] ? x[i] : NAN;
#pragma omp simd
        for (int64_t j = i + 1; j < t->cols; j++) above[j] = x[j] > above[j] ? x[j] : above[j];
    }
}

/* The sum of the logits on the diagonal that lie in the tile. Tiles are square, so they begin on it. */
static double diagonal_sum(const tile *t) {
    double sum = 0;
    for (int64_t i = 0; t->row == t->col && i < t->rows; i++) sum += (double)t->logit[i * t->cols + i];
    return sum;
}

tw_status tw_contrastive_loss_forward_cpu(const tw_call *call) {
    int64_t n = call->input[IMAGE].shape[0], side = smaller(n, TILE);
    float scale = expf(*(const float *)call->input[LOGIT_SCALE].data);
    float *row_lse = call->output[ROW_LSE].data, *col_lse = call->output[COL_LSE].data;
    running *col = call->scratch, *row = col + n;
    float *logit = (float *)(row + side);
    int32_t *hits = call->output[HITS].data;
    double total = 0;
    hits[0] = hits[1] = 0;
    start(col, n);
    for (int64_t i = 0; i < n; i += TILE) {
        start(row, side);
        for (int64_t j = 0; j < n; j += TILE) {
            tile t = {logit, i, j, smaller(TILE, n - i), smaller(TILE, n - j)};
            TRY(make_logits(call, scale, &t));
            if (i == j) find_targets(&t, row, col + j);
            absorb_tile(&t, row, col);
            total -= 2 * diagonal_sum(&t);
        }
        for (int64_t r = i; r < smaller(n, i + TILE); r++) row_lse[r] = lse_of(&row[r - i]);
        for (int64_t r = i; r < smaller(n, i + TILE); r++) {
            total += (double)row[r - i].most + log(row[r - i].sum);
            hits[0] += row[r - i].target == row[r - i].most;
        }
    }
    for (int64_t j = 0; j < n; j++) {
        col_lse[j] = lse_of(&col[j]);
        total += (double)col[j].most + log(col[j].sum);
        hits[1] += col[j].target == col[j].most;
    }
    *(float *)call->output[LOSS].data = n ? (float)(total / (2 * (double)n)) : 0;
    return TW_OK;
}

/* ---- backward ---- */

/* One row of logits to softmax of the row + softmax of the columns - 2 on the diagonal; returns its product
 * with the logits. */
static double slope_row(float *x, int64_t n, float row_lse, const float *col_lse, int64_t diagonal) {
    float sum = 0, corner = diagonal >= 0 && diagonal < n ? x[diagonal] : 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        float g = tw_expf(x[j] - row_lse) + tw_expf(x[j] - col_lse[j]);
        sum += g * x[j];
        x[j] = g;
    }
    if (diagonal < 0 || diagonal >= n) return (double)sum;
    x[diagonal] -= 2;
    return (double)sum - 2 * (double)corner;
}

static void make_slopes(const tw_call *call, const tile *t, double *sums) {
    const float *row_lse = call->output[ROW_LSE].data, *col_lse = call->output[COL_LSE].data;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < t->rows; i++)
        sums[i] = slope_row(t->logit + i * t->cols, t->cols, row_lse[t->row + i], col_lse + t->col,
                            t->row + i - t->col);
}

/* The tile's part of dI (input IMAGE) or dT (TEXT): factor * slopes * the other features. */
static tw_status deliver(const tw_call *call, const tile *t, int input, float factor) {
    const tw_tensor *g = &call->input_grad[input], *other = &call->input[input == IMAGE ? TEXT : IMAGE];
    if (!g->data) return TW_OK;
    bool text = input == TEXT;
    int64_t stride, e = g->shape[1], to = text ? t->col : t->row, from = text ? t->row : t->col;
    (void)tw_tensor_is_rows(other, &stride);
    bool first = from == 0 && call->input_mode[input] == TW_WRITE;
    return tw_gemm_f32(text ? t->cols : t->rows, e, text ? t->rows : t->cols, factor, t->logit, t->cols, text,
                       (const float *)other->data + from * stride, stride, false, first ? 0.0f : 1.0f,
                       (float *)g->data + to * e, e);
}

tw_status tw_contrastive_loss_backward_cpu(const tw_call *call) {
    int64_t n = call->input[IMAGE].shape[0], side = smaller(n, TILE);
    float scale = expf(*(const float *)call->input[LOGIT_SCALE].data);
    double *sums = call->scratch, total = 0;
    float *logit = (float *)(sums + side);
    double weight = n ? (double)*(const float *)call->output_grad[LOSS].data / (2 * (double)n) : 0;
    for (int64_t i = 0; i < n; i += TILE)
        for (int64_t j = 0; j < n; j += TILE) {
            tile t = {logit, i, j, smaller(TILE, n - i), smaller(TILE, n - j)};
            TRY(make_logits(call, scale, &t));
            make_slopes(call, &t, sums);
            for (int64_t r = 0; r < t.rows; r++) total += sums[r];
            TRY(deliver(call, &t, IMAGE, (float)weight * scale));
            TRY(deliver(call, &t, TEXT, (float)weight * scale));
        }
    /* d logits / d logit_scale is the logits themselves. */
    float *g = call->input_grad[LOGIT_SCALE].data, slope = (float)(weight * total);
    if (g) *g = call->input_mode[LOGIT_SCALE] == TW_ADD ? *g + slope : slope;
    return TW_OK;
}
