#include "autograd/cuda/rows.h"
#include "autograd/ops/top_k_heap.h"

/* inputs: queries (n,d), gallery (m,d) f32; outputs: indexes (n,k) i32, scores (n,k) f32, best first.
 *
 * A block has TW_TOP_K_QUERIES queries and a part of the gallery, and walks through that in tiles of scores,
 * which are true f32; a thread a query then offers them to its heap, in the output itself or, where the
 * gallery is in several parts, in scratch, from which a second kernel merges. */

namespace {

enum { GALLERY = 1 };
enum { THREADS = 256, DEPTH = 32, QUAD = 4, QUERIES = TW_TOP_K_QUERIES, TILE = TW_TOP_K_TILE };

struct top_args {
    const float *queries, *gallery;
    int64_t query_stride, gallery_stride, n, m, d, k, splits;
    bool wide_queries, wide_gallery; /* rows can be read 16 bytes at a time */
    int32_t *index, *part_index;     /* (n,k); (splits,n,k) */
    float *score, *part_score;
};

/* scores of the block's queries with gallery rows [first, first + TILE): a thread 2 queries x 4 rows. */
TW_DEVICE void score_tile(const top_args &a, int64_t query, int64_t first, int64_t end,
                          float (*score)[TILE + 1]) {
    __shared__ float q[QUERIES][DEPTH + 1], g[TILE][DEPTH + 1];
    int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
    float sum[2][4] = {};
    __syncthreads(); /* the tile before has been read */
    for (int64_t depth = 0; depth < a.d; depth += DEPTH) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < (QUERIES + TILE) * DEPTH / QUAD; i += THREADS) {
            int row = i / (DEPTH / QUAD), c = i % (DEPTH / QUAD) * QUAD, other = row - QUERIES;
            bool of_query = row < QUERIES, inside = of_query ? query + row < a.n : first + other < end;
            float v[QUAD] = {}, *to = of_query ? &q[row][c] : &g[other][c];
            if (inside && depth + c < a.d && of_query)
                tw_load_part(a.queries + (query + row) * a.query_stride, depth + c, a.d, a.wide_queries, v);
            else if (inside && depth + c < a.d)
                tw_load_part(a.gallery + (first + other) * a.gallery_stride, depth + c, a.d, a.wide_gallery,
                             v);
#pragma unroll
            for (int e = 0; e < QUAD; e++) to[e] = v[e];
        }
        __syncthreads();
#pragma unroll 8
        for (int c = 0; c < DEPTH; c++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += q[y + 16 * i][c] * g[x + 16 * j][c];
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) score[y + 16 * i][x + 16 * j] = sum[i][j];
    __syncthreads();
}

__global__ void top_k_search(top_args a) {
    __shared__ float score[QUERIES][TILE + 1];
    int64_t query = (int64_t)blockIdx.x * QUERIES, mine = query + threadIdx.x, part = blockIdx.y;
    int64_t begin = a.m * part / a.splits, end = a.m * (part + 1) / a.splits;
    bool searches = threadIdx.x < QUERIES && mine < a.n;
    int64_t place = searches ? (a.splits > 1 ? part * a.n + mine : mine) * a.k : 0;
    tw_heap heap = {(a.splits > 1 ? a.part_index : a.index) + place,
                    (a.splits > 1 ? a.part_score : a.score) + place, 0};
    for (int64_t first = begin; first < end; first += TILE) {
        score_tile(a, query, first, end, score);
        for (int j = 0; searches && j < TILE && first + j < end; j++)
            tw_heap_offer(&heap, a.k, score[threadIdx.x][j], (int32_t)(first + j));
    }
    if (!searches) return;
    for (int64_t i = heap.size; i < a.k; i++) heap.index[i] = -1; /* a part with fewer rows than k */
    tw_heap_sort(&heap);
}

__global__ void top_k_merge(top_args a) {
    int64_t i = tw_global_thread();
    if (i >= a.n) return;
    tw_heap heap = {a.index + i * a.k, a.score + i * a.k, 0};
    for (int64_t part = 0; part < a.splits; part++)
        for (int64_t j = (part * a.n + i) * a.k; j < (part * a.n + i + 1) * a.k && a.part_index[j] >= 0; j++)
            tw_heap_offer(&heap, a.k, a.part_score[j], a.part_index[j]);
    tw_heap_sort(&heap);
}

} // namespace

tw_status tw_top_k_forward_cuda(const tw_call *c) {
    const tw_tensor *q = &c->input[0], *g = &c->input[GALLERY];
    top_args a = {};
    (void)tw_tensor_is_rows(q, &a.query_stride), (void)tw_tensor_is_rows(g, &a.gallery_stride);
    a.queries = (const float *)q->data, a.gallery = (const float *)g->data;
    a.n = q->shape[0], a.m = g->shape[0], a.d = q->shape[1], a.k = c->output[0].shape[1];
    a.wide_queries = tw_wide<float>(a.queries, a.d, a.query_stride);
    a.wide_gallery = tw_wide<float>(a.gallery, a.d, a.gallery_stride);
    a.index = (int32_t *)c->output[0].data, a.score = (float *)c->output[1].data;
    a.splits = tw_top_k_splits(a.n, a.m);
    a.part_score = (float *)c->scratch;
    if (a.splits > 1) a.part_index = (int32_t *)(a.part_score + a.splits * a.n * a.k);
    dim3 grid(tw_blocks(a.n, QUERIES), (unsigned)a.splits);
    TRY(TW_LAUNCH(c->device, top_k_search, grid, THREADS, 0, a));
    if (a.splits == 1) return TW_OK;
    return TW_LAUNCH(c->device, top_k_merge, tw_blocks(a.n, 64), 64, 0, a);
}
