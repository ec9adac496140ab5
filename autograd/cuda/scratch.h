/* What the CUDA kernels need as scratch, for the operations' shape rules (C) and the kernels (C++) alike. */
#ifndef TW_AUTOGRAD_CUDA_SCRATCH_H
#define TW_AUTOGRAD_CUDA_SCRATCH_H

#include "autograd/op.h"

/* Blocks of a kernel that keeps sums of columns: two a multiprocessor of the largest chips. A constant, so
 * that sums have the same order on every GPU. */
enum { TW_COLUMN_BLOCKS = 264 };

/* top_k: queries of a block, and the parts that the gallery is cut into so that few queries use many blocks
 * too.
 */
enum { TW_TOP_K_QUERIES = 32, TW_TOP_K_TILE = 64, TW_TOP_K_LEAST = 16 * TW_TOP_K_TILE };

static inline int64_t tw_top_k_splits(int64_t queries, int64_t gallery) {
    int64_t blocks = (queries + TW_TOP_K_QUERIES - 1) / TW_TOP_K_QUERIES, most = gallery / TW_TOP_K_LEAST;
    int64_t wanted = blocks > 0 ? TW_COLUMN_BLOCKS / blocks : 1;
    if (wanted > most) wanted = most;
    return wanted > 1 ? wanted : 1;
}

/* conv2d: parts that the sum over k of a weight gradient (m, n) is cut into, so that it keeps a GPU busy. */
static inline int64_t tw_conv_parts(int64_t m, int64_t n, int64_t k) {
    int64_t tiles = ((m + 63) / 64) * ((n + 63) / 64), most = k / 256, parts = tiles > 0 ? 528 / tiles : 1;
    if (parts > most) parts = most;
    return parts < 1 ? 1 : parts > 256 ? 256 : parts;
}

/* contrastive_loss: a tile of logits, at most TW_LOSS_TILE a side, and blocks of it. Small in the shim, so
 * that its tests have several tiles. */
enum { TW_LOSS_HEIGHT = 32, TW_LOSS_WIDTH = 256 };
#ifdef TW_CUDA_SHIM
enum { TW_LOSS_TILE = 300 };
#else
enum { TW_LOSS_TILE = 4096 };
#endif

/* Of b rows and n columns; forward: the running states, a tile, parts of rows and columns; backward: sums, a
 * tile.
 */
static inline int64_t tw_loss_scratch(int64_t b, int64_t n, bool backward) {
    int64_t height = b < TW_LOSS_TILE ? b : (int64_t)TW_LOSS_TILE,
            width = n < TW_LOSS_TILE ? n : (int64_t)TW_LOSS_TILE;
    int64_t down = (height + TW_LOSS_HEIGHT - 1) / TW_LOSS_HEIGHT,
            across = (width + TW_LOSS_WIDTH - 1) / TW_LOSS_WIDTH;
    if (backward) return (3 + down * across + 1) * 8 + height * width * 4;
    return (n + height) * 16 + height * width * 4 + (down * width + across * height) * 12;
}

/* contrastive_sums: blocks of n columns. */
enum { TW_SUMS_THREADS = 256 };

static inline int64_t tw_sums_blocks(int64_t n) {
    return (n + TW_SUMS_THREADS - 1) / TW_SUMS_THREADS;
}

/* gradient_rule: units whose squares a block adds up, and what each block leaves (two f64). */
enum { TW_RULE_GROUP = 64 };

static inline int64_t tw_rule_groups(int64_t units) {
    return units > 0 ? (units + TW_RULE_GROUP - 1) / TW_RULE_GROUP : 1;
}

static inline int64_t tw_rule_scratch(int64_t units) {
    return tw_rule_groups(units) * 16;
}

/* Scratch of a GPU instead of the CPU's. */
static inline void tw_call_scratch_cuda(tw_call *c, int64_t forward, int64_t backward) {
    if (!c->device || c->device->kind == TW_CPU) return;
    c->forward_scratch = (size_t)forward;
    c->backward_scratch = (size_t)backward;
}

/* Partial sums of `sums` kinds of d columns. */
static inline int64_t tw_column_scratch(int sums, int64_t d) {
    return (int64_t)TW_COLUMN_BLOCKS * sums * d * (int64_t)sizeof(float);
}

#endif
