/* Rows of f32 or bf16 for CUDA kernels. Computing is in f32; memory is read and written 16 bytes at a time
 * where address, stride and width allow it, and by single elements elsewhere.
 *
 * A row belongs to a group: `warps` whole warps of a block. Thread `lane` of the group's `threads` holds
 * packs of 8 neighbouring columns, pack p from column 8 (p threads + lane) on; columns outside of the row are
 * 0. */
#ifndef TW_AUTOGRAD_CUDA_ROWS_H
#define TW_AUTOGRAD_CUDA_ROWS_H

#include "autograd/cuda/launch.h"
extern "C" {
#include "autograd/cuda/scratch.h"
}

enum { TW_PACK = 8, TW_WARP = 32, TW_GROUP_COLUMNS = TW_PACK * TW_WARP, TW_MAX_GROUP_WARPS = 16 };

/* Rows in device memory. */
struct tw_view {
    void *data;     /* NULL: absent */
    int64_t stride; /* elements between rows */
    bool bf16;      /* else f32 */
    bool wide;      /* every pack is whole and lies on a 16-byte boundary */
    bool add;       /* of a gradient: TW_ADD */
};

static inline tw_view tw_view_of(void *data, tw_dtype dtype, int64_t stride, int64_t cols) {
    tw_view v = {data, stride, dtype == TW_BF16, false, false};
    int64_t bytes = stride * (v.bf16 ? 2 : 4);
    v.wide = (uintptr_t)data % 16 == 0 && bytes % 16 == 0 && cols % TW_PACK == 0;
    return v;
}

/* Of an input: any rows. */
static inline tw_view tw_view_rows(const tw_tensor *t) {
    int64_t cols = tw_tensor_cols(t), stride = cols;
    (void)tw_tensor_is_rows(t, &stride);
    return tw_view_of(t->data, t->dtype, stride, cols);
}

/* Of an output or a gradient: contiguous rows. */
static inline tw_view tw_view_out(const tw_tensor *t, tw_accumulate mode) {
    int64_t cols = t->data ? tw_tensor_cols(t) : 0;
    tw_view v = tw_view_of(t->data, t->dtype, cols, cols);
    v.add = mode == TW_ADD;
    return v;
}

TW_DEVICE void tw_load8(const float *p, float *v) {
    float half[4];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        tw_load16(p + 4 * h, half);
#pragma unroll
        for (int e = 0; e < 4; e++) v[4 * h + e] = half[e];
    }
}
TW_DEVICE void tw_load8(const tw_bf16 *p, float *v) {
    float all[8];
    tw_load16(p, all);
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = all[e];
}
TW_DEVICE void tw_store8(float *p, const float (&v)[8]) {
    tw_store16(p, {v[0], v[1], v[2], v[3]});
    tw_store16(p + 4, {v[4], v[5], v[6], v[7]});
}
TW_DEVICE void tw_store8(tw_bf16 *p, const float (&v)[8]) {
    tw_store16(p, v);
}

/* n elements (at most 8 of them) from p on; 0 beyond them. wide: n is 8 or less than 1. */
template <typename T> TW_DEVICE void tw_load_pack(const T *p, bool wide, int64_t n, float *v) {
    if (wide && n > 0) {
        tw_load8(p, v);
        return;
    }
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) v[e] = e < n ? tw_get(p + e) : 0.0f;
}

/* The first n of v, written or added in f32. */
template <typename T> TW_DEVICE void tw_store_pack(T *p, bool wide, int64_t n, const float *v, bool add) {
    float sum[TW_PACK];
    if (n <= 0) return;
    if (add) tw_load_pack(p, wide, n, sum);
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) sum[e] = add ? sum[e] + v[e] : v[e];
    if (wide) {
        tw_store8(p, sum);
        return;
    }
#pragma unroll
    for (int e = 0; e < TW_PACK; e++)
        if (e < n) tw_put(p + e, sum[e]);
}

