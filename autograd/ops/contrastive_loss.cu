#include "autograd/cuda/product.h"
#include "autograd/cuda/rows.h"

/* The contrastive loss's parts for b rows of N (contrastive_loss.c says what they are). Tile by tile: a
 * product makes a tile of logits in scratch, one pass over it yields what rows and columns need of it, and
 * small kernels bring that into the running state of each, in a fixed order. Backward makes each tile again,
 * turns it into its gradient in place and multiplies. exp(logit_scale) is read from device memory. */

namespace {

enum { IMAGE, TEXT, LOGIT_SCALE };
enum { ROW_LSE, COL_LSE, TARGET, MOST, IS_FIRST };
enum { HEIGHT = TW_LOSS_HEIGHT, WIDTH = TW_LOSS_WIDTH, THREADS = WIDTH, WARPS = THREADS / TW_WARP };
enum { QUAD = 4, QUADS = WIDTH / QUAD, STRIPS = THREADS / QUADS }; /* of columns: 16 bytes; strips of rows */

/* Of a run of logits of one row (or column): the largest, the sum of exp(x - largest), and the largest of
 * those to the left of the row's target (above the column's). */
struct part {
    float most, sum, before;
};

struct running {
    double sum;
    float most, before;
};

/* Logits of rows [row, row + rows) and columns [col, col + cols); row r's target is column first + r. */
struct tile {
    float *x; /* (rows, cols): inner products, not scaled yet */
    int64_t row, col, rows, cols, first;
    const float *logit_scale;
};

struct absorb_args {
    tile t;
    part *row_part; /* (blocks across, rows) */
    part *col_part; /* (blocks down, cols) */
    float *target;
};

TW_DEVICE part part_of_none() {
    part p = {-INFINITY, 0.0f, -INFINITY};
    return p;
}

TW_DEVICE part join(const part &a, const part &b) {
    part p = {b.most > a.most ? b.most : a.most, 0.0f, b.before > a.before ? b.before : a.before};
    p.sum = (a.most > -INFINITY ? a.sum * expf(a.most - p.most) : a.sum) +
            (b.most > -INFINITY ? b.sum * expf(b.most - p.most) : b.sum);
    return p;
}

/* A column of a block; limit: the row whose target is this column. */
TW_DEVICE part part_of_column(const float *x, int n, int64_t limit) {
    part p = part_of_none();
    for (int r = 0; r < n; r++) {
        p.most = x[r * WIDTH] > p.most ? x[r * WIDTH] : p.most;
        if (r < limit) p.before = x[r * WIDTH] > p.before ? x[r * WIDTH] : p.before;
    }
    for (int r = 0; r < n; r++) p.sum += expf(x[r * WIDTH] - p.most);
    return p;
}

/* A row by a warp; lane 0 has the result. limit: the target's column. */
TW_DEVICE part part_of_row(const float *x, int n, int64_t limit) {
    part p = part_of_none();
    int lane = (int)threadIdx.x % TW_WARP;
    for (int j = lane; j < n; j += TW_WARP) {
        p.most = x[j] > p.most ? x[j] : p.most;
        if (j < limit) p.before = x[j] > p.before ? x[j] : p.before;
    }
    p.most = tw_warp_max(p.most), p.before = tw_warp_max(p.before);
    for (int j = lane; j < n; j += TW_WARP) p.sum += expf(x[j] - p.most);
    p.sum = tw_warp_sum(p.sum);
    return p;
}

/* Whether the tile's rows are whole quads on 16-byte boundaries. */
TW_DEVICE bool is_wide(const tile &t) {
    return t.cols % QUAD == 0 && reinterpret_cast<uintptr_t>(t.x) % 16 == 0;
}

/* A block has HEIGHT rows and WIDTH columns of the tile. */
__global__ void absorb_tile(absorb_args a) {
    __align__(16) __shared__ float x[HEIGHT * WIDTH];
    const tile &t = a.t;
    float scale = expf(*t.logit_scale);
    int64_t row = (int64_t)blockIdx.y * HEIGHT, col = (int64_t)blockIdx.x * WIDTH;
    int rows = (int)(t.rows - row < HEIGHT ? t.rows - row : (int64_t)HEIGHT);
    int cols = (int)(t.cols - col < WIDTH ? t.cols - col : (int64_t)WIDTH);
    int64_t shift = t.first + t.row + row - t.col - col; /* row r's target is the block's column r + shift */
    bool wide = is_wide(t);
    for (int i = (int)threadIdx.x * QUAD; i < rows * WIDTH; i += THREADS * QUAD) {
        float v[QUAD];
        if (i % WIDTH >= cols) continue;
        tw_load_part(t.x + (row + i / WIDTH) * t.cols + col, i % WIDTH, cols, wide, v);
#pragma unroll
        for (int e = 0; e < QUAD; e++) v[e] *= scale;
        tw_store16(x + i, v); /* what lies behind the last column is not read */
    }
    __syncthreads();
    for (int j = (int)threadIdx.x; j < cols; j += THREADS)
        a.col_part[blockIdx.y * t.cols + col + j] = part_of_column(x + j, rows, j - shift);
    for (int r = (int)threadIdx.x / TW_WARP; r < rows; r += WARPS) {
        part p = part_of_row(x + r * WIDTH, cols, r + shift);
        if (threadIdx.x % TW_WARP != 0) continue;
        a.row_part[blockIdx.x * t.rows + row + r] = p;
        if (r + shift >= 0 && r + shift < cols) a.target[t.row + row + r] = x[r * WIDTH + (int)(r + shift)];
    }
}

/* state[i] takes in parts[0 .. n) of it, `stride` apart. */
__global__ void absorb_parts(running *state, const part *parts, int64_t count, int64_t n, bool begins) {
    int64_t i = tw_global_thread();
    if (i >= count) return;
    part p = part_of_none();
    for (int64_t k = 0; k < n; k++) p = join(p, parts[k * count + i]);
    running s = {0.0, -INFINITY, -INFINITY};
    if (!begins) s = state[i];
    float most = p.most > s.most ? p.most : s.most;
    s.sum = (s.most > -INFINITY ? s.sum * exp((double)(s.most - most)) : s.sum) +
            (p.most > -INFINITY ? (double)p.sum * exp((double)(p.most - most)) : (double)p.sum);
    s.most = most, s.before = p.before > s.before ? p.before : s.before;
    state[i] = s;
}

__global__ void start(running *state, int64_t count) {
    int64_t i = tw_global_thread();
    if (i < count) state[i] = running{0.0, -INFINITY, -INFINITY};
}

TW_DEVICE float lse_of(const running &s) {
    return s.sum > 0.0 || s.sum != s.sum ? (float)((double)s.most + log(s.sum)) : -INFINITY;
}

/* lse and, if wanted, the largest of each state; is_first[i] for i < targets: whether target[i] is the first
 * of the largest of state first + i. */
__global__ void finish(const running *state, int64_t count, float *lse, float *most, const float *target,
                       int64_t first, int64_t targets, int32_t *is_first) {
    int64_t i = tw_global_thread();
    if (i >= count) return;
    running s = state[i];
    lse[i] = lse_of(s);
    if (most) most[i] = s.most;
    int64_t t = i - first;
    if (t >= 0 && t < targets) is_first[t] = target[t] > s.before && target[t] == s.most;
}

/* ---- backward ---- */

struct slope_args {
    tile t;
    const float *row_lse, *col_lse;  /* of all rows, columns */
    const float *row, *col, *target; /* their gradients, or NULL */
    double *sums;                    /* a block: sum of gradient times logit */
};

/* Row r's inner products with columns [col, col + 4) to their gradients, in place; adds gradient times logit
 * to *total. lse, slope: of these columns. */
TW_DEVICE void make_quad(const slope_args &a, float scale, int64_t r, int64_t col, const float *lse,
                         const float *slope, double *total) {
    const tile &t = a.t;
    float *row = t.x + r * t.cols, x[QUAD];
    bool wide = is_wide(t);
    float row_slope = a.row ? a.row[t.row + r] : 0.0f, row_lse = a.row ? a.row_lse[t.row + r] : 0.0f;
    tw_load_part(row, col, t.cols, wide, x);
#pragma unroll
    for (int e = 0; e < QUAD; e++) {
        if (col + e >= t.cols) continue;
        float y = scale * x[e], g = slope[e] * expf(y - lse[e]);
        if (a.row) g += row_slope * expf(y - row_lse);
        if (a.target && t.first + t.row + r == t.col + col + e) g += a.target[t.row + r];
        *total += (double)g * (double)y;
        x[e] = g * scale;
    }
    tw_store_part(row, col, t.cols, wide, x);
}

/* A block has HEIGHT rows and WIDTH columns, a thread four of these and every STRIPS-th row. */
__global__ void make_slopes(slope_args a) {
    const tile &t = a.t;
    float scale = expf(*t.logit_scale), lse[QUAD], slope[QUAD] = {};
    double total = 0.0;
    int64_t col = (int64_t)blockIdx.x * WIDTH + threadIdx.x % QUADS * QUAD,
            row = (int64_t)blockIdx.y * HEIGHT;
    int64_t end = row + HEIGHT < t.rows ? row + HEIGHT : t.rows;
    if (col < t.cols) {
        tw_load_part(a.col_lse + t.col, col, t.cols, false, lse); /* once for all rows */
        if (a.col) tw_load_part(a.col + t.col, col, t.cols, false, slope);
        for (int64_t r = row + threadIdx.x / QUADS; r < end; r += STRIPS)
            make_quad(a, scale, r, col, lse, slope, &total);
    }
    total = tw_block_sum(total);
    if (threadIdx.x == 0) a.sums[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = total;
}

/* *total (+)= sum of n in a fixed order; if `out`, delivers it there. One block. */
__global__ void add_sums(double *total, const double *sums, int64_t n, bool begins) {
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) sum += sums[i];
    sum = tw_block_sum(sum);
    if (threadIdx.x == 0) *total = begins ? sum : *total + sum;
}

__global__ void deliver_total(float *to, const double *total, bool add) {
    tw_deliver_one(to, total ? (float)*total : 0.0f, add);
}

/* ---- the host's side ---- */

struct sizes {
    int64_t rows, n, first;
    int64_t height, width; /* of a tile */
    int64_t down, across;  /* blocks of a tile */
};

sizes sizes_of(const tw_call *c) {
    sizes s = {};
    s.rows = c->input[IMAGE].shape[0], s.n = c->input[TEXT].shape[0];
    s.first = ((const tw_contrastive_loss_attr *)c->attr)->first;
    s.height = s.rows < TW_LOSS_TILE ? s.rows : (int64_t)TW_LOSS_TILE;
    s.width = s.n < TW_LOSS_TILE ? s.n : (int64_t)TW_LOSS_TILE;
    s.down = (s.height + HEIGHT - 1) / HEIGHT, s.across = (s.width + WIDTH - 1) / WIDTH;
    return s;
}

/* Rows of f32 features from row `first` on. */
tw_cuda_matrix features(const tw_tensor *t, int64_t first, bool transposed) {
    int64_t stride = tw_tensor_cols(t);
    (void)tw_tensor_is_rows(t, &stride);
    return tw_cuda_matrix{(const float *)t->data + first * stride, stride, transposed};
}

tile tile_of(const tw_call *c, const sizes &s, float *x, int64_t i, int64_t j) {
    int64_t rows = s.rows - i < s.height ? s.rows - i : s.height,
            cols = s.n - j < s.width ? s.n - j : s.width;
    return tile{x, i, j, rows, cols, s.first, (const float *)c->input[LOGIT_SCALE].data};
}

/* out (m,n) f32 = op(a) op(b), or added to it. */
tw_status product(tw_device *d, int64_t m, int64_t n, int64_t k, tw_cuda_matrix a, tw_cuda_matrix b, bool add,
                  float *out) {
    tw_cuda_product_args args = {};
    bool fused;
    args.m = m, args.n = n, args.k = k, args.a = a, args.b = b, args.type = TW_F32;
    if (add) args.c = out;
    args.c_stride = n, args.out = out, args.out_stride = n, args.out_type = TW_F32;
    return tw_cuda_product(d, &args, &fused);
}

tw_status make_logits(const tw_call *c, const tile &t) {
    return product(c->device, t.rows, t.cols, c->input[TEXT].shape[1],
                   features(&c->input[IMAGE], t.row, false), features(&c->input[TEXT], t.col, true), false,
                   t.x);
}

tw_status forward_tile(const tw_call *c, const tile &t, running *row, running *col, part *row_part,
                       part *col_part) {
    tw_device *d = c->device;
    TRY(make_logits(c, t));
    absorb_args a = {t, row_part, col_part, (float *)c->output[TARGET].data};
    dim3 grid(tw_blocks(t.cols, WIDTH), tw_blocks(t.rows, HEIGHT));
    TRY(TW_LAUNCH(d, absorb_tile, grid, THREADS, 0, a));
    TRY(TW_LAUNCH(d, absorb_parts, tw_blocks(t.rows, THREADS), THREADS, 0, row, (const part *)row_part,
                  t.rows, (int64_t)grid.x, t.col == 0));
    return TW_LAUNCH(d, absorb_parts, tw_blocks(t.cols, THREADS), THREADS, 0, col + t.col,
                     (const part *)col_part, t.cols, (int64_t)grid.y, t.row == 0);
}

/* The tile's part of dI (input IMAGE) or dT (TEXT): slopes times the other features. */
tw_status deliver(const tw_call *c, const tile &t, int input) {
    const tw_tensor *g = &c->input_grad[input], *other = &c->input[input == IMAGE ? TEXT : IMAGE];
    if (!g->data) return TW_OK;
    bool text = input == TEXT;
    int64_t e = g->shape[1], to = text ? t.col : t.row, from = text ? t.row : t.col;
    bool add = from > 0 || c->input_mode[input] == TW_ADD;
    tw_cuda_matrix slopes = {t.x, t.cols, text};
    return product(c->device, text ? t.cols : t.rows, e, text ? t.rows : t.cols, slopes,
                   features(other, from, false), add, (float *)g->data + to * e);
}

tw_status backward_tile(const tw_call *c, const tile &t, double *total, double *sums) {
    const float *row = (const float *)c->output_grad[ROW_LSE].data,
                *col = (const float *)c->output_grad[COL_LSE].data;
    slope_args a = {t,
                    (const float *)c->output[ROW_LSE].data,
                    (const float *)c->output[COL_LSE].data,
                    row,
                    col,
                    (const float *)c->output_grad[TARGET].data,
                    sums};
    dim3 grid(tw_blocks(t.cols, WIDTH), tw_blocks(t.rows, HEIGHT));
    TRY(make_logits(c, t));
    TRY(TW_LAUNCH(c->device, make_slopes, grid, THREADS, 0, a));
    TRY(TW_LAUNCH(c->device, add_sums, 1, THREADS, 0, total, (const double *)sums, (int64_t)grid.x * grid.y,
                  t.row == 0 && t.col == 0));
    TRY(deliver(c, t, IMAGE));
    return deliver(c, t, TEXT);
}

} // namespace

