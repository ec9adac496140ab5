/* The one message that a run of several ranks ends with. It is said as soon as this rank is known to be the
 * one to say it, before anything is closed: closing may take long, or hang, and the other ranks end this one
 * after a few seconds. */
#ifndef TW_TRAIN_LAST_WORD_H
#define TW_TRAIN_LAST_WORD_H

#include <stdbool.h>

/* How the program says it. Without this nothing is said before the error returns to the caller. */
void tw_last_word_set(void (*say)(const char *message));
/* Says it, once a process. */
void tw_last_word_say(const char *message);
bool tw_last_word_said(void);

#endif
