/* Everything a training run holds, shared by the files that set it up, step it, validate it and save it. */
#ifndef TW_TRAIN_RUN_H
#define TW_TRAIN_RUN_H

#include "autograd/comm.h"
#include "autograd/op_timer.h"
#include "data/loader.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/checkpoint_writer.h"
#include "train/clock.h"
#include "train/config.h"
#include "train/formats/checkpoint.h"
#include "train/history.h"
#include "train/log.h"
#include "train/model_io.h"
#include "train/pool.h"
#include "train/profile.h"
#include "train/run_exchange.h"
#include "train/step.h"
#include "train/towers.h"

#include <stdio.h>

/* The pairs of one step's global batch. */
typedef struct tw_run_samples {
    int64_t step, size, capacity;
    int64_t *items, *first; /* (size); (ranks) of the ranks before each */
} tw_run_samples;

enum { TW_RUN_SAMPLES = 4 }; /* steps: as many as step_results may be behind, and one */

typedef struct tw_run {
    const tw_config *config;
    const char *name;
    char stop_file[4096];
    tw_log *log;      /* NULL on other ranks than 0: what all ranks know is said once */
    tw_log *rank_log; /* this rank's own troubles; the same on rank 0 */
    tw_device *device;
    tw_comm *comm;
    tw_vocab *vocab;
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    tw_partition *partition;
    tw_adamw *adamw;
    struct {
        double beta2, eps;
    } adam; /* what the configuration says, or its `auto` stands for */
    tw_step_results
        *results; /* of a device that works behind the host's back; NULL: results are there at once */
    tw_exchange *exchange;
    tw_dataset *train, *val; /* val NULL: no validation */
    uint64_t train_hash;     /* data_hash.h */
    tw_pool *pool;
    float *val_image,
        *val_text;  /* features of the last validation, (n_images, embed) and (n_texts, embed); on rank 0 */
    bool validated; /* they are there */
    tw_sampler *sampler;
    tw_loader *loader;
    FILE *sample_log; /* rank 0's */
    tw_run_samples samples[TW_RUN_SAMPLES];
    tw_schedule schedule;
    int64_t total_steps;
    int64_t micro_batch;     /* of each rank; 0: its whole part */
    int64_t step;            /* completed optimizer steps, skipped ones included */
    int64_t epoch, position; /* of the next sample */
    int64_t skipped_in_row, skipped_total;
    int64_t empty_in_row; /* steps whose pairs were all bad */
    int64_t bad_reported;
    double loss; /* of the last step whose results are known */
    tw_contrastive_result last;
    double best_r1;
    int64_t best_step;
    tw_history history;
    struct { /* since the last log line */
        int64_t steps, pairs, truncated, repeated;
        double waited, seconds, norm;
    } window;
    bool repeats_warned;
    int choices_told; /* tw_device_choice */
    struct {          /* the checkpoint that is being written, on rank 0 */
        tw_checkpoint_writer *writer;
        float *room; /* what it is written from; NULL: not allocated */
        int64_t step;
        bool is_best;
        double began, waited; /* waited: seconds that training stood still for it */
    } saving;
    tw_op_timer *timer; /* with `profile` */
    tw_profile profile;
    tw_profile profiles[2]; /* at the end, with `profile`: rank 0's and the slowest rank's */
    int slowest;
    bool save_in_line; /* no memory for the copy: training waits for the file */
} tw_run;

/* What a run starts from; all false: random weights. */
typedef struct tw_run_start {
    bool whole;               /* source is a whole model */
    bool resume;              /* and a checkpoint of this run */
    bool has_image, has_text; /* image and text are one tower each */
    tw_model_source source, image, text;
} tw_run_start;

/* run_ranks.c */
tw_status tw_run_open_log(tw_run *run) TW_MUST_CHECK;
/* Collective. That all ranks have the same configuration, but for files' places and the like. To be called
 * before anything that it decides is done together. Errors: TW_ERR_CONFIG on all, naming key and values. */
tw_status tw_run_check_options(const tw_run *run) TW_MUST_CHECK;
/* Collective. That all ranks have the same model, vocabulary, data (by what it holds here and there),
 * checkpoint, position and weights. Errors: TW_ERR_FORMAT, on all. */
tw_status tw_run_check_start(const tw_run *run, const tw_run_start *from) TW_MUST_CHECK;

/* Whether this rank was asked to stop; rank 0 alone looks for the stop file. Takes a tw_run. */
bool tw_run_should_stop(void *run);

/* run_samples.c: rank 0's. A resumed run goes on behind the line of its last step. */
tw_status tw_run_open_sample_log(tw_run *run) TW_MUST_CHECK;
tw_status tw_run_log_samples(const tw_run *run, const tw_global_batch *batch) TW_MUST_CHECK;

