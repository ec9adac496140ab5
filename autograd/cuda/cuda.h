/* What the rest of the program sees of CUDA beside the device vtable; no CUDA header is needed. */
#ifndef TW_AUTOGRAD_CUDA_CUDA_H
#define TW_AUTOGRAD_CUDA_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/device.h"

/* CUDA devices that this process sees; 0 where there are none or the driver is too old. */
int tw_cuda_devices(void);
/* Whether the machine's driver can serve this build: TW_OK also where there is no driver or no GPU to serve.
 */
tw_status tw_cuda_check_driver(void) TW_MUST_CHECK;
/* What tells GPU `index` (or its MIG part) from all others, of this host and of other ones. */
enum { TW_CUDA_ID = 16 };
tw_status tw_cuda_id(int index, unsigned char id[TW_CUDA_ID]) TW_MUST_CHECK;
/* One line a fact, each ended by a line feed: versions of driver, runtime and libraries, and each GPU with
 * its memory, or why there is none. At most `size` bytes, ended by 0. */
void tw_cuda_report(char *text, size_t size);

/* Whether products of f32 may round their factors to TF32 (10 bits of mantissa): up to 8 times as fast, about
 * 1e-3 of relative error. Off at first. d is a CUDA device. */
void tw_cuda_set_tf32(tw_device *d, bool allowed);
bool tw_cuda_tf32(const tw_device *d);

/* Whether the same call on the same input must give the same bits each time: attention's backward and cuDNN's
 * engines then keep to it, at some cost, and no measurement chooses between ways that round differently. Our
 * own kernels do in any case. Off at first; to be set before memory is planned, as plans differ in the
 * scratch that they need. d is a CUDA device. */
void tw_cuda_set_deterministic(tw_device *d, bool wanted);
bool tw_cuda_deterministic(const tw_device *d);

/* What was measured to choose between ways to a result (choice.h) or a product's algorithms: line i of it,
 * from 0 on, without a line feed; false: there are no more. d is a CUDA device. */
bool tw_cuda_choice_text(tw_device *d, int i, char *text, size_t size);

/* Which graphs cuDNN has refused since this was last asked, in a sentence with its reasons for the first few:
 * our own kernels run in their place. NULL: none. Valid until the next call. d is a CUDA device. */
const char *tw_cuda_refusals(tw_device *d);
/* The same of products whose bias or sums cuBLASLt would not compute on the way, where they are large enough
 * to matter: passes of our own do it. */
const char *tw_cuda_product_refusals(tw_device *d);
/* How many graphs cuDNN has run, or added to what is captured, on the device so far. */
int64_t tw_cuda_graph_runs(tw_device *d);

#ifdef __cplusplus
}
#endif

#endif
