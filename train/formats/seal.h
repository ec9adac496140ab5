/* The seal: protection of a whole HDF5 file by 512 bytes before it.
 *
 * HDF5 checks its data chunks, but a flipped bit in its own structures may pass unseen or make it crash. So
 * every file is written with HDF5's "user block", 512 bytes at the start that HDF5, h5py and MATLAB skip, and
 * this block holds a hash of everything after it. Only bytes that match are shown to HDF5.
 *
 *   0   8  magic: 89 'T' 'W' 'H' '5' CR LF 1A (a transfer that changes line ends breaks it)
 *   8   4  version of this layout (1), little-endian as all numbers here
 *  12   4  MiB of memory that a reader of the main values (a checkpoint's parameters, in f32) will want; 0:
 * not told 16   8  length of the whole file in bytes 24   8  digest of bytes 512 .. length 32  32  kind of
 * file, zero-padded: "checkpoint", "features" 64 440  a sentence for people who look into the file,
 * zero-padded 504   8  XXH64 (seed 0) of bytes 0 .. 504
 *
 * The digest is XXH64 (seed: the number of bytes) over the XXH64s (seed 0) of consecutive blocks of 256 KiB,
 * the last one shorter, so that several threads can compute it. */
#ifndef TW_TRAIN_FORMATS_SEAL_H
#define TW_TRAIN_FORMATS_SEAL_H

#include "autograd/status.h"

#include <stddef.h>
#include <stdint.h>

enum { TW_SEAL_BYTES = 512, TW_SEAL_VERSION = 1, TW_SEAL_KIND_BYTES = 32 };

/* Computes the digest of the finished (closed) file and writes the seal over its first 512 bytes. `kind` is
 * at most 31 bytes; memory_mib as above. Does not sync. TW_ERR_IO with the reason on failure. */
tw_status tw_seal_write(const char *path, const char *kind, uint32_t memory_mib) TW_MUST_CHECK;

/* Checks the seal and every byte of the open file. `path` is for messages. TW_ERR_FORMAT when the file is not
 * of this kind, truncated or damaged; TW_ERR_UNSUPPORTED when a newer version wrote it. */
tw_status tw_seal_check(int fd, const char *path, const char *kind) TW_MUST_CHECK;

/* The kind that a file's first bytes name, "" for a file that is none of ours; nothing else is checked.
 * TW_ERR_IO when it cannot be read. */
tw_status tw_seal_kind(const char *path, char kind[TW_SEAL_KIND_BYTES]) TW_MUST_CHECK;

/* Bytes of memory that the seal of a file tells its readers to want; 0 where it tells nothing, or is not
 * whole. Advice: the file is not checked. */
size_t tw_seal_memory(const char *path);
/* The digest that the seal of a file holds, to tell files apart; 0 where the seal is not whole. The rest of
 * the file is not checked. */
uint64_t tw_seal_digest(const char *path);

#endif
