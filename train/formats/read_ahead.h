/* A thread that asks the system for the next part of a file before its reader gets there, so that the disk
 * works while what came in is checked and converted. Asking waits for the disk's queue, which is why the
 * reader does not ask itself. */
#ifndef TW_TRAIN_FORMATS_READ_AHEAD_H
#define TW_TRAIN_FORMATS_READ_AHEAD_H

#include <stdint.h>

typedef struct tw_read_ahead tw_read_ahead;

/* Starts at byte `from` of an open file of `size` bytes, which must stay open until tw_read_ahead_stop. NULL
 * where no thread can be had, or the file is small: the functions below then do nothing. */
tw_read_ahead *tw_read_ahead_start(int fd, uint64_t from, uint64_t size);
/* The reader is at byte `at`, in any thread. Far before or behind it asking goes on from there. */
void tw_read_ahead_at(tw_read_ahead *r, uint64_t at);
/* Accepts NULL. */
void tw_read_ahead_stop(tw_read_ahead *r);

#endif
