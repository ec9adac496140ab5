/* safetensors files and all their tensors. */
#include "weights_walk.h"

#include "train/formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_weights *w;
    if (!fuzz_ok(tw_safetensors_open(fuzz_file(data, size), &w))) return 0;
    walk_weights(w, size);
    tw_weights_close(w);
    return 0;
}
