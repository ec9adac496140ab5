/* Parameter names are the checkpoint's: FACTS of the family, "visual.transformer.resblocks.0.ln_1.weight". */
#ifndef TW_LAYERS_NAMES_H
#define TW_LAYERS_NAMES_H

#include "autograd/param.h"

#include <stdio.h>

/* Adds the parameter "<prefix>.<name>". */
static inline tw_status tw_add_named(tw_params *params, const char *prefix, const char *name, int ndim,
                                     const int64_t *shape, tw_init init, tw_param **out) {
    char full[256];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return tw_params_add(params, full, ndim, shape, init, out);
}

#endif
