/* A hash of a parameter set's values, to tell whether two sets are the same to the bit. */
#ifndef TW_TRAIN_PARAMS_HASH_H
#define TW_TRAIN_PARAMS_HASH_H

#include "autograd/param.h"

/* *hash is the seed when called and depends on every value, in the set's order. Of masters in shares it is
 * the values last set that count, which optimizer steps do not change: compare such sets before the first. */
tw_status tw_params_hash(const tw_params *params, uint64_t *hash) TW_MUST_CHECK;

#endif