/* Columns [col, col + 8) of a row of d columns. */
TW_DEVICE void tw_load_columns(const tw_view &x, int64_t row, int64_t col, int64_t d, float *v) {
    int64_t at = row * x.stride + col;
    if (x.bf16)
        tw_load_pack((const tw_bf16 *)x.data + at, x.wide, d - col, v);
    else
        tw_load_pack((const float *)x.data + at, x.wide, d - col, v);
}

TW_DEVICE void tw_store_columns(const tw_view &x, int64_t row, int64_t col, int64_t d, const float *v) {
    int64_t at = row * x.stride + col;
    if (x.bf16)
        tw_store_pack((tw_bf16 *)x.data + at, x.wide, d - col, v, x.add);
    else
        tw_store_pack((float *)x.data + at, x.wide, d - col, v, x.add);
}

/* The same of columns [col, col + n) or the first 8 of them, where a row's part ends, as a head does; 0
 * behind it. */
TW_DEVICE void tw_load_head(const tw_view &x, int64_t row, int64_t col, int64_t n, float *v) {
    int64_t at = row * x.stride + col;
    bool wide = x.wide && n >= TW_PACK && col % TW_PACK == 0;
    if (x.bf16)
        tw_load_pack((const tw_bf16 *)x.data + at, wide, n, v);
    else
        tw_load_pack((const float *)x.data + at, wide, n, v);
}

/* The same way back. */
TW_DEVICE void tw_store_head(const tw_view &x, int64_t row, int64_t col, int64_t n, const float *v) {
    int64_t at = row * x.stride + col;
    bool wide = x.wide && n >= TW_PACK && col % TW_PACK == 0;
    if (x.bf16)
        tw_store_pack((tw_bf16 *)x.data + at, wide, n, v, x.add);
    else
        tw_store_pack((float *)x.data + at, wide, n, v, x.add);
}

/* What a bf16 would keep. */
TW_DEVICE float tw_round_bf16(float v) {
    tw_bf16 half;
    tw_put(&half, v);
    return tw_get(&half);
}

/* One element. */
TW_DEVICE float tw_get_one(const tw_view &x, int64_t at) {
    return x.bf16 ? tw_get((const tw_bf16 *)x.data + at) : tw_get((const float *)x.data + at);
}

TW_DEVICE void tw_put_one(const tw_view &x, int64_t at, float v) {
    if (x.bf16)
        tw_deliver_one((tw_bf16 *)x.data + at, v, x.add);
    else
        tw_deliver_one((float *)x.data + at, v, x.add);
}

/* ---- a thread a pack ---- */

/* Packs of a row, threads of a block. */
static inline int64_t tw_packs_of(int64_t d) {
    return (d + TW_PACK - 1) / TW_PACK;
}

constexpr unsigned TW_PACK_THREADS = 256;

/* This thread's row and column; false beyond the last one. */
TW_DEVICE bool tw_pack_here(int64_t rows, int64_t d, int64_t *row, int64_t *col) {
    int64_t packs = (d + TW_PACK - 1) / TW_PACK, i = tw_global_thread();
    *row = i / packs, *col = i % packs * TW_PACK;
    return *row < rows;
}

/* Adds v of the block's `warps` warps in order and gives warp 0 the sum. shared: warps * TW_GROUP_COLUMNS. */
TW_DEVICE void tw_add_warps(float *v, int warps, float *shared) {
    int lane = (int)threadIdx.x % TW_WARP, warp = (int)threadIdx.x / TW_WARP;
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) shared[warp * TW_GROUP_COLUMNS + e * TW_WARP + lane] = v[e];
    __syncthreads();
    if (warp > 0) return;
#pragma unroll
    for (int e = 0; e < TW_PACK; e++) {
        v[e] = 0.0f;
        for (int w = 0; w < warps; w++) v[e] += shared[w * TW_GROUP_COLUMNS + e * TW_WARP + lane];
    }
}

/* ---- groups ---- */

/* How a launch shares rows: `groups` groups of `warps` warps a block, `packs` packs a thread. */
struct tw_layout {
    int groups, warps, packs;
};

