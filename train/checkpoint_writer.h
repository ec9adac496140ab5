/* Writes one checkpoint at a time in a thread of its own, while training goes on.
 *
 * What is written is a copy that nothing else changes. The file appears as tw_run_folder_save makes it
 * appear: under a temporary name, synced, renamed, then linked; so a kill at any instant leaves `latest` on a
 * whole checkpoint, of this save or of the one before. */
#ifndef TW_TRAIN_CHECKPOINT_WRITER_H
#define TW_TRAIN_CHECKPOINT_WRITER_H

#include "train/model_io.h"

#include <stdbool.h>

typedef struct tw_checkpoint_job {
    const char *folder;      /* must outlive the job */
    tw_checkpoint_meta meta; /* the job's own */
    tw_snapshot snapshot;    /* the job's own; its values must stay as they are until the job is collected */
    bool is_best;
    int keep;
} tw_checkpoint_job;

/* Frees meta and snapshot. */
void tw_checkpoint_job_free(tw_checkpoint_job *job);

typedef struct tw_checkpoint_writer tw_checkpoint_writer;

tw_status tw_checkpoint_writer_create(tw_checkpoint_writer **out) TW_MUST_CHECK;
/* Waits for what is being written; its error, if it was not collected, is lost. Accepts NULL. */
void tw_checkpoint_writer_free(tw_checkpoint_writer *w);

/* Takes over *job and begins to write it. The one before must have been collected. Where no thread can be
 * had it is written before this returns. Never fails: the outcome is for tw_checkpoint_writer_collect. */
void tw_checkpoint_writer_start(tw_checkpoint_writer *w, tw_checkpoint_job *job);
/* Something was started and not collected yet. */
bool tw_checkpoint_writer_is_busy(const tw_checkpoint_writer *w);
/* It is busy, but collecting would not wait. */
bool tw_checkpoint_writer_is_done(const tw_checkpoint_writer *w);
/* Waits for the file, frees the job, and gives what tw_run_folder_save gave, message included. *ended:
 * tw_seconds() when it was written. Does nothing if nothing was started. */
tw_status tw_checkpoint_writer_collect(tw_checkpoint_writer *w, double *ended) TW_MUST_CHECK;

#endif
