/* Packed samples (ops/packed.h) brought into the padded layout and back, for graphs that know samples by
 * their lengths only. bf16, 16 bytes at a time. */
#ifndef TW_AUTOGRAD_CUDA_PADDED_H
#define TW_AUTOGRAD_CUDA_PADDED_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/device.h"

enum { TW_PADDED_PARTS = 3 };

/* Both on 16-byte boundaries; stride and cols are multiples of 8. */
typedef struct tw_padded_part {
    void *packed; /* (rows,cols), rows `stride` elements apart */
    void *padded; /* (B,T,cols), contiguous */
    int64_t stride, cols;
} tw_padded_part;

typedef struct tw_padded {
    const int32_t *offsets; /* (B+1), device memory */
    int64_t batch, tokens, rows;
    int parts;
    tw_padded_part part[TW_PADDED_PARTS];
    float *packed_lse, *padded_lse; /* (heads,rows) and (B,heads,T), or NULL */
    int64_t heads;
} tw_padded;

/* Queues packed to padded: every element of the padded tensors is written, 0 where a sample has no token. */
tw_status tw_cuda_pad(tw_device *d, const tw_padded *p) TW_MUST_CHECK;
/* Queues padded to packed: rows behind the last sample become 0; what lies beyond a sample's length is not
 * read. */
tw_status tw_cuda_unpad(tw_device *d, const tw_padded *p) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
