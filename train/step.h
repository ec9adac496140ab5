/* The gradient of one global batch: features of every micro-batch, the contrastive loss over all of them,
 * then each micro-batch back through the towers. The result is that of the whole batch at once, whatever the
 * micro-batch, because the loss sees all features and every random draw belongs to a sample, not to a call.
 */
#ifndef TW_TRAIN_STEP_H
#define TW_TRAIN_STEP_H

#include "autograd/comm.h"
#include "train/towers.h"

/* This rank's samples of the batch, in host memory. */
typedef struct tw_samples {
    int64_t size;           /* >= 0 */
    const void *pixels;     /* (size, R, R, 3) u8 or (size, 3, R, R) f32, as the towers were made */
    const int32_t *ids;     /* (size, context) */
    const int32_t *lengths; /* (size) */
} tw_samples;

typedef struct tw_stepper tw_stepper;

/* micro_batch 0: the whole batch in one. Everything given must outlive the stepper. */
tw_status tw_stepper_create(tw_dual_encoder *model, tw_towers *towers, tw_device *device, tw_comm *comm,
                            int64_t micro_batch, tw_stepper **out) TW_MUST_CHECK;
void tw_stepper_free(tw_stepper *s);

/* Leaves the gradient of the global batch's loss in the parameters' gradient slab, the same on every rank;
 * *loss is its value, *size the global batch's size. `step` and `seed` key the dropout draws. */
tw_status tw_stepper_run(tw_stepper *s, const tw_samples *samples, uint64_t seed, int64_t step, double *loss,
                         int64_t *size) TW_MUST_CHECK;

/* Of the last run's global batch: the fraction of images whose most similar text is their own, and of texts
 * whose most similar image is. 0 for an empty batch. */
void tw_stepper_accuracy(const tw_stepper *s, double *image_to_text, double *text_to_image);

/* The device's step record, for the optimizer. */
tw_step *tw_stepper_record(tw_stepper *s);
/* Bytes of feature buffers and the loss's arena, beside the towers' arena. */
size_t tw_stepper_bytes(const tw_stepper *s);

#endif
