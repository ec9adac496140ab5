/* Image files to extract features from, that are in no shard: all of a folder, or those that a list names. */
#ifndef TW_DATA_IMAGE_FILES_H
#define TW_DATA_IMAGE_FILES_H

#include "autograd/status.h"
#include "data/record_id.h"

#include <stdint.h>

typedef struct tw_image_files {
    int64_t n;
    const char *const *paths; /* (n), as they can be opened */
    const tw_id *ids;         /* (n) */
    int64_t passed_over;      /* of a folder: files and links to folders that are not among them */
    char first_passed_over[256];
} tw_image_files;

/* A folder: every .jpg, .jpeg, .png and .webp file in it and in the folders below, in the byte order of their
 * paths relative to it, which are their ids (strings). Links to files are followed, links to folders are not.
 * Names that cannot be ids (not UTF-8, control characters, more than 511 bytes) and other files are passed
 * over and counted.
 *
 * A file: a list, one image a line, in its order: "PATH", whose id is PATH as it stands there, or
 * "ID<TAB>PATH". A relative PATH starts at the list's folder. Blank lines are skipped. An id that is none, or
 * comes twice, is TW_ERR_FORMAT with file and line.
 *
 * An image file itself (by its first bytes): that image alone, its id its name.
 *
 * Without a single image TW_ERR_FORMAT; TW_ERR_NOT_FOUND, TW_ERR_IO. Whether the files can be read and are
 * images shows when they are opened. */
TW_MUST_CHECK tw_status tw_image_files_load(const char *path, tw_image_files **out);
void tw_image_files_free(tw_image_files *files); /* accepts NULL */

#endif
