/* Reads every tensor of an opened weight file, as convert does. */
#ifndef TW_TESTS_WEIGHTS_WALK_H
#define TW_TESTS_WEIGHTS_WALK_H

#include "fuzz.h"

#include "train/formats/weights.h"

#include <stdlib.h>

/* Together the tensors may be as large as the reader promises for a file of this size (views share storages).
 */
static inline void walk_weights(tw_weights *w, uint64_t most) {
    uint64_t total = 0;
    for (int64_t i = 0; i < tw_weights_count(w); i++) {
        const tw_weight *t = tw_weights_at(w, i);
        uint64_t bytes = (uint64_t)t->count * tw_weight_type_size(t->type);
        total += bytes;
        fuzz_must(t->count >= 0 && total <= most, "all tensors together claim what the file's size allows");
        fuzz_must(tw_weights_find(w, t->name) == i, "a tensor is found by its name");
        if (t->count == 0 || bytes > 1 << 20) continue; /* larger ones would only cost time */
        void *copy = malloc(bytes);
        float *values = malloc((size_t)t->count * sizeof *values);
        if (copy && values && fuzz_ok(tw_weights_read(w, i, copy)))
            fuzz_must(fuzz_ok(tw_weights_read_f32(w, i, values, t->count)), "what was read is converted");
        free(copy);
        free(values);
    }
}

#endif
