/* Images as `image_id<TAB>base64` lines (FACTS.md §5), decoded one at a time. */
#ifndef TW_DATA_TSV_H
#define TW_DATA_TSV_H

#include "autograd/status.h"
#include "data/bad_record.h"
#include "data/lines.h"
#include "data/record_id.h"

#include <stdint.h>

typedef struct tw_tsv tw_tsv;

typedef struct tw_tsv_image {
    tw_id id;            /* is_integer if it is written as an integer would be: "12", not "012" */
    const uint8_t *data; /* decoded */
    size_t size;
    const char *base64; /* as in the file, for writing it unchanged */
    size_t base64_bytes;
} tw_tsv_image;

TW_MUST_CHECK tw_status tw_tsv_open(const char *path, tw_tsv **out);
void tw_tsv_close(tw_tsv *tsv); /* accepts NULL */

/* As tw_jsonl_next: TW_ERR_FORMAT and *bad for a bad record, then go on. */
TW_MUST_CHECK tw_status tw_tsv_next(tw_tsv *tsv, tw_tsv_image *out, bool *end, tw_bad_kind *bad);
const tw_lines *tw_tsv_lines(const tw_tsv *tsv);

#endif
