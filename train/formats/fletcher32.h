/* The checksum of HDF5's filter H5Z_FILTER_FLETCHER32 (H5checksum.c): Fletcher's, modulo 65535, over
 * big-endian 16-bit words. HDF5's own runs at a fraction of the memory's speed. */
#ifndef TW_TRAIN_FORMATS_FLETCHER32_H
#define TW_TRAIN_FORMATS_FLETCHER32_H

#include <stddef.h>
#include <stdint.h>

/* size must be even. Equal to H5_checksum_fletcher32 for every input. */
uint32_t tw_fletcher32(const void *data, size_t size);

#endif
