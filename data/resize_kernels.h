/* The two inner loops of the 8-bit resize. Every set computes the same integers, so the choice of one never
 * shows in a pixel; tests/test_resize.c compares them. */
#ifndef TW_DATA_RESIZE_KERNELS_H
#define TW_DATA_RESIZE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { TW_RESIZE_BITS = 32 - 8 - 2 }; /* fractional bits of a weight, Pillow's PRECISION_BITS */

/* Which input samples make an output sample, and with what weights. */
typedef struct tw_resize_taps {
    int outputs;
    int stride;       /* weights reserved for one output, >= every count */
    int *first;       /* (outputs) first input */
    int *count;       /* (outputs) inputs used, >= 1 */
    int32_t *weights; /* (outputs, stride), 1.0 = 1 << TW_RESIZE_BITS; zero beyond the count */
} tw_resize_taps;

typedef struct tw_resize_kernels {
    const char *name;
    /* out[y, o, c] = clip(sum over t of in[y, first[o] + t, c] * weight) for `rows` rows whose pixels have
     * `channels` (1..4) bytes; strides in bytes. `in` has `width` pixels a row. */
    void (*horizontal)(const tw_resize_taps *taps, int channels, const uint8_t *in, size_t in_stride,
                       int width, int rows, uint8_t *out, size_t out_stride);
    /* out[i] = clip(sum over t of in[t * stride + i] * weights[t]), i < bytes. */
    void (*vertical)(const int32_t *weights, int count, const uint8_t *in, size_t stride, size_t bytes,
                     uint8_t *out);
} tw_resize_kernels;

/* Plain C, for every machine. */
extern const tw_resize_kernels tw_resize_portable;
/* The fastest set that this CPU runs. */
const tw_resize_kernels *tw_resize_best(void);

#endif
