#ifndef TW_TESTS_GRAPH_DEVICE_H
#define TW_TESTS_GRAPH_DEVICE_H

#include "device_shim.h"
#include "tw_test.h"

/* A device that has graphs: every second one. */
static inline tw_device *graph_device(void) {
    tw_device *d = NULL, *other = NULL;
    TW_ASSERT_OK(tw_device_cuda(0, &d));
    if (!tw_shim_device_fuses(d)) {
        TW_ASSERT_OK(tw_device_cuda(0, &other));
        tw_device_free(d);
        d = other;
    }
    ck_assert(tw_shim_device_fuses(d));
    return d;
}

#endif
