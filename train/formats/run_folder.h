/* A run folder: checkpoints "epoch_E_step_S.h5" and the links `latest` and `best`. */
#ifndef TW_TRAIN_FORMATS_RUN_FOLDER_H
#define TW_TRAIN_FORMATS_RUN_FOLDER_H

#include "autograd/status.h"
#include "train/formats/checkpoint.h"

#include <stdbool.h>
#include <stdint.h>

/* "<folder>/epoch_E_step_S.h5", to be freed by the caller; NULL when memory is out. */
char *tw_run_folder_path(const char *folder, int64_t epoch, int64_t step);

/* Makes the folder if it is not there, writes a checkpoint to tw_run_folder_path(meta->epoch, meta->step),
 * points `latest` at it, `best` too if `is_best`, and then removes old ones as tw_run_folder_prune. In this
 * order, so that a kill between any two steps leaves `latest` on a complete checkpoint. */
tw_status tw_run_folder_save(const char *folder, const tw_checkpoint_meta *meta,
                             const tw_checkpoint_tensor *tensors, int64_t n, bool is_best,
                             int keep) TW_MUST_CHECK;

/* Points the link folder/name ("latest", "best") at a checkpoint of this folder, in one step. `file` is the
 * checkpoint's path or name; only its last part is used. */
tw_status tw_run_folder_link(const char *folder, const char *name, const char *file) TW_MUST_CHECK;

/* Removes all but the `keep` newest checkpoints (by step, then epoch); keep <= 0 keeps all. Never removes
 * what `latest` or `best` points to, nor files of other names. Also removes temporaries of killed writers
 * (see tw_atomic_is_stale). */
tw_status tw_run_folder_prune(const char *folder, int keep) TW_MUST_CHECK;

/* Puts right what a killed run left unfinished in its folder: removes temporaries of writers that are gone
 * (see tw_atomic_is_stale), and points `best` at `last`, the checkpoint of this folder to go on from (NULL:
 * none), if that was the best: the kill may have come between the two links. For the one process that will
 * write there, before it does. */
tw_status tw_run_folder_mend(const char *folder, const tw_checkpoint *last) TW_MUST_CHECK;

/* Opens the checkpoint to go on from: the one that `latest` points to or, if that is missing or damaged, the
 * newest one that is whole. *notes then says in a sentence or more what was wrong with those passed over, to
 * be shown to the user and freed by the caller; else it is NULL. TW_ERR_NOT_FOUND when the folder holds no
 * checkpoint (a run killed before its first one); when it holds some but none opens, the newest one's error.
 */
tw_status tw_run_folder_open(const char *folder, tw_checkpoint **out, char **notes) TW_MUST_CHECK;

#endif
