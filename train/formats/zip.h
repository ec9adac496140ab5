/* Zip archives read, as torch.save writes them: their entries are stored. Compressed ones may be there (as a
 * TorchScript archive's program), but reading them is refused.
 *
 * Own code instead of libzip, for three reasons: libzip does not tell where an entry's bytes lie, so they
 * would be copied through its layers; it checks CRC-32 at zlib's speed, below that of the disk's cache; and
 * it accepts archives in which entries overlap or the two directories contradict each other. Nothing is ever
 * extracted to a path. Format: PKWARE APPNOTE.TXT 6.3.10, zip64 included.
 *
 * Refused with a message (TW_ERR_FORMAT; TW_ERR_UNSUPPORTED where the archive is well-formed): encrypted
 * entries, several disks, names that are absolute, hold "..", a backslash or a drive, or occur twice, sizes
 * beyond the file, overlapping entries, headers that contradict the directory, wrong CRC-32. */
#ifndef TW_TRAIN_FORMATS_ZIP_H
#define TW_TRAIN_FORMATS_ZIP_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tw_zip tw_zip; /* one thread at a time */

/* Reads the directory; memory is at most about twice its size. Every message begins with `path`. */
tw_status tw_zip_open(const char *path, tw_zip **out) TW_MUST_CHECK;
void tw_zip_close(tw_zip *zip); /* accepts NULL */

int64_t tw_zip_count(const tw_zip *zip);
uint64_t tw_zip_file_size(const tw_zip *zip);
const char *tw_zip_name(const tw_zip *zip, int64_t i);    /* valid until close */
uint64_t tw_zip_size(const tw_zip *zip, int64_t i);       /* bytes of entry i */
int64_t tw_zip_find(const tw_zip *zip, const char *name); /* the entry's number, or -1 */

/* Copies bytes [offset, offset + size) of entry i to dst. The first call for an entry reads all of it and
 * checks its CRC-32, in one pass; later calls read only what is asked for. */
tw_status tw_zip_read(tw_zip *zip, int64_t i, uint64_t offset, uint64_t size, void *dst) TW_MUST_CHECK;

#endif
