#include "train/formats/fletcher32.h"

#include <string.h>

/* With 256 words the weighted sum is at most 65535 * 256 * 257 / 2 < 2^32. */
enum { BLOCK = 256, MODULUS = 65535 };

/* HDF5 folds its sums with (s & 0xffff) + (s >> 16), which never gives 0 for a sum that was not 0. */
static uint32_t folded(uint64_t sum) {
    return sum == 0 ? 0 : (uint32_t)((sum - 1) % MODULUS) + 1;
}

uint32_t tw_fletcher32(const void *data, size_t size) {
    const unsigned char *p = data;
    size_t words = size / 2;
    uint64_t sum1 = 0, sum2 = 0; /* kept below 2^17 between blocks, and 0 only while every word was 0 */
    while (words > 0) {
        uint16_t w[BLOCK] = {0};
        uint32_t n = words < BLOCK ? (uint32_t)words : BLOCK, plain = 0, weighted = 0;
        memcpy(w, p, n * sizeof w[0]);
        for (uint32_t i = 0; i < BLOCK; i++) {
            plain += w[i];
            weighted += (BLOCK - i) * w[i];
        }
        /* The words of a short block weigh n, n - 1, ..., not 256, 255, ...: less (256 - n) each. */
        sum2 = folded(sum2 + n * sum1 + weighted - (uint64_t)(BLOCK - n) * plain);
        sum1 = folded(sum1 + plain);
        words -= n, p += n * sizeof w[0];
    }
    /* The words were read little-endian: swapping the bytes of a word multiplies it by 256 modulo 65535. */
    return folded(sum2 << 8) << 16 | folded(sum1 << 8);
}
