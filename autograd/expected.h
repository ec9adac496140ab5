/* Memory that the CPU device was told to expect (device.h): a thread has the system clear its pages while
 * their user waits for a disk. On a virtual machine the first use of a page costs about as much as reading it
 * from a file. */
#ifndef TW_AUTOGRAD_EXPECTED_H
#define TW_AUTOGRAD_EXPECTED_H

#include <stdbool.h>
#include <stddef.h>

typedef struct tw_expected tw_expected;

/* NULL where there is no memory for it; the others then do nothing. One user at a time. */
tw_expected *tw_expected_create(void);
/* Begins to bring in a piece, unless the one expected before will do; another one that was not taken is given
 * back. Pieces too small to matter are not brought in; bytes 0: nothing is expected. */
void tw_expected_begin(tw_expected *e, size_t bytes);
/* The piece, if `bytes` is about what was expected (at most so much and at least three quarters), else NULL.
 * Its pages still come in behind its user's back, without a change to what is written. */
void *tw_expected_take(tw_expected *e, size_t bytes);
/* Frees p and says true if it was taken from here. */
bool tw_expected_release(tw_expected *e, void *p);
/* Accepts NULL. A piece that was taken must have been released. */
void tw_expected_free(tw_expected *e);

#endif
