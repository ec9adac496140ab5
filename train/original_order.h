/* The order in which the original code has its parameters, and what follows from it. Its optimizer knows
 * parameters by number only: those of its two groups, each in this order. */
#ifndef TW_TRAIN_ORIGINAL_ORDER_H
#define TW_TRAIN_ORIGINAL_ORDER_H

#include "train/formats/weights.h"

/* < 0, 0, > 0, as strcmp, for original names without "module.". */
int tw_original_order(const char *a, const char *b);
/* Whether the original's first group, the one without weight decay, has the parameter (FACTS §6). */
bool tw_original_no_decay(const char *name);
/* Statistics and counters of batch norm: in a state dict, but not among the parameters. */
bool tw_original_is_buffer(const char *name);

/* Which optimizer number each of w's tensors has, by original names: (tw_weights_count(w)) values, -1 for
 * none, to be freed by the caller. The groups are those of w's note, the original's two: parameters without
 * and with decay, in the file's order; a frozen image tower may be absent from both. TW_ERR_FORMAT if their
 * sizes do not agree with the tensors. */
tw_status tw_original_optimizer_numbers(const tw_weights *w, int64_t **numbers) TW_MUST_CHECK;

#endif
