#include "autograd/cuda/launch.h"
#include "autograd/cuda/padded.h"

namespace {

enum { THREADS = 128, UNIT = 8, MOST_ROWS = 4096 }; /* UNIT: elements of 16 bytes */

TW_DEVICE int64_t tokens_of(const tw_padded &a, int64_t b) {
    int64_t n = (int64_t)a.offsets[b + 1] - a.offsets[b];
    return n < 0 ? 0 : n > a.tokens ? a.tokens : n;
}

/* A row of bf16 by the block; from NULL: zeros. */
TW_DEVICE void copy_row(const uint16_t *from, int64_t cols, uint16_t *to) {
    const uint4 none = make_uint4(0, 0, 0, 0);
    for (int64_t c = threadIdx.x; c < cols / UNIT; c += THREADS)
        reinterpret_cast<uint4 *>(to)[c] = from ? reinterpret_cast<const uint4 *>(from)[c] : none;
}

/* Block (b, y) has every gridDim.y-th token of sample b. */
__global__ void pad_kernel(tw_padded a) {
    int64_t b = blockIdx.x, first = a.offsets[b], n = tokens_of(a, b);
    for (int64_t t = blockIdx.y; t < a.tokens; t += gridDim.y) {
#pragma unroll
        for (int i = 0; i < TW_PADDED_PARTS; i++) {
            if (i >= a.parts) break;
            const tw_padded_part &part = a.part[i];
            copy_row(t < n ? (const uint16_t *)part.packed + (first + t) * part.stride : nullptr, part.cols,
                     (uint16_t *)part.padded + (b * a.tokens + t) * part.cols);
        }
        for (int64_t h = threadIdx.x; a.padded_lse && h < a.heads; h += THREADS)
            a.padded_lse[(b * a.heads + h) * a.tokens + t] =
                t < n ? a.packed_lse[h * a.rows + first + t] : 0.0f;
    }
}

/* The same, and every so many rows behind the last sample. */
__global__ void unpad_kernel(tw_padded a) {
    int64_t b = blockIdx.x, first = a.offsets[b], n = tokens_of(a, b), end = a.offsets[a.batch];
    int64_t behind = a.rows > end ? a.rows - end : 0, blocks = (int64_t)gridDim.x * gridDim.y;
    for (int64_t t = blockIdx.y; t < n; t += gridDim.y) {
#pragma unroll
        for (int i = 0; i < TW_PADDED_PARTS; i++) {
            if (i >= a.parts) break;
            const tw_padded_part &part = a.part[i];
            copy_row((const uint16_t *)part.padded + (b * a.tokens + t) * part.cols, part.cols,
                     (uint16_t *)part.packed + (first + t) * part.stride);
        }
        for (int64_t h = threadIdx.x; a.packed_lse && h < a.heads; h += THREADS)
            a.packed_lse[h * a.rows + first + t] = a.padded_lse[(b * a.heads + h) * a.tokens + t];
    }
    for (int64_t r = b * gridDim.y + blockIdx.y; r < behind; r += blocks) {
        for (int i = 0; i < a.parts; i++)
            copy_row(nullptr, a.part[i].cols, (uint16_t *)a.part[i].packed + (end + r) * a.part[i].stride);
        for (int64_t h = threadIdx.x; a.packed_lse && h < a.heads; h += THREADS)
            a.packed_lse[h * a.rows + end + r] = 0.0f;
    }
}

dim3 grid_of(const tw_padded *p) {
    int64_t across = p->tokens < MOST_ROWS ? p->tokens : (int64_t)MOST_ROWS;
    return dim3((unsigned)p->batch, (unsigned)across);
}

} // namespace

tw_status tw_cuda_pad(tw_device *d, const tw_padded *p) {
    return TW_LAUNCH(d, pad_kernel, grid_of(p), THREADS, 0, *p);
}

tw_status tw_cuda_unpad(tw_device *d, const tw_padded *p) {
    return TW_LAUNCH(d, unpad_kernel, grid_of(p), THREADS, 0, *p);
}
