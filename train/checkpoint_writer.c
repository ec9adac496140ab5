/* HDF5 as distributions build it may be called by one thread at a time. Two things see to that. In a training
 * run the writer is the only caller once steps are made: what a run starts from is read and closed before the
 * first one, data come from LMDB, validation keeps its features in memory, and a save begins when the one
 * before has been collected. And every group of calls in train/formats holds the one lock of h5.c
 * (tw_h5_lock), so that a program which opens another file meanwhile, by libtuwen for example, waits. */
#include "train/checkpoint_writer.h"

#include "train/clock.h"
#include "train/formats/run_folder.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct tw_checkpoint_writer {
    pthread_t thread;
    bool busy;     /* the job is here */
    bool threaded; /* and a thread has it */
    tw_checkpoint_job job;
    atomic_bool done; /* what follows is there */
    double ended;
    tw_status status;
    char message[1024];
};

void tw_checkpoint_job_free(tw_checkpoint_job *job) {
    tw_snapshot_free(&job->snapshot);
    tw_checkpoint_meta_free(&job->meta);
}

tw_status tw_checkpoint_writer_create(tw_checkpoint_writer **out) {
    *out = calloc(1, sizeof **out);
    return *out ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

/* Errors belong to the thread they happen in: the message goes along. */
static void *write_job(void *argument) {
    tw_checkpoint_writer *w = argument;
    const tw_checkpoint_job *j = &w->job;
    w->status =
        tw_run_folder_save(j->folder, &j->meta, j->snapshot.tensors, j->snapshot.n, j->is_best, j->keep);
    if (w->status != TW_OK) snprintf(w->message, sizeof w->message, "%s", tw_last_error());
    w->ended = tw_seconds();
    atomic_store(&w->done, true);
    return NULL;
}

void tw_checkpoint_writer_start(tw_checkpoint_writer *w, tw_checkpoint_job *job) {
    w->job = *job;
    *job = (tw_checkpoint_job){0};
    w->busy = true;
    w->status = TW_OK;
    atomic_store(&w->done, false);
    /* Signals are the main thread's: its waits are the ones that they are to end. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->threaded = pthread_create(&w->thread, NULL, write_job, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!w->threaded) write_job(w);
}

bool tw_checkpoint_writer_is_busy(const tw_checkpoint_writer *w) {
    return w->busy;
}

bool tw_checkpoint_writer_is_done(const tw_checkpoint_writer *w) {
    return w->busy && atomic_load(&w->done);
}

tw_status tw_checkpoint_writer_collect(tw_checkpoint_writer *w, double *ended) {
    if (!w->busy) return TW_OK;
    if (w->threaded) pthread_join(w->thread, NULL);
    tw_checkpoint_job_free(&w->job);
    w->busy = w->threaded = false;
    *ended = w->ended;
    return w->status == TW_OK ? TW_OK : FAIL(w->status, "%s", w->message);
}

void tw_checkpoint_writer_free(tw_checkpoint_writer *w) {
    if (!w) return;
    double ended;
    tw_status lost = tw_checkpoint_writer_collect(w, &ended);
    (void)lost;
    free(w);
}
