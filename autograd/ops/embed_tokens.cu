#include "autograd/cuda/norm_rows.h"

/* y = dropout(layer_norm(word[id] + position[t] + type[0])).
 * inputs: ids (B,T) i32, word (V,D), position (P,D), type (2,D), gain (D), bias (D) f32; outputs: y (B,T,D),
 * stats (B T, 2) f32. Packed: ids (rows), origin (rows) last, ascending; y (rows,D).
 *
 * An id outside the vocabulary cannot be refused from here: its row becomes NaN, which the trainer's finite
 * check finds, and it has no gradient.
 *
 * The tables' gradients are sums over tokens in an order that is always the same: tokens are sorted by id
 * (each finds its place by counting the smaller ones), and one block adds the rows of one id. */

namespace {

enum { IDS, WORD, POSITION, TYPE, GAIN, BIAS, ORIGIN };
enum { SORT = 256, WARPS = 8 };

struct tables {
    const int32_t *ids, *origin; /* origin: NULL: a row's own number */
    tw_view word, position, type;
    int64_t tokens, vocabulary; /* tokens: T */
};

/* A row's place in the padded layout; negative: none. */
TW_DEVICE int64_t place_of(const tables &t, int64_t row) {
    return t.origin ? t.origin[row] : row;
}

template <int PACKS> TW_DEVICE void clear(float (*v)[TW_PACK]) {
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) v[p][e] = 0.0f;
}

