#include "autograd/ops/packed.h"

/* Texts without their padding: ids (B,T) i32, lengths (B) i32 -> ids (rows) i32, offsets (B+1) i32, origin
 * (rows) i32, as packed.h says. Rows behind the last text have id 0 and origin -1. A length outside 0..T
 * counts as the nearest of these. On the CPU more tokens than rows are refused; elsewhere what does not fit
 * is left out. */

enum { IDS, LENGTHS };

tw_status tw_pack_tokens_shape(tw_call *c) {
    const tw_tensor *ids = &c->input[IDS];
    int64_t rows = ((const tw_pack_tokens_attr *)c->attr)->rows;
    if (!tw_present(ids) || ids->ndim != 2) return FAIL(TW_ERR_SHAPE, "pack_tokens: ids must be (B,T)");
    TRY(tw_call_check(c, IDS, "ids", TW_I32, 2, ids->shape));
    TRY(tw_call_check(c, LENGTHS, "lengths", TW_I32, 1, ids->shape));
    if (rows < 0) return FAIL(TW_ERR_ARGUMENT, "pack_tokens: %lld rows", (long long)rows);
    int64_t offsets = ids->shape[0] + 1;
    tw_call_output(c, 0, TW_I32, 1, &rows);
    tw_call_output(c, 1, TW_I32, 1, &offsets);
    tw_call_output(c, 2, TW_I32, 1, &rows);
    c->n_results = 3;
    return TW_OK;
}

tw_status tw_pack_tokens_forward_cpu(const tw_call *c) {
    const int32_t *ids = c->input[IDS].data, *lengths = c->input[LENGTHS].data;
    int32_t *packed = c->output[0].data, *offsets = c->output[1].data, *origin = c->output[2].data;
    int64_t batch = c->input[IDS].shape[0], tokens = c->input[IDS].shape[1], rows = c->output[0].shape[0],
            at = 0;
    for (int64_t b = 0; b < batch; b++) {
        int64_t n = lengths[b] < 0 ? 0 : lengths[b] > tokens ? tokens : lengths[b];
        offsets[b] = (int32_t)at;
        if (n > rows - at)
            return FAIL(TW_ERR_ARGUMENT, "the texts up to number %lld have %lld tokens, room is for %lld",
                        (long long)b, (long long)(at + n), (long long)rows);
        for (int64_t t = 0; t < n; t++, at++) {
            packed[at] = ids[b * tokens + t];
            origin[at] = (int32_t)(b * tokens + t);
        }
    }
    offsets[batch] = (int32_t)at;
    for (; at < rows; at++) packed[at] = 0, origin[at] = -1;
    return TW_OK;
}