tw_status tw_contrastive_loss_forward_cuda(const tw_call *c) {
    sizes s = sizes_of(c);
    tw_device *d = c->device;
    running *col = (running *)c->scratch, *row = col + s.n;
    float *x = (float *)(row + s.height); /* on 16 bytes, for the product */
    part *col_part = (part *)(x + s.height * s.width), *row_part = col_part + s.down * s.width;
    float *target = (float *)c->output[TARGET].data;
    int32_t *is_first = (int32_t *)c->output[IS_FIRST].data;
    if (s.rows == 0) TRY(TW_LAUNCH(d, start, tw_blocks(s.n, THREADS), THREADS, 0, col, s.n));
    for (int64_t i = 0; i < s.rows; i += s.height) {
        tile t = {};
        for (int64_t j = 0; j < s.n; j += s.width) {
            t = tile_of(c, s, x, i, j);
            TRY(forward_tile(c, t, row, col, row_part, col_part));
        }
        TRY(TW_LAUNCH(d, finish, tw_blocks(t.rows, THREADS), THREADS, 0, (const running *)row, t.rows,
                      (float *)c->output[ROW_LSE].data + i, (float *)NULL, (const float *)target + i,
                      (int64_t)0, t.rows, is_first + i));
    }
    return TW_LAUNCH(d, finish, tw_blocks(s.n, THREADS), THREADS, 0, (const running *)col, s.n,
                     (float *)c->output[COL_LSE].data, (float *)c->output[MOST].data, (const float *)target,
                     s.first, s.rows, is_first + s.rows);
}

