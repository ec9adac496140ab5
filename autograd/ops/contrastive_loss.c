/* What the contrastive loss of N pairs is made of, for b of its rows: with logits x = exp(logit_scale) I T^T,
 * where row i is image i and its target is text first + i,
 *
 *     loss = 1/(2N) sum over all rows i of (row_lse[i] - target[i])
 *          + 1/(2N) sum over all columns j of (column_lse[j] - target of j),    lse = log sum exp.
 *
 * inputs: I (b,E), T (N,E) f32, logit_scale. Results: row_lse (b), whole; column_lse (N), over these b rows
 * only: -inf where b is 0; target (b); most (N), the largest logit of each column among these rows, without a
 * gradient; is_first (2,b) i32: whether row i's target is the first of the largest logits of its row, and of
 * its column among these rows. What several ranks make of it: layers/contrastive.c. CPU.
 *
 * Tile by tile: each tile of logits is made once in forward, where rows and columns keep a running maximum
 * and sum of exponentials (online log-sum-exp, Milakov and Gimelshein 2018), and once more in backward.
 * Memory is O(N) beside inputs and gradients. Every sum has an order that does not depend on the number of
 * threads, but for the products'; a row's sum does not depend on which other rows there are. */
#include "autograd/cuda/scratch.h"
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"
#include "autograd/ops/activation_math.h"
#include "autograd/progress.h"

#include <omp.h>

enum { IMAGE, TEXT, LOGIT_SCALE };
enum { ROW_LSE, COL_LSE, TARGET, MOST, IS_FIRST };
enum { TILE = 1024, CHUNK = 64 }; /* columns that one thread takes at a time */

/* A running log-sum-exp: log(sum) + most. */
typedef struct running {
    double sum;
    float most;
} running;

/* One tile of logits, rows [row, row + rows) by columns [col, col + cols). */
typedef struct tile {
    float *logit; /* (rows, cols) */
    int64_t row, col, rows, cols;
} tile;

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t first_of(const tw_call *call) {
    return ((const tw_contrastive_loss_attr *)call->attr)->first;
}

static tw_status check_features(const tw_call *call) {
    const tw_tensor *image = &call->input[IMAGE], *text = &call->input[TEXT];
    TRY(tw_call_check_rows(call, IMAGE, "the image features"));
    TRY(tw_call_check_rows(call, TEXT, "the text features"));
    char a[64], b[64];
    if (image->ndim != 2 || text->ndim != 2 || image->shape[1] != text->shape[1] || image->dtype != TW_F32 ||
        text->dtype != TW_F32)
        return FAIL(TW_ERR_SHAPE,
                    "contrastive_loss: image features are %s %s and text features %s %s; both must be f32 "
                    "rows of one width",
                    tw_dtype_name(image->dtype), tw_tensor_shape_text(image, a), tw_dtype_name(text->dtype),
                    tw_tensor_shape_text(text, b));
    int64_t first = first_of(call), rows = image->shape[0], n = text->shape[0];
    if (first < 0 || first > n || rows > n - first)
        return FAIL(TW_ERR_SHAPE, "contrastive_loss: %lld images from %lld on for %lld texts",
                    (long long)rows, (long long)first, (long long)n);
    return TW_OK;
}

tw_status tw_contrastive_loss_shape(tw_call *call) {
    TRY(check_features(call));
    TRY(tw_call_check_f32(call, LOGIT_SCALE, "logit_scale", 0, NULL));
    int64_t rows = call->input[IMAGE].shape[0], n = call->input[TEXT].shape[0];
    size_t height = (size_t)smaller(rows, TILE), width = (size_t)smaller(n, TILE);
    tw_call_output(call, ROW_LSE, TW_F32, 1, &rows);
    tw_call_output(call, COL_LSE, TW_F32, 1, &n);
    tw_call_output(call, TARGET, TW_F32, 1, &rows);
    tw_call_output(call, MOST, TW_F32, 1, &n);
    tw_call_output(call, IS_FIRST, TW_I32, 2, (int64_t[]){2, rows});
    call->n_results = 5;
    call->no_gradient = 1u << MOST;
    call->saved_inputs = 1u << IMAGE | 1u << TEXT | 1u << LOGIT_SCALE;
    call->saved_outputs = 1u << ROW_LSE | 1u << COL_LSE;
    call->forward_scratch = ((size_t)n + height) * sizeof(running) + height * width * sizeof(float);
    call->backward_scratch = height * sizeof(double) + (height + 1) * width * sizeof(float);
    tw_call_scratch_cuda(call, tw_loss_scratch(rows, n, false), tw_loss_scratch(rows, n, true));
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
    for (int64_t i = 0; i < n; i++) r[i] = (running){0, -INFINITY};
}

/* Brings a running sum to a new maximum and adds a sum taken relative to it. */
static void absorb(running *r, float most, double sum) {
    r->sum = (r->most > -INFINITY ? r->sum * exp((double)(r->most - most)) : 0) + sum;
    r->most = most;
}

