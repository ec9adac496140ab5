#ifndef TW_TESTS_DEVICE_SHIM_H
#define TW_TESTS_DEVICE_SHIM_H

#include "autograd/device.h"

/* Whether this device's products do what they are asked to fuse; every second device's do. */
bool tw_shim_device_fuses(const tw_device *d);
/* Graphs (autograd/cuda/dnn.h) that were run since the program started. */
int tw_shim_graph_runs(void);

#endif
