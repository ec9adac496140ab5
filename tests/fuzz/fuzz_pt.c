/* .pt files, zip and legacy, and all their tensors. */
#include "weights_walk.h"

#include "train/formats/pt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_weights *w;
    if (!fuzz_ok(tw_pt_open(fuzz_file(data, size), &w))) return 0;
    walk_weights(w, 2 * (uint64_t)size + (16u << 20));
    tw_weights_close(w);
    return 0;
}