static float lse_of(const running *r) {
    return r->sum > 0 || isnan(r->sum) ? (float)((double)r->most + log(r->sum)) : -INFINITY;
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

/* Before a tile is absorbed: the targets in it, and whether each can be the first of the largest of its row,
 * and of its column. Row r's target is column r + shift of the tile. */
static void find_targets(const tile *t, int64_t first, const running *row, const running *col, float *target,
                         int32_t *row_first, int32_t *col_first) {
    int64_t shift = first + t->row - t->col;
    if (shift >= t->cols || shift <= -t->rows) return;
    float above[TILE];
    for (int64_t j = 0; j < t->cols; j++) above[j] = col[j].most;
    for (int64_t i = 0; i < t->rows; i++) {
        const float *x = t->logit + i * t->cols;
        int64_t c = i + shift;
        if (c >= t->cols) return;
        float left = row[i].most;
#pragma omp simd reduction(max : left)
        for (int64_t j = 0; j < c; j++) left = x[j] > left ? x[j] : left;
        if (c >= 0) {
            target[i] = x[c];
            row_first[i] = x[c] > left;
            col_first[i] = x[c] > above[c];
        }
#pragma omp simd
        for (int64_t j = c < 0 ? 0 : c + 1; j < t->cols; j++) above[j] = x[j] > above[j] ? x[j] : above[j];
    }
}

tw_status tw_contrastive_loss_forward_cpu(const tw_call *call) {
    int64_t rows = call->input[IMAGE].shape[0], n = call->input[TEXT].shape[0], first = first_of(call);
    float scale = expf(*(const float *)call->input[LOGIT_SCALE].data);
    float *row_lse = call->output[ROW_LSE].data, *col_lse = call->output[COL_LSE].data;
    float *target = call->output[TARGET].data, *most = call->output[MOST].data;
    int32_t *row_first = call->output[IS_FIRST].data, *col_first = row_first + rows;
    running *col = call->scratch, *row = col + n;
    float *logit = (float *)(row + smaller(rows, TILE));
    start(col, n);
    for (int64_t i = 0; i < rows; i += TILE) {
        int64_t height = smaller(TILE, rows - i);
        start(row, height);
        for (int64_t j = 0; j < n; j += TILE) {
            tile t = {logit, i, j, height, smaller(TILE, n - j)};
            TRY(make_logits(call, scale, &t));
            tw_progress_tick();
            find_targets(&t, first, row, col + j, target + i, row_first + i, col_first + i);
            absorb_tile(&t, row, col);
        }
        for (int64_t r = 0; r < height; r++) {
            row_lse[i + r] = lse_of(&row[r]);
            row_first[i + r] &= target[i + r] == row[r].most;
        }
    }
    for (int64_t i = 0; i < rows; i++) col_first[i] &= target[i] == col[first + i].most;
    for (int64_t j = 0; j < n; j++) col_lse[j] = lse_of(&col[j]), most[j] = col[j].most;
    return TW_OK;
}

/* ---- backward ---- */

/* What reaches one row of a tile: gradients of its log-sum-exp and target, and of the columns'. */
typedef struct slopes {
    float row_lse, row, target;
    const float *col_lse, *col;
    int64_t diagonal; /* the target's place in the row; outside it: in another tile */
} slopes;

/* One row of logits to its gradient; returns the product of the two. */
static double slope_row(float *x, int64_t n, slopes s) {
    bool mine = s.diagonal >= 0 && s.diagonal < n;
    float sum = 0, corner = mine ? x[s.diagonal] : 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        float g = s.row * tw_expf(x[j] - s.row_lse) + s.col[j] * tw_expf(x[j] - s.col_lse[j]);
        sum += g * x[j];
        x[j] = g;
    }
    if (!mine) return (double)sum;
    x[s.diagonal] += s.target;
    return (double)sum + (double)s.target * (double)corner;
}

/* `zeros` stands for gradients of columns that are not given. */
static void make_slopes(const tw_call *call, const tile *t, const float *zeros, double *sums) {
    const float *row_lse = call->output[ROW_LSE].data, *col_lse = call->output[COL_LSE].data;
    const float *row = call->output_grad[ROW_LSE].data, *col = call->output_grad[COL_LSE].data;
    const float *target = call->output_grad[TARGET].data;
    int64_t first = first_of(call);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t r = t->row + i;
        slopes s = {.row_lse = row_lse[r],
                    .row = row ? row[r] : 0,
                    .target = target ? target[r] : 0,
                    .col_lse = col_lse + t->col,
                    .col = col ? col + t->col : zeros,
                    .diagonal = first + r - t->col};
        sums[i] = slope_row(t->logit + i * t->cols, t->cols, s);
    }
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
    int64_t rows = call->input[IMAGE].shape[0], n = call->input[TEXT].shape[0];
    float scale = expf(*(const float *)call->input[LOGIT_SCALE].data);
    double *sums = call->scratch, total = 0;
    float *zeros = (float *)(sums + smaller(rows, TILE)), *logit = zeros + smaller(n, TILE);
    memset(zeros, 0, (size_t)smaller(n, TILE) * sizeof *zeros);
    const tw_tensor *text = &call->input_grad[TEXT];
    if (rows == 0 && text->data && call->input_mode[TEXT] == TW_WRITE)
        memset(text->data, 0, tw_tensor_bytes(text));
    for (int64_t i = 0; i < rows; i += TILE)
        for (int64_t j = 0; j < n; j += TILE) {
            tile t = {logit, i, j, smaller(TILE, rows - i), smaller(TILE, n - j)};
            TRY(make_logits(call, scale, &t));
            tw_progress_tick();
            make_slopes(call, &t, zeros, sums);
            for (int64_t r = 0; r < t.rows; r++) total += sums[r];
            TRY(deliver(call, &t, IMAGE, scale));
            TRY(deliver(call, &t, TEXT, scale));
        }
    /* d logits / d logit_scale is the logits themselves. */
    float *g = call->input_grad[LOGIT_SCALE].data, slope = (float)total;
    if (g) *g = call->input_mode[LOGIT_SCALE] == TW_ADD ? *g + slope : slope;
    return TW_OK;
}
