/* Zip archives of stored entries, written one entry at a time: what torch.load expects.
 *
 * Own code instead of libzip, which writes only when the archive is closed, from sources it holds until then,
 * and cannot place an entry's bytes at a multiple of 64, as torch.save does so that files can be mapped. */
#ifndef TW_TRAIN_FORMATS_ZIP_WRITE_H
#define TW_TRAIN_FORMATS_ZIP_WRITE_H

#include "autograd/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tw_zip_writer tw_zip_writer;

/* Writes over the file `path`, which exists (tw_atomic_begin made it); messages name `label`. */
tw_status tw_zip_writer_open(const char *path, const char *label, tw_zip_writer **out) TW_MUST_CHECK;

/* Appends an entry whose bytes begin at a multiple of 64. Sizes and offsets of 4 GiB and more become 64-bit
 * ones. TW_ERR_ARGUMENT: a name of more than 1,024 bytes. */
tw_status tw_zip_writer_add(tw_zip_writer *writer, const char *name, const void *data,
                            size_t size) TW_MUST_CHECK;

/* Appends the directory and closes the file. */
tw_status tw_zip_writer_finish(tw_zip_writer *writer) TW_MUST_CHECK;

/* Closes the file, finished or not, and frees the writer; accepts NULL. */
void tw_zip_writer_free(tw_zip_writer *writer);

#endif
