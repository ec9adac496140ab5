/* Files that appear whole or not at all: written under a temporary name in the same folder, synced, renamed,
 * and the folder synced, so that neither a kill nor a power cut leaves half a file under the final name. */
#ifndef TW_DATA_ATOMIC_FILE_H
#define TW_DATA_ATOMIC_FILE_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stdio.h>

/* This process, for names of what it has not finished: "<host>.<pid>-<start>-<space>", its start in ticks
 * since the system's and the space of process numbers that its own is from. Numbers alone are used again, and
 * each container has its own. The host has no dot. */
enum { TW_WRITER_LABEL = 128 };
void tw_writer_label(char label[TW_WRITER_LABEL]);
/* Whether the process that made the label no longer lives. False where that cannot be told: it is another
 * host's, or another container's. */
bool tw_writer_is_gone(const char *label);

/* Creates an empty temporary file "<folder of path>/.<name>.<writer>.tw-tmp" (see tw_writer_label) and stores
 * its path, to be freed by the caller, in *temp. A leftover of the same name is emptied. TW_ERR_IO with the
 * reason when the folder is missing or not writable. */
tw_status tw_atomic_begin(const char *path, char **temp) TW_MUST_CHECK;

/* Syncs the finished (closed) temporary file, renames it to `path` and syncs the folder. On failure the
 * temporary is removed and an older file at `path` stays as it was. */
tw_status tw_atomic_publish(const char *temp, const char *path) TW_MUST_CHECK;

/* Removes a temporary that will not be published and gives its disk space back even while some library still
 * holds it open. temp may be NULL. */
void tw_atomic_discard(const char *temp);

/* Makes folder/name a symbolic link to `target` (relative to the folder) in one step, replacing an older
 * link. */
tw_status tw_atomic_link(const char *folder, const char *name, const char *target) TW_MUST_CHECK;

/* True if folder/name is a temporary of tw_atomic_begin or tw_atomic_link whose writer is gone: a process of
 * this host that no longer lives, whether or not another has its number by now, or a file that nobody has
 * written to for 15 minutes. */
bool tw_atomic_is_stale(const char *folder, const char *name);

/* ---- the same as a stream ---- */

typedef struct tw_atomic_file {
    FILE *stream; /* write here with stdio; errors are sticky and found by commit */
    char *path;
    char *temporary;
} tw_atomic_file;

/* tw_atomic_begin, opened for writing. On failure *file is empty, and discarding it does nothing. */
tw_status tw_atomic_file_open(tw_atomic_file *file, const char *path) TW_MUST_CHECK;
/* Flushes, closes and publishes, then empties *file. On failure (TW_ERR_IO: disk full, ...) the temporary
 * file is removed and an older file at `path` stays as it was. */
tw_status tw_atomic_file_commit(tw_atomic_file *file) TW_MUST_CHECK;
/* Commits what was written with TW_OK, discards what was not; the first error. */
tw_status tw_atomic_file_end(tw_atomic_file *file, tw_status written) TW_MUST_CHECK;
/* Closes and removes the temporary file. Does nothing on an empty or committed *file. */
void tw_atomic_file_discard(tw_atomic_file *file);

#endif
