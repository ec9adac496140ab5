/* A device of threads without kernels: what a library under them would have to say. */
#include "autograd/cuda/cuda.h"

const char *tw_cuda_refusals(tw_device *d) {
    (void)d;
    return NULL;
}

bool tw_cuda_choice_text(tw_device *d, int i, char *text, size_t size) {
    (void)d, (void)i, (void)text, (void)size;
    return false;
}

const char *tw_cuda_product_refusals(tw_device *d) {
    (void)d;
    return NULL;
}
