/* The device that a command computes on. */
#ifndef TW_TRAIN_DEVICE_OPEN_H
#define TW_TRAIN_DEVICE_OPEN_H

#include "autograd/comm.h"
#include "train/config.h"

/* Of an option --device whose target is an int: the constants of enum tw_config_device in their order. */
#define TW_DEVICE_CHOICES "auto|cpu|cuda"
#define TW_DEVICE_HELP "where to compute; auto = a GPU if build and machine have one"

/* cpu: the CPU. cuda: GPU `index`, an error where there is none. auto: GPU `index` where build and machine
 * have it, else the CPU; an error where the driver is too old for the build, which would be slow in silence.
 * `threads` compute threads of the host (0: as tw_cores_here says), with either. The caller frees *out with
 * tw_device_free. */
tw_status tw_device_open(enum tw_config_device choice, int threads, int index, tw_device **out) TW_MUST_CHECK;

/* Collective over the host group of `host`, whose device need not be set: a device for each of several ranks,
 * as tw_comm_open_device (comm_open.h) says. `threads` 0: an equal share of the host's cores (cores.h). */
tw_status tw_device_open_rank(enum tw_config_device choice, int threads, tw_comm *host,
                              tw_device **out) TW_MUST_CHECK;

/* Whether products of f32 may round their factors to TF32 (10 bits of mantissa), where the device can; off at
 * first. */
void tw_device_allow_tf32(tw_device *device, bool allowed);

/* Asks the device for the same bits from the same step each time, at some cost; where memory is planned for
 * it, before. tw_device_deterministic: whether it gives them; the CPU always does, asked or not. */
void tw_device_set_deterministic(tw_device *device, bool wanted);
bool tw_device_deterministic(const tw_device *device);

/* What the device measured to choose between two ways to a result: line i, from 0 on; false: no more yet. */
bool tw_device_choice(tw_device *device, int i, char *text, size_t size);
/* What the device has had to do in a slower way than it should since this was last asked, in a sentence for
 * the log; NULL: nothing. Valid until the next call. */
const char *tw_device_trouble(tw_device *device);

#endif