/* Forward: a warp a row while 8 packs a thread suffice, else a block a row. */
static inline tw_layout tw_layout_forward(int64_t d) {
    int packs = (int)((d + TW_GROUP_COLUMNS - 1) / TW_GROUP_COLUMNS);
    if (packs <= 8) return tw_layout{4, 1, packs};
    return tw_layout{1, (packs + 7) / 8, 8};
}

constexpr int TW_FORWARD_THREADS = 4 * TW_WARP; /* at most, as rows are no wider than tw_check_width says */

/* Backward, where every thread also keeps sums of its columns: as few packs as a block's threads allow. More
 * packs take more registers, of which a block has 65,536: a kernel of PACKS packs is bound to
 * tw_backward_threads(PACKS), which leaves 136 a thread with 1 pack (sm_80 needs more than 128), 168 with 2,
 * 255 with 4. */
constexpr int tw_backward_threads(int packs) {
    return TW_WARP * (packs == 1 ? 15 : packs == 2 ? 12 : 8);
}

static inline tw_layout tw_layout_backward(int64_t rows, int64_t d) {
    int packs = 1, most = 0, warps = 1, groups = 1;
    for (;; packs *= 2) {
        most = tw_backward_threads(packs) / TW_WARP;
        warps = (int)((d + packs * TW_GROUP_COLUMNS - 1) / (packs * TW_GROUP_COLUMNS));
        if (warps <= most || packs == 4) break;
    }
    if (warps < 1) warps = 1;
    while ((groups + 1) * warps <= most && groups < rows) groups++;
    return tw_layout{groups, warps, packs};
}

static inline unsigned tw_layout_threads(const tw_layout &l) {
    return (unsigned)(l.groups * l.warps * TW_WARP);
}

/* Blocks of a kernel that keeps sums of columns. */
static inline unsigned tw_column_grid(int64_t rows, int64_t per) {
    int64_t blocks = (rows + per - 1) / per;
    return (unsigned)(blocks < (int64_t)TW_COLUMN_BLOCKS ? blocks : (int64_t)TW_COLUMN_BLOCKS);
}

/* The widest row that kernels on groups take. */
static inline tw_status tw_check_width(int64_t d) {
    const int64_t widest = 4 * 8 * TW_GROUP_COLUMNS; /* of tw_layout_backward */
    if (d <= widest) return TW_OK;
    return FAIL(TW_ERR_UNSUPPORTED, "rows of %lld elements; CUDA kernels take at most %lld", (long long)d,
                (long long)widest);
}

/* A thread's place. */
struct tw_group {
    int group, lane, threads, warps;
    int64_t d;
};

TW_DEVICE tw_group tw_group_here(const tw_layout &l, int64_t d) {
    tw_group at;
    at.warps = l.warps, at.threads = l.warps * TW_WARP;
    at.group = (int)threadIdx.x / at.threads, at.lane = (int)threadIdx.x % at.threads;
    at.d = d;
    return at;
}

TW_DEVICE int64_t tw_column(const tw_group &at, int p) {
    return (int64_t)TW_PACK * (p * at.threads + at.lane);
}

template <int PACKS, typename T>
TW_DEVICE void tw_load_group(const tw_group &at, const T *row, bool wide, float (*v)[TW_PACK]) {
#pragma unroll
    for (int p = 0; p < PACKS; p++) tw_load_pack(row + tw_column(at, p), wide, at.d - tw_column(at, p), v[p]);
}

/* The group's row into v[PACKS][8]. */
template <int PACKS>
TW_DEVICE void tw_load_row(const tw_group &at, const tw_view &x, int64_t row, float (*v)[TW_PACK]) {
    if (x.bf16)
        tw_load_group<PACKS>(at, (const tw_bf16 *)x.data + row * x.stride, x.wide, v);
    else
        tw_load_group<PACKS>(at, (const float *)x.data + row * x.stride, x.wide, v);
}

/* v to the group's row, written or added. */
template <int PACKS>
TW_DEVICE void tw_store_row(const tw_group &at, const tw_view &x, int64_t row, const float (*v)[TW_PACK]) {
#pragma unroll
    for (int p = 0; p < PACKS; p++) tw_store_columns(x, row, tw_column(at, p), at.d, v[p]);
}