/* run_skips.c: every rank keeps the samples of the step that begins, so that when the step's results are
 * known a gradient that is not finite can be told with its pair and rank. Too many in a row are
 * TW_ERR_NUMERIC. `report` and `loss` are the same on every rank. */
tw_status tw_run_keep_samples(tw_run *run, const tw_global_batch *batch) TW_MUST_CHECK;
void tw_run_drop_samples(tw_run_samples *samples);
tw_status tw_run_watch_skips(tw_run *run, const tw_gradient_report *report, const tw_contrastive_result *loss,
                             int64_t step) TW_MUST_CHECK;
/* `pairs` of the step that ends were no bad ones, on all ranks together. As many steps in a row without any
 * as may be not finite are TW_ERR_FORMAT. */
tw_status tw_run_watch_empty(tw_run *run, int64_t pairs) TW_MUST_CHECK;

/* run_setup.c: opens and allocates all; tw_run_close accepts a run that failed half-way. */
tw_status tw_run_open(tw_run *run, const tw_config *config) TW_MUST_CHECK;
tw_status tw_run_close(tw_run *run) TW_MUST_CHECK;
/* The configuration with run->adam in it, as checkpoints keep it; its strings are the configuration's. */
tw_config tw_run_settled(const tw_run *run);

/* run_memory.c */
/* The largest part of a batch that a rank gets. */
int64_t tw_run_largest_part(const tw_run *run);
/* What the configuration says is to be computed again. */
tw_recompute tw_run_recompute(const tw_run *run);
/* Bytes of the copy that a checkpoint is written from; 0 on ranks that write none, and where the
 * configuration wants none. */
double tw_run_copy_bytes(const tw_run *run);
/* Collective. Sets run->micro_batch by the configuration; with auto to what the run that goes on had
 * (`resumed`; NULL: none does), and otherwise to what fits on every rank, beside that copy if any does. */
tw_status tw_run_choose_micro_batch(tw_run *run, const tw_checkpoint_meta *resumed) TW_MUST_CHECK;
/* Records the tape of a whole (micro-)batch, so that the memory a step takes is known, and taken, before the
 * first; the log says how much. */
tw_status tw_run_plan_memory(tw_run *run) TW_MUST_CHECK;

/* run_start.c */
/* Collective. Opens what config->resume, init, or init_image and init_text name. A run folder that holds a
 * run already is refused unless it is resumed. */
tw_status tw_run_start_open(const tw_run *run, tw_run_start *out) TW_MUST_CHECK;
void tw_run_start_close(tw_run_start *start);
/* The model's description: the start's, or config->model's; and where its vocabulary may lie. */
tw_status tw_run_start_config(const tw_run_start *start, const tw_config *config,
                              tw_model_config *out) TW_MUST_CHECK;
tw_status tw_run_start_vocab(const tw_run_start *start, const tw_config *config,
                             tw_vocab **out) TW_MUST_CHECK;
/* Random weights, then those of the start; the log says what was taken and what was resized. */
tw_status tw_run_start_load(const tw_run_start *start, tw_run *run) TW_MUST_CHECK;

/* run_checkpoint.c */
/* Moments, position and history; the weights are there. */
tw_status tw_run_restore(tw_run *run, tw_checkpoint *c) TW_MUST_CHECK;
/* Collective; rank 0 writes. Saves the present step: the checkpoint, then `latest` (and `best`), then what
 * keep-N does not keep is removed. With room for a copy of weights and moments a thread writes while training
 * goes on, and the file and its errors come with one of the next two functions; a save waits for the one
 * before. */
tw_status tw_run_save(tw_run *run, bool is_best) TW_MUST_CHECK;
/* Looks after the checkpoint that is being written, between steps: does not wait. */
tw_status tw_run_save_look(tw_run *run) TW_MUST_CHECK;
/* Waits until it is written. */
tw_status tw_run_save_finish(tw_run *run) TW_MUST_CHECK;

/* Collective. run_validate.c: encodes the pool, records and shows R@K; *is_best says whether text-to-image
 * R@1 is the best so far. TW_ERR_INTERRUPTED, on all ranks: one was asked to stop, and nothing is recorded.
 */
tw_status tw_run_validate(tw_run *run, bool *is_best) TW_MUST_CHECK;

/* Collective. run_profile.c: with `profile` the table of where the time went, in the log. */
tw_status tw_run_show_profile(tw_run *run) TW_MUST_CHECK;

/* run_report.c: rank 0's */
tw_status tw_run_write_report(tw_run *run) TW_MUST_CHECK;

#endif