tw_status tw_contrastive_loss_backward_cuda(const tw_call *c) {
    sizes s = sizes_of(c);
    tw_device *d = c->device;
    double *total = (double *)c->scratch, *sums = total + 2;
    float *x = (float *)(sums + (s.down * s.across + 1) / 2 * 2); /* on 16 bytes, for the product */
    const tw_tensor *text = &c->input_grad[TEXT], *image = &c->input_grad[IMAGE];
    bool any = s.rows > 0 && s.n > 0;
    if (!any && text->data && c->input_mode[TEXT] == TW_WRITE)
        TRY(d->zero(d, TW_QUEUE_COMPUTE, text->data, tw_tensor_bytes(text)));
    if (!any && image->data && c->input_mode[IMAGE] == TW_WRITE)
        TRY(d->zero(d, TW_QUEUE_COMPUTE, image->data, tw_tensor_bytes(image)));
    for (int64_t i = 0; i < s.rows; i += s.height)
        for (int64_t j = 0; j < s.n; j += s.width) TRY(backward_tile(c, tile_of(c, s, x, i, j), total, sums));
    float *to =
        (float *)c->input_grad[LOGIT_SCALE].data; /* d logits / d logit_scale is the logits themselves */
    if (!to) return TW_OK;
    return TW_LAUNCH(d, deliver_total, 1, 1, 0, to, any ? (const double *)total : (const double *)NULL,
                     c->input_mode[LOGIT_SCALE] == TW_ADD);
}
