/* Lists of (image file, text) as people keep them: CSV or TSV with or without a header line, or JSON lines.
 *
 *   CSV    RFC 4180: fields may be quoted, "" is a quote; a quoted field may hold line breaks.
 *          Columns: the header's image | image_path | path | file | file_name | filename and
 *          text | caption | title; without such a header the first and the second column.
 *   TSV    the same, separated by tabs, without quotes.
 *   JSONL  objects with fields of the same names. */
#ifndef TW_DATA_TABLE_H
#define TW_DATA_TABLE_H

#include "autograd/status.h"
#include "data/bad_record.h"
#include "data/lines.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tw_table tw_table;

typedef struct tw_table_row {
    const char *image; /* a path as it stands there, zero-terminated */
    size_t image_bytes;
    const char *text; /* valid UTF-8, zero-terminated, not blank */
    size_t text_bytes;
} tw_table_row;

/* The kind is told by the name's end: .csv, .tsv or .txt, .jsonl or .json; others are TW_ERR_CONFIG. */
TW_MUST_CHECK tw_status tw_table_open(const char *path, tw_table **out);
void tw_table_close(tw_table *table); /* accepts NULL */
/* As tw_jsonl_next: TW_ERR_FORMAT and *bad for a bad row, then go on. */
TW_MUST_CHECK tw_status tw_table_next(tw_table *table, tw_table_row *out, bool *end, tw_bad_kind *bad);
const tw_lines *tw_table_lines(const tw_table *table);

#endif
