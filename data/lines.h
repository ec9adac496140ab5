/* A text file read line by line. Lines may be megabytes long (an image in base64 is one line), so one buffer
 * that grows to the longest line is all that is held. */
#ifndef TW_DATA_LINES_H
#define TW_DATA_LINES_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tw_lines tw_lines;

/* Opened as by tw_open_stream: TW_ERR_NOT_FOUND or TW_ERR_IO name the file. A byte order mark at the start is
 * dropped. */
TW_MUST_CHECK tw_status tw_lines_open(const char *path, tw_lines **out);
void tw_lines_close(tw_lines *lines); /* accepts NULL */

/* The next line without its "\n" or "\r\n", zero-terminated and writable; *line is NULL at the end of the
 * file. Valid until the next call. */
TW_MUST_CHECK tw_status tw_lines_next(tw_lines *lines, char **line, size_t *size);
/* The next line, which stays the next: for telling what kind of file it is. */
TW_MUST_CHECK tw_status tw_lines_peek(tw_lines *lines, const char **line, size_t *size);
/* The last line's number, from 1; 0 before the first. */
int64_t tw_lines_number(const tw_lines *lines);
const char *tw_lines_path(const tw_lines *lines);
/* Bytes read so far and the file's size (0 if it has none, as a pipe). */
int64_t tw_lines_position(const tw_lines *lines);
int64_t tw_lines_size(const tw_lines *lines);

/* True if text[0..size) is UTF-8 as RFC 3629 has it (no surrogates, nothing overlong); otherwise *bad, if
 * not NULL, is where the first wrong byte stands. */
bool tw_lines_is_utf8(const char *text, size_t size, size_t *bad);
/* True if text is empty or only of ASCII white space and U+3000. */
bool tw_lines_is_blank(const char *text, size_t size);

#endif
