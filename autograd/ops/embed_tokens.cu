#include "autograd/cuda/norm_rows.h"

/* y = dropout(layer_norm(word[id] + position[t] + type[0])).
 * inputs: ids (B,T) i32, word (V,D), position (P,D), type (2,D), gain (D), bias (D) f32; outputs: y (B,T,D),
 * stats (B T, 2) f32.
 *
 * An id outside the vocabulary cannot be refused from here: its row becomes NaN, which the trainer's finite
 * check finds, and it has no gradient.
 *
 * The tables' gradients are sums over tokens in an order that is always the same: tokens are sorted by id
 * (each finds its place by counting the smaller ones), and one block adds the rows of one id. */

namespace {

enum { IDS, WORD, POSITION, TYPE, GAIN, BIAS };
enum { SORT = 256, WARPS = 8 };

struct tables {
    const int32_t *ids;
    tw_view word, position, type;
    int64_t tokens, vocabulary; /* tokens: T */
};

struct forward_args {
    tables table;
    tw_view y;
    tw_affine affine;
    tw_drop drop;
    float *stats;
    int64_t rows, d;
};

struct backward_args {
    tables table;
    tw_view dy;
    tw_affine affine;
    tw_drop drop;
    const float *stats;
    float *partial; /* (blocks, 2, d): dgain, dbias */
    tw_view sums;   /* (rows, d) f32: gradients of the summed embeddings */
    int64_t rows, d;
};

/* word[id] + position[t] + type[0] */
template <int PACKS>
TW_DEVICE void embed(const tw_group &at, const tables &t, int64_t row, float (*v)[TW_PACK]) {
    float other[PACKS][TW_PACK];
    int32_t id = t.ids[row];
    bool known = id >= 0 && id < t.vocabulary;
    tw_load_row<PACKS>(at, t.word, known ? id : 0, v);
    tw_load_row<PACKS>(at, t.position, row % t.tokens, other);
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[p][e] = known ? v[p][e] + other[p][e] : NAN;
    tw_load_row<PACKS>(at, t.type, 0, other);
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[p][e] += other[p][e];
}

template <int PACKS> __global__ void embed_tokens_forward(forward_args a, tw_layout l) {
    __shared__ float shared[TW_GROUP_SHARED];
    tw_group at = tw_group_here(l, a.d);
    int64_t row = (int64_t)blockIdx.x * l.groups + at.group;
    if (row >= a.rows) return; /* a whole warp, where a group is one; never where it is a block */
    float v[PACKS][TW_PACK];
    embed<PACKS>(at, a.table, row, v);
    tw_norm_row<PACKS>(at, v, a.affine, a.stats + 2 * row, shared);
    tw_drop_row<PACKS>(at, a.drop, row, v);
    tw_store_row<PACKS>(at, a.y, row, v);
}

template <int PACKS> __global__ void embed_tokens_backward(backward_args a, tw_layout l) {
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
            embed<PACKS>(at, a.table, row, x);
            tw_load_row<PACKS>(at, a.dy, row, g);
            tw_drop_row<PACKS>(at, a.drop, row, g);
            mean = a.stats[2 * row], rstd = a.stats[2 * row + 1];
        }
        tw_norm_row_backward<PACKS>(at, x, g, gain, mean, rstd, dgain, dbias, shared);
        if (mine) tw_store_row<PACKS>(at, a.sums, row, g);
    }
    tw_columns_partial<PACKS>(at, l.groups, dgain, a.partial, 0, 2, columns);
    tw_columns_partial<PACKS>(at, l.groups, dbias, a.partial, 1, 2, columns);
}

/* ---- the tables' gradients ---- */

/* sorted[place] = token, by id and then by token. A token whose row gets no gradient counts as of id V. */
struct sort_args {
    const int32_t *ids;
    int32_t padding, vocabulary;
    int64_t rows;
    int32_t *sorted;
};

TW_DEVICE int32_t sort_key(const sort_args &a, int64_t i) {
    int32_t id = a.ids[i];
    return id < 0 || id >= a.vocabulary || id == a.padding ? a.vocabulary : id;
}

