/* What the files of the stepper (step.h) share: step.c walks through a step, step_inputs.c brings each
 * micro-batch's samples to the device. */
#ifndef TW_TRAIN_STEP_PRIVATE_H
#define TW_TRAIN_STEP_PRIVATE_H

#include "layers/contrastive.h"
#include "train/buckets.h"
#include "train/inputs.h"
#include "train/step.h"

struct tw_stepper {
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_device *device;
    tw_comm *comm;
    int64_t micro_batch;
    tw_step host, *record; /* host: what all parts of a step share */
    tw_inputs *inputs;     /* NULL: the host can write the device's memory, so that inputs need no way */
    int64_t sent;          /* forwards of this step whose inputs are on their way */
    bool ready;            /* the first of them are there */
    tw_graphs *graphs;
    tw_step_results *results; /* the caller's, or NULL */
    tw_contrastive *loss;
    tw_contrastive_result result; /* of the last global batch */
    tw_buckets *buckets;
    tw_stepper_times times;
    bool profile;
    double image_end;  /* when the last forward's image tower was done */
    int64_t *counts;   /* samples of each rank */
    int64_t *gathered; /* (ranks, 2) samples and micro-batches */
    bool (*should_stop)(void *context);
    void *stop_context;
    bool heeds; /* in this step should_stop is asked, by every rank */
    bool asked; /* it said true */
};

/* This rank's share of the global batch, and how it is cut. */
typedef struct tw_step_cut {
    const tw_samples *samples;
    int64_t first, global; /* samples of the ranks before, and of all */
    int64_t micro, parts;
} tw_step_cut;

/* Samples of a part; 0 of those beyond this rank's last. */
int64_t tw_step_part_size(const tw_step_cut *c, int64_t part);
/* Puts the next forward's inputs on their way, if the step has one more. */
tw_status tw_step_send_next(tw_stepper *s, const tw_step_cut *c) TW_MUST_CHECK;
/* The part's samples, and its record, are where `t` and the step's kernels read them; the next forward's are
 * on their way. */
tw_status tw_step_bring_inputs(tw_stepper *s, const tw_step_cut *c, int64_t part,
                               const tw_tower_tape *t) TW_MUST_CHECK;

#endif
