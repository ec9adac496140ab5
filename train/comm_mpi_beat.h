/* Carries beats and verdicts between the watchdogs of the ranks, as small MPI messages of the thread that
 * makes all MPI calls. */
#ifndef TW_TRAIN_COMM_MPI_BEAT_H
#define TW_TRAIN_COMM_MPI_BEAT_H

#include "train/watchdog.h"

typedef struct tw_beat_line tw_beat_line;

/* The watchdog is the line's from here on. */
tw_status tw_beat_line_open(int rank, int ranks, tw_watchdog *watchdog, tw_beat_line **out) TW_MUST_CHECK;
/* One look: takes what came and sends what is due. `beat` says what this rank is held up in. Never waits.
 * Errors of MPI are left to the collectives to report: here they are silence. */
void tw_beat_line_turn(tw_beat_line *line, const tw_beat *beat);
/* Ends the watchdog and the line. Accepts NULL. */
void tw_beat_line_end(tw_beat_line *line);

#endif
