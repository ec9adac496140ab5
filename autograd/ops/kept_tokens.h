/* Where a position's token is when an image keeps some of its patches only, once for every device. */
#ifndef TW_AUTOGRAD_OPS_KEPT_TOKENS_H
#define TW_AUTOGRAD_OPS_KEPT_TOKENS_H

#include "autograd/host_device.h"

#include <stdint.h>

/* Which token of an image has position t; -1: none. kept: (n) ascending, the positions, less 1, that tokens
 * 1 .. n have; NULL: token t has position t, as the class token, 0, always does. */
TW_HOST_DEVICE int64_t tw_kept_token(const int32_t *kept, int64_t n, int64_t t) {
    int64_t low = 0, high = n;
    if (t == 0 || !kept) return t;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (kept[middle] < t - 1)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && kept[low] == t - 1 ? low + 1 : -1;
}

#endif
