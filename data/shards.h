/* Reading one split of a data set: the LMDB environments `imgs` and `pairs` in a folder, as the original
 * tool writes them or as shard_writer.h does (FACTS.md §5).
 *
 *   <split>/imgs   key = image id as text, value = base64 text (either alphabet) or the image file's bytes
 *   <split>/pairs  keys "0" … "n-1", value = a pickled (image_id, text_id, text), or the same as JSON array
 *   <split>/imgs-00000-of-00008 … pairs-00007-of-00008: the same keys, spread over several environments
 *
 * `num_images`, `num_samples` and `tuwen_format` are the environments' own keys. `pairs` may be absent (a
 * pool of images to extract features from): the set then has no pairs.
 *
 * Threads: a tw_dataset is read-only and shared by all; each thread has its own tw_reader. What a reader
 * returns stays valid until that reader's next call of the same function, or its close.
 * The files must not change while a data set is open. */
#ifndef TW_DATA_SHARDS_H
#define TW_DATA_SHARDS_H

#include "autograd/status.h"
#include "data/record_id.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tw_dataset tw_dataset;
typedef struct tw_reader tw_reader;

typedef struct tw_bytes {
    const uint8_t *data;
    size_t size;
} tw_bytes;

typedef struct tw_pair {
    tw_id image_id;
    tw_id text_id;
    const char *text;  /* valid UTF-8, followed by a zero; may hold zero bytes itself */
    size_t text_bytes; /* without the zero */
} tw_pair;

/* Opens the split in `split_dir`, for example "data/lmdb/train". Each file's size and page structure is
 * checked before it is mapped, so a truncated or damaged one is TW_ERR_FORMAT here and not a SIGBUS later.
 * TW_ERR_NOT_FOUND: no such folder, or no `imgs` in it; TW_ERR_IO: not readable. *out is NULL on failure.
 * An environment that is already open in this process is shared, not opened again. */
TW_MUST_CHECK tw_status tw_dataset_open(const char *split_dir, tw_dataset **out);
/* The same for whoever needs the images alone: `pairs` is not opened, and the set has no pairs. */
TW_MUST_CHECK tw_status tw_dataset_open_images(const char *split_dir, tw_dataset **out);
/* Readers must be closed first. Accepts NULL. */
void tw_dataset_close(tw_dataset *dataset);

/* Number of (image, text) pairs. */
int64_t tw_dataset_pairs(const tw_dataset *dataset);
/* Number of distinct images: keys counted, `num_images` never trusted. */
int64_t tw_dataset_images(const tw_dataset *dataset);
/* The folder it was opened from. Valid as long as the data set. */
const char *tw_dataset_path(const tw_dataset *dataset);

/* One thread's view. Cheap. The data set must outlive it. */
TW_MUST_CHECK tw_status tw_reader_open(const tw_dataset *dataset, tw_reader **out);
void tw_reader_close(tw_reader *reader); /* accepts NULL */

/* Pair `index` in 0 … tw_dataset_pairs-1. TW_ERR_FORMAT: the record is damaged (named); TW_ERR_ARGUMENT: no
 * such index. */
TW_MUST_CHECK tw_status tw_dataset_pair(tw_reader *reader, int64_t index, tw_pair *out);

/* The image file's bytes (JPEG, PNG or WebP), base64 undone. `image_id` is the id's text form, `id_bytes`
 * its length. TW_ERR_NOT_FOUND: no such image; TW_ERR_FORMAT: neither an image nor base64. */
TW_MUST_CHECK tw_status tw_dataset_image(tw_reader *reader, const char *image_id, size_t id_bytes,
                                         tw_bytes *out);
/* Image number `index` in 0 … tw_dataset_images-1, counted in the byte order of the ids ("1", "10", "2"):
 * the order in which features are written. Either output may be NULL. The id stays valid as long as the data
 * set; its is_integer says whether it is written as an integer would be. The first call lists the keys. */
TW_MUST_CHECK tw_status tw_dataset_image_at(tw_reader *reader, int64_t index, tw_id *id, tw_bytes *out);

/* Where `image_id` comes in that order, or TW_ERR_NOT_FOUND. */
TW_MUST_CHECK tw_status tw_dataset_image_index(tw_reader *reader, const char *image_id, size_t id_bytes,
                                               int64_t *index);

#endif