/* word[id] + position[t] + type[0]; 0 for a row without a place. */
template <int PACKS>
TW_DEVICE void embed(const tw_group &at, const tables &t, int64_t row, float (*v)[TW_PACK]) {
    float other[PACKS][TW_PACK];
    int64_t place = place_of(t, row);
    if (place < 0) {
        clear<PACKS>(v);
        return;
    }
    int32_t id = t.ids[row];
    bool known = id >= 0 && id < t.vocabulary;
    tw_load_row<PACKS>(at, t.word, known ? id : 0, v);
    tw_load_row<PACKS>(at, t.position, place % t.tokens, other);
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

struct embed_tokens_forward : tw_norm_rows {
    tables table;
    tw_view y;
    tw_drop drop;

    template <int PACKS> TW_MEMBER void load(const tw_group &at, int64_t row, float (*v)[TW_PACK]) const {
        embed<PACKS>(at, table, row, v);
    }
    template <int PACKS> TW_MEMBER void store(const tw_group &at, int64_t row, float (*v)[TW_PACK]) const {
        tw_drop_row<PACKS>(at, drop, row, v);
        if (place_of(table, row) < 0) clear<PACKS>(v);
        tw_store_row<PACKS>(at, y, row, v);
    }
};

struct embed_tokens_backward : tw_norm_rows {
    tables table;
    tw_view dy, sums; /* sums: (rows, d) f32: gradients of the summed embeddings */
    tw_drop drop;

    template <int PACKS>
    TW_MEMBER void load(const tw_group &at, int64_t row, float (*v)[TW_PACK], float (*g)[TW_PACK]) const {
        embed<PACKS>(at, table, row, v);
        tw_load_row<PACKS>(at, dy, row, g);
        tw_drop_row<PACKS>(at, drop, row, g);
        if (place_of(table, row) < 0) clear<PACKS>(g);
    }
    template <int PACKS> TW_MEMBER void store(const tw_group &at, int64_t row, float (*g)[TW_PACK]) const {
        tw_store_row<PACKS>(at, sums, row, g);
    }
};

/* ---- the tables' gradients ---- */

/* sorted[place] = token, by id and then by token. A token whose row gets no gradient counts as of id V. */
struct sort_args {
    const int32_t *ids, *origin;
    int32_t padding, vocabulary;
    int64_t rows;
    int32_t *sorted;
};

TW_DEVICE int32_t sort_key(const sort_args &a, int64_t i) {
    int32_t id = a.ids[i];
    bool none = id < 0 || id >= a.vocabulary || id == a.padding || (a.origin && a.origin[i] < 0);
    return none ? a.vocabulary : id;
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
    tw_view sums, out; /* out: (V, d), added to */
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
    tw_store_columns(a.out, key, col, a.d, sum);
}

/* Row t of out: the sum of the rows of sums whose places are t, t + T, t + 2 T ... */
struct position_args {
    tw_view sums, out;
    tw_view kept; /* (T, d): the sums too, for type's */
    const int32_t *origin;
    int64_t tokens, samples, rows, d; /* samples: at most as many */
};

/* The first row at or behind this place; where negative places count as behind all. */
TW_DEVICE int64_t row_at(const position_args &a, int64_t place) {
    int64_t low = 0, high = a.rows;
    if (!a.origin) return place;
    while (low < high) {
        int64_t middle = low + (high - low) / 2, there = a.origin[middle];
        if (there >= 0 && there < place)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

__global__ void add_positions(position_args a) {
    __shared__ float shared[WARPS * TW_GROUP_COLUMNS];
    int64_t t = blockIdx.x, col = (int64_t)blockIdx.y * TW_GROUP_COLUMNS + threadIdx.x % TW_WARP * TW_PACK;
    float sum[TW_PACK] = {}, v[TW_PACK];
    for (int64_t b = threadIdx.x / TW_WARP; b < a.samples; b += WARPS) {
        int64_t place = b * a.tokens + t, row = row_at(a, place);
        if (row >= a.rows || (a.origin && a.origin[row] < 0)) break;
        if (a.origin && a.origin[row] != place) continue;
        tw_load_columns(a.sums, row, col, a.d, v);
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) sum[e] += v[e];
    }
    tw_add_warps(sum, WARPS, shared);
    if (threadIdx.x >= TW_WARP) return;
    if (a.out.data) tw_store_columns(a.out, t, col, a.d, sum);
    tw_store_columns(a.kept, t, col, a.d, sum);
}

/* ---- places in backward's scratch: as embed_tokens.c's shape rule counts them ---- */

int64_t tokens_of(const tw_call *c) {
    bool packed = tw_present(&c->input[ORIGIN]);
    return packed ? ((const tw_embed_tokens_attr *)c->attr)->tokens : c->input[IDS].shape[1];
}

struct places { /* behind the partial sums of gain and bias */
    float *sums, *positions;
    int32_t *sorted;
};

places places_of(const tw_call *c, int64_t rows, int64_t d) {
    places p;
    p.sums = (float *)c->scratch + TW_COLUMN_BLOCKS * 2 * d;
    p.positions = p.sums + rows * d;
    p.sorted = (int32_t *)(p.positions + tokens_of(c) * d);
    return p;
}

tables tables_of(const tw_call *c) {
    return tables{(const int32_t *)c->input[IDS].data,
                  tw_origin_of(c, ORIGIN),
                  tw_view_rows(&c->input[WORD]),
                  tw_view_rows(&c->input[POSITION]),
                  tw_view_rows(&c->input[TYPE]),
                  tokens_of(c),
                  c->input[WORD].shape[0]};
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
    word_args a = {{(const int32_t *)c->input[IDS].data, tw_origin_of(c, ORIGIN), attr->padding_id,
                    (int32_t)c->input[WORD].shape[0], rows, p.sorted},
                   tw_view_of(p.sums, TW_F32, d, d),
                   tw_view_of(g->data, TW_F32, d, d),
                   d};
    a.out.add = true;
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
                       tw_view_of(p.positions, TW_F32, d, d),
                       tw_origin_of(c, ORIGIN),
                       tokens_of(c),
                       c->input[IDS].shape[0],
                       tw_tensor_rows(&c->output[0]),
                       d};
    if (a.tokens == 0) return TW_OK;
    dim3 grid((unsigned)a.tokens, tw_blocks(d, TW_GROUP_COLUMNS));
    TRY(TW_LAUNCH(c->device, add_positions, grid, WARPS * TW_WARP, 0, a));
    tw_tensor row = c->input_grad[TYPE];
    row.ndim = 1, row.shape[0] = d, row.stride[0] = 1;
    tw_column_target target = {&row, c->input_mode[TYPE]};
    return tw_cuda_sum_columns(c->device, p.positions, a.tokens, d, 1, &target);
}

tw_drop drop_of(const tw_call *c) {
    const tw_embed_tokens_attr *attr = (const tw_embed_tokens_attr *)c->attr;
    return tw_drop_of(c, attr->layer, attr->dropout, tokens_of(c), tw_origin_of(c, ORIGIN));
}

} // namespace

tw_status tw_embed_tokens_forward_cuda(const tw_call *c) {
    const tw_embed_tokens_attr *attr = (const tw_embed_tokens_attr *)c->attr;
    embed_tokens_forward a = {tw_norm_rows_of(c, GAIN, attr->eps), tables_of(c),
                              tw_view_out(&c->output[0], TW_WRITE), drop_of(c)};
    return tw_norm_forward(c, "embed_tokens forward", a);
}

tw_status tw_embed_tokens_backward_cuda(const tw_call *c) {
    tw_norm_rows norm = tw_norm_rows_of(c, GAIN, 0.0f);
    if (norm.d == 0) return TW_OK;
    places p = places_of(c, norm.rows, norm.d);
    embed_tokens_backward a = {norm, tables_of(c), tw_view_out(&c->output_grad[0], TW_WRITE),
                               tw_view_of(p.sums, TW_F32, norm.d, norm.d), drop_of(c)};
    TRY(tw_norm_backward(c, "embed_tokens backward", a, GAIN));
    TRY(word_gradient(c, p, norm.rows, norm.d));
    return other_gradients(c, p, norm.d);
}
