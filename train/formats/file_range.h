/* Reading parts of a file at full speed: what zip and legacy .pt files share. */
#ifndef TW_TRAIN_FORMATS_FILE_RANGE_H
#define TW_TRAIN_FORMATS_FILE_RANGE_H

#include "autograd/status.h"

#include <stdint.h>

/* Opens a regular file for reading; its size to *size. TW_ERR_IO with the reason. */
tw_status tw_range_open(const char *path, int *fd, uint64_t *size) TW_MUST_CHECK;

/* Reads exactly [offset, offset + size) to dst. A file that ends before is TW_ERR_FORMAT. */
tw_status tw_range_read(const char *path, int fd, uint64_t offset, uint64_t size, void *dst) TW_MUST_CHECK;

#endif
