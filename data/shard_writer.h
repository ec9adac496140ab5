/* Writing one split of a data set (shards.h reads it). Everything is written to a folder beside the final one
 * ("lmdb/.train.tmp-4711"), synced, read again from its beginning to its end, and then renamed: the final
 * name never holds half a data set, and a failure leaves nothing behind. */
#ifndef TW_DATA_SHARD_WRITER_H
#define TW_DATA_SHARD_WRITER_H

#include "autograd/status.h"
#include "data/record_id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tw_shard_format {
    TW_SHARDS_RAW,      /* image files' bytes; pairs as JSON arrays */
    TW_SHARDS_ORIGINAL, /* as the original tool: base64; pickles of protocol 4. One environment only */
} tw_shard_format;

typedef struct tw_shard_options {
    tw_shard_format format;
    int shards;   /* environments for imgs, and as many for pairs; 0 means 1 */
    bool replace; /* a split that is already there is replaced; otherwise it is an error */
} tw_shard_options;

typedef struct tw_shard_writer tw_shard_writer;

/* Begins the split `split_dir`, whose parent folders are made as needed. One thread at a time.
 * TW_ERR_CONFIG: there is a split already (options->replace), or options do not fit together; TW_ERR_IO: not
 * writable. */
TW_MUST_CHECK tw_status tw_shard_writer_open(const char *split_dir, const tw_shard_options *options,
                                             tw_shard_writer **out);
/* Gives up what was not finished: removes the temporary folder. Accepts NULL. */
void tw_shard_writer_close(tw_shard_writer *writer);

/* Adds an image file's bytes. TW_ERR_ARGUMENT: the id is there already, or reserved. */
TW_MUST_CHECK tw_status tw_shard_writer_image(tw_shard_writer *writer, const tw_id *id, const void *data,
                                              size_t size);
TW_MUST_CHECK tw_status tw_shard_writer_has_image(tw_shard_writer *writer, const tw_id *id, bool *found);
/* Adds the next pair. Text must be valid UTF-8. */
TW_MUST_CHECK tw_status tw_shard_writer_pair(tw_shard_writer *writer, const tw_id *image_id,
                                             const tw_id *text_id, const char *text, size_t text_bytes);
/* The temporary folder; a file that is put there arrives with the split. */
const char *tw_shard_writer_folder(const tw_shard_writer *writer);

/* Ends: counts, sync, verification (every key and value read back, their number and checksum compared),
 * rename. After an error the writer can only be closed. */
TW_MUST_CHECK tw_status tw_shard_writer_finish(tw_shard_writer *writer);

#endif
