/* The shim's own side of tw_device_cuda (device_shim.c). */
#ifndef TW_TESTS_DEVICE_SHIM_H
#define TW_TESTS_DEVICE_SHIM_H

#include "autograd/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether products fuse what they are asked to: every second device does, and every late one. */
bool tw_shim_device_fuses(const tw_device *d);
/* Graphs (autograd/cuda/dnn.h) that were run since the program started. */
int tw_shim_graph_runs(void);
/* Graphs of which this says so have no plan from here on; NULL: all have one. */
struct tw_dnn_graph;
void tw_shim_refuse_graphs(bool (*refuses)(const struct tw_dnn_graph *g));
/* Whether products within graphs count also what they are told not to, as a library may; false at first. */
void tw_shim_count_all(bool all);

/* Work of the compute queue: run(a copy of the `bytes` at context). At once, or, of a late device, when the
 * host has to wait for it; or never, if it is captured. */
tw_status tw_shim_work(tw_device *d, void (*run)(void *context), const void *context,
                       size_t bytes) TW_MUST_CHECK;

#ifdef __cplusplus
}
#endif

#endif
