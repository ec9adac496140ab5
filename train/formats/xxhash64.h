/* XXH64, the 64-bit hash of Yann Collet's xxHash, written from its specification
 * (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). Not cryptographic: it finds damage, not forgery. */
#ifndef TW_TRAIN_FORMATS_XXHASH64_H
#define TW_TRAIN_FORMATS_XXHASH64_H

#include <stddef.h>
#include <stdint.h>

/* The hash of data[0..size); data may be NULL when size is 0. The same value on every machine. */
uint64_t tw_xxh64(const void *data, size_t size, uint64_t seed);

#endif
