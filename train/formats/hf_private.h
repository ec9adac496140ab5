/* What the files for Hugging Face folders share. */
#ifndef TW_TRAIN_FORMATS_HF_PRIVATE_H
#define TW_TRAIN_FORMATS_HF_PRIVATE_H

#include "autograd/status.h"

#include <stddef.h>

/* folder/name into memory, freed by the caller. TW_ERR_NOT_FOUND if it is not there; TW_ERR_FORMAT if it has
 * more than `most` bytes; TW_ERR_IO if it is not a regular file. Messages name the file. */
tw_status tw_hf_read_text(const char *folder, const char *name, size_t most, char **text,
                          size_t *size) TW_MUST_CHECK;

#endif
