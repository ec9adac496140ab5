/* What the two files of the shim of CUDA's runtime share. */
#ifndef TW_TESTS_CUDART_SHIM_PRIVATE_H
#define TW_TESTS_CUDART_SHIM_PRIVATE_H

#include "cudart_shim.h"

/* Keeps an error for cudaGetLastError; returns it. */
cudaError_t cudart_remember(cudaError_t error);
/* Whether this call was told to fail. */
bool cudart_fails(const char *function, cudaError_t *error);
/* Whether a capture is going on, which what was called spoils. */
bool cudart_forbidden(void);
/* Does all that is queued, as giving memory back does. */
void cudart_drain(void);
/* Whether p is memory of the device, or pinned. */
bool cudart_knows(const void *p);
/* Something was made (1) or given back (-1). */
void cudart_count(int change);

#define MAY_FAIL                                                                                             \
    do {                                                                                                     \
        cudaError_t error_;                                                                                  \
        if (cudart_fails(__func__, &error_)) return error_;                                                  \
    } while (0)

#define NOT_IN_CAPTURE                                                                                       \
    do {                                                                                                     \
        if (cudart_forbidden()) return cudart_remember(cudaErrorStreamCaptureUnsupported);                   \
    } while (0)

#endif
