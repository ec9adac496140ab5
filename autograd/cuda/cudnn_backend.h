/* What the files that call cuDNN share: its descriptors, as C wants to handle them. Only cudnn.c,
 * cudnn_lower.c, cudnn_choose.c and tests/test_cudnn_graphs.c include it. */
#ifndef TW_AUTOGRAD_CUDA_CUDNN_BACKEND_H
#define TW_AUTOGRAD_CUDA_CUDNN_BACKEND_H

#include "autograd/cuda/dnn.h"

#include <cudnn.h>

enum {
    TW_CUDNN_LEAST = 91501, /* version 9.15.1 */
    TW_CUDNN_CONFIGS = 16,  /* tried for a graph */
    /* asked for: of f32 without TF32, dozens that break the rules come before the first one that does not */
    TW_CUDNN_ASKED = 128,
    TW_CUDNN_DESCRIPTORS = TW_DNN_TENSORS + 2 * TW_DNN_NODES + TW_CUDNN_ASKED + 8
};

/* Descriptors that belong together, freed from the last to the first. Zeroed: none. */
typedef struct tw_cudnn_descriptors {
    cudnnBackendDescriptor_t list[TW_CUDNN_DESCRIPTORS];
    int count;
} tw_cudnn_descriptors;

/* Where kernels are to run: with a handle on its GPU; without one, as the description of a GPU
 * (CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) says. */
typedef struct tw_cudnn_place {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t properties;
} tw_cudnn_place;

/* What cuDNN returned as a status, with its last error's text; `what` says what was being done.
 * TW_ERR_UNSUPPORTED: it has no kernel for that. */
tw_status tw_cudnn_status(cudnnStatus_t status, const char *what) TW_MUST_CHECK;
/* TW_ERR_UNSUPPORTED where this version of cuDNN is too old. */
tw_status tw_cudnn_check_version(size_t version) TW_MUST_CHECK;

tw_status tw_cudnn_create(tw_cudnn_descriptors *all, cudnnBackendDescriptorType_t type,
                          cudnnBackendDescriptor_t *out) TW_MUST_CHECK;
tw_status tw_cudnn_set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t count, const void *values) TW_MUST_CHECK;
tw_status tw_cudnn_finish(cudnnBackendDescriptor_t d, const char *what) TW_MUST_CHECK;
/* Destroys those from number `from` on. */
void tw_cudnn_release(tw_cudnn_descriptors *all, int from);

/* The finished OPERATIONGRAPH descriptor of a graph. `handle` may be NULL. */
tw_status tw_cudnn_lower(const tw_dnn_graph *g, cudnnHandle_t handle, tw_cudnn_descriptors *all,
                         cudnnBackendDescriptor_t *out) TW_MUST_CHECK;
/* The engine configurations that the library proposes for a graph, best first, and that keep the graph's
 * rules; *count may be 0. fallback: those that it proposes when nothing else works. */
tw_status tw_cudnn_propose(const tw_dnn_graph *g, cudnnBackendDescriptor_t graph, bool fallback,
                           tw_cudnn_place place, tw_cudnn_descriptors *all,
                           cudnnBackendDescriptor_t config[TW_CUDNN_CONFIGS], int *count) TW_MUST_CHECK;
/* Runs a plan once: what is not TW_OK is a reason not to use it. */
typedef struct tw_cudnn_try {
    tw_status (*run)(void *context, cudnnBackendDescriptor_t plan, size_t scratch);
    void *context;
} tw_cudnn_try;
/* The first of their execution plans that needs no more scratch than the rules allow, and runs;
 * TW_ERR_UNSUPPORTED where there is none. */
tw_status tw_cudnn_choose(const tw_dnn_graph *g, cudnnBackendDescriptor_t graph, cudnnHandle_t handle,
                          const tw_cudnn_try *trial, tw_cudnn_descriptors *all,
                          cudnnBackendDescriptor_t *plan, size_t *scratch) TW_MUST_CHECK;

#endif
