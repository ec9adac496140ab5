/* The tape records calls of operations, plans their memory, runs them, and walks back: the only graph logic
 * there is.
 *
 * Building is separate from running. Layers record calls on shapes alone (nothing is computed);
 * tw_tape_finish plans one schedule of forward, recomputed and backward calls and the place of every buffer;
 * tw_tape_bind gives it memory; then tw_tape_forward and tw_tape_backward run it as often as wanted, at the
 * same addresses.
 *
 * Builders return NULL after the first failure, which poisons the tape: later calls do nothing, and
 * tw_tape_finish returns the first error. So model code reads like the formula, with one check at the end.
 *
 * Tensors returned belong to the tape. Their data pointers are set by tw_tape_bind and stay until the tape is
 * freed or bound again; their contents are valid from the run that writes them to the next run of the tape.
 */
#ifndef TW_AUTOGRAD_TAPE_H
#define TW_AUTOGRAD_TAPE_H

#include "autograd/arena.h"
#include "autograd/op.h"
#include "autograd/param.h"

typedef enum tw_recompute {
    TW_RECOMPUTE_NONE,  /* everything backward reads is kept from forward */
    TW_RECOMPUTE_LIGHT, /* but results that their operation can restore at little cost: norms and activations
                         */
    TW_RECOMPUTE_BLOCK  /* of a block only what others read is kept; the rest is computed again in backward */
} tw_recompute;

typedef struct tw_tape tw_tape;

/* A tape on this device. If not training, nothing is kept for backward and tw_tape_backward is an error. */
tw_status tw_tape_create(tw_device *device, bool training, tw_recompute recompute,
                         tw_tape **out) TW_MUST_CHECK;
void tw_tape_free(tw_tape *tape);

bool tw_tape_is_training(const tw_tape *tape);

/* A tensor the caller fills before each forward (tw_tape_upload, or its data pointer on the device). If
 * wants_grad, its gradient can be read with tw_tape_gradient after backward. */
tw_tensor *tw_tape_input(tw_tape *tape, tw_dtype dtype, int ndim, const int64_t *shape, bool wants_grad);
/* A parameter's compute copy. Backward adds its gradient to param->grad unless that is absent. The parameter
 * need not be allocated before bind, but its compute type must be known: allocate first. */
tw_tensor *tw_tape_param(tw_tape *tape, const tw_param *param);

/* Records a call: attr is copied; absent optional inputs are NULL. Returns the first result. */
tw_tensor *tw_tape_record(tw_tape *tape, tw_op op, const void *attr, int n_inputs, tw_tensor *const *inputs);
/* Result i of the call that made `first`. */
tw_tensor *tw_tape_result(tw_tape *tape, const tw_tensor *first, int i);

/* Calls recorded between these form a block, the unit of recomputation. Blocks do not nest. */
void tw_tape_block_begin(tw_tape *tape);
void tw_tape_block_end(tw_tape *tape);

/* Poisons the tape from outside, for layers that find an error of their own. */
void tw_tape_poison(tw_tape *tape, tw_status status);

/* Ends recording. roots are what the caller reads after forward and, if training, gives gradients to before
 * backward. */
tw_status tw_tape_finish(tw_tape *tape, int n_roots, tw_tensor *const *roots) TW_MUST_CHECK;
/* Arena bytes the tape needs; known after finish, before any memory is taken. */
size_t tw_tape_bytes(const tw_tape *tape);
/* Gives the tape its memory: arena->bytes >= tw_tape_bytes. Several tapes may share an arena if they do not
 * need each other's contents. */
tw_status tw_tape_bind(tw_tape *tape, const tw_arena *arena) TW_MUST_CHECK;

/* Changes whenever a tape is bound, and is never the same for two tapes of a process: as long as it is the
 * same, so are the calls that a run makes, their addresses included. */
uint64_t tw_tape_version(const tw_tape *tape);

/* Copies a whole input from the host. */
tw_status tw_tape_upload(tw_tape *tape, const tw_tensor *input, const void *host) TW_MUST_CHECK;
/* Copies a root, or a gradient from tw_tape_gradient, to the host and waits for it. */
tw_status tw_tape_download(tw_tape *tape, const tw_tensor *tensor, void *host) TW_MUST_CHECK;

/* step is in device memory and is read by operations that draw. */
tw_status tw_tape_forward(tw_tape *tape, const tw_step *step) TW_MUST_CHECK;
/* The same, for measuring: `reached` is called when the call that makes `tensor` and all calls recorded
 * before it were made (on a device with queues they may not be done yet). */
tw_status tw_tape_forward_probed(tw_tape *tape, const tw_step *step, const tw_tensor *tensor,
                                 tw_status (*reached)(void *context), void *context) TW_MUST_CHECK;

/* The gradient of a root (to be filled before backward) or of an input with wants_grad (to be read after it).
 * Data NULL if it has none. Contents of a root's gradient are destroyed by backward. */
tw_tensor tw_tape_gradient(const tw_tape *tape, const tw_tensor *tensor);

/* Called when a parameter's gradient has received its last contribution of this backward. */
typedef tw_status (*tw_gradient_hook)(void *context, const tw_param *param);
tw_status tw_tape_backward(tw_tape *tape, const tw_step *step, tw_gradient_hook hook,
                           void *context) TW_MUST_CHECK;
/* The same for the first backward of a step: behind tw_tape_zero_others the gradients need not have been
 * zeroed. The result is the same, but that a gradient of -0 stays that. */
tw_status tw_tape_backward_first(tw_tape *tape, const tw_step *step, tw_gradient_hook hook,
                                 void *context) TW_MUST_CHECK;
/* Zeroes what of the set's gradients this tape's tw_tape_backward_first does not write over. */
tw_status tw_tape_zero_others(const tw_tape *tape, tw_params *params) TW_MUST_CHECK;
/* Runs nothing: calls the hook as backward would, for every parameter that a backward of this finished tape
 * brings a gradient to. */
tw_status tw_tape_each_gradient(const tw_tape *tape, tw_gradient_hook hook, void *context) TW_MUST_CHECK;

#endif
