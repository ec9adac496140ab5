/* What a device remembers of its graphs for whoever asks (cuda.h): how many ran, and which were refused. */
#ifndef TW_AUTOGRAD_CUDA_DNN_NOTES_H
#define TW_AUTOGRAD_CUDA_DNN_NOTES_H

#ifdef __cplusplus
extern "C" {
#endif

#include "autograd/cuda/dnn.h"

enum { TW_DNN_NOTES_MOST = 3 }; /* refusals whose reasons are kept */

typedef struct tw_dnn_notes {
    int64_t runs;
    int refused, told; /* graphs; of which tw_dnn_notes_tell has spoken */
    char reason[TW_DNN_NOTES_MOST][320];
    char text[TW_DNN_NOTES_MOST * 320 + 128];
} tw_dnn_notes;

/* Own kernels run instead of a graph; NULL: of all graphs. `why` may be NULL. */
void tw_dnn_notes_refusal(tw_dnn_notes *n, const tw_dnn_graph *g, const char *why);
/* What there is to say since it was last asked; NULL: nothing. Valid until the next call. */
const char *tw_dnn_notes_tell(tw_dnn_notes *n);

#ifdef __cplusplus
}
#endif

#endif
