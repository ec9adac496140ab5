/* JSON lines that map one id to a list of ids: prediction files ({"text_id": 1, "image_ids": [2, 3]}, or
 * {"image_id": 2, "text_ids": [1]}) and annotations, whose records have the same two fields. Other fields are
 * allowed and ignored. Ids are integers (of 64 bits) or strings and keep their type. */
#ifndef TW_TRAIN_ID_LINES_H
#define TW_TRAIN_ID_LINES_H

#include "data/record_id.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum tw_direction { TW_TEXT_TO_IMAGE, TW_IMAGE_TO_TEXT, TW_DIRECTIONS } tw_direction;

/* "text-to-image", "image-to-text". */
const char *tw_direction_name(tw_direction direction);
/* The field of the query ("text_id") and of its answers ("image_ids"). */
const char *tw_direction_query(tw_direction direction);
const char *tw_direction_answers(tw_direction direction);

typedef struct tw_id_lines tw_id_lines;

/* TW_ERR_NOT_FOUND or TW_ERR_IO name the file. */
tw_status tw_id_lines_open(const char *path, tw_direction direction, tw_id_lines **out) TW_MUST_CHECK;
void tw_id_lines_close(tw_id_lines *file); /* accepts NULL */

/* The next record: *query and answers[0 .. *n) are valid until the next call. *end is true after the last.
 * As the original's scorer does, a blank line is refused like any other line that is no such record:
 * TW_ERR_FORMAT with "file:line: what". */
tw_status tw_id_lines_next(tw_id_lines *file, tw_id *query, const tw_id **answers, int64_t *n,
                           bool *end) TW_MUST_CHECK;
/* "file:12", the last record's place. Valid until the next call. */
const char *tw_id_lines_place(tw_id_lines *file);

/* The direction of a prediction file, from the fields of its first record. TW_ERR_FORMAT if it is empty or
 * its first record is neither. */
tw_status tw_id_lines_direction(const char *path, tw_direction *out) TW_MUST_CHECK;

/* Writes {"text_id": 1, "image_ids": [2, 3]} and a newline, spaced as Python's json module does; the answers
 * are gallery[indexes[0]], gallery[indexes[1]], ... A failure to write stays in the stream; TW_ERR_MEMORY is
 * the only error. */
tw_status tw_id_line_write(FILE *out, tw_direction direction, const tw_id *query, const tw_id *gallery,
                           const int32_t *indexes, int64_t n) TW_MUST_CHECK;

#endif
