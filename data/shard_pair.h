/* The value of one pair: a pickled (image_id, text_id, text) as the original writes it, or the same as a
 * JSON array. */
#ifndef TW_DATA_SHARD_PAIR_H
#define TW_DATA_SHARD_PAIR_H

#include "data/shards.h"

typedef struct tw_pair_reader tw_pair_reader;

TW_MUST_CHECK tw_status tw_pair_reader_new(tw_pair_reader **out);
void tw_pair_reader_free(tw_pair_reader *reader); /* accepts NULL */

/* What *out points to is the reader's, until its next call. TW_ERR_FORMAT, or TW_ERR_UNSUPPORTED for a pickle
 * of more than data, say what is wrong. */
TW_MUST_CHECK tw_status tw_pair_parse(tw_pair_reader *reader, const void *value, size_t size, tw_pair *out);

/* The pickle that Python's pickle.dumps((image_id, text_id, text), protocol=4) gives (of texts below 64 KiB;
 * longer ones are framed otherwise, and read the same). Freed with free(). */
TW_MUST_CHECK tw_status tw_pair_to_pickle(const tw_id *image_id, const tw_id *text_id, const char *text,
                                          size_t text_bytes, char **out, size_t *size);

#endif
