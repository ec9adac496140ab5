#include "autograd/comm.h"

#include <stdlib.h>

void tw_comm_free(tw_comm *c) {
    if (c) c->destroy(c);
}

tw_status tw_comm_gather_even(tw_comm *c, float *all, int64_t count) {
    int64_t *counts = malloc((size_t)c->ranks * sizeof *counts);
    if (!counts) return FAIL(TW_ERR_MEMORY, "out of memory");
    for (int r = 0; r < c->ranks; r++) counts[r] = count;
    tw_status status = c->all_gather(c, all + c->rank * count, all, counts);
    free(counts);
    return status;
}
