/* A training run from a configuration: data set in, fine-tuned checkpoints, log and report out. */
#ifndef TW_TRAIN_TRAINER_H
#define TW_TRAIN_TRAINER_H

#include "train/config.h"

/* Runs to the end, or until asked to stop: then the last completed step is saved and TW_ERR_INTERRUPTED
 * returned. The run folder (config->output) gets checkpoints, log.jsonl and report.html. */
tw_status tw_train(const tw_config *config) TW_MUST_CHECK;

#endif