__global__ void sort_tokens(sort_args a) {
    __shared__ int32_t keys[SORT];
    int64_t mine = (int64_t)blockIdx.x * SORT + threadIdx.x;
    int32_t key = mine < a.rows ? sort_key(a, mine) : 0, place = 0;
    for (int64_t first = 0; first < a.rows; first += SORT) {
        int n = (int)(a.rows - first < SORT ? a.rows - first : (int64_t)SORT);
        __syncthreads();
        if ((int)threadIdx.x < n) keys[threadIdx.x] = sort_key(a, first + threadIdx.x);
        __syncthreads();
        int before = (int)(mine - first < n ? mine - first : n); /* of these, earlier tokens win ties */
        for (int j = 0; j < n; j++) place += keys[j] < key || (keys[j] == key && j < before);
    }
    if (mine < a.rows) a.sorted[place] = (int32_t)mine;
}

/* out[row of the list] (+)= sum of the list's rows of sums. The block adds TW_GROUP_COLUMNS columns: each
 * warp every WARPS-th row of the list, then the warps in order. */
struct word_args {
    sort_args sort;
    tw_view sums;
    float *out; /* (V, d), added to */
    int64_t d;
};

__global__ void add_words(word_args a) {
    __shared__ float shared[WARPS * TW_GROUP_COLUMNS];
    int64_t first = blockIdx.x;
    const int32_t *sorted = a.sort.sorted;
    int32_t key = sort_key(a.sort, sorted[first]);
    bool begins = first == 0 || sort_key(a.sort, sorted[first - 1]) != key;
    if (!begins || key == a.sort.vocabulary) return; /* the whole block */
    int64_t col = (int64_t)blockIdx.y * TW_GROUP_COLUMNS + threadIdx.x % TW_WARP * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK];
    for (int64_t i = first + threadIdx.x / TW_WARP; i < a.sort.rows; i += WARPS) {
        int32_t token = sorted[i];
        if (sort_key(a.sort, token) != key) break;
        tw_load_columns(a.sums, token, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
    }
    tw_add_warps(sum, WARPS, shared);
    if (threadIdx.x >= TW_WARP) return;
    float *out = a.out + key * a.d + col;
#pragma unroll
    for (int e = 0; e < TW_PACK; e++)
        if (col + e < a.d) out[e] += sum[e];
}

/* Row t of out: the sum of rows t, t + T, t + 2 T ... of sums. */
struct position_args {
    tw_view sums, out;
    float *kept; /* (T, d): the sums too, for type's */
    int64_t tokens, samples, d;
};

__global__ void add_positions(position_args a) {
    __shared__ float shared[WARPS * TW_GROUP_COLUMNS];
    int64_t t = blockIdx.x, col = (int64_t)blockIdx.y * TW_GROUP_COLUMNS + threadIdx.x % TW_WARP * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK];
    for (int64_t b = threadIdx.x / TW_WARP; b < a.samples; b += WARPS) {
        tw_load_columns(a.sums, b * a.tokens + t, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
    }
    tw_add_warps(sum, WARPS, shared);
    if (threadIdx.x >= TW_WARP) return;
    if (a.out.data) tw_store_columns(a.out, t, col, a.d, sum);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++)
        if (col + e < a.d) a.kept[t * a.d + col + e] = sum[e];
}

/* ---- places in backward's scratch: as embed_tokens.c's shape rule counts them ---- */

struct places {
    float *partial, *sums, *positions;
    int32_t *sorted;
};

places places_of(const tw_call *c, int64_t rows, int64_t d) {
    places p;
    p.partial = (float *)c->scratch;
    p.sums = p.partial + TW_COLUMN_BLOCKS * 2 * d;
    p.positions = p.sums + rows * d;
    p.sorted = (int32_t *)(p.positions + c->input[IDS].shape[1] * d);
    return p;
}

tables tables_of(const tw_call *c) {
    return tables{
        (const int32_t *)c->input[IDS].data, tw_view_rows(&c->input[WORD]), tw_view_rows(&c->input[POSITION]),
        tw_view_rows(&c->input[TYPE]),       c->input[IDS].shape[1],        c->input[WORD].shape[0]};
}

tw_status zero_gradient(const tw_call *c, int i) {
    const tw_tensor *g = &c->input_grad[i];
    if (!g->data || c->input_mode[i] == TW_ADD) return TW_OK;
    return c->device->zero(c->device, TW_QUEUE_COMPUTE, g->data, tw_tensor_bytes(g));
}

