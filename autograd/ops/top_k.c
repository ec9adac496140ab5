/* The k largest inner products of each query with a gallery. CPU: tiles of scores by sgemm, and per query a
 * heap of the k best so far, kept in the outputs themselves. */
#include "autograd/cuda/scratch.h"
#include "autograd/gemm_cpu.h"
#include "autograd/op.h"
#include "autograd/ops/top_k_heap.h"
#include "autograd/parallel.h"
#include "autograd/progress.h"

#include <math.h>
#include <stdio.h>

enum { QUERIES, GALLERY };
enum { INDEXES, SCORES };
enum { TILE_QUERIES = 512, TILE_GALLERY = 2048 };
enum { RUN = 64 }; /* scores looked at together */

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

tw_status tw_top_k_shape(tw_call *call) {
    const tw_tensor *q = &call->input[QUERIES], *g = &call->input[GALLERY];
    int64_t k = ((const tw_top_k_attr *)call->attr)->k;
    char a[64], b[64];
    TRY(tw_call_check_rows(call, QUERIES, "queries"));
    TRY(tw_call_check_rows(call, GALLERY, "gallery"));
    if (q->dtype != TW_F32 || g->dtype != TW_F32 || q->ndim != 2 || g->ndim != 2 ||
        q->shape[1] != g->shape[1])
        return FAIL(TW_ERR_SHAPE,
                    "top_k: queries are %s %s and the gallery %s %s; f32 (n,d) and (m,d) are "
                    "needed",
                    tw_dtype_name(q->dtype), tw_tensor_shape_text(q, a), tw_dtype_name(g->dtype),
                    tw_tensor_shape_text(g, b));
    if (k < 1 || k > g->shape[0] || g->shape[0] > INT32_MAX)
        return FAIL(TW_ERR_ARGUMENT, "top_k: %lld of a gallery of %lld", (long long)k,
                    (long long)g->shape[0]);
    tw_call_output(call, INDEXES, TW_I32, 2, (int64_t[]){q->shape[0], k});
    tw_call_output(call, SCORES, TW_F32, 2, (int64_t[]){q->shape[0], k});
    call->n_results = 2;
    call->forward_scratch =
        (size_t)(tw_threads() * smaller(q->shape[0], TILE_QUERIES) * smaller(g->shape[0], TILE_GALLERY)) *
        sizeof(float);
    int64_t splits = tw_top_k_splits(q->shape[0], g->shape[0]);
    tw_call_scratch_cuda(call, splits > 1 ? splits * q->shape[0] * k * 8 : 0, 0);
    return TW_OK;
}

/* Whether none of n scores can get into a full heap whose worst score is `worst`, which must not be NaN: NaN
 * compares as false and is never better. */
static bool none_above(const float *score, int64_t n, float worst) {
    int above = 0;
#pragma omp simd reduction(| : above)
    for (int64_t j = 0; j < n; j++) above |= score[j] > worst;
    return !above;
}

/* One query's scores of gallery entries [first, first + n), in gallery order. Once the heap is full, whole
 * runs are passed over with one comparison an element; equal scores are later in the gallery, so they lose.
 */
static void offer(tw_heap *h, int64_t k, const float *score, int64_t first, int64_t n) {
    for (int64_t j = 0; j < n;) {
        int64_t end = smaller(j + RUN, n);
        if (h->size == k && !isnan(h->score[0]) && none_above(score + j, end - j, h->score[0])) {
            j = end;
            continue;
        }
        for (; j < end; j++) tw_heap_offer(h, k, score[j], (int32_t)(first + j));
    }
}

/* Queries [i, i + rows) against the whole gallery, through a tile of scores. In a parallel region this is the
 * calling thread's own work; outside, products and queries are shared among the team. */
static tw_status search(const tw_call *call, int64_t i, int64_t rows, float *tile) {
    const tw_tensor *q = &call->input[QUERIES], *g = &call->input[GALLERY];
    int64_t m = g->shape[0], d = q->shape[1], k = call->output[SCORES].shape[1], q_stride, g_stride;
    (void)tw_tensor_is_rows(q, &q_stride), (void)tw_tensor_is_rows(g, &g_stride);
    int32_t *indexes = (int32_t *)call->output[INDEXES].data + i * k;
    float *scores = (float *)call->output[SCORES].data + i * k;
    for (int64_t j = 0; j < m; j += TILE_GALLERY) {
        int64_t cols = smaller(TILE_GALLERY, m - j);
        TRY(tw_gemm_f32(rows, cols, d, 1, (const float *)q->data + i * q_stride, q_stride, false,
                        (const float *)g->data + j * g_stride, g_stride, true, 0, tile, cols));
        tw_progress_tick();
#pragma omp parallel for schedule(static) if (!omp_in_parallel())
        for (int64_t r = 0; r < rows; r++) {
            tw_heap h = {indexes + r * k, scores + r * k, smaller(j, k)};
            offer(&h, k, tile + r * cols, j, cols);
            if (j + cols == m) tw_heap_sort(&h);
        }
    }
    return TW_OK;
}

/* With queries enough each thread takes blocks of its own, from beginning to end: no thread waits for another
 * after every product, which costs most where processors are shared. Blocks do not depend on the threads. */
tw_status tw_top_k_forward_cpu(const tw_call *call) {
    int64_t n = call->input[QUERIES].shape[0], blocks = (n + TILE_QUERIES - 1) / TILE_QUERIES;
    int64_t tile = smaller(n, TILE_QUERIES) * smaller(call->input[GALLERY].shape[0], TILE_GALLERY);
    tw_status status = TW_OK;
    char message[512] = "";
    if (blocks < tw_threads()) {
        for (int64_t i = 0; i < n; i += TILE_QUERIES)
            TRY(search(call, i, smaller(TILE_QUERIES, n - i), call->scratch));
        return TW_OK;
    }
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t i = b * TILE_QUERIES;
        float *mine = (float *)call->scratch + omp_get_thread_num() * tile;
        tw_status one = search(call, i, smaller(TILE_QUERIES, n - i), mine);
        if (one == TW_OK) continue;
#pragma omp critical(tw_top_k)
        if (status == TW_OK) {
            status = one;
            (void)snprintf(message, sizeof message, "%s", tw_last_error()); /* of this thread */
        }
    }
    return status == TW_OK ? TW_OK : FAIL(status, "%s", message);
}
