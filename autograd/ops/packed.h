/* Packed samples: `rows` token rows, sample b's from offsets[b] to before offsets[b + 1], one behind the
 * other; rows behind the last sample belong to none. offsets (B+1) i32 as pack_tokens makes them; origin
 * (rows) i32 says where each row was in the padded layout, b T + t, ascending; -1 behind the last sample. */
#ifndef TW_AUTOGRAD_OPS_PACKED_H
#define TW_AUTOGRAD_OPS_PACKED_H

#include "autograd/op.h"

/* For shape rules: input i is offsets of at least no sample; tokens: T, the most that a sample may have. */
static inline TW_MUST_CHECK tw_status tw_offsets_check(const tw_call *c, int i, int tokens) {
    const tw_tensor *offsets = &c->input[i];
    const char *name = tw_op_table[c->op].name;
    int64_t n = offsets->ndim == 1 ? offsets->shape[0] : 1;
    TRY(tw_call_check(c, i, "offsets", TW_I32, 1, &n));
    if (n < 1) return FAIL(TW_ERR_SHAPE, "%s: offsets are (B+1), not (0)", name);
    if (tokens < 1)
        return FAIL(TW_ERR_ARGUMENT, "%s: packed samples of at most %d tokens; it must be 1 or more", name,
                    tokens);
    return TW_OK;
}

/* For shape rules: input i is origin of so many rows. */
static inline TW_MUST_CHECK tw_status tw_origin_check(const tw_call *c, int i, int64_t rows, int tokens) {
    TRY(tw_call_check(c, i, "origin", TW_I32, 1, &rows));
    if (tokens >= 1) return TW_OK;
    return FAIL(TW_ERR_ARGUMENT, "%s: packed samples of at most %d tokens; it must be 1 or more",
                tw_op_table[c->op].name, tokens);
}

/* For CPU forward: samples lie within the rows, and none has more than `tokens`. */
static inline TW_MUST_CHECK tw_status tw_offsets_check_values(const tw_call *c, int i, int64_t rows,
                                                              int64_t tokens) {
    const int32_t *offsets = c->input[i].data;
    int64_t batch = c->input[i].shape[0] - 1;
    for (int64_t b = 0; b < batch; b++) {
        int64_t n = (int64_t)offsets[b + 1] - offsets[b];
        if (offsets[b] >= 0 && n >= 0 && n <= tokens && offsets[b + 1] <= rows) continue;
        return FAIL(TW_ERR_ARGUMENT, "%s: sample %lld has rows %d to %d; %lld of %lld rows are possible",
                    tw_op_table[c->op].name, (long long)b, offsets[b], offsets[b + 1], (long long)tokens,
                    (long long)rows);
    }
    if (batch > 0 || (offsets[0] >= 0 && offsets[0] <= rows)) return TW_OK;
    return FAIL(TW_ERR_ARGUMENT, "%s: offset %d of %lld rows", tw_op_table[c->op].name, offsets[0],
                (long long)rows);
}

/* On the CPU: zeros in t's rows behind the last sample; t is contiguous rows of f32 or bf16. */
static inline void tw_rows_clear_rest(const tw_call *c, int offsets, const tw_tensor *t) {
    int64_t batch = c->input[offsets].shape[0] - 1, cols = tw_tensor_cols(t),
            end = ((const int32_t *)c->input[offsets].data)[batch];
    size_t element = tw_dtype_size(t->dtype);
    if (end < t->shape[0])
        memset((char *)t->data + (size_t)(end * cols) * element, 0,
               (size_t)((t->shape[0] - end) * cols) * element);
}

#endif
