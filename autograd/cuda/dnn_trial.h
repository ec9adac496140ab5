/* Memory for trying a plan once before it is relied on: what a library has planned it may still refuse when
 * it is to run. */
#ifndef TW_AUTOGRAD_CUDA_DNN_TRIAL_H
#define TW_AUTOGRAD_CUDA_DNN_TRIAL_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

typedef struct tw_dnn_trial {
    tw_device *device;
    void *slot[TW_DNN_SLOTS]; /* device memory of the graph's slots; NULL: it has none */
    void *scratch;
} tw_dnn_trial;

/* Allocates all slots, filled on the compute queue: with zeros, where i32 is read (lengths) with ones.
 * *enough is false where the device has no room, which is no error; then, as after an error, the trial is
 * empty. */
tw_status tw_dnn_trial_begin(tw_device *d, const tw_dnn_graph *g, tw_dnn_trial *out,
                             bool *enough) TW_MUST_CHECK;
/* Makes `scratch` this large; *enough as above. */
tw_status tw_dnn_trial_room(tw_dnn_trial *t, size_t bytes, bool *enough) TW_MUST_CHECK;
/* Frees it all. The queue must have come to the end of what uses it. */
void tw_dnn_trial_end(tw_dnn_trial *t);

#ifdef __cplusplus
}
#endif

#endif
