/* A file that appears whole or not at all: written under "<path>.tmp", flushed to the disk, then renamed. */
#ifndef TW_DATA_ATOMIC_FILE_H
#define TW_DATA_ATOMIC_FILE_H

#include "autograd/status.h"

#include <stdio.h>

typedef struct tw_atomic_file {
    FILE *stream; /* write here with stdio; errors are sticky and found by commit */
    char *path;
    char *temporary;
} tw_atomic_file;

/* Opens "<path>.tmp" for writing, replacing one left by a killed run. On failure (TW_ERR_IO, TW_ERR_MEMORY)
 * *file is empty, and discarding it does nothing. */
tw_status tw_atomic_file_open(tw_atomic_file *file, const char *path) TW_MUST_CHECK;
/* Flushes, syncs, closes and renames over `path`, then empties *file. On failure (TW_ERR_IO: disk full, ...)
 * the temporary file is removed and an older file at `path` stays as it was. */
tw_status tw_atomic_file_commit(tw_atomic_file *file) TW_MUST_CHECK;
/* Closes and removes the temporary file. Does nothing on an empty or committed *file. */
void tw_atomic_file_discard(tw_atomic_file *file);

#endif
