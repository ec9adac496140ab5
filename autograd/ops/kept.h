/* Checks of an input `kept` (B,k) i32: the numbers of the patches that each image keeps, see choose_patches.
 */
#ifndef TW_AUTOGRAD_OPS_KEPT_H
#define TW_AUTOGRAD_OPS_KEPT_H

#include "autograd/op.h"

/* For shape rules: input i is for `images` images, of `patches` patches each. */
static inline TW_MUST_CHECK tw_status tw_kept_check(const tw_call *c, int i, int64_t images,
                                                    int64_t patches) {
    const tw_tensor *kept = &c->input[i];
    int64_t shape[2] = {images, kept->ndim == 2 ? kept->shape[1] : patches};
    TRY(tw_call_check(c, i, "kept", TW_I32, 2, shape));
    if (shape[1] <= patches) return TW_OK;
    return FAIL(TW_ERR_SHAPE, "%s: %lld patches are to be kept of %lld", tw_op_table[c->op].name,
                (long long)shape[1], (long long)patches);
}

/* For CPU forward: each image's numbers ascend and lie in [0, patches). */
static inline TW_MUST_CHECK tw_status tw_kept_check_values(const tw_call *c, int i, int64_t patches) {
    const tw_tensor *kept = &c->input[i];
    const int32_t *v = kept->data;
    int64_t n = kept->shape[1];
    for (int64_t b = 0; b < kept->shape[0]; b++)
        for (int64_t k = 0; k < n; k++) {
            int64_t least = k ? v[b * n + k - 1] + 1 : 0, mine = v[b * n + k];
            if (mine < least || mine >= patches)
                return FAIL(TW_ERR_ARGUMENT, "%s: image %lld keeps patch %lld, %lld..%lld is possible there",
                            tw_op_table[c->op].name, (long long)b, (long long)mine, (long long)least,
                            (long long)patches - 1);
        }
    return TW_OK;
}

#endif
