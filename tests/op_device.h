/* Runs one call on a device whose memory the host cannot read. */
#ifndef TW_TESTS_OP_DEVICE_H
#define TW_TESTS_OP_DEVICE_H

#include "autograd/op.h"

enum { OP_GUARD = 64 }; /* bytes behind each buffer that go to the device and back with it */

/* Forward or backward of `call`, in which every pointer is host memory with OP_GUARD bytes behind it: copies
 * all of it to call->device, runs, waits, and copies all of it back, read or written. input_bytes[i]: of
 * input i, gaps between rows included. Every tensor begins `shift` elements behind an aligned address. */
tw_status op_run_on_device(const tw_call *call, bool backward, const size_t input_bytes[TW_MAX_INPUTS],
                           size_t shift) TW_MUST_CHECK;

#endif
