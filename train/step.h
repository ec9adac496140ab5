/* The gradient of one global batch: features of every micro-batch, the contrastive loss over all of them,
 * then each micro-batch back through the towers. The result is that of the whole batch at once, whatever the
 * micro-batch and the number of ranks, because the loss sees all features and every random draw belongs to a
 * sample, not to a call. (Batch norm that normalises by its batch's own statistics does so by the
 * micro-batch's; the running ones follow the average over all micro-batches, once a step. Synchronised
 * (tw_resnet_synchronise before the towers record anything), it is exact with one micro-batch a rank.)
 *
 * A micro-batch's features are computed by the same tape that later walks back, so that both passes are the
 * same bits; the tape is needed in any case, so a lighter one for the first pass would save no memory. The
 * last micro-batch goes back first: its forward is still there. */
#ifndef TW_TRAIN_STEP_H
#define TW_TRAIN_STEP_H

#include "autograd/comm.h"
#include "optim/partition.h"
#include "train/graphs.h"
#include "train/step_results.h"
#include "train/towers.h"

/* This rank's samples of the batch, in host memory. The global batch is that of rank 0, then that of rank 1,
 * and so on. */
typedef struct tw_samples {
    int64_t size;           /* >= 0; ranks may differ in it and in their number of micro-batches */
    const void *pixels;     /* (size, R, R, 3) u8 or (size, 3, R, R) f32, as the towers were made */
    const int32_t *ids;     /* (size, context) */
    const int32_t *lengths; /* (size) */
} tw_samples;

typedef struct tw_stepper tw_stepper;

/* micro_batch 0: the whole batch in one. partition: of the model's trainable slab over comm's ranks, or NULL.
 * Everything given must outlive the stepper. */
tw_status tw_stepper_create(tw_dual_encoder *model, tw_towers *towers, tw_device *device, tw_comm *comm,
                            const tw_partition *partition, int64_t micro_batch,
                            tw_stepper **out) TW_MUST_CHECK;
void tw_stepper_free(tw_stepper *s);

/* Every rank calls it. Leaves the gradient of the global batch's loss in the parameters' gradient slab: in
 * this rank's pieces of the partition, or everywhere if there is none; that of statistics everywhere. *loss
 * is its value and *size the global batch's size, the same on every rank. `step` and `seed` key the dropout
 * draws. With loss NULL it waits for nothing: the work is queued, and samples in pinned memory must stay as
 * they are until tw_stepper_wait_inputs. */
tw_status tw_stepper_run(tw_stepper *s, const tw_samples *samples, uint64_t seed, int64_t step, double *loss,
                         int64_t *size) TW_MUST_CHECK;

/* Who is asked between micro-batches whether to end; NULL: nobody. On all ranks or on none. Where a rank says
 * true, tw_stepper_run ends with TW_ERR_INTERRUPTED on all of them, unless it was too late for that: what
 * asked that rank (signals.h) is then noted on all, and nothing is left of the step but gradients, which the
 * next one zeroes. */
void tw_stepper_heed(tw_stepper *s, bool (*should_stop)(void *context), void *context);

/* Of the last run's global batch, if its loss was asked for; zeros for an empty batch. */
tw_contrastive_result tw_stepper_result(const tw_stepper *s);

/* Seconds of this rank's last run, measured on the host. */
typedef struct tw_stepper_times {
    double forward;  /* of both towers, that of micro-batches repeated before their backward included */
    double text;     /* the text tower's part of it; known with tw_stepper_profile only, else 0 */
    double exchange; /* held up in the loss for what comes from other ranks */
    double loss;     /* the rest of the loss */
    double backward; /* of the towers, with the zeroing of gradients before all else */
    double waited;   /* for gradients that were still on their way when backward had ended: what of their
                        reduction is not hidden */
    double reduced;  /* in which their reduction was under way, from its first bucket's start on */
} tw_stepper_times;
tw_stepper_times tw_stepper_last_times(const tw_stepper *s);
/* Tells the towers apart in the times from now on. On a device with queues each part is waited for, which
 * costs time; otherwise times there are those of making the calls. */
void tw_stepper_profile(tw_stepper *s, bool on);

/* ---- on a device that works behind the host's back ---- */

/* Whether what repeats is captured and launched as a whole, on a device that can; it is at first. */
tw_status tw_stepper_capture(tw_stepper *s, bool on) TW_MUST_CHECK;
/* Its graphs, for other work of a step: plan 0 is free. */
tw_graphs *tw_stepper_graphs(tw_stepper *s);
/* The learning rate of the record that the next runs make: tw_adamw_queue's. */
void tw_stepper_set_rate(tw_stepper *s, double lr);
/* The host waits until the last run's samples have been read. */
tw_status tw_stepper_wait_inputs(tw_stepper *s) TW_MUST_CHECK;
/* Who is told of each run's begin and of its first inputs; NULL: nobody. It must outlive the stepper's runs.
 */
void tw_stepper_watch(tw_stepper *s, tw_step_results *results);
/* Of the last run, for tw_step_results_end. */
const float *tw_stepper_tallies(const tw_stepper *s);

/* The device's step record, for the optimizer. */
tw_step *tw_stepper_record(tw_stepper *s);
/* Bytes of the loss's memory (features, their gradients, log-sum-exps), beside the towers' arena. */
size_t tw_stepper_bytes(const tw_stepper *s);

#endif