tw_status word_gradient(const tw_call *c, const places &p, int64_t rows, int64_t d) {
    const tw_embed_tokens_attr *attr = (const tw_embed_tokens_attr *)c->attr;
    const tw_tensor *g = &c->input_grad[WORD];
    TRY(zero_gradient(c, WORD));
    if (!g->data || rows == 0) return TW_OK;
    word_args a = {{(const int32_t *)c->input[IDS].data, attr->padding_id, (int32_t)c->input[WORD].shape[0],
                    rows, p.sorted},
                   tw_view_of(p.sums, TW_F32, d, d),
                   (float *)g->data,
                   d};
    TRY(TW_LAUNCH(c->device, sort_tokens, tw_blocks(rows, SORT), SORT, 0, a.sort));
    dim3 grid((unsigned)rows, tw_blocks(d, TW_GROUP_COLUMNS));
    return TW_LAUNCH(c->device, add_words, grid, WARPS * TW_WARP, 0, a);
}

/* position's gradient, and type's: the sum of the positions'. */
tw_status other_gradients(const tw_call *c, const places &p, int64_t d) {
    TRY(zero_gradient(c, POSITION));
    TRY(zero_gradient(c, TYPE));
    if (!c->input_grad[POSITION].data && !c->input_grad[TYPE].data) return TW_OK;
    position_args a = {tw_view_of(p.sums, TW_F32, d, d),
                       tw_view_out(&c->input_grad[POSITION], c->input_mode[POSITION]),
                       p.positions,
                       c->input[IDS].shape[1],
                       c->input[IDS].shape[0],
                       d};
    if (a.tokens == 0) return TW_OK;
    dim3 grid((unsigned)a.tokens, tw_blocks(d, TW_GROUP_COLUMNS));
    TRY(TW_LAUNCH(c->device, add_positions, grid, WARPS * TW_WARP, 0, a));
    tw_tensor row = c->input_grad[TYPE];
    row.ndim = 1, row.shape[0] = d, row.stride[0] = 1;
    tw_column_target target = {&row, c->input_mode[TYPE]};
    return tw_cuda_sum_columns(c->device, p.positions, a.tokens, d, 1, &target);
}

} // namespace

tw_status tw_embed_tokens_forward_cuda(const tw_call *c) {
    const tw_embed_tokens_attr *attr = (const tw_embed_tokens_attr *)c->attr;
    const tw_tensor *y = &c->output[0];
    forward_args a = {tables_of(c),
                      tw_view_out(y, TW_WRITE),
                      tw_affine_of(&c->input[GAIN], &c->input[BIAS], attr->eps),
                      tw_drop_of(c, attr->layer, attr->dropout, y->shape[1]),
                      (float *)c->output[1].data,
                      tw_tensor_rows(y),
                      tw_tensor_cols(y)};
    TRY(tw_check_width(a.d));
    if (a.rows == 0) return TW_OK;
    if (a.d == 0) return c->device->zero(c->device, TW_QUEUE_COMPUTE, a.stats, (size_t)a.rows * 8);
    tw_layout l = tw_layout_forward(a.d);
    return tw_with_packs(l.packs, [&](auto packs) -> tw_status {
        return TW_LAUNCH(c->device, embed_tokens_forward<decltype(packs)::value>, tw_blocks(a.rows, l.groups),
                         tw_layout_threads(l), 0, a, l);
    });
}

tw_status tw_embed_tokens_backward_cuda(const tw_call *c) {
    const tw_embed_tokens_attr *attr = (const tw_embed_tokens_attr *)c->attr;
    const tw_tensor *y = &c->output[0];
    int64_t rows = tw_tensor_rows(y), d = tw_tensor_cols(y);
    places p = places_of(c, rows, d);
    backward_args a = {tables_of(c),
                       tw_view_out(&c->output_grad[0], TW_WRITE),
                       tw_affine_of(&c->input[GAIN], &c->input[GAIN], 0.0f),
                       tw_drop_of(c, attr->layer, attr->dropout, y->shape[1]),
                       (const float *)c->output[1].data,
                       p.partial,
                       tw_view_of(p.sums, TW_F32, d, d),
                       rows,
                       d};
    if (d == 0) return TW_OK;
    tw_layout l = tw_layout_backward(rows, d);
    unsigned blocks = tw_column_grid(rows, l.groups);
    if (blocks > 0)
        TRY(tw_with_few_packs(l.packs, [&](auto packs) -> tw_status {
            return TW_LAUNCH(c->device, embed_tokens_backward<decltype(packs)::value>, blocks,
                             tw_layout_threads(l), 0, a, l);
        }));
    TRY(word_gradient(c, p, rows, d));
    TRY(other_gradients(c, p, d));
    tw_column_target target[2] = {{&c->input_grad[GAIN], c->input_mode[GAIN]},
                                  {&c->input_grad[BIAS], c->input_mode[BIAS]}};
    return tw_cuda_sum_columns(c->device, p.partial, blocks, d, 2, target);
}