enum { TW_GROUP_SHARED = 2 * TW_WARP }; /* floats that tw_group_sum2 shares in a block */

/* The sums of a and of b over the group, to all its threads, in a fixed order. Where a group is more than one
 * warp every thread of the block must call it. */
TW_DEVICE void tw_group_sum2(const tw_group &at, float *a, float *b, float *shared) {
    *a = tw_warp_sum(*a), *b = tw_warp_sum(*b);
    if (at.warps == 1) return;
    int warp = (int)threadIdx.x / TW_WARP, first = at.group * at.warps;
    __syncthreads(); /* the sums before have been read */
    if (threadIdx.x % TW_WARP == 0) shared[2 * warp] = *a, shared[2 * warp + 1] = *b;
    __syncthreads();
    float x = 0.0f, y = 0.0f;
    for (int w = first; w < first + at.warps; w++) x += shared[2 * w], y += shared[2 * w + 1];
    *a = x, *b = y;
}

TW_DEVICE float tw_group_sum(const tw_group &at, float a, float *shared) {
    float none = 0.0f;
    tw_group_sum2(at, &a, &none, shared);
    return a;
}

/* ---- sums of columns, in two stages ---- */

enum { TW_COLUMN_SHARED = TW_MAX_GROUP_WARPS * TW_GROUP_COLUMNS };

/* First stage, at the end of a kernel whose groups have kept sums of their columns: the block's sum to
 * partial[blockIdx.x][which][d] of `sums` kinds. shared: TW_COLUMN_SHARED floats. Every thread calls it. */
template <int PACKS>
TW_DEVICE void tw_columns_partial(const tw_group &at, int groups, const float (*v)[TW_PACK], float *partial,
                                  int which, int sums, float *shared) {
    float *out = partial + ((int64_t)blockIdx.x * sums + which) * at.d;
    bool wide = at.d % TW_PACK == 0 && reinterpret_cast<uintptr_t>(partial) % 16 == 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        __syncthreads();
#pragma unroll
        for (int e = 0; e < TW_PACK; e++) shared[e * (int)blockDim.x + (int)threadIdx.x] = v[p][e];
        __syncthreads();
        if (at.group > 0) continue;
        float sum[TW_PACK] = {};
#pragma unroll
        for (int e = 0; e < TW_PACK; e++)
            for (int g = 0; g < groups; g++) sum[e] += shared[e * (int)blockDim.x + g * at.threads + at.lane];
        tw_store_pack(out + tw_column(at, p), wide, at.d - tw_column(at, p), sum, false);
    }
}

/* Where the sum of a range of columns goes; tensor f32 or bf16, data NULL: nowhere. */
struct tw_column_target {
    const tw_tensor *tensor;
    tw_accumulate mode;
};

/* Second stage: for target k < targets (at most 2) the sum over i < n of partial[i][k][..d], in a fixed
 * order. n = 0 gives 0. */
tw_status tw_cuda_sum_columns(tw_device *device, const float *partial, int64_t n, int64_t d, int targets,
                              const tw_column_target *target) TW_MUST_CHECK;

/* Calls launch(integral constant P) with the smallest P of 1, 2, 3, 4, 5, 6, 8 that is at least packs. */
template <int P> struct tw_packs { static constexpr int value = P; };

template <typename Launch> tw_status tw_with_packs(int packs, Launch launch) {
    switch (packs) {
    case 0:
    case 1:
        return launch(tw_packs<1>());
    case 2:
        return launch(tw_packs<2>());
    case 3:
        return launch(tw_packs<3>());
    case 4:
        return launch(tw_packs<4>());
    case 5:
        return launch(tw_packs<5>());
    case 6:
        return launch(tw_packs<6>());
    default:
        return launch(tw_packs<8>());
    }
}

/* The same for layouts of backward: 1, 2, 4. */
template <typename Launch> tw_status tw_with_few_packs(int packs, Launch launch) {
    if (packs <= 1) return launch(tw_packs<1>());
    if (packs == 2) return launch(tw_packs<2>());
    return launch(tw_packs<4>());
}

#endif
