/* The way of a step's inputs to a device with memory of its own: each part of a batch is uploaded on the copy
 * queue into one of two slots while the compute queue still works on the part before, and copied from there
 * to where the tape reads it. */
#ifndef TW_TRAIN_INPUTS_H
#define TW_TRAIN_INPUTS_H

#include "autograd/device.h"

enum { TW_INPUTS_MOST = 8 };

typedef struct tw_input_copy {
    const void *host; /* of send */
    void *device;     /* of take */
    size_t bytes;
} tw_input_copy;

typedef struct tw_inputs tw_inputs;

tw_status tw_inputs_create(tw_device *device, tw_inputs **out) TW_MUST_CHECK;
void tw_inputs_free(tw_inputs *inputs); /* accepts NULL */

/* Queues the upload of n <= TW_INPUTS_MOST blocks; at most two sends may wait for their take. Host memory
 * that is pinned must stay as it is until tw_inputs_wait. Of `small` (bytes <= 256, may be NULL with 0) a
 * copy is made at once. */
tw_status tw_inputs_send(tw_inputs *inputs, const tw_input_copy *copies, int n, const void *small,
                         size_t small_bytes) TW_MUST_CHECK;
/* The compute queue waits for the oldest send and copies its blocks, of the same sizes, to `device`, and
 * `small` to small_device. */
tw_status tw_inputs_take(tw_inputs *inputs, const tw_input_copy *copies, int n,
                         void *small_device) TW_MUST_CHECK;
/* The host waits until everything sent so far has been read. */
tw_status tw_inputs_wait(tw_inputs *inputs) TW_MUST_CHECK;
/* Forgets sends that nothing will take, after an error. */
void tw_inputs_drop(tw_inputs *inputs);
size_t tw_inputs_bytes(const tw_inputs *inputs);

#endif
