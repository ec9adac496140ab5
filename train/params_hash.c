#include "train/params_hash.h"

#include "train/formats/xxhash64.h"

#include <stdlib.h>

tw_status tw_params_hash(const tw_params *params, uint64_t *hash) {
    for (int i = 0; i < tw_params_count(params); i++) {
        const tw_param *p = tw_params_at(params, i);
        if (tw_params_in_shares(params) && tw_param_is_trained(p)) {
            *hash = tw_xxh64(&p->given, sizeof p->given, *hash);
            continue;
        }
        float *values = malloc((size_t)p->count * sizeof *values + 1);
        tw_status status = values ? tw_params_get(params, p, values) : FAIL(TW_ERR_MEMORY, "out of memory");
        if (status == TW_OK) *hash = tw_xxh64(values, (size_t)p->count * sizeof *values, *hash);
        free(values);
        TRY(status);
    }
    return TW_OK;
}
