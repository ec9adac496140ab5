#include "autograd/cuda/rows.h"

/* ids (B,T), lengths (B) -> ids (rows), offsets (B+1), origin (rows), all i32: see pack_tokens.c. What does
 * not fit into the rows is left out. */

namespace {

enum { IDS, LENGTHS, THREADS = 256 };

struct pack_args {
    const int32_t *ids, *lengths;
    int32_t *packed, *offsets, *origin;
    int64_t batch, tokens, rows;
};

TW_DEVICE int64_t length_of(const pack_args &a, int64_t b) {
    int64_t n = b < a.batch ? a.lengths[b] : 0;
    return n < 0 ? 0 : n > a.tokens ? a.tokens : n;
}

/* One block: running sums of the lengths, THREADS texts at a time. */
__global__ void find_offsets(pack_args a) {
    __shared__ int64_t sums[2][THREADS];
    int me = (int)threadIdx.x;
    int64_t before = 0;
    for (int64_t first = 0; first <= a.batch; first += THREADS) {
        int from = 0;
        sums[0][me] = length_of(a, first + me);
        __syncthreads();
        for (int step = 1; step < THREADS; step *= 2, from = 1 - from) {
            sums[1 - from][me] = sums[from][me] + (me >= step ? sums[from][me - step] : 0);
            __syncthreads();
        }
        int64_t at = before + (me > 0 ? sums[from][me - 1] : 0);
        if (first + me <= a.batch) a.offsets[first + me] = (int32_t)(at < a.rows ? at : a.rows);
        before += sums[from][THREADS - 1];
        __syncthreads();
    }
}

/* A thread a row: its text is the last that begins at or before it. */
__global__ void fill_rows(pack_args a) {
    int64_t row = tw_global_thread(), low = 0, high = a.batch;
    if (row >= a.rows) return;
    if (a.batch == 0 || row >= a.offsets[a.batch]) {
        a.packed[row] = 0, a.origin[row] = -1;
        return;
    }
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (a.offsets[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    int64_t from = low * a.tokens + row - a.offsets[low];
    a.packed[row] = a.ids[from], a.origin[row] = (int32_t)from;
}

} // namespace

tw_status tw_pack_tokens_forward_cuda(const tw_call *c) {
    pack_args a = {(const int32_t *)c->input[IDS].data,
                   (const int32_t *)c->input[LENGTHS].data,
                   (int32_t *)c->output[0].data,
                   (int32_t *)c->output[1].data,
                   (int32_t *)c->output[2].data,
                   c->input[IDS].shape[0],
                   c->input[IDS].shape[1],
                   c->output[0].shape[0]};
    TRY(TW_LAUNCH(c->device, find_offsets, 1, THREADS, 0, a));
    return TW_LAUNCH(c->device, fill_rows, tw_blocks(a.rows, 256), 256, 0, a);
}
